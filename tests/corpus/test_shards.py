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

from pipeline.audio.source import find, hash_file
from pipeline.config import Config, CorpusConfig, DecodeConfig, make_config
from pipeline.corpus.corpus_file import estimate_seconds
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.shards import Place, extension_of, find_member, list_members, open_member, shard_of, shards_of
from pipeline.errors import CorpusError
from pipeline.index.reencode import compare
from pipeline.index.verify import verify_index
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from pipeline.run.stages import decode_batch
from tests.helpers.contents import SECTIONS, content, live
from tests.helpers.fakes import GRID
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.shards import sounds, write_shard


def configure(tmp_path: Path, *sources: Path | str) -> Config:
    return make_config({"sources": list(map(str, sources)), "into": str(tmp_path / "index"), **SECTIONS})


def index(config: Config, **others: Any) -> WideEncoder:
    encoder = WideEncoder()
    index_corpus(config, stages=in_place(encoder), **others)
    assert verify_index(config.into) == []
    return encoder


def listed(*sources: Path | str, **settings: Any) -> dict[str, Any]:
    """What follows the folder of the first source, of each uri -> its row."""
    rows = list_corpus(list(map(str, sources)), CorpusConfig(**settings)).to_pylist()
    return {row["uri"].rsplit("/", 1)[-1] if "#" not in row["uri"] else row["uri"].split("/")[-1]: row for row in rows}


# --- listing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_ranges_of_their_shard(tmp_path: Path, form: int) -> None:
    names = ["a.wav", "ünïcode/b.wav", "c#1.flac", "x" * 90 + "/" + "y" * 90 + ".wav", "a.wav", "empty.wav", "a.json"]
    members = [(name, f"{k} {name}".encode() * (k != 5) * 100) for k, name in enumerate(names)]
    shard = write_shard(tmp_path / "s.tar", members, format=form)
    with tarfile.open(shard, "a") as tar:  # a folder is none, a pipe is one without bytes
        tar.addfile(tarfile.TarInfo("folder.wav"))
        for kind, name in ((tarfile.DIRTYPE, "d.wav"), (tarfile.FIFOTYPE, "pipe.wav")):
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
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


def test_a_member_is_a_file_of_its_own_to_those_who_read_it(tmp_path: Path) -> None:
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


def test_shards_are_looked_into_where_they_are_named(tmp_path: Path) -> None:
    data = b"sound"
    shard = write_shard(
        tmp_path / "in" / "s.tar",
        [("a.wav", data), ("b.txt", data), (".h/c.wav", data), ("._d.wav", data), ("./e.FLAC", data), ("f.tar", data)],
    )
    (tmp_path / "in" / "g.wav").write_bytes(data)
    assert list(listed(tmp_path / "in")) == ["g.wav"]
    members = ["e.FLAC", "s.tar#a.wav"]
    assert list(listed(shard)) == list(listed(tmp_path / "in" / "*.tar")) == members
    assert list(listed(tmp_path / "in", extensions=["tar", "wav"])) == ["g.wav", "s.tar#a.wav"]
    assert "c.wav" in listed(shard, hidden=True)
    row = listed(shard)["s.tar#a.wav"]
    assert (row["size_bytes"], row["modified_ns"], row["reason"]) == (5, shard.stat().st_mtime_ns, None)


def add_links(shard: Path, links: dict[str, tuple[bytes, str]]) -> None:
    with tarfile.open(shard, "a") as tar:
        for name, (kind, target) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)


