"""Audio files in shards are listed where a source or an extension asks for them; a faulty shard is a row."""

from pathlib import Path

import pytest

from pipeline.audio.source import resolve_uri
from pipeline.config import CorpusConfig
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.shards import Place
from pipeline.errors import CorpusError
from pipeline.words import count
from tests.helpers.contents import content, live
from tests.helpers.corpora import configure, index, listed
from tests.helpers.shards import sounds, write_shard


def test_shards_are_opened_only_where_a_source_names_them(tmp_path: Path) -> None:
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


def test_faulty_shard_is_a_row(tmp_path: Path) -> None:
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
    assert rows["cut.tar"]["message"].endswith(f"; {count(n_whole, 'file')} found")
    assert sum(name.startswith("whole.tar#") for name in reasons) == 3
    with pytest.raises(CorpusError, match="no such file"):
        listed(tmp_path / "none.tar")


@pytest.mark.parametrize(
    ("extensions", "names"),
    [
        (("tar",), ["s.tar#1.wav", "s.tar#3.wav", "s.tar#b.mp3"]),
        (("tar", "parquet"), ["s.tar#1.wav", "s.tar#3.wav", "s.tar#b.mp3"]),
        (("tar", "wav"), ["s.tar#1.wav", "s.tar#3.wav"]),
    ],
)
def test_shards_in_folders_are_opened_if_extensions_name_them(
    tmp_path: Path, extensions: tuple[str, ...], names: list[str]
) -> None:
    write_shard(tmp_path / "in" / "s.tar", [*sounds(1, 3), ("a.txt", b"text"), ("b.mp3", b"a")])
    found = list_corpus([str(tmp_path / "in")], CorpusConfig(extensions=extensions))["uri"].to_pylist()
    assert [Path(uri).name for uri in found] == names
    with pytest.raises(CorpusError, match="with tar, parquet or arrow among the extensions, shards in folders"):
        list_corpus([str(tmp_path / "in")])


ODD_NAMES = ["a.wav", "a.wav", "../x.wav", "/x.wav", "./../x.wav", "in/../x.wav", "a.wav", "..x.wav", ".h/../x.wav"]


def test_members_are_listed_whatever_their_name(tmp_path: Path) -> None:
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
        assert isinstance(resolve_uri(uri)[0], Place)
