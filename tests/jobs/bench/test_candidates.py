"""Designs that find candidates, compared on a tiny table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from jobs.bench.candidate_stores import Search, Store, append_norm, find_centroids
from jobs.bench.candidate_units import each_frame, make_table
from jobs.bench.candidates import COLUMNS, candidates, measure
from jobs.bench.synthetic import FILE_FRAMES, MadeVectors


def test_appended_norm_makes_the_nearest_the_one_with_the_largest_product() -> None:
    vectors, question = MadeVectors().frames(0)[:200], MadeVectors().texts(1)[0]
    longer = append_norm(vectors).astype(np.float32)
    assert np.linalg.norm(longer, axis=1) == pytest.approx(np.linalg.norm(longer[0]), rel=1e-3)
    distances = np.linalg.norm(longer - np.pad(question, (0, 8)), axis=1)
    scores = vectors.astype(np.float32) @ question
    assert scores[distances.argmin()] == pytest.approx(scores.max(), abs=1e-2)


def test_centroids_of_directions_have_length_one() -> None:
    vectors = MadeVectors().frames(0)
    directions = find_centroids(vectors, 6, by_direction=True)
    assert np.linalg.norm(directions.astype(np.float32), axis=1) == pytest.approx(1, abs=1e-2)
    assert find_centroids(vectors, 6, by_direction=False).shape == (6, 1024)


@pytest.mark.parametrize("partition", ["dot", "direction", "norm"])
def test_every_event_is_found_where_all_frames_are_candidates(tmp_path: Path, partition: str) -> None:
    table = make_table(FILE_FRAMES, 6, MadeVectors(1))
    [few, every] = measure(table, Store(tmp_path / "frames", each_frame(table)), Search(1, partition), (3, FILE_FRAMES))
    assert every["recall"] == 1.0
    assert (every["ranges"], every["frames"]) == (1, FILE_FRAMES)
    assert 0 < few["recall"] < 1
    assert every["recall_by_cosine"] == [1.0, 1.0, 1.0]
    assert min(few["recall_by_cosine"]) <= few["recall"] <= max(few["recall_by_cosine"])
    assert few["frames"] == 3
    [other] = measure(replace(table, cosines=()), Store(tmp_path / "frames", each_frame(table)), Search(), (3,))
    assert "recall_by_cosine" not in other  # the questions of a model have no such cosine


def test_command_prints_a_line_for_each_design_search_and_number_of_candidates() -> None:
    app = typer.Typer()
    app.command()(candidates)
    options = ["--rows", str(FILE_FRAMES), "--questions", "3", "--bits", "1", "--json"]
    done = CliRunner().invoke(app, ["pools", "groups", *options])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert all(row.keys() >= set(COLUMNS) for row in rows)
    assert {row["recall"] for row in rows if row["search"] == "exact, by bound"} == {1.0}
    assert len({row["design"] for row in rows}) == 8 + 6 + 3
    assert {row["search"] for row in rows} >= {"exact scan", "1 bit, dot, 100 % probed", "1 bit, cosine, 100 % probed"}
