"""Progress in a terminal and in a log."""

import io
import math
import re
import time

import pytest
from rich.console import Console

from jobs.shared.display import Display, _measure_progress, describe, show_failures
from pipeline.config import make_config
from pipeline.planning.plan import Plan
from pipeline.run.progress import Progress, Throughput
from pipeline.run.record import make_record
from tests.helpers.progress import ONE_EACH, halfway, receipt


@pytest.mark.parametrize("width", [80, 100, 200])
def test_terminal_shows_everything_at_any_width(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, _environ={})
    progress = halfway()
    now = time.monotonic()
    progress.throughput = Throughput()
    for late_s in (30.0, 20.0, 10.0, 0.0):
        progress.throughput.add(receipt(100.0, 2.0, 9.5, 0.1), now - late_s, ONE_EACH)
    progress.stage = "encoding"
    with Display(json=False, console=console) as display:
        display._shown_at = -math.inf
        display.update(progress)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).split("\n")
    assert all(len(line.rstrip()) <= width for line in shown)
    text = " ".join(" ".join(shown).split())
    for part in (
        "encoding",
        "25% 10 of 40 files",
        "━━━━",
        "100 s of about 6.7 min of audio, 10x real time, less than a minute left",
        "decode 12x, encode 3x (busiest: 95%), write 250x",
        "failures: 1 not_audio",
    ):
        assert part in text, part


def test_most_frequent_failures_come_first() -> None:
    progress = Progress()
    progress.reasons.update(empty=1, truncated=5, not_audio=2, unreadable=2, too_short=1)
    assert show_failures(make_record(progress), at_most=3) == "5 truncated, 2 not_audio, 2 unreadable, 2 others"
    assert show_failures(make_record(progress)).count(",") == 4
    assert show_failures(make_record(progress), at_most=4).endswith(", 1 other")


def test_log_line_shows_files_hours_speed_and_failures() -> None:
    said = describe(make_record(halfway(), now=15.0))
    assert said == (
        "listing: 10 of 40 files, 100 s of about 6.7 min of audio, 10x real time, less than a minute left,"
        " failures: 1 not_audio; decode 20x, encode 4x (busiest: 90%), write 200x"
    )
    assert describe(make_record(Progress(n_files=2, stage="planning"))) == "planning: 0 of 2 files"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_display_escapes_markup_and_controls(is_terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=100, _environ={})
    progress = Progress(n_files=3)
    progress.stage = "[/x] \u202e:smile:"
    progress.reasons["[bold]"] += 1
    with Display(json=False, console=console) as display:
        display._shown_at = -math.inf
        display.update(progress)
    assert r"[/x] \u202e:smile:" in out.getvalue()
    assert "1 [bold]" in out.getvalue()


def test_bar_measures_hours_where_there_is_audio_to_encode() -> None:
    progress = halfway()
    done, total = _measure_progress(make_record(progress))
    assert total is not None
    assert done / total == pytest.approx(progress.audio_s / progress.expected_s)
    assert _measure_progress(make_record(Progress(n_files=4, n_unchanged=3))) == (3, 4)
    assert _measure_progress(make_record(Progress())) == (0, None)


@pytest.mark.parametrize("plan", [Plan(n_to_decode=1), Plan(n_examined=2)])
def test_lack_of_space_is_said_before_the_work(plan: Plan) -> None:
    plan.lack_of_space = "y: its disk is small"
    out = io.StringIO()
    config = make_config({"sources": ["x"], "into": "y"})
    with Display(json=False, console=Console(file=out, width=200, _environ={})) as display:
        display.announce(plan, config)
    assert "warning: y: its disk is small\n" in out.getvalue()
