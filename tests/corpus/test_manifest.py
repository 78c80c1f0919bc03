"""Manifests: the files that a table names are the corpus, on disks, in shards and in object stores."""

from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.config import CorpusConfig
from pipeline.corpus.discover import list_corpus
from pipeline.errors import CorpusError
from tests.helpers.contents import content, live
from tests.helpers.corpora import configure, index, write_manifest
from tests.helpers.shards import sounds, write_shard


def reasons(*sources: Path | str, **settings: Any) -> dict[str, str | None]:
    rows = list_corpus(list(map(str, sources)), CorpusConfig(**settings)).to_pylist()
    return {row["uri"]: row["reason"] for row in rows}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".CSV"])
def test_files_in_a_manifest_are_taken_whatever_their_extension(tmp_path: Path, suffix: str) -> None:
    if suffix == ".CSV":
        pytest.importorskip("pyarrow.csv")
    names = ["a.wav", "sub/b.dat", "ü, 'c'.wav", "line\nbreak.wav", "NA", "null", "007"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"sound")
    elsewhere = tmp_path / "d.wav"
    elsewhere.write_bytes(b"sound")
    uris = [*names, str(elsewhere), "../d.wav", "a.wav", "gone.wav"]
    manifest = write_manifest(tmp_path / "in" / f"list{suffix.lower()}", uris, label=["x"] * len(uris))
    manifest = manifest.rename(manifest.with_suffix(suffix))
    expected: dict[str, str | None] = {str(tmp_path / "in" / name): None for name in names}
    expected |= {str(elsewhere): None, str(tmp_path / "in" / "gone.wav"): "vanished"}
    assert reasons(manifest) == reasons(tmp_path / "in" / f"*{suffix}") == expected


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_only_named_files_are_manifests(tmp_path: Path, suffix: str) -> None:
    write_manifest(tmp_path / "in" / f"list.{suffix}", ["gone.wav"])
    (tmp_path / "in" / "a.wav").write_bytes(b"sound")
    assert reasons(tmp_path / "in") == {str(tmp_path / "in" / "a.wav"): None}
    assert len(reasons(tmp_path / "in", extensions=["*"])) == 2


def test_manifests_name_members_and_objects(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 5))
    store = fsspec.filesystem("memory")
    store.pipe_file("memory:///named/b.wav", b"sound")
    uris = ["s.tar#1.wav", "s.tar#none.wav", "gone.tar#1.wav", "memory://named/b.wav", "memory://named/gone.wav"]
    found = reasons(write_manifest(tmp_path / "list.jsonl", [*uris, "s.tar#5.wav"]))
    assert found == {
        f"{shard}#1.wav": None,
        f"{shard}#5.wav": None,
        f"{shard}#none.wav": "vanished",
        f"{tmp_path}/gone.tar#1.wav": "unreadable",
        "memory:///named/b.wav": None,
        "memory:///named/gone.wav": "vanished",
    }
    store.put_file(str(write_manifest(tmp_path / "there.csv", ["b.wav"])), "memory:///named/there.csv")
    assert reasons("memory://named/there.csv") == reasons("memory://named/*.csv") == {"memory:///named/b.wav": None}


def test_corpus_of_all_kinds_of_sources_is_indexed(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3))
    fsspec.filesystem("memory").pipe_file("memory:///mixture/4.wav", content(4).read_bytes())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "5.wav").write_bytes(content(5).read_bytes())
    (tmp_path / "2.wav").write_bytes(content(2).read_bytes())
    manifest = write_manifest(tmp_path / "list.parquet", ["2.wav", "s.tar#1.wav"])
    config = configure(tmp_path, manifest, shard, "memory://mixture", tmp_path / "in")
    index(config)
    files = [Path(row[0]).name for row in live(config.into)["files"] if row[2] is None]
    assert sorted(files) == ["2.wav", "4.wav", "5.wav", "s.tar#1.wav", "s.tar#3.wav"]
    assert index(config).n_windows == 0


def test_manifest_without_readable_files_stops_the_run(tmp_path: Path) -> None:
    for number in (3, 5):
        (tmp_path / f"{number}.wav").write_bytes(content(number).read_bytes())
    manifest = write_manifest(tmp_path / "list.csv", ["3.wav", "5.wav"])
    config = configure(tmp_path, manifest)
    index(config)
    before = live(config.into)
    for number in (3, 5):
        (tmp_path / f"{number}.wav").rename(tmp_path / f"{number}.hidden")
    for said in (r"none of the 2 files that it names can be read \(there is no such file\): is", r"csv: names no file"):
        with pytest.raises(CorpusError, match=said):
            index(config)
        write_manifest(manifest, [])
    assert live(config.into) == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.csv", "path\na.wav\n", "m.csv: a manifest needs a column `uri`, and this has only path"),
        ("m.csv", "uri,label\na.wav,1\n,2\n", "m.csv: row 2 has no uri"),
        ("m.csv", "uri,label\na.wav\n", "m.csv: cannot be read as a table: CSV parse error"),
        ("m.jsonl", '{"uri": 1}\n', "m.jsonl: column `uri` is int64, and should be text"),
        ("m.jsonl", "no json\n", "m.jsonl: line 1 is not one whole object: JSON lines have an object on each line"),
        ("m.jsonl", "", "m.jsonl: cannot be read as a table"),
        ("m.parquet", "no parquet", "m.parquet: cannot be read as a table"),
    ],
)
def test_faulty_manifest_is_an_error_of_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError) as raised:
        reasons(tmp_path / name)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_faulty_row_is_told_by_its_number(tmp_path: Path) -> None:
    n_rows = 10_001
    uris = ["a.wav"] * n_rows + ["s3://key:secret@bucket/a.wav"]
    with pytest.raises(CorpusError, match=rf"m.jsonl: row {n_rows + 1}: .* credentials belong in the environment"):
        reasons(write_manifest(tmp_path / "m.jsonl", uris))
    with pytest.raises(CorpusError, match=rf"m.csv: row {n_rows + 1}: start_s is x, and should be seconds"):
        reasons(write_manifest(tmp_path / "m.csv", ["a.wav"] * (n_rows + 1), start_s=["1"] * n_rows + ["x"]))


def test_manifest_inside_a_source_folder_is_no_audio(tmp_path: Path) -> None:
    audio, manifest = tmp_path / "a.wav", tmp_path / "m.csv"
    audio.write_bytes(b"sound")
    manifest.write_text(f"uri\n{audio}\n")
    table = list_corpus([str(manifest), str(tmp_path)], CorpusConfig(extensions=["*"]))
    assert table["uri"].to_pylist() == [str(audio)]
