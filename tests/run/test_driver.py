"""The driver without Ray: the real plan, store and recovery, with the stages run in place and a cheap encoder."""

import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pipeline.run.driver
from pipeline.config import Config, EncodeConfig
from pipeline.errors import CommitConflict, EarshotError, IndexMismatch, ModelError, UsageError
from pipeline.grid import Waveform, window_starts
from pipeline.index import journal, lease
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.driver import Workers, index_corpus
from pipeline.run.prepare import estimate_bytes, estimate_run_seconds, plan_corpus
from pipeline.run.progress import Progress
from tests.helpers.checkpoints import edit_weights, make_pe_audio
from tests.helpers.fakes import noise, write_wav
from tests.helpers.runs import DIMENSION, WideEncoder, configure, in_place, rows


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(8):
        write_wav(folder / f"{number}.wav", noise(0.5 + 2.3 * number, seed=number))
    (folder / "broken.wav").write_text("not a sound")
    return folder


def everything(index: str) -> dict[str, list[str]]:
    return {
        "files": rows(index, "files", ["file_id", "audio_id", "uri", "status", "reason", "n_clips", "n_frames"]),
        "clips": rows(index, "clips", ["clip_id", "file_id", "audio_id", "uri", "start_s", "end_s", "vector"]),
        "frames": rows(index, "frames", ["audio_id", "frame", "start_s", "vector"]),
    }


def test_a_run_indexes_everything_and_a_second_one_nothing(corpus: Path, tmp_path: Path) -> None:
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
    before = everything(config.into)
    batches = journal.read_journal(config.into)
    assert sum(batches["n_frames"].to_pylist()) == progress.n_frames
    assert {row["precision"] for row in batches.to_pylist() if row["kind"] == "index"} == {"float32"}
    again = index_corpus(config, stages=in_place(encoder))
    assert (again.n_unchanged, again.n_indexed, again.n_failed) == (9, 0, 0)
    assert encoder.n_windows == progress.n_clips
    assert everything(config.into) == before
    assert journal.read_journal(config.into).num_rows == batches.num_rows


def make_same(folder: Path) -> Callable[[int], None]:
    """Gives all files of a folder the bytes of the first one, at the beginning of the first batch; times stay."""

    def act(number: int) -> None:
        first, *others = sorted(folder.iterdir())
        for file in others if number == 0 else ():
            modified_ns = file.stat().st_mtime_ns
            file.write_bytes(first.read_bytes())
            os.utime(file, ns=(modified_ns, modified_ns))

    return act


