"""Pools are made of stored frames where they are missing."""

from pathlib import Path

import lance
import numpy as np
import pytest

from pipeline import schema
from pipeline.grid import Grid
from pipeline.index import journal
from pipeline.index.backfill import add_pools, mend_pools
from pipeline.index.handle import find_index
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


@pytest.mark.parametrize("n_one_by_one", [0, 100])
def test_pools_of_chosen_audios_are_mended(index: Path, n_one_by_one: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.index.backfill.AUDIOS_TO_MEND", n_one_by_one)
    Writer(index, "0" * 32)
    audio_ids = {schema.make_audio_id(f"{n}.wav") for n in (30, 1_000)}
    n_before = find_index(index).live.open("pools").count_rows()
    writer = Writer(index, "1" * 32)
    assert mend_pools(writer, set()).seq == writer.published.seq
    with writer.changes() as changes:
        changes.delete("pools", {"audio_id": audio_ids})
        writer.publish("maintain", changes)
    assert find_index(index).live.open("pools").count_rows() < n_before
    mend_pools(writer, audio_ids | {"f" * 32})
    rows = find_index(index).live.open("pools").to_table(filter=f"audio_id IN {tuple(audio_ids)}").to_pylist()
    assert sum(row["n_frames"] for row in rows) == 1_030
