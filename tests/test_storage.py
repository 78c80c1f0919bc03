"""Corpora and indexes in object stores: listed by the same rules, read in spite of errors, published exactly once."""

import datetime as dt
import io
import tarfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pytest

import pipeline
from pipeline import storage
from pipeline.audio.source import hash_file, probe_file
from pipeline.config import CorpusConfig, make_config
from pipeline.corpus import shards
from pipeline.corpus.discover import MANY, list_corpus
from pipeline.corpus.shards import fetched_member, list_members
from pipeline.errors import CorpusError, UsageError
from pipeline.index import journal
from pipeline.index.handle import find_index, open_index
from pipeline.index.maintenance import optimize_index
from pipeline.index.repair import restore_index
from pipeline.index.verify import verify_index
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus, read_config
from pipeline.run.stages import decode_batch
from tests.helpers.contents import HASTY, PATIENT, SECTIONS, KnownBucket, check_whole, content, live
from tests.helpers.fakes import GRID
from tests.helpers.protocol import change, die_at, edit, edit_again, fill, make_anew, tidy
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky


def configure(source: str, into: Path | str) -> Any:
    return make_config({"sources": [source], "into": str(into), **SECTIONS})


def failures(index: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pipeline.open(index).to_arrow("files", where="status = 'failed'").to_pylist()
    return rows


# --- what is there ----------------------------------------------------------------------------------------------------

NAMES = ["b.wav", "a.FLAC", "notes.txt", "wav", "sub/c.mp3", "sub/deep/d.opus", "z/.hidden.wav", ".h/e.wav", "a b.wav"]
NAMES += ["100%.wav", "sub/ü'\".wav", "a::b.wav", "-x.wav", "sub/e#1.wav", "w[1].wav", "f[2]/g.wav", "f[2]/h[1]/i.wav"]
NAMES += ["sub/list.csv", "sub/part.tar", "z/.k/l.wav"]


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("", {}),
        ("/", {}),
        ("", {"hidden": True}),
        ("", {"extensions": ["txt", "mp3"]}),
        ("", {"extensions": ["*"]}),
        ("/sub", {}),
        ("/notes.txt", {}),
        ("/a::b.wav", {}),
        ("/*.wav", {}),
        ("/**/*.mp3", {}),
        ("/s*", {}),
        ("/w[1].wav", {}),
        ("/f[2]/*.wav", {}),
        ("/f[2]/**/*.wav", {}),
        ("/f[2]/h[1]/?.wav", {}),
        ("/*/*", {}),
        ("/z/*.wav", {"hidden": True}),
        ("/z/.*.wav", {}),
        ("/.h/*.wav", {}),
        ("/**/*.wav", {}),
        ("/**/*.wav", {"hidden": True}),
        ("/*", {}),
        ("/*", {"hidden": True}),
    ],
)
@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_an_object_store_is_listed_as_a_disk_is(
    kind: str, source: str, settings: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue("bucket") if kind == "s3" else "memory://"
    root = f"{base}/{tmp_path.name.replace('[', '').replace(']', '')}"
    store = fsspec.filesystem(kind)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        data = b"uri\nc.mp3\n" if name.endswith("csv") else name.encode()
        (tmp_path / name).write_bytes(data)
        store.pipe_file(f"{root}/{name}", data)
    listed = [list_corpus([f"{place}{source}"], CorpusConfig(**settings)).to_pylist() for place in (tmp_path, root)]
    local, remote = (
        {row["uri"][len(place) :].lstrip("/"): row for row in rows}
        for place, rows in zip(
            (str(tmp_path), store.unstrip_protocol(store._strip_protocol(root))), listed, strict=True
        )
    )
    assert list(remote) == list(local)
    assert [row["size_bytes"] for row in remote.values()] == [row["size_bytes"] for row in local.values()]
    assert [row["reason"] for row in remote.values()] == [row["reason"] for row in local.values()]
    assert all(abs(row["modified_ns"] / 1e9 - time.time()) < 600 for row in remote.values() if row["reason"] is None)


def test_the_folders_of_a_store_are_listed_several_at_a_time(flaky: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(40):
        put(f"{flaky}/{k}/a.wav", b"a")
    n_calls, at_once, most, listed = 0, 0, 0, Flaky.ls
    lock, enough = threading.Lock(), threading.Event()

    def ls(self: Any, path: str, detail: bool = True, **options: Any) -> Any:
        nonlocal n_calls, at_once, most
        with lock:
            n_calls, at_once = n_calls + 1, at_once + 1
            most = max(most, at_once)
        if most > 2:
            enough.set()
        if n_calls > 1:  # the first one is for the folder of them all
            enough.wait(60)
        try:
            return listed(self, path, detail, **options)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(Flaky, "ls", ls)
    assert list_corpus([flaky]).num_rows == 40
    assert 2 < most <= storage.FOLDERS_AT_ONCE


def test_a_folder_of_s3_comes_a_page_at_a_time(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each page is asked for again where that fails: what came before is not."""
    monkeypatch.setattr(storage, "PAGE_FILES", 3)
    monkeypatch.setattr(storage, "PAUSES_S", (0.0, 0.0, 0.0))
    store = fsspec.filesystem("s3")
    names = [f"{bucket}/paged/{name}.wav" for name in "abcdefgh"] + [f"{bucket}/paged/{name}/x.wav" for name in "ik"]
    for name in names:
        store.pipe_file(name, b"a")
    call, failing = store.call_s3, iter([None, OSError("slow down"), None, None, OSError("reset"), None, None])

    def call_s3(*arguments: Any, **options: Any) -> Any:
        if (error := next(failing, None)) is not None:
            raise error
        return call(*arguments, **options)

    monkeypatch.setattr(type(store), "call_s3", staticmethod(call_s3))
    pages = list(storage._list_folder(store, "sounds/paged"))
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    monkeypatch.undo()
    monkeypatch.setattr(storage, "PAGE_FILES", 3)
    assert list_corpus([f"{bucket}/paged"])["uri"].to_pylist() == names
    described = dict(storage.stat_folder(f"{bucket}/paged"))
    assert described == {name: storage.stat_file(name) for name in names[:8]}


def test_a_folder_with_far_more_than_is_wanted_is_not_listed_to_its_end(
    flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.corpus.discover.MANY", 2)
    monkeypatch.setattr("pipeline.corpus.discover.SEEN_PER_WANTED", 3)
    for k in range(10):
        put(f"{flaky}/{k}.wav", b"a")
    (tmp_path / "m.csv").write_text(f"uri\n{flaky}/2.wav\n{flaky}/8.wav\n")
    Flaky.calls.clear()
    rows = list_corpus([str(tmp_path / "m.csv")]).to_pylist()
    assert [(row["size_bytes"], row["reason"]) for row in rows] == [(1, None)] * 2
    assert Flaky.calls["info"] == 1  # of the one that had not come after six


@pytest.mark.parametrize("kind", ["flaky", "s3"])
def test_the_objects_of_a_manifest_are_looked_up_a_folder_at_a_time(
    kind: str, flaky: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = request.getfixturevalue("bucket") if kind == "s3" else flaky
    uris = [f"{base}/many/{k}.wav" for k in range(MANY)] + [f"{base}/few/{k}.wav" for k in range(3)]
    for uri in uris:
        fsspec.filesystem(kind).pipe_file(uri, uri.encode())
    manifest = tmp_path / "corpus.csv"
    manifest.write_text("\n".join(["uri", *uris, f"{base}/many/gone.wav"]))
    asked: list[str] = []
    describe = storage.stat_file

    def ask(path: str) -> tuple[int, int]:
        asked.append(path)
        return describe(path)

    monkeypatch.setattr(storage, "stat_file", ask)
    rows = {row["uri"]: row for row in list_corpus([str(manifest)]).to_pylist()}
    assert len(asked) == 4  # the few, and what is not there
    assert rows[storage.absolute(f"{base}/many/gone.wav")]["reason"] == "vanished"
    for uri in uris:
        row = rows[storage.absolute(uri)]
        assert (row["size_bytes"], row["modified_ns"]) == describe(uri), "as it is told where it is asked for alone"
    for n_errors, error in ((4, OSError("no")), (1, PermissionError("closed"))):  # then each is asked for
        Flaky.errors["ls"] = [error] * n_errors
        if kind == "flaky":
            assert list_corpus([str(manifest)]).num_rows == len(rows)
            assert not Flaky.errors["ls"]


def test_a_small_member_of_a_remote_shard_takes_one_request(flaky: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    sounds = [content(k).read_bytes() for k in (3, 4)]
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, sound in zip(("a.wav", "b.wav", "empty.wav"), [*sounds, b""], strict=True):
            info = tarfile.TarInfo(name)
            info.size = len(sound)
            tar.addfile(info, io.BytesIO(sound))
    shard = put(f"{flaky}/s.tar", data.getvalue())
    places = [place for _, place in list_members(shard)]
    Flaky.calls.clear()
    for n_errors in (0, 1):
        Flaky.errors["cat_file"] = [OSError("once more")] * n_errors
        for place, sound in zip(places, [*sounds, b""], strict=True):
            with fetched_member(place) as file:
                assert file.read() == sound
    assert Flaky.calls == {"cat_file": 5}
    monkeypatch.setattr(shards, "AT_ONCE_BYTES", 100)
    with fetched_member(places[1]) as file:
        assert file.read() == sounds[1]
    assert Flaky.calls["cat_file"] == 5


def test_sources_of_all_kinds_are_mixed_and_the_index_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"a")
    for name in ("in/b.wav", "in/index/c.wav", "in/index-2/d.wav"):
        put(f"memory://mixed/{name}", b"b")
    listed = list_corpus([str(tmp_path), "memory://mixed/in"], leave_out="memory://mixed/in/index")
    assert [Path(uri).name for uri in listed["uri"].to_pylist()] == ["a.wav", "b.wav", "d.wav"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("memory://not-there", "memory:///not-there: no such file or folder"),
        ("memory://not-there/*.wav", "no such file or folder, and no file that matches"),
        ("nothing://x", "nothing://x: Protocol not known"),
        ("gs://bucket/x", "gcsfs"),
    ],
)
def test_a_source_that_cannot_be_listed_is_told_in_one_line(source: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        list_corpus([source])
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_closed_is_a_failure_and_a_source_that_is_one_stops_the_run(
    flaky: str, tmp_path: Path
) -> None:
    put(f"{flaky}/sub/b.wav", b"b")
    put(f"{flaky}/a.wav", content(3).read_bytes())
    closed = fsspec.filesystem("flaky").ls

    def ls(path: str, detail: bool = True, **options: Any) -> Any:
        if path.endswith("/sub"):
            raise PermissionError("Forbidden")
        return closed(path, detail, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flaky, "ls", lambda self, path, detail=True, **options: ls(path, detail, **options))
        listed = list_corpus([flaky]).to_pylist()
        with pytest.raises(CorpusError, match=r"flaky:///corpus/sub: cannot be listed: Forbidden"):
            list_corpus([f"{flaky}/sub"])
    said = {row["uri"]: row["message"] for row in listed}
    assert said == {"flaky:///corpus/a.wav": None, "flaky:///corpus/sub": "folder cannot be listed: Forbidden"}


@pytest.mark.parametrize(("member_bytes", "n_members"), [(100_000, 30), (3_000, 300)])
def test_of_a_remote_shard_little_is_read_beside_its_headers(
    flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member_bytes: int, n_members: int
) -> None:
    """Large members are passed over; small ones come along, for each request takes its time, too."""
    monkeypatch.setattr(shards, "_WORTH_A_REQUEST_BYTES", 2**14)
    monkeypatch.setattr(shards, "_AHEAD_BYTES", 2**11)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for k in range(n_members):
            info = tarfile.TarInfo(f"{k}.wav")
            info.size = member_bytes
            tar.addfile(info, io.BytesIO(bytes([k % 250 + 1]) * member_bytes))
    data = (tmp_path / "s.tar").read_bytes()
    url = put(f"{flaky}/s.tar", data)
    asked: list[int] = []
    read = storage.read_bytes

    def read_range(url: str, offset: int, size_bytes: int) -> bytes:
        asked.append(size_bytes)
        return read(url, offset, size_bytes)

    monkeypatch.setattr(storage, "read_bytes", read_range)
    remote, local = (
        [(uri.split("#")[1], place.offset, place.size_bytes) for uri, place in list_members(shard)]
        for shard in (url, str(tmp_path / "s.tar"))
    )
    assert remote == local
    assert len(remote) == n_members
    if member_bytes > 2**14:
        assert sum(asked) < len(data) / 10
        assert len(asked) < n_members + 20  # and some for what is behind its end
    else:
        assert len(asked) < len(data) / 2**16 + 5


# --- reading ----------------------------------------------------------------------------------------------------------


def test_what_fails_for_a_while_is_tried_again(flaky: str, tmp_path: Path) -> None:
    put(f"{flaky}/a.wav", content(3).read_bytes())
    put(f"{flaky}/b.wav", content(4).read_bytes())  # of equal size: both are probed
    for name in ("ls", "info", "get_file", "cat_file"):
        Flaky.errors[name] = [OSError("please slow down"), TimeoutError(), ConnectionResetError("reset")]
    progress = index_corpus(configure(flaky, tmp_path / "index"), stages=in_place(WideEncoder()))
    assert (progress.n_indexed, progress.n_failed) == (2, 0)
    assert not any(Flaky.errors.values())
    assert (Flaky.calls["cat_file"], Flaky.calls["open"]) == (2 * 3 + 3, 2)  # three small requests tell them apart


def test_the_pauses_grow() -> None:
    assert all(later > 2 * earlier > 0 for earlier, later in pairwise(storage.PAUSES_S))


@pytest.mark.parametrize(
    ("info", "seconds"),
    [
        ({"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}, 784_111_777),  # as HTTP servers say it
        ({"LastModified": dt.datetime(2024, 5, 1, tzinfo=dt.UTC)}, 1_714_521_600),
        ({"updated": "2024-05-01T00:00:00Z"}, 1_714_521_600),
        ({"mtime": 12.7}, 12),
        ({}, 0),
    ],
)
def test_times_are_read_as_stores_write_them(info: dict[str, Any], seconds: int) -> None:
    assert storage._measure({"size": 5, **info}) == (5, seconds * 10**9)


@pytest.mark.parametrize(
    "time",
    [
        dt.datetime.max.replace(tzinfo=dt.UTC),
        dt.datetime.min.replace(tzinfo=dt.UTC),
        dt.datetime.min,
        "9999-12-31T23:59:59Z",
        "some day",
        1e300,
        -1e300,
        float("inf"),
        float("nan"),
    ],
)
def test_times_that_fit_in_no_column_are_the_nearest_that_do(time: Any) -> None:
    """Versions of that time differ all the same; what is no time is as where none is told."""
    one, other = (storage._measure({"size": 5, "LastModified": time, "ETag": tag})[1] for tag in ("a", "b"))
    assert one != other
    assert -(2**63) <= min(one, other) <= max(one, other) < 2**63
    assert storage._measure({"size": 5, "LastModified": time, "ETag": "a"})[1] == one


def test_big_files_are_read_where_they_are(flaky: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = put(f"{flaky}/a.wav", content(5).read_bytes())
    with storage.fetched(url) as file:
        assert not isinstance(file, str)
        fetched = file.read()
    assert Flaky.calls["get_file"] == 1
    monkeypatch.setattr(storage, "FETCH_BYTES", 1000)
    Flaky.calls.clear()
    Flaky.errors["read"] = [OSError("reset")] * 3
    with storage.fetched(url) as file:
        assert not isinstance(file, str)
        assert file.read() == fetched
        file.seek(-3, io.SEEK_END)
        assert (file.read(2), file.tell()) == (fetched[-3:-1], len(fetched) - 1)
    assert Flaky.calls["get_file"] == 0
    assert hash_file(url) == hash_file(content(5))
    assert probe_file(url) == probe_file(content(5))


@pytest.mark.parametrize(
    ("error", "reason", "n_calls"),
    [
        (FileNotFoundError("gone"), "vanished", 1),
        (PermissionError("Forbidden"), "unreadable", 1),
        (OSError("please slow down"), "unreadable", 4),
        (RuntimeError("the driver's own"), "unreadable", 4),
    ],
)
def test_an_object_that_cannot_be_read_is_a_failure_row(
    flaky: str, tmp_path: Path, error: Exception, reason: str, n_calls: int
) -> None:
    put(f"{flaky}/a.wav", content(3).read_bytes())
    put(f"{flaky}/good.wav", content(5).read_bytes())
    config = configure(flaky, tmp_path / "index")

    def stages(batches: Any, config: Any, frames_schema: Any) -> Any:
        Flaky.calls.clear()
        Flaky.errors["get_file"] = [error] * n_calls
        return in_place(WideEncoder())(batches, config, frames_schema)

    progress = index_corpus(config, stages=stages)
    assert (progress.n_indexed, progress.n_failed, progress.reasons) == (1, 1, {reason: 1})
    assert Flaky.calls["get_file"] == n_calls + 1
    assert [row["stage"] for row in failures(config.into)] == ["read"]


def test_an_object_that_changes_while_it_is_read_is_a_failure(bucket: str) -> None:
    """Within one second, and of the same size: the store tells them apart all the same."""
    url, store = f"{bucket}/changing/a.wav", fsspec.filesystem("s3")
    store.pipe_file(url, content(5).read_bytes())
    size_bytes, modified_ns = storage.stat_file(url)
    audio = {"content_hash": None, "size_bytes": size_bytes, "uris": [url], "modified_ns": [modified_ns]}
    for overwrite in (False, True):
        blocks = decode_batch(
            {"batch_id": "b", "audios": [audio]}, make_config({"sources": "x", "into": "y"}).decode, GRID, 1
        )
        next(blocks)
        if overwrite:
            data = content(5).read_bytes()
            store.pipe_file(url, data[:-1] + bytes([data[-1] ^ 1]))
        [row] = [file for block in blocks for row in block["files"].to_pylist() if row for file in row]
        assert row["reason"] == ("changed_while_reading" if overwrite else None)


# --- an index ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(bucket: str, tmp_path: Path) -> KnownBucket:
    return KnownBucket(f"{bucket}/{tmp_path.name}", tmp_path, store=HASTY)


def run(corpus: KnownBucket, **others: Any) -> WideEncoder:
    encoder = WideEncoder()
    index_corpus(corpus.config, stages=in_place(encoder), **others)
    assert live(corpus.config.into) == corpus.expected()
    assert verify_index(corpus.config.into) == []
    return encoder


def test_an_index_in_a_bucket_follows_a_corpus_in_a_bucket(known: KnownBucket) -> None:
    for name, number in (("a.wav", 3), ("b.wav", 4), ("sub/d.wav", 5)):
        known.put(name, number)
    run(known)
    known.put("a.wav", 5)
    known.move("b.wav", "sub/b.wav")
    known.put("new.wav", 7)
    planned = {Path(uri).name: action for uri, action, _ in plan_corpus(known.config).actions}
    assert planned == {"a.wav": "duplicate", "b.wav": "moved", "d.wav": "unchanged", "new.wav": "new"}
    assert run(known).n_windows == 0
    assert read_config(open_index(known.config.into)).sources == known.config.sources
    assert not [name for name in known.store.ls(known.config.into, detail=False) if "claim" in name]


@pytest.mark.slow
def test_all_that_is_done_with_an_index_is_done_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    known = KnownBucket(f"{bucket}/{tmp_path.name}", tmp_path, store=PATIENT)
    into = known.config.into
    fill(known)
    run(known)
    seq = journal.read_published(into).seq
    edit(known)
    run(known)
    edit_again(known)
    run(known, request=RunRequest(check_content=True))
    restore_index(into, seq)
    run(known)
    run(known, rebuild=True)
    optimize_index(into, 0.0)
    assert find_index(into).live.path == f"{into}/generation-2"
    assert live(into) == known.expected()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("situation", "step"),
    [(change, "append frames"), (change, "publish"), (change, "tag"), (tidy, "clean files"), (make_anew, "switch")],
)
def test_dying_costs_nothing_in_a_bucket(known: KnownBucket, situation: Any, step: str) -> None:
    act = situation(known)
    assert die_at(step, 1, act, known.config)
    check_whole(known.config.into)
    run(known)
