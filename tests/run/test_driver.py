"""The driver without Ray: the real plan, store and recovery, with the stages run in place and a cheap encoder."""

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import CommitConflict, EarshotError
from pipeline.grid import window_starts
from pipeline.index import journal, lease, vector_index
from pipeline.index.handle import open_index
from pipeline.index.limited import Unfinished
from pipeline.index.repair import restore_index
from pipeline.index.vector_index import Step
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.planning.plan import Plan
from pipeline.run.driver import index_corpus
from pipeline.run.progress import Progress
from pipeline.search import audit_index
from pipeline.search.keep_recall import keep_index_recall
from tests.helpers.building import make_here
from tests.helpers.contents import live
from tests.helpers.protocol import Died
from tests.helpers.runs import WideEncoder, configure, in_place
from tests.helpers.runs import corpus as corpus
from tests.helpers.tuning import add_vector_index


def test_run_indexes_everything_and_a_second_run_nothing(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, tmp_path / "index")
    seen: list[tuple[str, int]] = []
    plans: list[Plan] = []
    encoder = WideEncoder()
    progress = index_corpus(config, lambda p: seen.append((p.stage, p.n_done)), plans.append, in_place(encoder))
    assert (progress.n_files, progress.n_indexed, progress.n_failed, progress.n_unchanged) == (9, 8, 1, 0)
    assert dict(progress.reasons) == {"not_audio": 1}
    n_frames = [-(-round(48_000 * (0.5 + 2.3 * number)) // 1920) for number in range(8)]
    assert progress.n_frames == sum(n_frames)
    assert progress.n_clips == sum(len(window_starts(n, config.window.grid)) for n in n_frames) == encoder.n_windows
    assert progress.audio_s == pytest.approx(0.04 * sum(n_frames))
    assert plans[0].n_to_decode == 9
    assert seen[0] == ("listing", 0)
    assert seen[-1] == ("done", 9)
    before = live(config.into)
    batches = journal.read_journal(config.into)
    assert sum(batches["n_frames"].to_pylist()) == progress.n_frames
    assert {row["precision"] for row in batches.to_pylist() if row["kind"] == "index"} == {"float32"}
    again = index_corpus(config, stages=in_place(encoder))
    assert (again.n_unchanged, again.n_indexed, again.n_failed) == (9, 0, 0)
    assert encoder.n_windows == progress.n_clips
    assert live(config.into) == before
    assert journal.read_journal(config.into).num_rows == batches.num_rows


def test_run_measures_the_recall_of_vector_indexes_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_index, "N_QUESTIONS", 32)
    config = configure(corpus, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    assert open_index(config.into).live.tuning is None
    add_vector_index(config.into)
    stages: list[str] = []
    progress = index_corpus(config, lambda p: stages.append(p.stage), stages=in_place(WideEncoder()))
    tuning = open_index(config.into).live.tuning
    assert tuning is not None
    assert (tuning.wanted, list(tuning.measured)) == (0.98, ["query", "similar"])
    assert ["the sample holds" in note for note in progress.notes] == [True, True]  # so few files prove little
    assert tuning.measured["query"].recall == 1.0
    assert "measuring recall" in stages
    index_corpus(config, stages=in_place(WideEncoder()))
    assert open_index(config.into).live.tuning == tuning


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_rebuild_whose_audit_does_not_end_is_complete(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its tables are live by then; the next run measures them."""
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 3)
    monkeypatch.setattr(audit_index, "N_QUESTIONS", 3)
    config = configure(corpus, tmp_path / "index")
    vectors = VectorUpkeep(make_here)
    index_corpus(config, stages=in_place(WideEncoder()), vectors=vectors)
    before = live(config.into)
    steps: list[str] = []

    def report(progress: Progress) -> None:
        if how == "interrupted" and progress.stage == "measuring recall":
            raise KeyboardInterrupt

    def failpoint(step: str) -> None:
        steps.append(step)
        if how == "killed" and step == "publish" and "switch" in steps:
            raise Died

    with pytest.raises((KeyboardInterrupt, Died)):
        index_corpus(config, report, stages=in_place(WideEncoder()), failpoint=failpoint, rebuild=True, vectors=vectors)
    index = open_index(config.into)
    assert index.live.path == f"{config.into}/generation-2"
    assert index.live.tuning is None
    assert live(config.into) == before
    index_corpus(config, stages=in_place(WideEncoder()), vectors=vectors)
    tuning = open_index(config.into).live.tuning
    assert tuning is not None
    assert tuning.measured_on.keys() == {"clips", "pools"}
    restore_index(config.into, index.live.seq)
    assert open_index(config.into).live.tuning == tuning
    assert live(config.into) == before


def test_recall_that_was_asked_for_outlives_rebuilds(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that ends before its tables are measured. Only asking for less lowers it."""
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 3)
    monkeypatch.setattr(audit_index, "N_QUESTIONS", 3)
    config = configure(corpus, tmp_path / "index", run={"batch_s": 12.0, "recall": 0.9})
    vectors = VectorUpkeep(make_here)
    index_corpus(config, stages=in_place(WideEncoder()), vectors=vectors)
    assert find_wanted(config.into) == 0.9
    keep_index_recall(config.into, 0.995)
    assert find_wanted(config.into) == 0.995

    def interrupt(progress: Progress) -> None:
        if progress.stage == "measuring recall":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_corpus(config, interrupt, stages=in_place(WideEncoder()), rebuild=True, vectors=vectors)
    assert find_wanted(config.into) is None
    index_corpus(config, stages=in_place(WideEncoder()), rebuild=True, vectors=vectors)
    assert open_index(config.into).live.path == f"{config.into}/generation-3"
    assert find_wanted(config.into) == 0.995
    keep_index_recall(config.into, 0.95)
    index_corpus(config, stages=in_place(WideEncoder()), vectors=vectors)
    assert find_wanted(config.into) == 0.95


def find_wanted(index: str) -> float | None:
    tuning = open_index(index).live.tuning
    return None if tuning is None else tuning.wanted


def test_build_that_fails_in_the_middle_of_a_run_is_tried_again_at_its_end(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the encoders have left their memory."""
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 3)
    monkeypatch.setattr(audit_index, "N_QUESTIONS", 3)
    stages: list[str] = [""]
    tried: list[tuple[str, str]] = []

    def make(table: Any, step: Step, tick: object) -> None:
        tried.append((stages[-1], step.name))
        if stages[-1] == "optimizing":
            raise Unfinished("stopped at 3.0 GB of memory")
        make_here(table, step)

    config = configure(corpus, tmp_path / "index", store={"checkpoint_rows": 1, "optimize_every": 1})
    vectors = VectorUpkeep(make)
    progress = index_corpus(config, lambda p: stages.append(p.stage), stages=in_place(WideEncoder()), vectors=vectors)
    in_the_middle = [name for stage, name in tried if stage == "optimizing"]
    assert sorted(in_the_middle) == ["clips", "pools"]  # each table once, however often the run optimizes
    assert not [note for note in progress.notes if "memory" in note]
    for name in ("clips", "pools"):
        found = vector_index.read_index(open_index(config.into).live.open(name))
        assert found is not None
        assert found.n_unindexed == 0


class Crash(Exception):
    pass


@pytest.mark.parametrize("at", [0, 1, 3])
def test_batches_published_before_a_crash_are_not_encoded_again(corpus: Path, tmp_path: Path, at: int) -> None:
    whole = configure(corpus, tmp_path / "whole")
    index_corpus(whole, stages=in_place(WideEncoder()))
    config = configure(corpus, tmp_path / "index", store={"checkpoint_rows": 1})

    def crash(number: int) -> None:
        if number == at:
            raise Crash("the lights went out")

    with pytest.raises(EarshotError, match=r"the lights went out.*run again"):
        index_corpus(config, stages=in_place(WideEncoder(), crash))
    assert journal.read_journal(config.into)["kind"].to_pylist().count("index") == at
    encoder = WideEncoder()
    index_corpus(config, stages=in_place(encoder))
    assert live(config.into) == live(whole.into)
    n_windows = len(live(whole.into)["clips"])
    assert encoder.n_windows < n_windows if at else encoder.n_windows == n_windows


def test_error_of_a_full_disk_is_one_line(corpus: Path, tmp_path: Path) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = configure(corpus, tmp_path / "index")
    with pytest.raises(EarshotError, match="the disk is full") as caught:
        index_corpus(config, stages=in_place(WideEncoder(), full))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "index") in str(caught.value)
    assert not list((tmp_path / "index").glob("claim-*"))
    index_corpus(config, stages=in_place(WideEncoder()))
    assert len(live(config.into)["files"]) == 9


def test_index_among_its_sources_is_not_indexed(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, corpus / "index", corpus={"extensions": ["*"]})
    assert index_corpus(config, stages=in_place(WideEncoder())).n_files == 9
    again = index_corpus(config, stages=in_place(WideEncoder()))
    assert (again.n_files, again.n_unchanged) == (9, 9)


def test_run_that_has_lost_its_lease_stops_at_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run takes over the lease while the workers are busy."""
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    config = configure(corpus, tmp_path / "index")

    def take_over(number: int) -> None:
        if number == 1:
            other = {"run_id": "other", "host": "elsewhere", "pid": 7, "since": "2026-01-02", "beat_s": 10, "at": 0}
            lease = tmp_path / "index" / "claim-999999999.json"
            lease.write_text(json.dumps(other | {"processes": "another"}))
            [beat] = [thread for thread in threading.enumerate() if thread.name == "lease"]
            beat.join(timeout=120)
            assert not beat.is_alive()

    with pytest.raises(CommitConflict, match=r"process 7 on elsewhere, since 2026-01-02\) has taken this index over"):
        index_corpus(config, stages=in_place(WideEncoder(), take_over))
    assert [path.name for path in (tmp_path / "index").glob("claim-*")] == ["claim-999999999.json"]