@pytest.mark.parametrize("checkpoint_rows", [1, 10_000])
def test_contents_that_turn_out_to_be_the_same_are_stored_once(tmp_path: Path, checkpoint_rows: int) -> None:
    """In one batch, in batches of one commit, and in several commits: nobody saw it when they were planned."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        write_wav(folder / f"{number}.wav", noise(5.0, seed=number))

    config = configure(folder, tmp_path / "index", run={"batch_s": 15.0}, store={"checkpoint_rows": checkpoint_rows})
    encoder = WideEncoder()
    index_corpus(config, stages=in_place(encoder, make_same(folder)))
    assert verify_index(config.into) == []
    afresh = configure(folder, tmp_path / "afresh")
    index_corpus(afresh, stages=in_place(WideEncoder()))
    assert everything(config.into) == everything(afresh.into)
    n_batches = sum(row["kind"] == "index" for row in journal.read_journal(config.into).to_pylist())
    assert encoder.n_windows == 3 * n_batches == 9
    assert verify_index(config.into) == []


class DriftingEncoder(WideEncoder):
    """Never gives the same numbers again, as one with another precision or batch may not."""

    def encode(self, windows: Sequence[Waveform]) -> tuple[Any, list[Any] | None]:
        clips, frames = super().encode(windows)
        return clips * self.n_windows, frames and [rows * self.n_windows for rows in frames]


@pytest.mark.parametrize("checkpoint_rows", [1, 10_000])
def test_checksums_of_frames_are_those_of_the_last_file_that_wrote_them(tmp_path: Path, checkpoint_rows: int) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        write_wav(folder / f"{number}.wav", noise(3.0, seed=number))

    config = configure(folder, tmp_path / "index", run={"batch_s": 3.0}, store={"checkpoint_rows": checkpoint_rows})
    index_corpus(config, stages=in_place(DriftingEncoder(), make_same(folder)))
    [n_audios] = {len(set(open_published(config.into, "files").to_table()["audio_id"].to_pylist()))}
    assert n_audios == 1
    assert verify_index(config.into) == []


def test_a_file_that_was_only_touched_changes_its_ledger_row_alone(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    before = everything(config.into)
    batches = rows(config.into, "clips", ["clip_id", "batch_id"])
    os.utime(corpus / "3.wav", ns=(7, 7))
    progress = index_corpus(config, stages=in_place(WideEncoder(), lambda number: pytest.fail("nothing to decode")))
    assert (progress.n_indexed, progress.n_unchanged, progress.n_clips, progress.n_frames) == (0, 9, 0, 0)
    assert everything(config.into) == before
    assert rows(config.into, "clips", ["clip_id", "batch_id"]) == batches
    assert index_corpus(config, stages=in_place(WideEncoder())).n_unchanged == 9


class Crash(Exception):
    pass


@pytest.mark.parametrize("at", [0, 1, 3])
def test_what_was_published_before_a_crash_is_not_done_again(corpus: Path, tmp_path: Path, at: int) -> None:
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
    assert everything(config.into) == everything(whole.into)
    n_windows = len(everything(whole.into)["clips"])
    assert encoder.n_windows < n_windows if at else encoder.n_windows == n_windows


def test_a_full_disk_is_one_line(corpus: Path, tmp_path: Path) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = configure(corpus, tmp_path / "index")
    with pytest.raises(EarshotError, match="the disk is full") as caught:
        index_corpus(config, stages=in_place(WideEncoder(), full))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "index") in str(caught.value)
    assert not list((tmp_path / "index").glob("claim-*"))
    index_corpus(config, stages=in_place(WideEncoder()))
    assert len(everything(config.into)["files"]) == 9


def test_an_index_where_a_file_is_in_the_way_is_one_line(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("I was here first")
    with pytest.raises(EarshotError, match="cannot be written"):
        index_corpus(configure(corpus, tmp_path / "index"), stages=in_place(WideEncoder()))
    assert (tmp_path / "index").read_text() == "I was here first"


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"window": {"length_s": 3.0, "overlap_s": 0.4}}, "window"),
        ({"decode": {"resampler": "VHQ"}}, "VHQ"),
        ({"store": {"frames": "none"}}, "frames all, not none"),
    ],
)
def test_settings_that_would_mix_vectors_are_refused(
    corpus: Path, tmp_path: Path, sections: dict[str, Any], said: str
) -> None:
    config = configure(corpus, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    before = journal.read_published(config.into)
    with pytest.raises(IndexMismatch, match=said):
        index_corpus(configure(corpus, tmp_path / "index", **sections), stages=in_place(WideEncoder()))
    assert journal.read_published(config.into) == before


def test_checkpoints_are_bounded_by_rows(corpus: Path, tmp_path: Path) -> None:
    often = configure(corpus, tmp_path / "often", store={"checkpoint_rows": 1, "checkpoint_s": 1e6})
    once = configure(corpus, tmp_path / "once", store={"checkpoint_rows": 10**9, "checkpoint_s": 1e6})
    versions = []
    for config in (often, once):
        index_corpus(config, stages=in_place(WideEncoder()))
        batches = journal.read_journal(config.into)
        indexed = [row["files_version"] for row in batches.to_pylist() if row["kind"] == "index"]
        versions.append(len(set(indexed)))
        assert len(indexed) == len(set(batches["batch_id"].to_pylist())) - 3  # beside `create`, `configure`, `maintain`
    assert versions[0] > 3
    assert versions[1] == 1
    assert everything(often.into) == everything(once.into)


def test_receipts_that_contradict_each_other_publish_nothing_of_their_batch(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, tmp_path / "index")

    def forgetful(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        for receipt in in_place(WideEncoder())(batches, config, frames_schema):
            if receipt["first_seq"] == 0 and receipt["batch_id"] == batches["batch_id"][0].as_py():
                receipt["windows"] = receipt["windows"][1:]
            yield receipt

    progress = index_corpus(config, stages=forgetful)
    assert len(progress.unpublished) == 1
    assert 0 < progress.n_done < 9
    again = index_corpus(config, stages=in_place(WideEncoder()))
    assert again.n_done == 9
    assert not again.unpublished


def test_a_file_that_kills_its_worker_is_a_failure_and_takes_no_other_with_it(corpus: Path, tmp_path: Path) -> None:
    rounds: list[int] = []

    def deadly(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        """Batches that hold file 2 are lost with their worker, some after having sent a part."""
        rounds.append(batches.num_rows)
        for number in range(batches.num_rows):
            batch = batches.slice(number, 1)
            receipts = list(in_place(WideEncoder())(batch, config, frames_schema))
            is_deadly = any("/2.wav" in uri for audio in batch["audios"][0].as_py() for uri in audio["uris"])
            yield from receipts[:-1] if is_deadly else receipts

    config = configure(corpus, tmp_path / "index", run={"batch_s": 40.0})
    progress = index_corpus(config, stages=deadly)
    assert len(rounds) == 2
    assert rounds[1] > 1  # the files that were lost with it
    assert (progress.n_indexed, progress.n_failed, progress.n_done) == (7, 2, 9)
    files = open_published(config.into, "files").to_table().to_pylist()
    assert {Path(row["uri"]).name: row["reason"] for row in files if row["reason"]} == {
        "2.wav": "crashed",
        "broken.wav": "not_audio",
    }
    assert index_corpus(config, stages=deadly).n_unchanged == 9
    index_corpus(config, stages=in_place(WideEncoder()), request=RunRequest(retry_failed=True, reason="crashed"))
    whole = configure(corpus, tmp_path / "whole", run={"batch_s": 40.0})
    index_corpus(whole, stages=in_place(WideEncoder()))
    assert everything(config.into) == everything(whole.into)


def test_workers_that_all_die_end_the_run_and_blame_no_file(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, tmp_path / "index", run={"batch_s": 1.0})
    with pytest.raises(EarshotError, match="no worker stays alive"):
        index_corpus(config, stages=lambda batches, config, frames_schema: iter(()))
    assert open_published(config.into, "files").count_rows() == 0


@pytest.mark.parametrize(("n_killers", "n_good"), [(5, 5), (5, 0), (20, 1), (16, 0)])
@pytest.mark.parametrize("batch_s", [0.1, 100.0])
def test_however_many_files_kill_their_worker_each_is_a_failure(
    tmp_path: Path, n_killers: int, n_good: int, batch_s: float
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(n_killers + n_good):
        name = "kill" if number < n_killers else "good"
        write_wav(tmp_path / "in" / f"{name}{number}.wav", noise(0.2, seed=number))
    config = configure(tmp_path / "in", tmp_path / "index", run={"batch_s": batch_s})

    def survive(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Any:
        deadly = [
            any("/kill" in uri for audio in row["audios"] for uri in audio["uris"]) for row in batches.to_pylist()
        ]
        return in_place(WideEncoder())(batches.filter(pa.array([not each for each in deadly])), config, frames_schema)

    progress = index_corpus(config, stages=survive)
    assert (progress.n_indexed, progress.n_failed) == (n_good, n_killers)
    files = open_published(config.into, "files").to_table().to_pylist()
    assert {Path(row["uri"]).name[:4]: row["reason"] for row in files} == {"kill": "crashed"} | (
        {"good": None} if n_good else {}
    )
    assert len(files) == n_killers + n_good
    assert index_corpus(config, stages=survive).n_unchanged == n_killers + n_good


def test_the_size_that_is_told_is_about_what_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        write_wav(folder / f"{number}.wav", noise(40.0, seed=number))
    for frames in ("all", "none"):
        told: list[int] = []
        config = configure(folder, tmp_path / frames, store={"frames": frames})

        def announce(plan: Plan, config: Config = config, told: list[int] = told) -> None:
            told.append(estimate_bytes(plan, config, DIMENSION, DIMENSION))

        index_corpus(config, announce=announce, stages=in_place(WideEncoder()))
        tables = ("clips", "frames") if frames == "all" else ("clips",)
        n_vectors = sum(open_published(config.into, name).count_rows() for name in tables)
        # The duration of a wav is guessed for 16 bits in stereo; these are float32 in mono: 4 bytes for 3.1.
        assert told == [pytest.approx(n_vectors * 2 * DIMENSION * 192_000 / 150_000, rel=0.06)]


def test_the_time_that_is_told_counts_each_content_once_and_not_the_start(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(5):
        write_wav(tmp_path / "in" / f"{number}.wav", noise(2.5, seed=1))
    config = configure(tmp_path / "in", tmp_path / "index")

    ready_at: list[float] = []

    def slow_start(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Any:
        time.sleep(1.0)
        ready_at.append(time.monotonic())
        for receipt in in_place(WideEncoder())(batches, config, frames_schema):
            yield {**receipt, "decode_s": 0.2, "encode_s": 0.3}

    progress = index_corpus(config, stages=slow_start)
    ended_at = time.monotonic()
    assert progress.finished_s == 2.5
    assert progress.finished_planned_s == pytest.approx(progress.planned_s)
    [row] = [row for row in journal.read_journal(config.into).to_pylist() if row["kind"] == "index"]
    assert (row["audio_s"], journal.encoded_s(row)) == (12.5, 2.5)
    assert 0.5 <= row["seconds"] <= 0.5 + ended_at - ready_at[0]
    write_wav(tmp_path / "in" / "new.wav", noise(5.0, seed=2))
    plan = plan_corpus(config)
    told = estimate_run_seconds(plan, config)
    assert told == pytest.approx(plan.seconds_to_decode * row["seconds"] / 2.5)
    write_wav(tmp_path / "in" / "new.wav", noise(0.01, seed=2))
    index_corpus(config, stages=slow_start)  # a run that encodes nothing tells nothing of speed
    assert estimate_run_seconds(plan, config) == told


def test_a_cluster_that_cannot_be_counted_just_now_stops_no_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(config: EncodeConfig) -> Any:
        raise UsageError("encode.device is gpu, and the cluster has no GPU")  # its only node with some is gone

    workers = pipeline.run.driver.Workers(in_place(WideEncoder()), count)
    monkeypatch.setattr(pipeline.run.driver, "workers_on_ray", lambda: workers)
    monkeypatch.setattr(pipeline.run.driver, "_check_before_creating", lambda config, workers: None)
    progress = index_corpus(configure(corpus, tmp_path / "index"))
    assert progress.n_indexed
    assert progress.n_done == progress.n_files


def test_a_run_says_what_it_waits_for(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker yet; then one that is silent for long; then its receipts."""
    monkeypatch.setattr(pipeline.run.driver, "COUNT_EVERY_S", 0.0)
    monkeypatch.setattr(pipeline.run.driver, "SILENT_S", 0.0)
    there = {"decode": 1.0, "encode": 0.0, "write": 1.0}
    heard: list[str] = []
    step = {name: threading.Event() for name in ("alone", "silent", "working")}

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        assert step["alone"].wait(30)
        there["encode"] = 1.0
        for receipt in in_place(WideEncoder())(batches, config, frames_schema):
            yield receipt
            assert step["silent"].wait(30)

    def watch(progress: Progress) -> None:
        heard.append(progress.stage)
        if progress.stage == "waiting for a node with a GPU":
            step["alone"].set()
        if progress.stage == "encoding, nothing finished for 0 min":
            step["silent"].set()

    config = configure(corpus, tmp_path / "index", encode={"device": "cuda"}, store={"checkpoint_s": 0.1})
    index_corpus(config, watch, stages=Workers(stages, lambda config: there))
    told = list(dict.fromkeys(heard))
    wanted = ["starting workers", "waiting for a node with a GPU", "encoding", "encoding, nothing finished for 0 min"]
    assert [stage for stage in told if stage in wanted] == wanted


