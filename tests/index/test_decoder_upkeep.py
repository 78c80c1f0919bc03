"""What no correction of decoding concerns is judged once, and not again by each plan."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.audio.decoder_versions import CORRECTIONS, DECODER, Correction, find_correction
from pipeline.config import Config
from pipeline.index import journal
from pipeline.index.decoder_upkeep import MOST_CONCERNED, _find_concerned, raise_decoder
from pipeline.index.verify import verify_index
from pipeline.index.writer import Writer
from pipeline.run.driver import index_corpus
from tests.helpers.contents import read
from tests.helpers.damage import publish
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place


@pytest.fixture
def older(config: Config) -> Config:
    """An index of an older version: two of its files may decode differently now."""
    table(config.into, "files").update({"decoder": "2"}, "uri NOT LIKE '%/c.wav'")
    table(config.into, "files").update({"decoder": "NULL"}, "uri LIKE '%/c.wav'")
    for name in ("files", "clips"):
        table(config.into, name).update({"channels": "2"}, "uri LIKE '%b.wav'")
    publish(config.into)
    return config


def decoders(config: Config) -> dict[str, int | None]:
    return {str(row["uri"]).rsplit("/", 1)[1]: row["decoder"] for row in read(config.into, "files")}


def test_rows_that_no_correction_concerns_get_the_newest_version(older: Config) -> None:
    before = read(older.into, "files", ["file_id", "uri", "status", "duration_s", "batch_id"])
    writer = Writer(older.into, "9" * 32)
    raise_decoder(writer)
    judged = dict.fromkeys(("a.wav", "c.wav", "broken.wav"), DECODER)
    assert decoders(older) == judged | dict.fromkeys(("b.wav", "copy of b.wav"), 2)
    after = read(older.into, "files", ["file_id", "uri", "status", "duration_s", "batch_id"])
    assert sorted(map(str, after)) == sorted(map(str, before))
    assert raise_decoder(writer) == journal.read_published(older.into) == writer.published
    assert journal.read_journal(older.into)["kind"].to_pylist().count("decoder") == 1


def test_nothing_is_raised_while_very_many_files_are_to_be_examined(
    older: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.decoder_upkeep.MOST_CONCERNED", 1)
    writer = Writer(older.into, "9" * 32)
    before = writer.published
    assert raise_decoder(writer) == before
    assert set(decoders(older).values()) == {2, None}


class ManyFiles:
    """A table of which a correction concerns each row."""

    def __init__(self) -> None:
        self.n_read = 0

    def to_batches(self, columns: list[str], where: str, batch_size: int) -> Iterator[pa.RecordBatch]:
        values = dict.fromkeys(columns) | {"uri": "a.wav", "status": "indexed", "channels": 2, "decoder": 1}
        while True:
            rows = [values | {"file_id": str(self.n_read + number)} for number in range(1_000)]
            self.n_read += len(rows)
            yield pa.RecordBatch.from_pylist(rows)


def test_no_more_rows_are_judged_than_are_needed() -> None:
    files = ManyFiles()
    assert len(_find_concerned(files)) == MOST_CONCERNED + 1
    assert files.n_read <= MOST_CONCERNED + 1_000


def test_run_leaves_nothing_to_judge(older: Config) -> None:
    index_corpus(older, stages=in_place(WideEncoder()))
    assert set(decoders(older).values()) == {DECODER}
    assert verify_index(older.into) == []
    n_rows = journal.read_journal(older.into).num_rows
    index_corpus(older, stages=in_place(WideEncoder()))
    assert journal.read_journal(older.into).num_rows == n_rows


def test_row_of_the_newest_version_is_not_judged(older: Config) -> None:
    def fail(row: object) -> bool:
        pytest.fail("judged again")

    newest = Correction(DECODER, "is judged", fail)
    row = {**read(older.into, "files")[0], "decoder": DECODER}
    assert find_correction(row, (*CORRECTIONS[:-1], newest)) is None
