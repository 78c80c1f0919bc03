"""What a run tells of itself, without Ray: rates, estimates, how it ended, and that it is never seen half-written."""

import io
import json
import math
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from jobs.shared.display import Display, describe, show_failures
from pipeline.config import Config
from pipeline.errors import EarshotError
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.run import record as records
from pipeline.run.driver import index_corpus
from pipeline.run.record import (
    METRICS,
    STAGES,
    Keeper,
    Progress,
    State,
    Throughput,
    find_shortfall,
    list_measures,
    make_record,
    read_record,
    write_record,
)
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.runs import WideEncoder, in_place

ONE_EACH = dict.fromkeys(STAGES, 1.0)


def receipt(audio_s: float, decode_s: float = 0.0, encode_s: float = 0.0, write_s: float = 0.0) -> dict[str, float]:
    return {"audio_s": audio_s, "decode_s": decode_s, "encode_s": encode_s, "write_s": write_s}


def halfway() -> Progress:
    """100 s of 400 s are encoded, by one decoder and two encoders, at ten times real time."""
    progress = Progress(index="/ix", run_id="a" * 32, n_files=40, n_indexed=8, n_unchanged=1, n_failed=1)
    progress.reasons["not_audio"] += 1
    progress.planned_s = 400.0
    workers = {"decode": 1.0, "encode": 2.0, "write": 10.0}
    for k, now in enumerate((5.0, 7.5, 10.0, 12.5, 15.0)):
        progress.throughput.add(receipt(20.0 if k else 100.0, 1.0, 4.5, 0.1), now, workers)
    progress.throughput.add(receipt(20.0), 15.0, workers)
    progress.audio_s = 100.0
    return progress


def test_rates_count_from_the_first_receipt_on() -> None:
    record = make_record(halfway(), now=15.0)
    assert record.hours_per_hour == pytest.approx(10.0)  # 100 s in 10 s: the first 100 s began before
    assert record.eta_s == pytest.approx(30.0)
    assert (record.hours_done, record.hours_all) == (100 / 3600, 400 / 3600)
    assert {stage: each.busy for stage, each in record.stages.items()} == pytest.approx(
        {"decode": 4 / 10, "encode": 18 / 20, "write": 0.4 / 100}
    )
    assert record.bottleneck == "encode"
    assert record.stages["decode"].speed == pytest.approx(100 / 5)
    assert record.stages["encode"].busy_s == 22.5
    assert record.failures == {"not_audio": 1}
    assert (record.n_files, record.n_done, record.n_indexed, record.n_unchanged, record.n_failed) == (40, 10, 8, 1, 1)


def test_the_busiest_workers_are_the_bottleneck_not_the_most_seconds() -> None:
    throughput = Throughput()
    for now in (0.0, 10.0):
        throughput.add(receipt(1.0, decode_s=9.0, encode_s=30.0), now, {"decode": 1.0, "encode": 8.0, "write": 1.0})
    record = make_record(Progress(throughput=throughput), now=10.0)
    assert record.bottleneck == "decode"
    assert record.stages["write"].busy is None


def bursts(throughput: Throughput, seconds: Iterable[float], *, workers: float = 1.0, n_receipts: int = 32) -> None:
    """Blocks of 320 s of audio that one encoder makes at 32 times real time, each as many receipts, moments apart."""
    for at in seconds:
        for k in range(n_receipts):
            each = receipt(320.0 / n_receipts, 1.0 / n_receipts, 10.0 / n_receipts)
            throughput.add(each, at + k / 1000, dict.fromkeys(STAGES, workers))


def test_receipts_of_one_block_tell_no_rate_among_themselves() -> None:
    progress = Progress(planned_s=1e6)
    bursts(progress.throughput, [100.0])
    assert make_record(progress, now=100.1).hours_per_hour == 0.0
    assert make_record(progress, now=100.1).bottleneck is None
    for n, at in enumerate((110.0, 120.0, 130.0)):
        bursts(progress.throughput, [at])
        progress.audio_s = 320.0 * (n + 2)
        record = make_record(progress, now=at + 5)  # half-way to the next block
        assert record.hours_per_hour == pytest.approx(32.0, rel=0.01)
        assert record.bottleneck == "encode"
        assert record.stages["encode"].busy == pytest.approx(1.0, rel=0.01)
        assert record.stages["decode"].busy == pytest.approx(0.1, rel=0.01)
    assert progress.speed == pytest.approx(32.0, rel=0.01)


