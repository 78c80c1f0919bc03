"""Exact clips within a sample, against those of a plain scan over all rows."""

from collections import Counter
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from pipeline.index.journal import table_uri
from pipeline.search import clip_sample
from pipeline.search.clip_sample import draw_clips, exact_clips
from tests.helpers.events import GRID
from tests.helpers.tables import draw_vectors, write_index

RNG = np.random.default_rng


def tables(path: Path) -> dict[str, Any]:
    return {name: lance.dataset(table_uri(path, name)) for name in ("files", "clips")}


@pytest.mark.parametrize("measure", ["dot", "cosine"])
@pytest.mark.parametrize("keep", [5, 1_000])
def test_exact_clips_are_those_of_a_scan(
    tmp_path: Path, keep: int, measure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_sample, "BLOCK_CLIPS", 7)
    rng = RNG(0)
    write_index(tmp_path / "index", {f"/{n}.wav": draw_vectors(rng, 100 + 300 * n, GRID) for n in range(8)}, GRID)
    index = tables(tmp_path / "index")
    drawn = draw_clips(index["files"], index["clips"], 10**9, rng)
    questions = rng.standard_normal((6, 8)).astype(np.float32)
    rows = index["clips"].to_table()
    vectors = np.array(rows["vector"].to_pylist())
    assert np.ptp(np.linalg.norm(vectors, axis=1)) > 2
    for question, answer in zip(questions, exact_clips(drawn, questions, keep, measure=measure), strict=True):
        scores = vectors @ question
        if measure == "cosine":
            scores = scores / np.linalg.norm(vectors, axis=1) / np.linalg.norm(question)
        order = np.argsort(-scores)[:keep]
        assert [found.owner for found in answer.found] == rows["clip_id"].take(order).to_pylist()
        assert [found.score for found in answer.found] == pytest.approx(scores[order], abs=1e-5)
        assert (answer.floor > -np.inf) == (keep < len(rows))


def test_clips_of_the_file_of_the_question_do_not_count(tmp_path: Path) -> None:
    rng = RNG(1)
    write_index(tmp_path / "index", {f"/{n}.wav": draw_vectors(rng, 900, GRID) for n in range(5)}, GRID)
    index = tables(tmp_path / "index")
    drawn = draw_clips(index["files"], index["clips"], 10, rng)
    assert drawn.n_audios == 2
    assert len(drawn.clip_ids) == 8
    answers = exact_clips(
        drawn, rng.standard_normal((2, 8)).astype(np.float32), 1_000, left_out=[np.array([0]), np.array([1])]
    )
    assert [set(answer.units) for answer in answers] == [{1}, {0}]
    [none] = exact_clips(drawn, np.ones((1, 8), np.float32), 1_000, left_out=[np.array([1, 0, 1])])
    assert not none.found


def test_long_files_are_drawn_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 1,000 hours has 375,000 clips. Those of all its parts are one unit, and each clip is in one part."""
    monkeypatch.setattr(clip_sample, "PART_CLIPS", 8)
    rng = RNG(2)
    lengths = {"/long.wav": 24_000, "/short.wav": 900, "/other.wav": 700}
    audios = {uri: draw_vectors(rng, n_frames, GRID) for uri, n_frames in lengths.items()}
    write_index(tmp_path / "index", audios, GRID, copies={"/copy.wav": "/short.wav"})
    index = tables(tmp_path / "index")
    all_ids = index["clips"].to_table(columns=["clip_id"])["clip_id"].to_pylist()
    seen, n_drawn = Counter[str](), list[int]()
    for seed in range(100):
        drawn = draw_clips(index["files"], index["clips"], 24, RNG(seed))
        assert len(drawn.clip_ids) <= 4 * 10
        assert drawn.audios.max() < drawn.n_audios <= 3
        seen.update(drawn.clip_ids)
        n_drawn.append(len(drawn.clip_ids))
    assert np.mean(n_drawn) == pytest.approx(24, rel=0.2)
    assert seen.keys() == set(all_ids)
    assert max(seen.values()) < 3 * min(seen.values())
    whole = draw_clips(index["files"], index["clips"], 10**6, RNG(0))
    assert (sorted(whole.clip_ids), whole.n_audios) == (sorted(all_ids), 3)
    parts = draw_clips(index["files"], index["clips"], len(all_ids) - 1, RNG(0))
    assert len(set(parts.clip_ids)) == len(parts.clip_ids)
