"""Curves have the scores that events are found by, and need the index alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.errors import UsageError
from pipeline.search.client import Index
from pipeline.search.curves import Curve
from pipeline.search.events import Holder, Levels, Rules, read_events
from tests.helpers.ears import Ear, open_with
from tests.helpers.events import quantised, write_scores
from tests.helpers.tables import create_empty


class FirstValue:
    """A text model whose question is the first number of a vector."""

    def embed(self, texts: list[str]) -> Any:
        return np.eye(1, 8, dtype=np.float32).repeat(len(texts), axis=0)


URIS = ["/a.wav", "/b.wav", "/it's.wav"]


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {uri: quantised(rng, n_frames) for uri, n_frames in zip(URIS, (30, 9_000, 777), strict=True)}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, scores: dict[str, Any]) -> Index:
    path = tmp_path_factory.mktemp("curves") / "index"
    write_scores(path, scores, {"/copy.wav": "/b.wav"})
    return open_with(path, Ear(), FirstValue())  # type: ignore[arg-type]


@pytest.mark.parametrize("uri", [*URIS, "/copy.wav"])
def test_curve_is_the_score_of_each_stored_frame(uri: str, opened: Index, scores: dict[str, Any]) -> None:
    expected = scores["/b.wav" if uri == "/copy.wav" else uri].astype(np.float32)
    curve = opened.curve("a bell", uri)
    assert (curve.uri, curve.text, curve.first_frame) == (uri, "a bell", 0)
    assert curve.scores.dtype == np.float32
    assert np.array_equal(curve.scores, expected)
    logits = curve.logit_scale * expected.astype(np.float64) + curve.logit_bias
    np.testing.assert_allclose(curve.probabilities, 1 / (1 + np.exp(-logits)))
    part = opened.curve("a bell", uri, 0.5, 0.9)
    assert np.array_equal(part.scores, expected[12:23])
    assert part.first_frame == 12
    assert part.start_s == pytest.approx(0.48)
    np.testing.assert_allclose(part.times_s, 0.48 + 0.02 + 0.04 * np.arange(11))
    assert len(opened.curve("a bell", uri, 500.0).scores) == 0


def test_curve_has_the_events_that_locate_finds(opened: Index) -> None:
    located = list(opened.locate("a bell", 1_000, threshold=0.8, where="uri = '/b.wav'"))
    found = opened.curve("a bell", "/b.wav").events(Rules(0.8))
    assert len(located) > 10
    assert sorted(found, key=lambda event: event.rank) == located
    assert [event.start_s for event in found] == sorted(event.start_s for event in found)


def test_event_of_a_part_is_cut_at_its_end(opened: Index, scores: dict[str, Any]) -> None:
    curve = opened.curve("a bell", "/b.wav", 10.0, 60.0)
    levels = Levels.from_rules(Rules(), curve.logit_scale, curve.logit_bias)
    expected = read_events(scores["/b.wav"][250:1_500].astype(np.float32), levels, 250)
    found = [(event.start_s, event.end_s) for event in curve.events()]
    np.testing.assert_allclose(found, [(event.first * 0.04, event.stop * 0.04) for event in expected])


def test_relative_path_is_found(opened: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert opened.curve("a bell", "a.wav").uri == "/a.wav"


def test_file_without_a_curve_is_one_line(opened: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^/none\.wav: no such file in "):
        opened.curve("a bell", "/none.wav")
    with pytest.raises(UsageError, match="not a span"):
        opened.curve("a bell", "/a.wav", 2.0, 1.0)
    without = open_with(create_empty(tmp_path / "empty", frames="none"), Ear())
    with pytest.raises(UsageError, match="no such file"):
        without.curve("a bell", "/a.wav")


def make_curve(scores: Any, first_frame: int) -> Curve:
    identity = ModelIdentity("none", None, "0" * 32, 8, 2.0, -1.0)
    return Curve("/a.wav", "0" * 32, "a bell", first_frame, scores, identity, Holder("/a.wav", 1e6, {}))


@settings(max_examples=200)
@given(first=st.integers(0, 3_000), n_frames=st.integers(0, 500), max_points=st.integers(1, 600))
def test_coarse_curve_has_the_best_of_each_group_of_frames(first: int, n_frames: int, max_points: int) -> None:
    scores = np.random.default_rng(first).normal(size=n_frames).astype(np.float32)
    found, step, first_frame = make_curve(scores, first).coarsen(max_points)
    assert len(found) <= max_points
    assert first - step < first_frame <= first
    groups: dict[int, float] = {}
    for frame, score in enumerate(scores.tolist(), start=first):
        groups[frame // step] = max(score, groups.get(frame // step, -np.inf))
    assert {first_frame + k * step: score for k, score in enumerate(found.tolist())} == {
        number * step: score for number, score in groups.items()
    }
    assert (step == 1) == (n_frames <= max_points)


def test_parts_of_a_coarse_curve_fit_together() -> None:
    scores = np.random.default_rng(0).normal(size=10_000).astype(np.float32)

    def cut(first: int, stop: int) -> tuple[Any, int, int]:
        return make_curve(scores[first:stop], first).coarsen(101)

    (left, step, left_first), (right, right_step, right_first) = cut(1_000, 5_000), cut(3_000, 7_000)
    assert step == right_step
    shared = range(right_first + step, left_first + (len(left) - 1) * step, step)
    assert len(shared) > 40
    scores_of_both = [
        [part[(frame - first) // step] for frame in shared]
        for part, first in ((left, left_first), (right, right_first))
    ]
    assert scores_of_both[0] == scores_of_both[1]
