"""When the recall of an index is measured, and what a run says of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import CommitConflict, ModelError
from pipeline.grid import Grid
from pipeline.index.handle import Generation, open_index
from pipeline.index.tuning import Measured, Tuning
from pipeline.index.writer import Writer
from pipeline.search.keep_recall import explain_shortfall, keep_index_recall, keep_recall
from tests.helpers.tables import draw_vectors, write_index
from tests.helpers.tuning import TUNING, add_vector_index, measure_here

GRID = Grid(250, 10)
FOUND = Measured(0.995, 0.992, 0.997, 1_512, 800, 320, k=20, n_dimensions=41.0, best_low=0.996)
FEW = replace(FOUND, n_answers=51, best_low=0.93)
GOOD = replace(TUNING, locate=None, query=FOUND, similar=FOUND)


@pytest.fixture
def exact(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    write_index(tmp_path / "index", {f"/{n}.wav": draw_vectors(rng, 300, GRID) for n in range(3)}, GRID)
    return str(tmp_path / "index")


@pytest.fixture
def index(exact: str) -> str:
    add_vector_index(exact)
    return exact


class FakeAudit:
    """Finds what it is made with, and notes what was wanted."""

    def __init__(self, **values: Any) -> None:
        self.wanted: list[float] = []
        self._values = values

    def __call__(self, tables: Generation, wanted: float, tick: Callable[[], None]) -> Tuning:
        self.wanted.append(wanted)
        tick()
        return replace(measure_here(tables.path, GOOD), wanted=wanted, **self._values)


def keep(path: str, wanted: float, audit: Any, *, again: bool = False) -> tuple[Tuning | None, list[str]]:
    notes: list[str] = []
    found = keep_recall(Writer(path, "2" * 32), wanted, again=again, audit=audit, note=notes.append)
    return found, notes


def test_recall_is_measured_once_until_more_is_wanted_or_it_is_asked_for(index: str) -> None:
    audit = FakeAudit()
    for wanted, again in ((0.98, False), (0.98, False), (0.9, False), (0.99, False), (0.98, False), (0.9, True)):
        found, notes = keep(index, wanted, audit, again=again)
        assert found is not None
        assert notes == []
    assert audit.wanted == [0.98, 0.99, 0.9]
    assert found is not None
    assert (found.wanted, found.settings) == (0.9, GOOD.settings)
    stored = open_index(index).live
    assert stored.tuning == found
    assert stored.versions["clips"] == open_index(index).live.versions["clips"]


def test_exact_index_is_not_measured(exact: str) -> None:
    audit = FakeAudit()
    assert keep(exact, 0.98, audit, again=True) == (None, [])
    assert audit.wanted == []
    assert keep_index_recall(exact, 0.98) is None


class PanicException(BaseException):
    """As the engine raises it."""


@pytest.mark.parametrize(
    "error",
    [
        ModelError("facebook/pe-av-base: not found"),
        OSError("auxiliary.idx: not found"),
        RuntimeError("no\nresources"),
        MemoryError("3 GB"),
        KeyError("frame_model"),
        PanicException("index out of bounds"),
    ],
)
def test_measuring_that_fails_leaves_the_settings_with_a_note(index: str, error: BaseException) -> None:
    """The run has published what it indexed: it ends well."""

    def fails(tables: Generation, wanted: float, tick: Callable[[], None]) -> Tuning:
        raise error

    found, [note] = keep(index, 0.98, fails)
    assert found is None
    assert " ".join(str(error).split()) in note
    assert "\n" not in note
    assert open_index(index).live.tuning is None


def test_interrupt_is_no_note(index: str) -> None:
    def interrupt(tables: Generation, wanted: float, tick: Callable[[], None]) -> Tuning:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(index, 0.98, interrupt)


def test_note_tells_the_recall_that_was_not_reached(index: str) -> None:
    bad = replace(FOUND, recall=0.81, low=0.78, high=0.84)
    found, [note] = keep(index, 0.98, FakeAudit(query=bad))
    assert found is not None
    assert note.startswith(
        "`query` finds 81.0% (78.0% to 84.0%, by 1,512 exact answers) of what an exact search finds; wanted are 98.0%,"
        " and a lower end of 97.0%"
    )


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (FOUND, None),
        (replace(FOUND, recall=0.98, low=0.97), None),
        (replace(FOUND, recall=0.979), "`query` finds 97.9%"),
        (replace(FOUND, recall=0.985, low=0.969), "`query` finds 98.5% (96.9% to "),
        (
            replace(FOUND, recall=1.0, low=0.93, high=1.0, n_answers=51, best_low=0.93),
            "the sample holds 51 exact answers",
        ),
        (
            replace(FOUND, recall=0.96, low=0.9, high=0.99, n_answers=51, best_low=0.93),
            "the sample holds 51 exact answers",
        ),
        (
            replace(FOUND, recall=1.0, low=0.96, high=1.0, n_questions=16, n_answers=151, best_low=0.96),
            "cannot be told: there was time for 16 questions only, with 151 exact answers in the sample",
        ),
        (
            replace(FOUND, recall=1.0, low=0.95, high=1.0, n_units=2, best_low=0.95),
            "the sample holds 1,512 exact answers in 2 recordings, which is too few",
        ),
        (replace(FOUND, recall=0.5, low=0.4, high=0.6, n_answers=51, best_low=0.93), "`query` finds 50.0%"),
        (replace(FOUND, recall=None, low=0.0, high=1.0, n_answers=0, best_low=0.0), "the sample holds 0 exact answers"),
        (replace(FOUND, recall=0.9, low=0.85, high=0.95, best_low=None), "`query` finds 90.0%"),
    ],
)
def test_note_tells_low_recall_from_a_small_sample_and_lack_of_time(measured: Measured, said: str | None) -> None:
    line = explain_shortfall("query", measured, 0.98, 320)
    assert (line is None) == (said is None)
    assert (said or "") in (line or "")


def test_index_that_was_built_anew_is_measured_again(index: str) -> None:
    audit = FakeAudit()
    keep(index, 0.98, audit)
    add_vector_index(index, n_partitions=2)
    keep(index, 0.98, audit)
    keep(index, 0.98, audit)
    assert audit.wanted == [0.98, 0.98]


def test_unknown_model_of_an_index_is_noted(index: str) -> None:
    notes: list[str] = []
    assert keep_index_recall(index, note=notes.append) is None
    assert len(notes) == 1
    assert "none" in notes[0]


def test_ticks_come_only_where_there_is_work(index: str) -> None:
    ticks: list[int] = []
    for _ in range(2):
        keep_recall(Writer(index, "2" * 32), 0.98, audit=FakeAudit(), tick=lambda: ticks.append(1))
    assert len(ticks) == 2  # when it begins, and by the audit


@pytest.mark.parametrize("n_calls", [1, 2])
def test_error_of_a_tick_is_no_note(index: str, n_calls: int) -> None:
    """A run whose Ray has died, or which has lost its lease, ends: it does not go on without a recall."""
    calls: list[int] = []

    def die() -> None:
        calls.append(1)
        if len(calls) == n_calls:
            raise CommitConflict("another run holds the index")

    with pytest.raises(CommitConflict):
        keep_recall(Writer(index, "2" * 32), 0.98, tick=die, audit=FakeAudit())