def test_a_run_that_stands_still_says_so() -> None:
    progress = Progress(planned_s=1e6)
    bursts(progress.throughput, np.arange(0.0, 1000.0, 10.0))
    speeds = [make_record(progress, now=990.0 + late).hours_per_hour for late in (0, 10, 30, 100, 400, 4000)]
    assert speeds[0] == pytest.approx(32.0, rel=0.01) == speeds[1]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[-1] < 0.1
    stalled, before = make_record(progress, now=5000.0), make_record(progress, now=990.0)
    assert stalled.eta_s is not None
    assert before.eta_s is not None
    assert stalled.eta_s > 100 * before.eta_s
    ended = make_record(progress, "stopped", now=5000.0)
    assert ended.hours_per_hour == pytest.approx(32.0, rel=0.01)
    assert ended.stages["encode"].busy == pytest.approx(1.0, rel=0.01)
    assert ended.bottleneck == "encode"


def test_blocks_that_take_longer_than_what_counts_as_lately_have_a_speed_all_the_same() -> None:
    progress = Progress(planned_s=1e6)
    bursts(progress.throughput, np.arange(0.0, 4000.0, 400.0))
    for late in (0.0, 200.0, 350.0, 400.0):
        assert make_record(progress, now=3600.0 + late).hours_per_hour == pytest.approx(0.8, rel=0.01)


def test_the_time_left_is_infinite_while_nothing_is_known_of_it() -> None:
    def told(progress: Progress, state: State = "running") -> float:
        return {name: value for name, _, value in list_measures(make_record(progress, state))}["earshot_eta_s"]

    assert told(Progress(stage="planning")) == math.inf == told(Progress(planned_s=100.0))
    assert told(Progress(planned_s=100.0, audio_s=100.0, finished_s=100.0, finished_planned_s=100.0)) == 0.0
    assert told(Progress(planned_s=100.0), "stopped") == 0.0


def test_a_run_that_grows_says_so_within_minutes() -> None:
    progress = Progress(planned_s=1e6)
    bursts(progress.throughput, np.arange(0.0, 3600.0, 10.0))
    bursts(progress.throughput, np.arange(3600.0, 3900.0, 2.0), workers=5.0)
    record = make_record(progress, now=3899.0)
    assert record.hours_per_hour == pytest.approx(160.0, rel=0.05)
    assert record.stages["encode"].busy == pytest.approx(1.0, rel=0.05)
    assert progress.speed < 50


def test_the_bottleneck_is_told_where_all_have_more_work_than_time() -> None:
    throughput = Throughput()
    for now in (0.0, 10.0):
        throughput.add(receipt(1.0, decode_s=11.0, encode_s=30.0), now, ONE_EACH)
    record = make_record(Progress(throughput=throughput), now=10.0)
    assert (record.stages["decode"].busy, record.stages["encode"].busy) == (1.0, 1.0)
    assert record.bottleneck == "encode"


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_terminal_shows_all_of_it_at_any_width(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, _environ={})
    progress = halfway()
    now = time.monotonic()
    progress.throughput = Throughput()
    for late_s in (30.0, 20.0, 10.0, 0.0):
        progress.throughput.add(receipt(100.0, 2.0, 9.5, 0.1), now - late_s, ONE_EACH)
    progress.stage = "encoding"
    with Display(json=False, console=console) as display:
        display._said_at = -math.inf
        display.update(progress)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).split("\n")
    assert all(len(line.rstrip()) <= width for line in shown)
    text = " ".join(" ".join(shown).split())
    for part in (
        "encoding",
        "10/40",
        "━━━━",
        "100 s of about 0.11 h of audio, 10x real time, less than a minute left",
        "decode 12x, encode 3x (busiest: 95%), write 250x",
        "failures: 1 not_audio",
    ):
        assert part in text, part


def test_nothing_is_claimed_before_it_is_known() -> None:
    progress = Progress(n_files=3, planned_s=60.0)
    for n_receipts in range(2):
        if n_receipts:
            progress.throughput.add(receipt(10.0, 1.0, 1.0, 1.0), 3.0, ONE_EACH)  # one receipt tells no rate yet
        record = make_record(progress, now=3.0)
        assert (record.hours_per_hour, record.eta_s, record.bottleneck) == (0.0, None, None)
    progress.throughput.add(receipt(10.0, 1.0, 1.0, 1.0), 5.0, ONE_EACH)
    progress.audio_s = 61.0  # more than the plan thought
    record = make_record(progress, now=5.0)
    assert record.hours_per_hour == 5.0
    assert record.eta_s is None
    assert record.hours_all == record.hours_done
    assert make_record(Progress(planned_s=50.0), "done").hours_all == 0.0


