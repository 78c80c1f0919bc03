"""Exact answers within a sample, against those of a plain scan over all rows."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from pipeline import schema
from pipeline.index.journal import table_uri
from pipeline.search import sample
from pipeline.search.audit import Answer, ExactAnswer, measure_recall
from pipeline.search.events import Levels
from pipeline.search.sample import (
    Block,
    EventFinder,
    Unit,
    count_audios,
    draw_units,
    find_events_in,
    read_blocks,
    score_blocks,
)
from tests.helpers.events import QUERY, plain_events, quantised, write_scores

LEVELS = Levels(on=2.0, off=1.0, gap_frames=3, min_frames=0)
RNG = np.random.default_rng


def tables(path: Path) -> dict[str, Any]:
    return {name: lance.dataset(table_uri(path, name)) for name in ("files", "clips", "frames")}


def exact_events(blocks: Iterable[Block], units: list[Unit], keep: int) -> ExactAnswer:
    finder = EventFinder(units, QUERY[None], LEVELS, keep)
    assert find_events_in(score_blocks(blocks, QUERY[None]), [finder], lambda finder: False) == [finder]
    [answer] = finder.answers()
    scores = [event.score for event in answer.found]
    assert scores == sorted(scores, reverse=True)
    return answer


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    rng = RNG(5)
    found = {f"/{number}.wav": quantised(rng, int(rng.integers(1, 900))) for number in range(30)}
    return found | {"/long.wav": quantised(rng, 20_000), "/middle.wav": quantised(rng, 3_000)}


@pytest.fixture(scope="module")
def index(scores: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("sample") / "index"
    write_scores(path, scores, {"/copy.wav": "/3.wav"})
    return tables(path)


def check_found(answer: ExactAnswer, scores: dict[str, Any]) -> None:
    """All events are found, and nothing else."""
    names = {schema.make_audio_id(uri): uri for uri in scores}
    found = sorted((names[event.owner], event.first, event.stop, event.score) for event in answer.found)
    assert found == sorted((uri, event.first, event.stop, event.score) for uri, event in plain_events(scores, LEVELS))


def test_sample_of_everything_holds_the_events_of_a_scan(index: dict[str, Any], scores: dict[str, Any]) -> None:
    units = draw_units(index["files"], 10**9, RNG(0))
    answer = exact_events(read_blocks(index["frames"], units), units, keep=10_000)
    check_found(answer, scores)
    assert answer.floor == -np.inf
    owners = {event.owner: unit for event, unit in zip(answer.found, answer.units, strict=True)}
    assert sorted(owners.values()) == sorted(set(answer.units))
    assert all(owners[event.owner] == unit for event, unit in zip(answer.found, answer.units, strict=True))


@pytest.mark.parametrize("part_frames", [400, 1_000])
def test_parts_of_long_audios_hold_each_event_once(
    index: dict[str, Any], scores: dict[str, Any], part_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "PART_FRAMES", part_frames)
    monkeypatch.setattr(sample, "MARGIN_FRAMES", 200)
    units = draw_units(index["files"], 10**9, RNG(0))
    assert sum(unit.stop - unit.first for unit in units) == sum(map(len, scores.values()))
    answer = exact_events(read_blocks(index["frames"], units), units, keep=10_000)
    check_found(answer, scores)
    audios = {(event.owner, unit) for event, unit in zip(answer.found, answer.units, strict=True)}
    assert len(audios) == len({owner for owner, _ in audios}) == len({unit for _, unit in audios})
    assert max(answer.units) < count_audios(units) == len(scores)


def test_event_longer_than_the_margin_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "PART_FRAMES", 500)
    monkeypatch.setattr(sample, "MARGIN_FRAMES", 100)
    values = np.zeros(2_000, np.float16)
    values[450:700] = 3.0
    values[100:105] = 4.0
    write_scores(tmp_path / "index", {"/a.wav": values})
    index = tables(tmp_path / "index")
    units = draw_units(index["files"], 10**9, RNG(0))
    answer = exact_events(read_blocks(index["frames"], units), units, keep=10)
    assert [(event.first, event.stop) for event in answer.found] == [(100, 105)]


def test_best_events_are_kept_and_the_floor_says_below_which_score_none_are(index: dict[str, Any]) -> None:
    units = draw_units(index["files"], 10**9, RNG(0))
    blocks = list(read_blocks(index["frames"], units))
    whole = exact_events(blocks, units, keep=10_000)
    few = exact_events(blocks, units, keep=20)
    best = sorted((event.score for event in whole.found), reverse=True)
    assert [event.score for event in few.found] == best[:20]
    assert few.floor >= best[20]
    found = measure_recall([Answer([event for event in few.found if event.score > best[10]], False)], [few], len(units))
    assert found.share == pytest.approx(10 / 20, abs=0.03)


@pytest.mark.parametrize("n_needed", [0, 40, 200, 10**6])
@pytest.mark.parametrize("n_held", [2, 1_000])
def test_lower_thresholds_get_all_blocks_where_the_usual_one_finds_too_little(
    index: dict[str, Any], n_needed: int, n_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "BLOCKS_HELD", n_held)
    monkeypatch.setattr(sample, "BLOCK_FRAMES", 1_000)
    units = draw_units(index["files"], 10**9, RNG(0))
    scored = list(score_blocks(read_blocks(index["frames"], units), QUERY[None]))
    assert len(scored) > 6

    def make() -> list[EventFinder]:
        return [EventFinder(units, QUERY[None], replace(LEVELS, on=on), 10_000) for on in (3.0, 2.5, 2.0)]

    def shows(finder: EventFinder) -> bool:
        return len(finder.answers()[0].found) >= n_needed

    whole = make()
    for block, scores in scored:
        for finder in whole:
            finder.add(block, scores)
    used = find_events_in(scored, make(), shows)
    assert [finder.answers() for finder in used] == [finder.answers() for finder in whole[: len(used)]]
    assert (len(used) == 1) == shows(whole[0]) == (n_needed < 200)
    if n_needed == 200 and n_held == 2:
        assert len(used) == 2


def test_sample_is_drawn_by_unit_and_about_as_large_as_asked(
    index: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "PART_FRAMES", 1_000)
    n_all = len(draw_units(index["files"], 10**9, RNG(0)))
    seen = np.zeros(2)
    sizes = []
    for seed in range(200):
        units = draw_units(index["files"], 8_000, RNG(seed))
        assert len(set(units)) == len(units)
        sizes.append(sum(unit.stop - unit.first for unit in units))
        seen += [len(units), sum(unit.audio_id == schema.make_audio_id("/3.wav") for unit in units)]
    assert np.mean(sizes) == pytest.approx(8_000, rel=0.1)
    # The content that two files hold is drawn as often as any other.
    assert seen[1] / 200 == pytest.approx(seen[0] / 200 / n_all, rel=0.5)
    assert draw_units(index["files"], 1, RNG(0)) == draw_units(index["files"], 1, RNG(0))
    assert len(draw_units(index["files"], 1, RNG(0))) == 1


def test_unit_whose_frames_are_missing_is_left_out(tmp_path: Path) -> None:
    write_scores(tmp_path / "index", {"/a.wav": np.full(300, 3.0), "/b.wav": np.full(200, 3.0)})
    index = tables(tmp_path / "index")
    index["frames"].delete(f"audio_id = '{schema.make_audio_id('/a.wav')}' AND frame = 7")
    units = draw_units(index["files"], 10**9, RNG(0))
    answer = exact_events(read_blocks(index["frames"], units), units, keep=10)
    assert [event.owner for event in answer.found] == [schema.make_audio_id("/b.wav")]