def test_failures_count_over_the_corpus_whichever_run_saw_them(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, tmp_path / "index")
    first = index_corpus(config, stages=in_place(WideEncoder()))
    assert (first.n_failed, first.n_failed_before, first.failed_fraction) == (1, 0, 1 / 9)
    (corpus / "broken2.wav").write_text("not a sound either")
    second = index_corpus(config, stages=in_place(WideEncoder()))
    assert (second.n_failed, second.n_failed_before, second.failed_fraction) == (1, 1, 2 / 10)


def test_nothing_is_written_for_a_model_that_does_not_load_exactly(corpus: Path, tmp_path: Path) -> None:
    model = make_pe_audio(tmp_path / "model")
    edit_weights(model, lambda state: state.pop("audio_encoder.norm.weight"))
    with pytest.raises(ModelError, match="does not load exactly"):
        index_corpus(configure(corpus, tmp_path / "index", encode={"clip_model": str(model)}), stages=None)
    assert not (tmp_path / "index").exists()


def test_an_index_among_its_sources_is_not_indexed(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, corpus / "index", corpus={"extensions": ["*"]})
    assert index_corpus(config, stages=in_place(WideEncoder())).n_files == 9
    again = index_corpus(config, stages=in_place(WideEncoder()))
    assert (again.n_files, again.n_unchanged) == (9, 9)


