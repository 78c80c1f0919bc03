"""Scalar indexes cover all rows, and a clean-up costs no reader and no writer anything."""

import datetime as dt
from pathlib import Path

import pytest

from pipeline import schema
from pipeline.errors import CommitConflict
from pipeline.index import journal
from pipeline.index.maintenance import optimize
from pipeline.index.scalar_indexes import SCALAR_INDEXES
from pipeline.index.tables import open_published
from pipeline.index.writer import Writer
from tests.helpers.batches import BEFORE, RACE_A, Corpus, check_state, create, prepare, run


def test_ids_are_indexed_and_lookups_stay_right_over_many_commits(tmp_path: Path) -> None:
    create(tmp_path)
    corpus: Corpus = {}
    for number in range(6):
        corpus |= {f"{k}": (f"{k} v{number if k % 3 == number % 3 else number // 2}", 9 + k) for k in range(number + 3)}
        run(tmp_path, corpus, f"run {number}")
        check_state(tmp_path, corpus)
        check_lookups(tmp_path, corpus)
        for name, columns in SCALAR_INDEXES.items():
            statistics = open_published(tmp_path, name).stats
            assert [statistics.index_stats(f"{c}_idx")["num_unindexed_rows"] for c in columns] == [0] * len(columns)
    for name, columns in SCALAR_INDEXES.items():
        found = open_published(tmp_path, name).describe_indices()
        assert sorted(index.name for index in found) == sorted(f"{column}_idx" for column in columns)
    # Rows that no index has seen yet are found as well.
    writer = Writer(tmp_path, "last")
    corpus |= {"0": ("0 newest", 12), "new": ("new", 13)}
    writer.commit(prepare(tmp_path, writer, corpus))
    check_lookups(tmp_path, corpus)


def check_lookups(path: Path, corpus: Corpus) -> None:
    published = journal.read_published(path)
    files, clips, frames = (open_published(path, name, published) for name in ("files", "clips", "frames"))
    for uri, (content, n_frames) in corpus.items():
        audio_id = schema.make_audio_id(content)
        file_id = schema.make_file_id(uri, audio_id)
        assert files.to_table(filter=f"file_id = '{file_id}'")["uri"].to_pylist() == [uri]
        found = frames.to_table(filter=f"audio_id = '{audio_id}'")["frame"].to_pylist()
        assert sorted(found) == list(range(n_frames))
        starts = sorted(clips.to_table(filter=f"file_id = '{file_id}'")["start_s"].to_pylist())
        ids = [schema.make_clip_id(file_id, round(start_s / 0.04)) for start_s in starts]
        assert starts[0] == 0.0
        quoted = ", ".join(f"'{clip_id}'" for clip_id in ids)
        assert clips.to_table(filter=f"clip_id IN ({quoted})").num_rows == len(ids)
    assert files.to_table(filter=f"file_id = '{'0' * 32}'").num_rows == 0


def test_writer_whose_journal_was_cleaned_up_reports_the_other_run(tmp_path: Path) -> None:
    create(tmp_path)
    run(tmp_path, BEFORE)
    slow = Writer(tmp_path, "slow")
    run(tmp_path, RACE_A, "fast")
    optimize(Writer(tmp_path, "tidy"), older_than=dt.timedelta(0))
    with pytest.raises(CommitConflict, match="another run published"):
        slow.configure({})
    check_state(tmp_path, RACE_A)
