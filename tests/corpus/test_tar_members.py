"""Members of tar files are found with their bytes, and a tar file that was cut off is noticed."""

import io
import tarfile
from pathlib import Path

import fsspec
import pytest

from pipeline.corpus import tar_members
from pipeline.corpus.shards import find_member, list_members, open_member
from tests.helpers.contents import live
from tests.helpers.corpora import configure, index, listed
from tests.helpers.shards import add_links, sounds, write_shard
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky


def test_links_have_the_bytes_of_their_target(tmp_path: Path) -> None:
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


def test_sparse_member_is_listed_as_empty(tmp_path: Path) -> None:
    """A sparse file does not lie in one piece: its bytes begin with a table of its pieces, which is no sound."""
    sparse = tarfile.TarInfo("a.wav")
    sparse.size, sparse.pax_headers = 8, {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,4,8,4"}
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(sparse, io.BytesIO(b"12345678"))
        tar.addfile(tarfile.TarInfo("b.wav"))
    places = {uri.split("#")[1]: place.size_bytes for uri, place in list_members(str(tmp_path / "s.tar"))}
    assert places == {"a.wav": 0, "b.wav": 0}


def test_members_without_bytes_are_failures(tmp_path: Path) -> None:
    """Links out of a shard, pipes and devices; not links within it, and folders are no files."""
    kinds = {"pipe.wav": tarfile.FIFOTYPE, "disk.wav": tarfile.BLKTYPE, "tape.wav": tarfile.CHRTYPE}
    shard = write_shard(tmp_path / "s.tar", sounds(1))
    add_links(shard, {"same.wav": (tarfile.SYMTYPE, "1.wav"), "out.wav": (tarfile.SYMTYPE, "../1.wav")})
    add_links(shard, {name: (kind, "") for name, kind in (kinds | {"dir.wav": tarfile.DIRTYPE}).items()})
    config = configure(tmp_path, shard)
    index(config)
    files = {row[0].split("#")[1]: row[1:] for row in live(config.into)["files"]}
    assert files["same.wav"] == files["1.wav"]
    expected = {"1.wav": None, "same.wav": None} | dict.fromkeys(["out.wav", *kinds], "empty")
    assert {name: reason for name, (_, reason, _) in files.items()} == expected


def read_to_its_end(shard: Path, data: bytes) -> tuple[list[str], str]:
    """The members that are found in a tar file, and the message about its end."""
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


def test_tar_file_cut_off_anywhere_is_an_error(tmp_path: Path) -> None:
    """This includes cuts between two members, and after the last one."""
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


def test_two_tar_files_in_one_are_an_error(tmp_path: Path) -> None:
    one = write_shard(tmp_path / "s.tar", [("a.wav", b"first")]).read_bytes()
    two = write_shard(tmp_path / "s.tar", [("b.wav", b"second")]).read_bytes()
    for behind in (two, bytes(20_480) + two):
        found, said = read_to_its_end(tmp_path / "s.tar", one + behind)
        assert found == ["a.wav"]
        assert said == "it goes on behind its end at byte 1024, as two tar files in one do"
    rows = listed(tmp_path / "s.tar")
    assert {name: row["reason"] for name, row in rows.items()} == {"s.tar": "not_audio", "s.tar#a.wav": None}


@pytest.mark.parametrize(("member_bytes", "n_members"), [(100_000, 30), (3_000, 300)])
def test_little_of_a_remote_tar_file_is_read_beside_its_headers(
    flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member_bytes: int, n_members: int
) -> None:
    """Large members are skipped. Small ones are read along, since each request takes time, too."""
    monkeypatch.setattr(tar_members, "WORTH_A_REQUEST_BYTES", 2**14)
    monkeypatch.setattr(tar_members, "AHEAD_BYTES", 2**11)
    members = [(f"{k}.wav", bytes([k % 250 + 1]) * member_bytes) for k in range(n_members)]
    data = write_shard(tmp_path / "s.tar", members).read_bytes()
    url = put(f"{flaky}/s.tar", data)
    remote, local = (
        [(uri.split("#")[1], place.offset, place.size_bytes) for uri, place in list_members(shard)]
        for shard in (url, str(tmp_path / "s.tar"))
    )
    assert remote == local
    assert len(remote) == n_members
    asked = Flaky.read_bytes
    if member_bytes > 2**14:
        assert sum(asked) < len(data) / 10
        assert len(asked) < n_members + 20  # and some for the padding behind its end
    else:
        assert len(asked) < len(data) / 2**16 + 5
