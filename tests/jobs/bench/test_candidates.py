"""Designs that find candidates, compared on a tiny table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from jobs.bench.candidate_clips import make_clips
from jobs.bench.candidate_clips import measure as measure_clips
from jobs.bench.candidate_stores import Search, Store, append_norm, find_centroids
from jobs.bench.candidate_units import K, Units, each_frame, make_table
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


@pytest.mark.parametrize("partition", ["dot", "norm"])
def test_every_clip_is_found_where_all_are_candidates(tmp_path: Path, partition: str) -> None:
    clips = make_clips(4_000, 6, MadeVectors(1, 64, 64))
    assert len(clips.vectors) == 4_002
    vectors, question = clips.vectors.astype(np.float32), clips.questions["similar"][0]
    by_cosine = np.argsort(-(vectors @ question) / np.linalg.norm(vectors, axis=1))[:K]
    assert set(clips.best["similar"][0].tolist()) == set(by_cosine.tolist())
    assert set(clips.best["query"][0].tolist()) == set(np.argsort(-vectors @ clips.questions["query"][0])[:K].tolist())
    n = len(clips.vectors)
    store = Store(tmp_path / "clips", Units("clips", np.arange(n), np.ones(n, np.int64), clips.vectors, 0.0))
    rows = list(measure_clips(clips, store, Search(1, partition)))
    assert [row["candidates"] for row in rows] == [200, 800, 1_600, 3_200]
    for kind in ("query", "similar"):
        assert rows[0][kind] <= rows[-1][kind]
        assert rows[-1][kind] > 0.95
    assert 8 < rows[0]["bytes"] < 128  # codes of a bit for each of 64 numbers, and what goes with them


def test_command_compares_designs_for_clips() -> None:
    app = typer.Typer()
    app.command()(candidates)
    done = CliRunner().invoke(app, ["clips", "--rows", "1500", "--questions", "2", "--bits", "1", "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert {row["search"] for row in rows} >= {"1 bit, dot, 100 % probed", "1 bit, norm, 100 % probed, refined"}
    assert {row["candidates"] for row in rows} == {200, 800, 1_500}
