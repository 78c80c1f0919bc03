"""Counting of a run: throughput, bottleneck, estimate of the end, and what counts as failed."""

from collections.abc import Iterable

import numpy as np
import pytest

from pipeline.run.progress import STAGES, Progress, Throughput, find_shortfall
from pipeline.run.record import make_record
from tests.helpers.progress import ONE_EACH, halfway, receipt


def test_rates_begin_at_the_first_receipt() -> None:
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


def test_bottleneck_is_the_stage_with_the_busiest_workers_not_the_most_seconds() -> None:
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


def test_receipts_of_one_burst_tell_no_rate() -> None:
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
    assert progress.throughput.speed == pytest.approx(32.0, rel=0.01)


def test_speed_falls_while_no_receipt_comes() -> None:
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


def test_blocks_that_take_longer_than_the_window_still_have_a_speed() -> None:
    progress = Progress(planned_s=1e6)
    bursts(progress.throughput, np.arange(0.0, 4000.0, 400.0))
    for late in (0.0, 200.0, 350.0, 400.0):
        assert make_record(progress, now=3600.0 + late).hours_per_hour == pytest.approx(0.8, rel=0.01)


def test_speed_follows_new_workers_within_minutes() -> None:
    progress = Progress(planned_s=1e6)
    bursts(progress.throughput, np.arange(0.0, 3600.0, 10.0))
    bursts(progress.throughput, np.arange(3600.0, 3900.0, 2.0), workers=5.0)
    record = make_record(progress, now=3899.0)
    assert record.hours_per_hour == pytest.approx(160.0, rel=0.05)
    assert record.stages["encode"].busy == pytest.approx(1.0, rel=0.05)
    assert progress.throughput.speed < 50


def test_bottleneck_is_found_among_stages_with_more_work_than_time() -> None:
    throughput = Throughput()
    for now in (0.0, 10.0):
        throughput.add(receipt(1.0, decode_s=11.0, encode_s=30.0), now, ONE_EACH)
    record = make_record(Progress(throughput=throughput), now=10.0)
    assert (record.stages["decode"].busy, record.stages["encode"].busy) == (1.0, 1.0)
    assert record.bottleneck == "encode"


def test_speed_and_bottleneck_are_unknown_before_the_second_burst() -> None:
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


def test_estimate_of_the_rest_follows_the_finished_files() -> None:
    progress = halfway()
    progress.finished_s, progress.finished_planned_s = 50.0, 100.0  # half as long as the plan thought
    record = make_record(progress, now=15.0)
    assert record.hours_all == pytest.approx((50 + 300 / 2) / 3600)
    assert record.eta_s == pytest.approx(10.0)
    progress.finished_s = 0.0  # nothing but failures: they tell nothing of the others
    assert make_record(progress, now=15.0).eta_s == pytest.approx(20.0)
    progress.finished_planned_s = 500.0  # files grew since
    assert make_record(progress).hours_all == 100 / 3600


def test_estimate_of_the_rest_of_what_is_examined_follows_the_part_that_was_encoded() -> None:
    """Audio that is examined is only encoded if it has changed, and then it is not among that of the plan."""
    progress = Progress(planned_s=100.0, examined_s=1_000.0)
    assert progress.expected_s == 1_100.0  # nothing is known yet
    progress.finished_examined_s = 200.0
    assert progress.expected_s == 100.0
    progress.audio_s = progress.found_s = 50.0
    assert progress.expected_s == pytest.approx(100.0 + 50.0 + 800.0 / 4)
    progress.audio_s, progress.finished_s, progress.finished_planned_s = 130.0, 80.0, 50.0  # far longer than estimated
    assert progress.expected_s == pytest.approx(160.0 + 50.0 + 800.0 / 4)
    progress.finished_s, progress.finished_planned_s = 160.0, 100.0
    progress.finished_examined_s = 1_000.0
    progress.audio_s = 210.0
    assert progress.expected_s == 210.0
    assert make_record(progress).hours_all == make_record(progress).hours_done


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
def test_run_after_which_nothing_is_indexed_has_failed(counts: dict[str, int], said: str | None) -> None:
    found = find_shortfall(Progress(index="/ix", **counts), 1.0)  # type: ignore[arg-type]
    assert (found or "").startswith(said or "")
    assert (found is None) == (said is None)
