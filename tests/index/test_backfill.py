"""Pools are made of stored frames where they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import schema
from pipeline.grid import Grid
from pipeline.index import journal
from pipeline.index.backfill import add_pools, mend_pools, read_frames
from pipeline.index.changes import Changes
from pipeline.index.handle import find_index
from pipeline.index.pools import FRAMES_PER_POOL
from pipeline.index.verify import verify_index
from pipeline.index.writer import Writer
from pipeline.run.driver import index_corpus
from tests.helpers.contents import KnownBucket, check_pools, live
from tests.helpers.protocol import die_at, optimize
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.tables import create_empty, draw_vectors, write_index

GRID = Grid(50, 10)


def take_out_pools(path: Path | str) -> None:
    """Make the tables what they are in an index from before there were pools."""
    frames = lance.dataset(journal.table_uri(path, "frames"))
    frames.drop_columns([schema.BEGINS])
    published = journal.read_published(path)
    versions = published.versions | {"frames": frames.version}
    del versions["pools"]
    row = journal.make_row(published.seq + 1, "f" * 32, "f" * 32, "maintain", versions)
    journal.publish(journal.open_journal(path), [row])


@pytest.fixture
def index(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    sounds = {f"{n}.wav": draw_vectors(rng, n, GRID) for n in (1, 30, 333, 75, 1_000)}
    write_index(tmp_path / "index", sounds, GRID)
    return tmp_path / "index"


def test_missing_pools_are_made_whatever_the_size_of_pieces(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = find_index(index).live.open("pools").to_table()
    ticks: list[int] = []
    for n_frames, n_pools in ((64, 3), (10_000, 10_000)):
        monkeypatch.setattr("pipeline.index.backfill._FRAMES_AT_ONCE", n_frames)
        monkeypatch.setattr("pipeline.index.backfill._POOLS_AT_ONCE", n_pools)
        take_out_pools(index)
        before = find_index(index).live
        writer = Writer(index, "0" * 32)
        assert add_pools(writer, 10_000).versions == before.versions  # it has fewer frames
        assert add_pools(writer, tick=lambda: ticks.append(1)).versions.keys() == {*before.versions, "pools"}
        check_pools(str(index))
        assert find_index(index).live.open("frames").count_rows() == before.open("frames").count_rows()
        assert ticks
        seq = writer.published.seq
        assert add_pools(writer).seq == seq  # they are there
    assert find_index(index).live.open("pools").to_table() == expected


def test_missing_pools_are_made_in_an_object_store(bucket: str, tmp_path: Path) -> None:
    corpus = KnownBucket(f"{bucket}/old", tmp_path)
    corpus.put("a.wav", 3)
    corpus.put("b.wav", 5)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    take_out_pools(corpus.config.into)
    for step in ("begin frames", "make pools", "publish"):
        assert die_at(step, 1, optimize, corpus.config)
        assert "pools" not in find_index(corpus.config.into).live.versions
        check_pools(corpus.config.into)
    optimize(corpus.config)
    assert "pools" in find_index(corpus.config.into).live.versions
    check_pools(corpus.config.into)
    assert verify_index(corpus.config.into) == []
    assert live(corpus.config.into) == corpus.expected()


def test_index_without_frames_gets_none(tmp_path: Path) -> None:
    path = create_empty(tmp_path / "index", frames="none")
    assert add_pools(Writer(path, "0" * 32)).versions.keys() == {"files", "clips", "frames"}


def test_index_without_rows_gets_an_empty_table(tmp_path: Path) -> None:
    path = create_empty(tmp_path / "index")
    take_out_pools(path)
    assert "pools" in add_pools(Writer(path, "0" * 32)).versions
    assert find_index(path).live.open("pools").count_rows() == 0
    check_pools(str(path))


def published_pools(path: Path) -> list[dict[str, Any]]:
    """The rows of ``pools``, in order, without the batches that wrote them."""
    rows = find_index(path).live.open("pools").to_table().drop_columns(["batch_id"])
    return list(rows.sort_by([("audio_id", "ascending"), ("first_frame", "ascending")]).to_pylist())


@pytest.mark.parametrize("n_one_by_one", [0, 100])
def test_mended_pools_are_those_of_a_run(index: Path, n_one_by_one: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.index.backfill.AUDIOS_TO_MEND", n_one_by_one)
    expected = published_pools(index)
    audio_ids = {schema.make_audio_id(f"{n}.wav") for n in (30, 1_000)}
    writer = Writer(index, "1" * 32)
    assert mend_pools(writer, set()).seq == writer.published.seq
    with writer.changes() as changes:
        changes.delete("pools", {"audio_id": audio_ids})
        writer.publish("maintain", changes)
    assert len(published_pools(index)) < len(expected)
    mend_pools(writer, audio_ids | {"f" * 32})
    assert published_pools(index) == expected


def test_audios_without_frames_have_no_pools_when_they_are_mended(index: Path) -> None:
    expected = published_pools(index)
    mend_pools(Writer(index, "1" * 32), {"f" * 32})
    assert published_pools(index) == expected


class Counter:
    """Counts the frames that have been read, and those of the pools that have been passed on to be written."""

    def __init__(self) -> None:
        self.n_read = self.n_written = self.most = 0

    def read(self, frames: Any, where: str | None) -> Iterator[pa.RecordBatch]:
        for piece in read_frames(frames, where):
            self.n_read += piece.num_rows
            self.most = max(self.most, self.n_read - self.n_written)
            yield piece

    def count(self, rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
        def pass_on() -> Iterator[pa.RecordBatch]:
            for piece in rows:
                self.n_written += pc.sum(piece["n_frames"]).as_py()
                yield piece

        return pa.RecordBatchReader.from_batches(rows.schema, pass_on())


class CountedChanges(Changes):
    counter: Counter

    def append_stream(self, name: str, rows: pa.RecordBatchReader) -> None:
        super().append_stream(name, self.counter.count(rows))

    def replace(self, name: str, rows: pa.RecordBatchReader) -> None:
        super().replace(name, self.counter.count(rows))


class CountedWriter(Writer):
    counter: Counter

    @contextmanager
    def changes(self) -> Iterator[Changes]:
        with super().changes() as changes:
            counted = CountedChanges(self.path, changes.versions, self.failpoint)
            counted.counter = self.counter
            yield counted


@pytest.mark.parametrize("n_one_by_one", [0, 100])
def test_few_frames_of_a_long_audio_are_held_at_a_time(
    tmp_path: Path, n_one_by_one: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_at_once, n_pools = 64, 6
    monkeypatch.setattr("pipeline.index.backfill.AUDIOS_TO_MEND", n_one_by_one)
    monkeypatch.setattr("pipeline.index.backfill._FRAMES_AT_ONCE", n_at_once)
    monkeypatch.setattr("pipeline.index.backfill._POOLS_AT_ONCE", n_pools)
    path, rng = tmp_path / "index", np.random.default_rng(0)
    write_index(path, {f"{n}.wav": draw_vectors(rng, n, GRID) for n in (40, 5_000)}, GRID)
    expected = published_pools(path)
    writer = CountedWriter(path, "1" * 32)
    writer.counter = Counter()
    mend_pools(writer, {schema.make_audio_id("5000.wav")}, writer.counter.read)
    assert published_pools(path) == expected
    assert writer.counter.n_read == writer.counter.n_written == 5_000 + (40 if n_one_by_one == 0 else 0)
    window = GRID.length_frames
    assert n_at_once <= writer.counter.most <= n_at_once + 2.5 * window + (n_pools + 2) * FRAMES_PER_POOL
