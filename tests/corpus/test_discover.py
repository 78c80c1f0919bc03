"""Sources of all kinds give one table: each file once, in order. Wrong sources are errors of one line."""

from pathlib import Path

import pytest

from pipeline.config import CorpusConfig
from pipeline.corpus.discover import list_corpus
from pipeline.errors import CorpusError
from tests.helpers.corpora import list_names, list_rows, touch
from tests.helpers.corpora import tree as tree


def test_file_urls_equal_their_paths(tree: Path) -> None:
    as_paths = list_corpus([str(tree)])
    assert list_corpus([f"file://{tree}"]).equals(as_paths)
    assert list_corpus([str(tree), f"file://{tree}"]).equals(as_paths)
    manifest = tree.parent / "named.csv"
    manifest.write_text("uri\n" + "".join(f"file://{uri}\n" for uri in as_paths["uri"].to_pylist()))
    assert list_corpus([str(manifest)])["uri"].equals(as_paths["uri"])


def test_relative_and_home_sources_are_resolved(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "sub")
    monkeypatch.setenv("HOME", str(tree / "sub"))
    for source in (".", "deep/..", "~", "../sub", "*"):
        assert list_names(tree, source) == ["sub/c.mp3", "sub/deep/d.opus"]


def test_overlapping_sources_give_each_file_once_in_order(tree: Path) -> None:
    once = list_rows(tree)
    assert list_rows(tree, tree / "sub", tree / "b.wav", tree / "**" / "*.mp3", f"{tree}/") == once
    assert list_rows(tree / "b.wav", tree / "sub" / ".." / "sub", tree) == once
    assert [row["uri"] for row in once] == sorted(row["uri"] for row in once)


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.wav", "*.nothing", "**/*.nothing"])
def test_missing_source_is_an_error_of_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(CorpusError) as error:
        list_rows(tree, source)
    assert str(error.value).startswith(f"{source}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["", "*.txt", "empty"])
def test_sources_without_audio_are_an_error_of_one_line(tmp_path: Path, source: str) -> None:
    touch(tmp_path / "in" / "notes.txt")
    (tmp_path / "in" / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"^\S+in/\S*: no file with an audio file's extension"):
        list_rows(f"{tmp_path}/in/{source}")
    with pytest.raises(CorpusError, match=r"extension \['rec'\]"):
        list_rows(f"{tmp_path}/in/{source}", extensions=["rec"])
    assert list_names(tmp_path, f"{tmp_path}/in/{source}", touch(tmp_path / "a.wav")) == ["a.wav"]


@pytest.mark.parametrize("source", ["", "*", "**", "**/*", "z", "*/*"])
def test_folder_left_out_is_not_entered(tree: Path, source: str) -> None:
    touch(tree / "z" / "y.wav")
    listed = list_corpus([f"{tree}/{source}", str(touch(tree.parent / "x"))], CorpusConfig(), str(tree / "sub"))
    assert not [uri for uri in listed["uri"].to_pylist() if "/sub/" in uri]
    assert listed.num_rows >= 1


def test_index_cannot_be_its_own_source(tree: Path) -> None:
    with pytest.raises(CorpusError, match=r"tree: the index cannot be the folder that is indexed; use .*tree-index"):
        list_corpus([str(tree)], CorpusConfig(), f"{tree}/sub/..")


def test_json_file_as_source_is_refused_with_the_table_formats(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(CorpusError, match=r"x.json: is no audio, and no table by its name: .*\.jsonl"):
        list_corpus([str(tmp_path / "x.json")])
    with pytest.raises(CorpusError, match=r"b/x.json: is no audio, and no table by its name"):
        list_corpus(["memory://b/x.json"])
