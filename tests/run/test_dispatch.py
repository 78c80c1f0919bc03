"""Encoding without Ray: lost batches, silent workers, contradicting receipts, and files that cannot be read."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config import Config, EncodeConfig
from pipeline.errors import EarshotError, UsageError
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.planning.request import RunRequest
from pipeline.run import dispatch
from pipeline.run.dispatch import Workers
from pipeline.run.driver import index_corpus
from pipeline.run.progress import Progress
from tests.helpers.contents import live
from tests.helpers.fakes import noise, write_wav
from tests.helpers.runs import WideEncoder, configure, in_place
from tests.helpers.runs import corpus as corpus


def test_batch_with_contradicting_receipts_is_not_published(corpus: Path, tmp_path: Path) -> None:
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


def test_file_that_kills_its_worker_fails_alone(corpus: Path, tmp_path: Path) -> None:
    rounds: list[int] = []

    def deadly(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        """Batches with file 2 are lost with their worker, after a part of their receipts."""
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
    assert live(config.into) == live(whole.into)


def test_run_ends_and_blames_no_file_if_all_workers_die(corpus: Path, tmp_path: Path) -> None:
    config = configure(corpus, tmp_path / "index", run={"batch_s": 1.0})
    with pytest.raises(EarshotError, match="no worker stays alive"):
        index_corpus(config, stages=lambda batches, config, frames_schema: iter(()))
    assert open_published(config.into, "files").count_rows() == 0


@pytest.mark.parametrize(("n_killers", "n_good"), [(5, 5), (5, 0), (20, 1), (16, 0)])
@pytest.mark.parametrize("batch_s", [0.1, 100.0])
def test_every_file_that_kills_its_worker_is_a_failure(
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


def test_run_goes_on_where_the_cluster_cannot_be_counted(corpus: Path, tmp_path: Path) -> None:
    def count(config: EncodeConfig) -> Any:
        raise UsageError("encode.device is gpu, and the cluster has no GPU")  # its only node with a GPU has left

    progress = index_corpus(configure(corpus, tmp_path / "index"), stages=Workers(in_place(WideEncoder()), count))
    assert progress.n_indexed
    assert progress.n_done == progress.n_files


def test_progress_says_what_a_run_waits_for(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no worker, then a worker that is silent for long, then its receipts come."""
    monkeypatch.setattr(dispatch, "COUNT_EVERY_S", 0.0)
    monkeypatch.setattr(dispatch, "SILENT_S", 0.0)
    there = {"decode": 1.0, "encode": 0.0, "write": 1.0}
    heard: list[str] = []
    step = {name: threading.Event() for name in ("alone", "silent", "working")}

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        assert step["alone"].wait(120)
        there["encode"] = 1.0
        for receipt in in_place(WideEncoder())(batches, config, frames_schema):
            yield receipt
            assert step["silent"].wait(120)

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


def test_run_that_fails_stops_its_workers(corpus: Path, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("checkpoint_rows", [1, 10_000])
def test_disk_unmounted_during_a_full_run_costs_no_rows(corpus: Path, tmp_path: Path, checkpoint_rows: int) -> None:
    (corpus / "broken.wav").unlink()
    config = configure(corpus, tmp_path / "index", store={"checkpoint_rows": checkpoint_rows})
    index_corpus(config, stages=in_place(WideEncoder()))
    before = live(config.into)
    away = tmp_path / "away"

    def unmount(number: int) -> None:
        if number == 1:
            corpus.rename(away)
            corpus.mkdir()

    progress = index_corpus(config, stages=in_place(WideEncoder(), unmount), request=RunRequest(full=True))
    assert live(config.into) == before
    assert (progress.n_files, progress.n_done) == (8, 8)
    assert progress.n_indexed > 0
    [note] = progress.notes
    assert f"{progress.n_unchanged} files of the index cannot be read now, their rows stay" in note
    corpus.rmdir()
    away.rename(corpus)
    assert index_corpus(config, stages=in_place(WideEncoder())).n_unchanged == 8
    assert verify_index(config.into) == []


def test_changed_file_that_cannot_be_read_is_a_failure(corpus: Path, tmp_path: Path) -> None:
    """Its rows in the index are of other bytes."""
    config = configure(corpus, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    write_wav(corpus / "3.wav", noise(4.2, seed=77))
    progress = index_corpus(config, stages=in_place(WideEncoder(), lambda number: (corpus / "3.wav").unlink()))
    assert dict(progress.reasons) == {"vanished": 1}
    assert verify_index(config.into) == []
