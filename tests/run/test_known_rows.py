"""Rows that need no decoding. Copies and moves: tests/run/test_reindex.py."""

import os
from pathlib import Path

import pytest

from pipeline.run.driver import index_corpus
from tests.helpers.contents import live, read
from tests.helpers.runs import WideEncoder, configure, in_place
from tests.helpers.runs import corpus as corpus


def test_changed_mtime_changes_the_ledger_row_only(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    before = live(config.into)
    batches = read(config.into, "clips", ["clip_id", "batch_id"])
    os.utime(corpus / "3.wav", ns=(7, 7))
    progress = index_corpus(config, stages=in_place(WideEncoder(), lambda number: pytest.fail("nothing to decode")))
    assert (progress.n_indexed, progress.n_unchanged, progress.n_clips, progress.n_frames) == (0, 9, 0, 0)
    assert live(config.into) == before
    assert read(config.into, "clips", ["clip_id", "batch_id"]) == batches
    assert index_corpus(config, stages=in_place(WideEncoder())).n_unchanged == 9
