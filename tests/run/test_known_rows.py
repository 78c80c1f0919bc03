"""Rows that need no decoding: of files whose mtime changed, and of copies and moved files."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.index import journal
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from tests.helpers.contents import KnownCorpus, check_whole, content, expect, live, read
from tests.helpers.corpora import configure as in_index
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


def test_moves_and_duplicates_cost_no_encoding_and_leave_the_frames_alone(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    config = in_index(tmp_path, folder)
    for n in (2, 3, 5):
        shutil.copyfile(content(n), folder / f"{n}.wav")
    index_corpus(config, stages=in_place(WideEncoder()))
    frames = journal.read_published(config.into).versions["frames"]
    (folder / "3.wav").rename(folder / "moved.wav")
    shutil.copyfile(content(5), folder / "copy.wav")
    plan = plan_corpus(config)
    actions = {Path(uri).name: (action, reason) for uri, action, reason in plan.actions}
    assert {name: action for name, (action, _) in actions.items()} == {
        "2.wav": "unchanged",
        "3.wav": "deleted",
        "5.wav": "unchanged",
        "copy.wav": "duplicate",
        "moved.wav": "moved",
    }
    assert "3.wav" in actions["moved.wav"][1]
    assert (plan.n_to_decode, plan.seconds_to_decode) == (0, 0)
    encoder = WideEncoder()
    progress = index_corpus(config, stages=in_place(encoder))
    assert (encoder.n_windows, progress.n_frames) == (0, 0)
    assert journal.read_published(config.into).versions["frames"] == frames
    (folder / "copy.wav").unlink()
    index_corpus(config, stages=in_place(encoder))
    assert journal.read_published(config.into).versions["frames"] == frames
    (folder / "5.wav").unlink()
    index_corpus(config, stages=in_place(encoder))
    left = {row["audio_id"] for row in read(config.into, "frames", ["audio_id"])}
    assert left == {expect(n, config.window.grid)["audio_id"] for n in (2, 3)}


def test_moves_are_published_in_bounded_commits_with_their_deletions(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path, store={"checkpoint_rows": 10, "optimize_every": 1_000})
    (corpus.folder / "new").mkdir()
    for number in range(40):
        corpus.put(f"{number}.wav", 3)
        with (corpus.folder / f"{number}.wav").open("ab") as file:
            file.write(bytes([number, 0]))  # so that each is a content of its own
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    before = read(corpus.config.into, "clips", ["audio_id", "start_s"])
    n_clips = len(before) // 40
    seen = journal.read_published(corpus.config.into).seq
    for number in range(40):
        corpus.move(f"{number}.wav", f"new/{number}.wav")
    corpus.swap("new/7.wav", "new/30.wav")
    counts: list[int] = []

    def look(step: str) -> None:
        if step == "publish":
            counts.append(sum(row["status"] == "indexed" for row in read(corpus.config.into, "files")))

    encoder = WideEncoder()
    index_corpus(corpus.config, stages=in_place(encoder), failpoint=look)
    assert encoder.n_windows == 0
    assert set(counts) == {40}  # a file that moved is there once, before and after
    rows = [row for row in journal.read_journal(corpus.config.into).to_pylist() if row["seq"] > seen]
    assert max(row["n_clips"] for row in rows) < 10 + n_clips
    assert sorted(map(str, read(corpus.config.into, "clips", ["audio_id", "start_s"]))) == sorted(map(str, before))
    assert {row["uri"] for row in read(corpus.config.into, "clips", ["uri"])} == {
        corpus.uri(f"new/{number}.wav") for number in range(40)
    }
    check_whole(corpus.config.into)


def test_a_chain_of_moves_keeps_every_content(tmp_path: Path) -> None:
    """Each file takes the place of the next one. None may lose its rows before they are copied, however small the
    commits."""
    corpus = KnownCorpus(tmp_path, store={"checkpoint_rows": 1, "optimize_every": 1_000})
    for number in range(6):
        corpus.put(f"{number}.wav", number)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    for number in range(5):
        corpus.swap(f"{number}.wav", f"{number + 1}.wav")
    corpus.delete("5.wav")
    encoder = WideEncoder()
    index_corpus(corpus.config, stages=in_place(encoder))
    assert encoder.n_windows == 0
    assert live(corpus.config.into) == corpus.expected()
