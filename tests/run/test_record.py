"""The record of a run, without Ray: written whole, read again, and kept however the run ends."""

import dataclasses
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from pipeline.config import Config
from pipeline.errors import EarshotError
from pipeline.index.lease_files import STALE_S
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.processes import find_start
from pipeline.run import record as records
from pipeline.run.driver import index_corpus
from pipeline.run.progress import Progress, find_shortfall
from pipeline.run.ray_start import JOB_VARIABLE
from pipeline.run.record import SILENT_S, Keeper, Record, judge, make_record, read_record, write_record
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.processes import ROOT, run_python
from tests.helpers.progress import halfway, record_of
from tests.helpers.runs import WideEncoder, in_place


def test_record_names_the_job_and_its_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_record(Progress()).job is None
    monkeypatch.setenv(JOB_VARIABLE, "earshot-ix-1")
    record = make_record(Progress(), "failed", "one\n two s3://me:hunter22@b/")
    assert (record.job, record.error, record.state) == ("earshot-ix-1", "one two s3://***@b/", "failed")


@pytest.mark.parametrize("where", ["{tmp}", "file://{tmp}", "memory://record-test"])
def test_record_is_read_as_it_was_written(where: str, tmp_path: Path) -> None:
    path = where.format(tmp=tmp_path)
    assert read_record(path) is None
    for error in (None, "no ü"):
        record = make_record(halfway(), "failed" if error else "running", error)
        write_record(path, record)
        assert read_record(path) == record
    if "memory" not in where:
        assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
        (tmp_path / "run.json").write_text(json.dumps({"stages": {}}))
        with pytest.raises(EarshotError, match=r"run\.json: is no record of a run of this version"):
            read_record(path)
    else:
        fsspec.filesystem("memory").rm("/record-test", recursive=True)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"updated_at": at} for at in ("now", 7, None, "")),
        *({"n_files": wrong} for wrong in ("7", 7.5, None, True)),
        *({"hours_all": wrong} for wrong in ("7", None, float("nan"), float("inf"))),
        {"state": "asleep"},
        {"state": []},
        {"pid": "7"},
        {"error": 7},
        {"eta_s": "soon"},
        {"failures": []},
        {"failures": {"empty": "two"}},
        {"not_looked_at": 7},
        {"notes": ["a", 7]},
        {"stages": {"decode": {"busy_s": "x", "speed": None, "busy": None}}},
        {"began": "then"},
    ],
    ids=str,
)
def test_record_with_wrong_types_is_refused_in_one_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    write_record(str(tmp_path), make_record(halfway()))
    file = tmp_path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    with pytest.raises(EarshotError, match=r"^[^\n]+run\.json: is no record of a run of this version of Earshot$"):
        read_record(str(tmp_path))


def test_readers_never_see_half_a_record(tmp_path: Path) -> None:
    stop = threading.Event()
    write_record(str(tmp_path), make_record(halfway()))

    def write() -> None:
        for length in range(1_000_000):
            write_record(str(tmp_path), make_record(halfway(), "failed", "x" * (length % 7) * 5_000))
            if stop.is_set():
                break

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(read_record(str(tmp_path)) is not None for _ in range(300))
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (None, "done", None),
        (KeyboardInterrupt(), "stopped", None),
        (EarshotError("the disk is full"), "failed", "the disk is full"),
        (ValueError(), "failed", "ValueError"),
    ],
)
def test_record_keeps_how_a_run_ended(
    error: BaseException | None, state: str, said: str | None, tmp_path: Path
) -> None:
    def end() -> None:
        with Keeper(str(tmp_path), Progress()):
            began = record_of(tmp_path)
            assert began.state == "running"
            if error is not None:
                raise error

    if error is None:
        end()
    else:
        with pytest.raises(type(error)):
            end()
    record = record_of(tmp_path)
    assert (record.state, record.error) == (state, said)