def test_links_are_what_they_are_to(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", [("./in/a.wav", b"first"), ("b.wav", b"second"), ("in/b.wav", b"third")])
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    add_links(
        shard,
        {
            "hard.wav": (hard, "./in/a.wav"),
            "in/hard.wav": (hard, "b.wav"),
            "in/soft.wav": (soft, "b.wav"),
            "in/up.wav": (soft, "../b.wav"),
            "chain.wav": (soft, "in/../hard.wav"),
            "outside.wav": (soft, "/etc/passwd"),
            "above.wav": (soft, "../b.wav"),
            "gone.wav": (hard, "c.wav"),
            "loop.wav": (soft, "back.wav"),
            "back.wav": (soft, "loop.wav"),
        },
    )
    found = {}
    for uri, place in list_members(str(shard)):
        assert find_member(uri) == place
        with open_member(place) as file:
            found[uri.removeprefix(f"{shard}#")] = file.read()
    assert found == {
        "./in/a.wav": b"first",
        "b.wav": b"second",
        "in/b.wav": b"third",
        "hard.wav": b"first",
        "in/hard.wav": b"second",
        "in/soft.wav": b"third",
        "in/up.wav": b"second",
        "chain.wav": b"first",
        **dict.fromkeys(["outside.wav", "above.wav", "gone.wav", "loop.wav", "back.wav"], b""),
    }


def test_a_sparse_member_is_listed_and_has_no_bytes(tmp_path: Path) -> None:
    """They do not lie in one piece: what does, a table of its pieces first, would be taken for sound."""
    sparse = tarfile.TarInfo("a.wav")
    sparse.size, sparse.pax_headers = 8, {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,4,8,4"}
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(sparse, io.BytesIO(b"12345678"))
        tar.addfile(tarfile.TarInfo("b.wav"))
    places = {uri.split("#")[1]: place.size_bytes for uri, place in list_members(str(tmp_path / "s.tar"))}
    assert places == {"a.wav": 0, "b.wav": 0}


def test_links_out_of_a_shard_are_failures(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1))
    add_links(shard, {"same.wav": (tarfile.SYMTYPE, "1.wav"), "out.wav": (tarfile.SYMTYPE, "../1.wav")})
    config = configure(tmp_path, shard)
    index(config)
    files = {row[0].split("#")[1]: row[1:] for row in live(config.into)["files"]}
    assert files["same.wav"] == files["1.wav"]
    assert [files["same.wav"][1], files["out.wav"][1]] == [None, "empty"]


def test_pipes_and_devices_in_a_shard_are_failures(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1))
    kinds = {
        "pipe.wav": tarfile.FIFOTYPE,
        "disk.wav": tarfile.BLKTYPE,
        "tape.wav": tarfile.CHRTYPE,
        "dir.wav": tarfile.DIRTYPE,
    }
    with tarfile.open(shard, "a") as tar:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    config = configure(tmp_path, shard)
    index(config)
    files = {row[0].split("#")[1]: row[2] for row in live(config.into)["files"]}
    assert files == {"1.wav": None, "pipe.wav": "empty", "disk.wav": "empty", "tape.wav": "empty"}


def read_to_its_end(shard: Path, data: bytes) -> tuple[list[str], str]:
    """The members that are found of a shard, and what is said of its end."""
    shard.write_bytes(data)
    fsspec.filesystem("memory").pipe_file("/shards/s.tar", data)
    outcomes = []
    for uri in (str(shard), "memory:///shards/s.tar"):
        found, said = [], ""
        try:
            for member, _ in list_members(uri):
                found.append(member.removeprefix(f"{uri}#"))
        except tarfile.TarError as error:
            said = str(error)
        outcomes.append((found, said))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_a_shard_that_is_cut_off_anywhere_is_not_whole(tmp_path: Path) -> None:
    """Also between two members, and after the last one."""
    names = ["a.wav", "b.wav", "c.wav"]
    shard = write_shard(tmp_path / "s.tar", [(name, b"sound" * 200) for name in names])
    data = shard.read_bytes()
    places = [place for _, place in list_members(str(shard))]
    header, block = 512, 512
    for k, place in enumerate(places):
        begin, end = place.offset, place.offset + place.size_bytes
        for at in (begin - header + 100, begin, begin + 300, end - 1):
            assert read_to_its_end(shard, data[:at])[0] == names[:k]
        for at in (end, end + 1, begin + 2 * block):
            found, said = read_to_its_end(shard, data[:at])
            assert found == names[: k + 1]
            assert f"cut off at byte {at}" in said
    end = places[-1].offset + 2 * block
    assert read_to_its_end(shard, data[: end + block]) == (names, "")  # one block of zeros is enough
    assert read_to_its_end(shard, data[: end + 2 * block]) == (names, "")
    assert read_to_its_end(shard, data + bytes(100_000)) == (names, "")
    assert read_to_its_end(shard, data[: end + block - 1])[1] == f"cut off at byte {end}: it has no mark of its end"


def test_two_shards_in_one_file_are_not_whole(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "s.tar", [("a.wav", b"first")]).read_bytes()
    two = write_shard(tmp_path / "s.tar", [("b.wav", b"second")]).read_bytes()
    for behind in (two, bytes(20_480) + two):
        found, said = read_to_its_end(tmp_path / "s.tar", one + behind)
        assert found == ["a.wav"]
        assert said == "it goes on behind its end at byte 1024, as two tar files in one do"
    rows = listed(tmp_path / "s.tar")
    assert {name: row["reason"] for name, row in rows.items()} == {"s.tar": "not_audio", "s.tar#a.wav": None}


