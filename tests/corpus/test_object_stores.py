"""Object stores are listed by the same rules as disks, and in few requests."""

import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpus import object_stores
from pipeline.corpus.discover import list_corpus
from pipeline.errors import CorpusError, UsageError
from tests.helpers.contents import content
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky

NAMES = ["b.wav", "a.FLAC", "notes.txt", "wav", "sub/c.mp3", "sub/deep/d.opus", "z/.hidden.wav", ".h/e.wav", "a b.wav"]
NAMES += ["100%.wav", "sub/ü'\".wav", "a::b.wav", "-x.wav", "sub/e#1.wav", "w[1].wav", "f[2]/g.wav", "f[2]/h[1]/i.wav"]
NAMES += ["sub/list.csv", "sub/part.tar", "z/.k/l.wav"]


@pytest.fixture(scope="module", params=["memory", "s3"])
def alike(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same files in a folder on disk and in a store."""
    folder, kind = tmp_path_factory.mktemp("alike"), request.param
    root = f"{request.getfixturevalue('bucket')}/alike" if kind == "s3" else "memory:///alike"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = b"uri\nc.mp3\n" if name.endswith("csv") else name.encode()
        (folder / name).write_bytes(data)
        fsspec.filesystem(kind).pipe_file(f"{root}/{name}", data)
    return folder, root


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
def test_stores_are_listed_by_the_rules_for_disks(
    alike: tuple[Path, str], source: str, settings: dict[str, Any]
) -> None:
    listed = [list_corpus([f"{place}{source}"], CorpusConfig(**settings)).to_pylist() for place in alike]
    places = str(alike[0]), storage.absolute(alike[1])
    local, remote = (
        {row["uri"][len(place) :].lstrip("/"): row for row in rows} for place, rows in zip(places, listed, strict=True)
    )
    assert list(remote) == list(local)
    assert [row["size_bytes"] for row in remote.values()] == [row["size_bytes"] for row in local.values()]
    assert [row["reason"] for row in remote.values()] == [row["reason"] for row in local.values()]
    assert all(abs(row["modified_ns"] / 1e9 - time.time()) < 600 for row in remote.values() if row["reason"] is None)


def test_several_folders_are_listed_at_the_same_time(flaky: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert 2 < most <= object_stores.FOLDERS_AT_ONCE


def test_pages_of_s3_are_retried_one_by_one(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that fails is asked for again; the pages before it are not."""
    monkeypatch.setattr(object_stores, "PAGE_FILES", 3)
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
    pages = list(object_stores.list_pages(store, "sounds/paged"))
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    monkeypatch.undo()
    monkeypatch.setattr(object_stores, "PAGE_FILES", 3)
    assert list_corpus([f"{bucket}/paged"])["uri"].to_pylist() == names
    described = dict(object_stores.stat_folder(f"{bucket}/paged"))
    assert described == {name: storage.stat_file(name) for name in names[:8]}


def test_local_and_remote_sources_mix_and_the_index_is_left_out(tmp_path: Path) -> None:
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
def test_source_that_cannot_be_listed_is_an_error_of_one_line(source: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        list_corpus([source])
    assert "\n" not in str(raised.value)


def test_unreadable_folder_is_a_failure_and_unreadable_source_an_error(flaky: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("source", ["simplecache::s3://b/x.wav", "zip://a.wav::s3://b/x.zip"])
def test_chained_urls_are_refused(source: str) -> None:
    with pytest.raises(UsageError, match="URLs are not chained here"):
        list_corpus([source])