def test_run_goes_on_where_its_record_cannot_be_written_or_published(tmp_path: Path) -> None:
    def publish(record: Any) -> None:
        raise OSError("no metrics today")

    (tmp_path / "file").write_text("in the way")
    with Keeper(str(tmp_path / "file"), Progress(), publish) as keeper:
        keeper.note()
    with Keeper(str(tmp_path), Progress(), publish):
        pass
    assert read_record(str(tmp_path)) is not None


def test_record_is_written_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "WRITE_EVERY_S", 0.0)
    progress = Progress()
    with Keeper(str(tmp_path), progress) as keeper:
        for n_files in (5, 6):
            progress.n_files = n_files
            keeper.note()
            record = record_of(tmp_path)
            assert record.n_files == n_files
        monkeypatch.setattr(records, "WRITE_EVERY_S", 1e9)
        progress.n_files = 7
        keeper.note()
        record = record_of(tmp_path)
        assert record.n_files == 6


def test_run_with_too_many_failures_has_failed(tmp_path: Path) -> None:
    progress = Progress(n_files=4, n_failed=1, n_failed_before=1)
    assert find_shortfall(progress, 0.5) is None
    with Keeper(str(tmp_path), progress, shortfall=lambda: find_shortfall(progress, 0.4)):
        pass
    record = record_of(tmp_path)
    assert (record.state, record.error) == ("failed", "50.0% of the files failed, run.max_failed_fraction allows 40.0%")


def test_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """One from before ``not_looked_at`` and ``notes``."""
    write_record(str(tmp_path), make_record(halfway()))
    values = json.loads((tmp_path / "run.json").read_text())
    del values["not_looked_at"], values["notes"]
    (tmp_path / "run.json").write_text(json.dumps(values))
    record = record_of(tmp_path)
    assert record.not_looked_at == {}
    assert record.notes == ()


@pytest.fixture
def known(tmp_path: Path) -> KnownCorpus:
    known = KnownCorpus(tmp_path, store={"checkpoint_rows": 100_000})
    for k in range(6):
        known.put(f"{k}.wav", k)
    known.put("broken.wav", 7)
    return known


def test_run_keeps_its_record(known: KnownCorpus) -> None:
    progress = index_corpus(known.config, stages=in_place(WideEncoder()))
    record = record_of(known.config.into)
    assert (record.state, record.doing, record.error) == ("done", "done", None)
    assert (record.n_files, record.n_indexed, record.n_failed) == (7, 6, 1)
    assert record.hours_done == record.hours_all == progress.audio_s / 3600
    assert (record.index, record.run_id) == (known.config.into, progress.run_id)
    again = index_corpus(known.config, stages=in_place(WideEncoder()))
    record = record_of(known.config.into)
    assert (record.run_id, record.n_unchanged, record.failures) == (again.run_id, 7, {})
    assert live(known.config.into) == known.expected()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("during_commit", [False, True])
def test_stopped_run_commits_its_complete_batches(
    known: KnownCorpus, number: signal.Signals, during_commit: bool
) -> None:
    """The signal comes while batches wait for a checkpoint, or in the middle of one."""
    config = known.config
    if during_commit:
        config = config.model_copy(update={"store": config.store.model_copy(update={"checkpoint_rows": 1})})
    sent_s, arrived = 0.0, threading.Event()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        for count, row in enumerate(in_place(WideEncoder())(batches, config, frames_schema)):
            if count == 3 and not during_commit:
                assert arrived.wait(60)  # all that has been sent has been taken
                signal.raise_signal(number)
            nonlocal sent_s
            sent_s += row["audio_s"]
            yield row

    def watch(progress: Progress) -> None:
        if progress.n_done and progress.audio_s >= sent_s:
            arrived.set()

    def strike(step: str) -> None:
        if during_commit and step == "append frames":
            signal.raise_signal(number)

    former = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            index_corpus(config, watch, stages=stages, failpoint=strike)
    finally:
        signal.signal(number, former)
    published = open_published(config.into, "files").count_rows()
    record = record_of(config.into)
    assert 0 < published < 7
    assert (record.state, record.n_done) == ("stopped", published)
    index_corpus(known.config, stages=in_place(WideEncoder()))
    assert live(config.into) == known.expected()
    assert verify_index(config.into) == []