def test_what_is_wrong_with_a_shard_is_a_row(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "whole.tar", sounds(2, 3, 5)).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "broken.tar").write_bytes(b"no tar file" * 500)
    (tmp_path / "empty.tar").write_bytes(b"")
    write_shard(tmp_path / "texts.tar", [("a.txt", b"text")])
    rows = listed(tmp_path / "*.tar")
    reasons = {name: row["reason"] for name, row in rows.items()}
    n_whole = sum(name.startswith("cut.tar#") for name in reasons)
    assert 1 <= n_whole < 3
    assert {name: reason for name, reason in reasons.items() if "#" not in name} == dict.fromkeys(
        ["broken.tar", "cut.tar", "empty.tar", "texts.tar"], "not_audio"
    )
    assert rows["cut.tar"]["message"].endswith(f"{n_whole} files found")
    assert sum(name.startswith("whole.tar#") for name in reasons) == 3
    with pytest.raises(CorpusError, match="no such file"):
        listed(tmp_path / "none.tar")


# --- indexing ---------------------------------------------------------------------------------------------------------


def test_a_shard_is_indexed_as_its_files_would_be(tmp_path: Path) -> None:
    for name, data in sounds(1, 3, 5, 7):
        (tmp_path / name).write_bytes(data)
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 5, 7))
    in_shard, apart = configure(tmp_path, shard), configure(tmp_path / "apart", tmp_path)
    for config in (in_shard, apart):
        index(config)
    mine, theirs = live(in_shard.into), live(apart.into)
    assert [row[0] for row in mine["files"]] == [f"{shard}#{n}.wav" for n in (1, 3, 5, 7)]
    assert [row[1:] for row in mine["files"]] == [row[1:] for row in theirs["files"]]
    assert sorted(row[3:] for row in mine["clips"]) == sorted(row[3:] for row in theirs["clips"])
    assert mine["frames"] == theirs["frames"]
    assert compare(in_shard.into, WideEncoder(), 10).findings == []
    with shard.open("r+b") as file:
        file.write(b"x" * 400)  # the header of the first member
    assert [finding.table for finding in compare(in_shard.into, WideEncoder(), 10).findings] == ["files"] * 3


def test_a_shard_that_is_written_anew_costs_what_changed(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 5))
    config = configure(tmp_path, shard)
    index(config)
    assert index(config).n_windows == 0
    (tmp_path / "copy.wav").write_bytes(content(5).read_bytes())
    config = configure(tmp_path, shard, tmp_path / "copy.wav")
    write_shard(shard, [*sounds(5, 1), ("4.wav", content(4).read_bytes()), ("moved.wav", content(3).read_bytes())])
    actions = {Path(uri).name: action for uri, action, _ in plan_corpus(config).actions}
    assert actions == {
        "s.tar#1.wav": "unchanged",
        "s.tar#3.wav": "deleted",
        "s.tar#4.wav": "new",
        "s.tar#5.wav": "unchanged",
        "s.tar#moved.wav": "moved",
        "copy.wav": "duplicate",
    }
    n_windows = index(config).n_windows
    fresh = configure(tmp_path / "fresh", tmp_path / "4.wav")
    (tmp_path / "4.wav").write_bytes(content(4).read_bytes())
    assert n_windows == index(fresh).n_windows


@pytest.mark.parametrize(
    ("extensions", "names"),
    [
        (("tar",), ["s.tar#1.wav", "s.tar#3.wav", "s.tar#b.mp3"]),
        (("tar", "parquet"), ["s.tar#1.wav", "s.tar#3.wav", "s.tar#b.mp3"]),
        (("tar", "wav"), ["s.tar#1.wav", "s.tar#3.wav"]),
    ],
)
def test_shards_in_folders_are_looked_into_where_their_extension_is_named(
    tmp_path: Path, extensions: tuple[str, ...], names: list[str]
) -> None:
    write_shard(tmp_path / "in" / "s.tar", [*sounds(1, 3), ("a.txt", b"text"), ("b.mp3", b"a")])
    found = list_corpus([str(tmp_path / "in")], CorpusConfig(extensions=extensions))["uri"].to_pylist()
    assert [Path(uri).name for uri in found] == names
    with pytest.raises(CorpusError, match="with tar, parquet or arrow among the extensions, shards in folders"):
        list_corpus([str(tmp_path / "in")])


