"""Members of tar shards are files of the corpus: listed, read, indexed and followed like others."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from pipeline.audio.source import hash_file
from pipeline.config import DecodeConfig
from pipeline.corpus import shards
from pipeline.corpus.corpus_file import estimate_seconds
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.shards import (
    Place,
    extension_of,
    fetched_member,
    find_member,
    list_members,
    open_member,
    shard_of,
    shards_of,
)
from pipeline.errors import CorpusError
from pipeline.index.handle import open_index
from pipeline.index.verify_deep import compare
from pipeline.planning.request import RunRequest
from pipeline.run.decode_stage import decode_batch
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from tests.helpers.contents import content, live, read
from tests.helpers.corpora import actions, configure, index
from tests.helpers.fakes import GRID
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.shards import TABLES, add_links, pack, sounds, write_shard
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky

KINDS = ("s.tar", *TABLES)

# --- listing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_byte_ranges_of_their_shard(tmp_path: Path, form: int) -> None:
    names = ["a.wav", "ünïcode/b.wav", "c#1.flac", "x" * 90 + "/" + "y" * 90 + ".wav", "a.wav", "empty.wav", "a.json"]
    members = [(name, f"{k} {name}".encode() * (k != 5) * 100) for k, name in enumerate(names)]
    shard = write_shard(tmp_path / "s.tar", members, format=form)
    kinds = {"folder.wav": tarfile.REGTYPE, "d.wav": tarfile.DIRTYPE, "pipe.wav": tarfile.FIFOTYPE}
    add_links(shard, {name: (kind, "") for name, kind in kinds.items()})  # a folder is no member, a pipe an empty one
    found = dict(list_members(str(shard)))
    unique = ["a.wav", *names[1:4], "a.wav#2", *names[5:], "folder.wav", "pipe.wav"]
    assert list(found) == [f"{shard}#{name}" for name in unique]
    for uri, (_, data) in zip(found, members, strict=False):
        assert shard_of(uri) == str(shard)
        assert find_member(uri) == found[uri]
        with open_member(found[uri]) as file:
            assert file.read() == data
    with pytest.raises(FileNotFoundError):
        find_member(f"{shard}#none.wav")


def test_member_reads_like_a_file(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    shard.write_bytes(b"before" + b"0123456789" + b"after")
    with open_member(Place(str(shard), 6, 10)) as file:
        assert file.seek(0, io.SEEK_END) == 10
        assert file.read() == b""
        assert (file.seek(-3, io.SEEK_END), file.read(2), file.tell(), file.read()) == (7, b"78", 9, b"9")
        assert (file.seek(2), file.seek(1, io.SEEK_CUR), file.read(100)) == (2, 3, b"3456789")
        with pytest.raises(ValueError, match="before the beginning"):
            file.seek(-11, io.SEEK_END)
    assert hash_file(Place(str(shard), 6, 10)) == hash_file(io.BytesIO(b"0123456789"))


# --- indexing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_shard_is_indexed_like_the_same_files(tmp_path: Path, kind: str) -> None:
    numbers = (1, 2, 3, 5, 6, 7, 8)
    for name, data in sounds(*numbers):
        (tmp_path / name).write_bytes(data)
    shard = pack(tmp_path / "in" / kind, sounds(*numbers), row_group_size=3)
    in_shard, apart = configure(tmp_path, shard), configure(tmp_path / "apart", tmp_path)
    for config in (in_shard, apart):
        index(config)
        assert index(config).n_windows == 0
    mine, theirs = live(in_shard.into), live(apart.into)
    assert [row[0] for row in mine["files"]] == [f"{shard}#{n}.wav" for n in numbers]
    assert [row[1:] for row in mine["files"]] == [row[1:] for row in theirs["files"]]
    assert sorted(row[3:] for row in mine["clips"]) == sorted(row[3:] for row in theirs["clips"])
    assert mine["frames"] == theirs["frames"]
    sizes = {row["uri"]: row["size_bytes"] for row in read(in_shard.into, "files")}
    assert sizes == {f"{shard}#{n}.wav": content(n).stat().st_size for n in numbers}
    assert compare(open_index(in_shard.into).live, WideEncoder(), 10).findings == []


def test_encoding_again_finds_members_whose_headers_are_damaged(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 5))
    index(config := configure(tmp_path, shard))
    with shard.open("r+b") as file:
        file.write(b"x" * 400)  # the header of the first member
    found = compare(open_index(config.into).live, WideEncoder(), 10).findings
    assert [finding.table for finding in found] == ["files"] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_rewritten_shard_costs_only_its_changed_members(tmp_path: Path, kind: str) -> None:
    shard = pack(tmp_path / kind, sounds(1, 3, 5))
    index(configure(tmp_path, shard))
    (tmp_path / "copy.wav").write_bytes(content(5).read_bytes())
    moved = ("moved.wav", content(3).read_bytes())
    pack(shard, [*sounds(5, 1, 4), moved])
    config = configure(tmp_path, shard, tmp_path / "copy.wav")
    kept = "unchanged" if kind == "s.tar" else "metadata"  # the label of a row is its number
    assert actions(config) == {
        f"{kind}#1.wav": kept,
        f"{kind}#3.wav": "deleted",
        f"{kind}#4.wav": "new",
        f"{kind}#5.wav": kept,
        f"{kind}#moved.wav": "moved",
        "copy.wav": "duplicate",
    }
    n_windows = index(config).n_windows
    (tmp_path / "4.wav").write_bytes(content(4).read_bytes())
    assert n_windows == index(configure(tmp_path / "fresh", tmp_path / "4.wav")).n_windows
    pack(shard, [("4.wav", content(2).read_bytes()), *sounds(5, 1), moved])
    assert actions(config)[f"{kind}#4.wav"] == "changed"
    index(config)
    fresh = configure(tmp_path / "again", shard, tmp_path / "copy.wav")
    index(fresh)
    assert live(config.into) == live(fresh.into)
    assert set(actions(config, check_content=True).values()) == {"unchanged"}


def test_members_that_left_a_shard_are_deleted(tmp_path: Path) -> None:
    """Not if the shard is cut off: the members behind the cut may still exist. If no audio is left in it, the run stops
    until a person allows the deletions."""
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 5))
    config = configure(tmp_path, shard)
    index(config)
    whole, second = shard.read_bytes(), find_member(f"{shard}#3.wav")
    shard.write_bytes(whole[: second.offset - 100])
    before = live(config.into)
    assert index(config).n_windows == 0
    assert [row[2] for row in live(config.into)["files"]] == ["not_audio", None, None, None]
    assert live(config.into)["frames"] == before["frames"]
    write_shard(shard, [("a.txt", b"text")])
    with pytest.raises(CorpusError, match=f"{shard}: holds no audio now, and the index has 3 files of it"):
        index(config)
    index(config, request=RunRequest(allow_deletions=True))
    assert [row[2] for row in live(config.into)["files"]] == ["not_audio"]
    assert live(config.into)["frames"] == []
    shard.write_bytes(whole)
    index(config)
    assert [row[2] for row in live(config.into)["files"]] == [None] * 3


def test_members_of_an_unreadable_shard_stay_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 5))
    config = configure(tmp_path, shard)
    index(config)
    before = live(config.into)["clips"]

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        index(config)
        assert live(config.into)["clips"] == before
        with pytest.raises(CorpusError, match="and the index has 3 files in it; make it readable first"):
            index_corpus(config, stages=in_place(WideEncoder()), rebuild=True)
    assert index(config).n_windows == 0
    assert [row[2] for row in live(config.into)["files"]] == [None] * 3


def put_out_of_reach(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        (os.utime, "changed_while_reading", "size or time changed"),
        (os.unlink, "changed_while_reading", "deleted while it was read"),
        (put_out_of_reach, "unreadable", "Too many levels of symbolic links"),
    ],
)
def test_shard_that_changes_while_it_is_read_fails(
    tmp_path: Path, change: Callable[[Path], None], reason: str, said: str
) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(5))
    [row] = list_corpus([str(shard)]).to_pylist()
    audio = {"content_hash": None, "size_bytes": row["size_bytes"], "uris": [row["uri"]]}
    audio |= {"modified_ns": [row["modified_ns"]], "offsets": [row["offset"]]}
    blocks = decode_batch({"batch_id": "b", "audios": [audio]}, DecodeConfig(), GRID, 1)
    next(blocks)
    change(shard)
    [file] = [file for block in blocks for rows in block["files"].to_pylist() if rows for file in rows]
    assert (file["status"], file["stage"], file["reason"]) == ("failed", "read", reason)
    assert said in file["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_shards_in_object_stores_are_indexed(bucket: str, tmp_path: Path, kind: str) -> None:
    shard = pack(tmp_path / kind, sounds(1, 3, 7), row_group_size=2)
    local = configure(tmp_path, shard)
    index(local)
    folder = f"{bucket}/{tmp_path.name}"
    fsspec.filesystem("s3").put_file(str(shard), f"{folder}/{kind}")
    remote = configure(tmp_path / "remote", f"{folder}/*.{kind.split('.')[-1]}")
    index(remote)
    assert live(remote.into)["frames"] == live(local.into)["frames"]
    assert [row[0] for row in live(remote.into)["files"]] == [f"{folder}/{kind}#{n}.wav" for n in (1, 3, 7)]
    assert index(remote).n_windows == 0
    assert compare(open_index(remote.into).live, WideEncoder(), 10).findings == []


def test_shards_of_agrees_with_shard_of() -> None:
    members = ["a/b.tar#x.wav", "a/B.TAR#x.tar#2", "x.parquet#0", "w\nq.arrow#a#b", "p.parquet.tar#z", ".tar#a"]
    others = ["a/b.wav", "x.tar", "a.tarx#b", None]
    found = shards_of(pa.chunked_array([pa.array(members), pa.array(others)]))
    assert found.to_pylist() == [*map(shard_of, members), *[None] * len(others)]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", [-9999, 2300])
def test_files_and_shards_with_odd_years_stay_unchanged(tmp_path: Path, year: int) -> None:
    shard = write_shard(tmp_path / "in" / "s.tar", sounds(1, 3))
    (path := tmp_path / "in" / "a.wav").write_bytes(content(4).read_bytes())
    for each in (shard, path):
        os.utime(each, ns=(0, (year - 1970) * 31_556_952 * 10**9))
    config = configure(tmp_path, shard, path)
    assert index(config).n_windows > 0
    assert [row[2] for row in live(config.into)["files"]] == [None] * 3
    assert plan_corpus(config).n_unchanged == 3
    assert index(config).n_windows == 0


def test_manifests_name_members_literally(tmp_path: Path) -> None:
    shard = write_shard(
        tmp_path / "s.tar", [(name, b"sound") for name in ["../x.wav", "./../x.wav", "/x.wav", "a//b.wav"]]
    )
    manifest = tmp_path / "in" / "list.csv"
    manifest.parent.mkdir()
    names = ["../x.wav", "./../x.wav", "/x.wav", "a//b.wav"]
    manifest.write_text("uri\n" + "".join(f"../s.tar#{name}\n" for name in names))
    found = list_corpus([str(manifest)]).to_pylist()
    assert {row["uri"]: row["reason"] for row in found} == dict.fromkeys(f"{shard}#{name}" for name in names)
    store = fsspec.filesystem("memory")
    store.pipe_file("/odd/s.tar", shard.read_bytes())
    manifest.write_text("uri\n" + "".join(f"memory://odd/s.tar#{name}\n" for name in names))
    found = list_corpus([str(manifest)]).to_pylist()
    assert {row["uri"]: row["reason"] for row in found} == dict.fromkeys(
        f"memory:///odd/s.tar#{name}" for name in names
    )


@pytest.mark.parametrize(
    ("recording", "extension"),
    [
        ("/in/a.WAV", "wav"),
        ("/in/a.wav#2", "wav#2"),
        ("/in/s.tar#a.wav", "wav"),
        ("/in/s.tar#a.wav#3", "wav"),
        ("/in/s.tar#c#1.flac", "flac"),
        ("s3://in/t.parquet#7", ""),
        ("s3://in/t.parquet#b.g722#2", "g722"),
        ("/in/.wav", ""),
    ],
)
def test_extension_comes_from_the_members_own_name(recording: str, extension: str) -> None:
    assert extension_of(recording) == extension


def test_numbered_member_lasts_as_long_as_others_of_its_name() -> None:
    assert estimate_seconds("s.tar#a.wav#2", 1_500_000) == estimate_seconds("a.wav", 1_500_000) == 10


def test_small_remote_member_takes_one_request(flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [*sounds(3, 4), ("empty.wav", b"")]
    shard = put(f"{flaky}/s.tar", write_shard(tmp_path / "s.tar", members).read_bytes())
    places = [place for _, place in list_members(shard)]
    Flaky.calls.clear()
    for n_errors in (0, 1):
        Flaky.errors["cat_file"] = [OSError("once more")] * n_errors
        for place, (_, sound) in zip(places, members, strict=True):
            with fetched_member(place) as file:
                assert file.read() == sound
    assert Flaky.calls == {"cat_file": 5}
    monkeypatch.setattr(shards, "AT_ONCE_BYTES", 100)
    with fetched_member(places[1]) as file:
        assert file.read() == members[1][1]
    assert Flaky.calls["cat_file"] == 5