def test_what_is_left_follows_from_what_was_found() -> None:
    progress = halfway()
    progress.finished_s, progress.finished_planned_s = 50.0, 100.0  # half as long as the plan thought
    record = make_record(progress, now=15.0)
    assert record.hours_all == pytest.approx((50 + 300 / 2) / 3600)
    assert record.eta_s == pytest.approx(10.0)
    progress.finished_s = 0.0  # nothing but failures: they tell nothing of the others
    assert make_record(progress, now=15.0).eta_s == pytest.approx(20.0)
    progress.finished_planned_s = 500.0  # files grew since
    assert make_record(progress).hours_all == 100 / 3600


def test_the_most_frequent_failures_come_first() -> None:
    progress = Progress()
    progress.reasons.update(empty=1, truncated=5, not_audio=2, unreadable=2, too_short=1)
    assert show_failures(make_record(progress), at_most=3) == "5 truncated, 2 not_audio, 2 unreadable, 2 others"
    assert show_failures(make_record(progress)).count(",") == 4


def test_an_error_is_one_line_and_the_job_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_record(Progress()).job is None
    monkeypatch.setenv(records.JOB_VARIABLE, "earshot-ix-1")
    record = make_record(Progress(), "failed", "one\n two s3://me:hunter22@b/")
    assert (record.job, record.error, record.state) == ("earshot-ix-1", "one two s3://***@b/", "failed")


def test_a_line_says_it_all() -> None:
    said = describe(make_record(halfway(), now=15.0))
    assert said == (
        "listing: 10 of 40 files, 100 s of about 0.11 h of audio, 10x real time, less than a minute left,"
        " failures: 1 not_audio; decode 20x, encode 4x (busiest: 90%), write 200x"
    )
    assert describe(make_record(Progress(n_files=2, stage="planning"))) == "planning: 0 of 2 files"


def test_metrics_are_the_record() -> None:
    measures = list_measures(make_record(halfway(), now=15.0))
    assert {name for name, _, _ in measures} == METRICS.keys()
    assert all(tags["index"] == "/ix" and tags["run"] == "a" * 32 for _, tags, _ in measures)
    values = {(name, *sorted(set(tags.values()) - {"/ix", "a" * 32})): value for name, tags, value in measures}
    assert values["earshot_files", "all"] == 40
    assert values["earshot_files", "done"] == 10
    assert values["earshot_eta_s",] == pytest.approx(30.0)
    assert values["earshot_stage_busy", "encode"] == pytest.approx(0.9)
    assert values["earshot_failures", "not_audio"] == 1
    keys: dict[str, set[str]] = {}
    for name, tags, _ in measures:
        assert keys.setdefault(name, set(tags)) == set(tags)  # Ray wants the same tags every time
    names = {name for name, _, _ in list_measures(make_record(Progress()))}
    assert not names & {"earshot_stage_busy", "earshot_stage_speed"}


@pytest.mark.parametrize("where", ["{tmp}", "file://{tmp}", "memory://record-test"])
def test_a_record_is_read_as_it_was_written(where: str, tmp_path: Path) -> None:
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
        {"stages": {"decode": {"busy_s": "x", "speed": None, "busy": None}}},
        {"began": "then"},
    ],
    ids=str,
)
def test_a_record_of_other_types_is_told_in_one_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    write_record(str(tmp_path), make_record(halfway()))
    file = tmp_path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    with pytest.raises(EarshotError, match=r"^[^\n]+run\.json: is no record of a run of this version of Earshot$"):
        read_record(str(tmp_path))


def test_a_record_is_never_seen_half_written(tmp_path: Path) -> None:
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
def test_how_a_run_ended_is_kept(error: BaseException | None, state: str, said: str | None, tmp_path: Path) -> None:
    def end() -> None:
        with Keeper(str(tmp_path), Progress()):
            began = read_record(str(tmp_path))
            assert began is not None
            assert began.state == "running"
            if error is not None:
                raise error

    if error is None:
        end()
    else:
        with pytest.raises(type(error)):
            end()
    record = read_record(str(tmp_path))
    assert record is not None
    assert (record.state, record.error) == (state, said)