def test_what_is_no_longer_in_a_shard_goes(tmp_path: Path) -> None:
    """But where the shard is cut off, what cannot be seen any more is not taken for gone. Where no audio is left in it,
    a person has to say so."""
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


def test_members_of_a_shard_that_cannot_be_read_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 5))
    config = configure(tmp_path, shard)
    index(config)
    before = live(config.into)["clips"]

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", broken)
        index(config)
        assert live(config.into)["clips"] == before
        with pytest.raises(CorpusError, match="and the index has 3 files in it; mend that"):
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
        (os.unlink, "changed_while_reading", "gone while it was read"),
        (put_out_of_reach, "unreadable", "Too many levels of symbolic links"),
    ],
)
def test_a_shard_that_changes_while_it_is_read_is_a_failure(
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


def test_shards_lie_in_object_stores_too(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 7))
    local = configure(tmp_path, shard)
    index(local)
    fsspec.filesystem("memory").put_file(str(shard), "memory:///shards/s.tar")
    remote = configure(tmp_path / "remote", "memory://shards/*.tar")
    index(remote)
    assert live(remote.into)["frames"] == live(local.into)["frames"]
    assert [row[0] for row in live(remote.into)["files"]] == [f"memory:///shards/s.tar#{n}.wav" for n in (1, 3, 7)]
    assert compare(remote.into, WideEncoder(), 10).findings == []


def test_the_shards_of_many_members_are_those_of_each() -> None:
    members = ["a/b.tar#x.wav", "a/B.TAR#x.tar#2", "x.parquet#0", "w\nq.arrow#a#b", "p.parquet.tar#z", ".tar#a"]
    others = ["a/b.wav", "x.tar", "a.tarx#b", None]
    found = shards_of(pa.chunked_array([pa.array(members), pa.array(others)]))
    assert found.to_pylist() == [*map(shard_of, members), *[None] * len(others)]


# --- names ------------------------------------------------------------------------------------------------------------

ODD_NAMES = ["a.wav", "a.wav", "../x.wav", "/x.wav", "./../x.wav", "in/../x.wav", "a.wav", "..x.wav", ".h/../x.wav"]


def test_every_member_is_a_row_whatever_it_is_called(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", [(name, content(k % 6).read_bytes()) for k, name in enumerate(ODD_NAMES)])
    visible = ["a.wav", "a.wav#2", "../x.wav", "/x.wav", "./../x.wav", "in/../x.wav", "a.wav#3"]
    uris = [f"{shard}#{name}" for name in visible]
    assert list_corpus([str(shard)])["uri"].to_pylist() == sorted(uris)
    hidden = list_corpus([str(shard)], CorpusConfig(hidden=True))["uri"].to_pylist()
    assert hidden == sorted([*uris, f"{shard}#..x.wav", f"{shard}#.h/../x.wav"])
    config = configure(tmp_path, shard)
    index(config)
    assert [row[0] for row in live(config.into)["files"]] == sorted(uris)
    for uri in uris:
        assert isinstance(find(uri)[0], Place)


@pytest.mark.parametrize("year", [-9999, 2300])
def test_files_and_shards_of_any_year_are_unchanged_in_the_next_run(tmp_path: Path, year: int) -> None:
    shard = write_shard(tmp_path / "in" / "s.tar", sounds(1, 3))
    (path := tmp_path / "in" / "a.wav").write_bytes(content(4).read_bytes())
    for each in (shard, path):
        os.utime(each, ns=(0, (year - 1970) * 31_556_952 * 10**9))
    config = configure(tmp_path, shard, path)
    assert index(config).n_windows > 0
    assert [row[2] for row in live(config.into)["files"]] == [None] * 3
    assert plan_corpus(config).n_unchanged == 3
    assert index(config).n_windows == 0


def test_manifests_name_members_as_they_are_called(tmp_path: Path) -> None:
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
def test_an_extension_is_that_of_the_own_name(recording: str, extension: str) -> None:
    assert extension_of(recording) == extension


def test_a_member_lasts_as_long_as_others_of_its_name() -> None:
    assert estimate_seconds("s.tar#a.wav#2", 1_500_000) == estimate_seconds("a.wav", 1_500_000) == 10
