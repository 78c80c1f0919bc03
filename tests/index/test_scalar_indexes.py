"""A scalar index that has lost a file stops no run: it is dropped and built anew, and a note says so."""

from pathlib import Path

import lance
import pyarrow as pa
import pytest

from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.index.maintenance import optimize_index
from pipeline.index.scalar_indexes import SCALAR_INDEXES, find_damaged
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.runs import WideEncoder, in_place


@pytest.fixture
def corpus(tmp_path: Path) -> KnownCorpus:
    corpus = KnownCorpus(tmp_path)
    for number in range(4):
        corpus.put(f"{number}.wav", number + 1)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    return corpus


def lose(index: str, name: str, column: str, pattern: str) -> int:
    """Delete files of the index on a column; returns how many there were."""
    table = open_index(index).live.open(name)
    [found] = [each for each in table.describe_indices() if each.name == f"{column}_idx"]
    folders = [Path(journal.table_uri(index, name), "_indices", str(segment.uuid)) for segment in found.segments]
    files = [file for folder in folders for file in folder.glob(pattern)]
    for file in files:
        file.unlink()
    return len(files)


PLACES = [(name, column) for name, columns in SCALAR_INDEXES.items() for column in columns]


@pytest.mark.parametrize("pattern", ["*", "page_data*", "page_lookup*"])
@pytest.mark.parametrize(("name", "column"), PLACES)
def test_run_builds_a_lost_index_anew(corpus: KnownCorpus, name: str, column: str, pattern: str) -> None:
    assert lose(corpus.config.into, name, column, pattern)
    corpus.put("0.wav", 5)
    corpus.delete("1.wav")
    progress = index_corpus(corpus.config, stages=in_place(WideEncoder()))
    said = f"the index on `{column}` of `{name}` could not be read and was built anew: "
    assert [note.startswith(said) for note in progress.notes] == [True]
    assert verify_index(corpus.config.into) == []
    assert live(corpus.config.into) == corpus.expected()
    assert index_corpus(corpus.config, stages=in_place(WideEncoder())).notes == ()


def test_optimize_builds_lost_indexes_anew(corpus: KnownCorpus) -> None:
    into = corpus.config.into
    before = live(into)
    for name, column in PLACES:
        assert lose(into, name, column, "*")
    assert len(optimize_index(into).problems) == len(PLACES)
    assert verify_index(into) == []
    assert live(into) == before
    assert optimize_index(into).problems == ()


VALUES = {
    "text": ["it's", "b", None],
    "whole": [7, 8, None],
    "number": [0.5, 1.5, None],
    "flag": [True, False, None],
    "day": pa.array([19_000, 19_001, None], pa.date32()),
    "moment": pa.array([1_700_000_000_123_456, 1, None], pa.timestamp("us")),
    "moment_utc": pa.array([1_700_000_000_123_456, 1, None], pa.timestamp("us", "UTC")),
    "none": pa.array([None, None, "x"], pa.string()),
}


@pytest.mark.parametrize("kind", ["BTREE", "BITMAP"])
def test_lost_indexes_on_metadata_of_any_type_are_found(tmp_path: Path, kind: str) -> None:
    table = lance.write_dataset(pa.table(VALUES), tmp_path / "table")
    for column in VALUES:
        table.create_scalar_index(column, kind, name=f"{column}_idx")
    assert find_damaged(table) == {}
    for file in (tmp_path / "table" / "_indices").rglob("*.lance"):
        if "lookup" not in file.name or kind == "BITMAP":
            file.unlink()
    assert find_damaged(lance.dataset(table.uri)).keys() == {f"{column}_idx" for column in VALUES}