def test_a_record_that_cannot_be_written_or_shown_stops_nothing(tmp_path: Path) -> None:
    def publish(record: Any) -> None:
        raise OSError("no metrics today")

    (tmp_path / "file").write_text("in the way")
    with Keeper(str(tmp_path / "file"), Progress(), publish) as keeper:
        keeper.note()
    with Keeper(str(tmp_path), Progress(), publish):
        pass
    assert read_record(str(tmp_path)) is not None


def test_it_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "WRITE_EVERY_S", 0.0)
    progress = Progress()
    with Keeper(str(tmp_path), progress) as keeper:
        for n_files in (5, 6):
            progress.n_files = n_files
            keeper.note()
            record = read_record(str(tmp_path))
            assert record is not None
            assert record.n_files == n_files
        monkeypatch.setattr(records, "WRITE_EVERY_S", 1e9)
        progress.n_files = 7
        keeper.note()
        record = read_record(str(tmp_path))
        assert record is not None
        assert record.n_files == 6


def test_a_run_with_too_many_failures_has_failed(tmp_path: Path) -> None:
    progress = Progress(n_files=4, n_failed=1, n_failed_before=1)
    assert find_shortfall(progress, 0.5) is None
    with Keeper(str(tmp_path), progress, shortfall=lambda: find_shortfall(progress, 0.4)):
        pass
    record = read_record(str(tmp_path))
    assert record is not None
    assert (record.state, record.error) == ("failed", "50.0% of the files failed, run.max_failed_fraction allows 40.0%")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"n_files": 3, "n_failed": 2, "n_failed_before": 1}, "all 3 files failed, so nothing is indexed"),
        ({"n_files": 1, "n_failed_before": 1}, "the only file failed"),
        ({"n_files": 3, "n_failed": 2, "n_unchanged": 1}, None),
        ({"n_files": 3, "n_unchanged": 3}, None),
        ({"n_files": 0, "n_deleted": 3}, None),
    ],
)
def test_a_run_after_which_nothing_is_indexed_has_failed(counts: dict[str, int], said: str | None) -> None:
    found = find_shortfall(Progress(index="/ix", **counts), 1.0)  # type: ignore[arg-type]
    assert (found or "").startswith(said or "")
    assert (found is None) == (said is None)


def test_a_record_of_before_is_read(tmp_path: Path) -> None:
    """Those that were written before they said what was not looked at."""
    write_record(str(tmp_path), make_record(halfway()))
    values = json.loads((tmp_path / "run.json").read_text())
    del values["not_looked_at"]
    (tmp_path / "run.json").write_text(json.dumps(values))
    record = read_record(str(tmp_path))
    assert record is not None
    assert record.not_looked_at == {}


# --- kept by a run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path) -> KnownCorpus:
    known = KnownCorpus(tmp_path, store={"checkpoint_rows": 100_000})
    for k in range(6):
        known.put(f"{k}.wav", k)
    known.put("broken.wav", 7)
    return known


def test_a_run_keeps_its_record(known: KnownCorpus) -> None:
    progress = index_corpus(known.config, stages=in_place(WideEncoder()))
    record = read_record(known.config.into)
    assert record is not None
    assert (record.state, record.doing, record.error) == ("done", "done", None)
    assert (record.n_files, record.n_indexed, record.n_failed) == (7, 6, 1)
    assert record.hours_done == record.hours_all == progress.audio_s / 3600
    assert (record.index, record.run_id) == (known.config.into, progress.run_id)
    again = index_corpus(known.config, stages=in_place(WideEncoder()))
    record = read_record(known.config.into)
    assert record is not None
    assert (record.run_id, record.n_unchanged, record.failures) == (again.run_id, 7, {})
    assert live(known.config.into) == known.expected()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("during_commit", [False, True])
def test_what_is_complete_is_committed_when_a_run_is_stopped(
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
    record = read_record(config.into)
    assert record is not None
    assert 0 < published < 7
    assert (record.state, record.n_done) == ("stopped", published)
    index_corpus(known.config, stages=in_place(WideEncoder()))
    assert live(config.into) == known.expected()
    assert verify_index(config.into) == []


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_record_that_is_none_is_named_by_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    for path in (str(tmp_path), f"{tmp_path}/", f"{tmp_path}//"):
        with pytest.raises(EarshotError, match=rf"^{tmp_path}/run\.json: is no record"):
            read_record(path)
