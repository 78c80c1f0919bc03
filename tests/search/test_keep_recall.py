"""When the recall of an index is measured, and what becomes of it."""

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
from pipeline.search.keep_recall import keep_index_recall, keep_recall
from tests.helpers.tables import draw_vectors, write_index
from tests.helpers.tuning import TUNING, add_vector_index

GRID = Grid(250, 10)


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

    def __call__(self, tables: Generation, wanted: float) -> Tuning:
        self.wanted.append(wanted)
        return replace(TUNING, wanted=wanted, n_clips=6, n_frames=900, **self._values)


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
    assert (found.wanted, found.settings) == (0.9, TUNING.settings)
    stored = open_index(index).live
    assert stored.tuning == found
    assert stored.versions["clips"] == open_index(index).live.versions["clips"]


def test_exact_index_is_not_measured(exact: str) -> None:
    audit = FakeAudit()
    assert keep(exact, 0.98, audit, again=True) == (None, [])
    assert audit.wanted == []
    assert keep_index_recall(exact, 0.98) is None


@pytest.mark.parametrize(
    "error",
    [ModelError("facebook/pe-av-base: not found"), OSError("auxiliary.idx: not found"), RuntimeError("no\nmemory")],
)
def test_measuring_that_fails_leaves_the_settings_with_a_note(index: str, error: Exception) -> None:
    """The run has published what it indexed: it ends well."""

    def fails(tables: Generation, wanted: float) -> Tuning:
        raise error

    found, [note] = keep(index, 0.98, fails)
    assert found is None
    assert " ".join(str(error).split()) in note
    assert "\n" not in note
    assert open_index(index).live.tuning is None


def test_recall_that_is_not_reached_is_said(index: str) -> None:
    bad = Measured(0.81, 0.78, 0.84, 900, 400, 320, k=20, n_dimensions=40.0)
    found, [note] = keep(index, 0.98, FakeAudit(locate=bad))
    assert found is not None
    assert note.startswith("`locate` finds 81.0% (78.0% to 84.0%) of what an exact search finds, not 98.0%")


def test_unknown_model_of_an_index_is_noted(index: str) -> None:
    notes: list[str] = []
    assert keep_index_recall(index, note=notes.append) is None
    assert len(notes) == 1
    assert "none" in notes[0]


def test_ticks_come_only_where_there_is_work(index: str) -> None:
    ticks: list[int] = []
    for _ in range(2):
        keep_recall(Writer(index, "2" * 32), 0.98, audit=FakeAudit(), tick=lambda: ticks.append(1))
    assert len(ticks) == 1


def test_error_of_a_tick_is_no_note(index: str) -> None:
    """A run whose Ray has died, or which has lost its lease, ends: it does not go on without a recall."""

    def die() -> None:
        raise CommitConflict("another run holds the index")

    with pytest.raises(CommitConflict):
        keep_recall(Writer(index, "2" * 32), 0.98, tick=die)