@pytest.mark.parametrize("text", ["{", "[]"])
def test_error_names_the_path_of_a_file_that_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    for path in (str(tmp_path), f"{tmp_path}/", f"{tmp_path}//"):
        with pytest.raises(EarshotError, match=rf"^{tmp_path}/run\.json: is no record"):
            read_record(path)


# --- whether a run that did not write its end is alive ----------------------------------------------------------------


def make(age_s: float = 0.0, **values: object) -> Record:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
    record = dataclasses.replace(make_record(Progress(index="/ix")), updated_at=at.isoformat())
    return dataclasses.replace(record, pid=7, processes="this machine", began=100, **values)  # type: ignore[arg-type]


def find(record: Record, *, here: str = "this machine", started: int | None = None, held: bool = False) -> str:
    return judge(
        record, "/ix", here=here, start_of=lambda pid: started if pid == 7 else 1, held=lambda path: held
    ).state


def test_process_decides_on_the_machine_of_the_run() -> None:
    assert find(make(), started=100) == "running"
    assert find(make(age_s=10 * SILENT_S), started=100) == "running"  # one long step
    assert find(make()) == "died"
    assert find(make(), held=True) == "died"  # its lease stays for a while
    assert find(make(), started=101) == "died"  # another process has its number


def test_record_and_lease_decide_elsewhere() -> None:
    assert find(make(), here="another") == "running"
    assert find(make(age_s=2 * SILENT_S), here="another", held=True) == "running"
    assert find(make(age_s=2 * SILENT_S), here="another") == "died"
    assert SILENT_S >= STALE_S  # so a lease that is still held has been renewed


@pytest.mark.parametrize("state", ["done", "failed", "stopped"])
def test_run_that_has_ended_is_not_dead(state: str) -> None:
    assert find(make(state=state)) == state


def test_record_without_processes_is_judged_by_its_age_and_lease(tmp_path: Path) -> None:
    write_record(str(tmp_path), make(age_s=2 * SILENT_S))
    values = json.loads((tmp_path / "run.json").read_text())
    del values["processes"], values["began"]
    (tmp_path / "run.json").write_text(json.dumps(values))
    record = record_of(tmp_path)
    assert find(record) == "died"
    assert find(record, held=True) == "running"


RUN = """
import sys, time
from pipeline.index.lease import Lease
from pipeline.run.progress import Progress
from pipeline.run.record import Keeper
with Lease(sys.argv[1], "a" * 32), Keeper(sys.argv[1], Progress(index=sys.argv[1], n_files=9, stage="encoding")):
    print("running", flush=True)
    time.sleep(600)
"""


def status(*arguments: str) -> str:
    return run_python("-m", "jobs.main", "status", *arguments).stdout


def test_status_shows_whether_a_run_works_or_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        record = record_of(tmp_path)
        assert (record.pid, record.began) == (process.pid, find_start(process.pid))
        assert f"{tmp_path}: running\n" in status(str(tmp_path))
        os.kill(process.pid, signal.SIGKILL)  # it stays a zombie for now
        while find_start(process.pid) is not None:
            pass
        told = status(str(tmp_path))
        assert f"{tmp_path}: died at {record.updated_at[:10]}" in told
        assert "run again to go on" in told
        assert "was doing" in told
        [values] = map(json.loads, status(str(tmp_path), "--json").splitlines())
        assert (values["state"], values["record"]["state"]) == ("died", "died")


def test_record_from_the_future_is_doubted_like_an_old_one() -> None:
    assert find(make(age_s=-2 * SILENT_S), here="another") == "died"
    assert find(make(age_s=-2 * SILENT_S), here="another", held=True) == "running"