def test_a_run_that_fails_stops_its_workers(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, tmp_path / "index")
    closed = threading.Event()

    def endless(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        try:
            receipts = list(in_place(WideEncoder())(batches, config, frames_schema))
            yield receipts[0]
            while True:
                yield {**receipts[0], "batch_id": uuid.uuid4().hex}
        finally:
            closed.set()

    def fail(progress: Progress) -> None:
        if progress.audio_s:
            raise EarshotError("the terminal is gone")

    with pytest.raises(EarshotError, match="the terminal is gone"):
        index_corpus(config, fail, stages=endless)
    assert closed.is_set()
    assert not list((tmp_path / "index").glob("claim-*"))


def test_a_run_that_has_lost_its_index_stops_at_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the workers are busy, another run takes its lease over."""
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


@pytest.mark.parametrize("checkpoint_rows", [1, 10_000])
def test_a_disk_that_goes_while_files_are_encoded_anew_costs_no_rows(
    corpus: Path, tmp_path: Path, checkpoint_rows: int
) -> None:
    (corpus / "broken.wav").unlink()
    config = configure(corpus, tmp_path / "index", store={"checkpoint_rows": checkpoint_rows})
    index_corpus(config, stages=in_place(WideEncoder()))
    before = everything(config.into)
    away = tmp_path / "away"

    def unmount(number: int) -> None:
        if number == 1:
            corpus.rename(away)
            corpus.mkdir()

    progress = index_corpus(config, stages=in_place(WideEncoder(), unmount), request=RunRequest(full=True))
    assert everything(config.into) == before
    assert (progress.n_files, progress.n_done) == (8, 8)
    assert progress.n_indexed > 0
    [note] = progress.notes
    assert f"{progress.n_unchanged} files of the index cannot be read now, their rows stay" in note
    corpus.rmdir()
    away.rename(corpus)
    assert index_corpus(config, stages=in_place(WideEncoder())).n_unchanged == 8
    assert verify_index(config.into) == []


def test_a_file_that_changed_and_cannot_be_read_is_a_failure(corpus: Path, tmp_path: Path) -> None:
    """What the index has of it is known to be of other bytes."""
    config = configure(corpus, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    write_wav(corpus / "3.wav", noise(4.2, seed=77))
    progress = index_corpus(config, stages=in_place(WideEncoder(), lambda number: (corpus / "3.wav").unlink()))
    assert dict(progress.reasons) == {"vanished": 1}
    assert verify_index(config.into) == []
