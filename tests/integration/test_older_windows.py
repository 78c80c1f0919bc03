"""Everything that reads or writes an index whose settings name no rule for last windows follows the rule ``back``."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config, make_config
from pipeline.encoder.encoder import load_encoder
from pipeline.grid import FRAME_S, count_encoded_frames
from pipeline.index.handle import find_index
from pipeline.index.verify import verify_index
from pipeline.run.dispatch import Workers
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import read_pace
from tests.helpers.commands import run_main
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.damage import publish
from tests.helpers.ears import Reader, open_with
from tests.helpers.fakes import noise
from tests.helpers.indexes import table
from tests.helpers.older import create_older
from tests.helpers.runs import WideEncoder, in_place

LENGTH_S = 0.9
"""The length of the file ``a.wav``: one fitted window, or two of 0.8 s."""


@pytest.fixture
def corpus(tmp_path: Path) -> KnownCorpus:
    """Its index is an older one. The configuration names no rule."""
    made = KnownCorpus(tmp_path)
    for number, name in enumerate(("a.wav", "b.wav", "c.wav")):
        made.put(name, number + 2)
    create_older(made.config)
    return made


@pytest.fixture
def indexed(corpus: KnownCorpus) -> KnownCorpus:
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    assert live(corpus.config.into) == corpus.expected(by_rule(corpus.config, "back"))
    assert live(corpus.config.into) != corpus.expected(by_rule(corpus.config, "fit"))
    return corpus


def by_rule(config: Config, tail: str) -> Config:
    values = config.model_dump(mode="json")
    return make_config({**values, "window": {**values["window"], "tail": tail}})


def run(*arguments: object) -> tuple[int, int]:
    """The exit code of a command, and how many windows its workers encoded."""
    encoder = WideEncoder()
    return run_main(*arguments, workers=Workers(in_place(encoder))), encoder.n_windows


def test_verify_deep_finds_nothing_wrong(corpus: KnownCorpus, capsys: pytest.CaptureFixture[str]) -> None:
    config = corpus.config
    index_corpus(config, stages=in_place(load_encoder(config.encode, frames=True)))
    assert run("verify", config.into, "--deep", "--sample", "all") == (0, 0)
    assert capsys.readouterr().out == f"{config.into}: all is well\n3 of 3 files compared\n"


def test_plan_of_a_rebuild_tells_the_time_of_the_new_windows(
    indexed: KnownCorpus, capsys: pytest.CaptureFixture[str]
) -> None:
    into = indexed.config.into
    assert run("plan", into, "--rebuild", "--json") == (0, 0)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    written = find_index(into).live
    durations_s = written.open("files").to_table(columns=["duration_s"])["duration_s"].to_numpy()
    grids = (by_rule(indexed.config, tail).window.grid for tail in ("back", "fit"))
    former_s, new_s = (FRAME_S * count_encoded_frames(durations_s, grid) for grid in grids)
    pace = read_pace(written)
    assert pace
    assert new_s < 0.95 * former_s
    assert summary["seconds"] == pytest.approx(pace * new_s, rel=0.1)


def test_repair_makes_the_same_clips_again(indexed: KnownCorpus) -> None:
    into, before = indexed.config.into, live(indexed.config.into)
    table(into, "clips").delete(f"uri = '{indexed.uri('a.wav')}' AND start_s > 0")
    publish(into)
    assert run("verify", into) == (1, 0)
    assert run("verify", into, "--repair") == (0, 2)
    assert live(into) == before


def test_clips_of_moved_and_copied_files_are_copied(indexed: KnownCorpus) -> None:
    into = indexed.config.into
    indexed.move("a.wav", "sub/moved.wav")
    indexed.put("copy.wav", 4)
    assert run("reindex", into) == (0, 0)
    assert live(into) == indexed.expected(by_rule(indexed.config, "back"))
    assert verify_index(into) == []


def test_restored_index_is_continued(indexed: KnownCorpus) -> None:
    into, before = indexed.config.into, live(indexed.config.into)
    seq = open_with(into, WideEncoder()).history()[-1]["batch"]
    indexed.put("a.wav", 5)
    run("reindex", into)
    assert run("restore", into, "--batch", seq) == (0, 0)
    assert live(into) == before
    assert run("reindex", into)[0] == 0
    assert live(into) == indexed.expected(by_rule(indexed.config, "back"))
    assert verify_index(into) == []


def test_sound_is_cut_like_the_files_of_the_index(indexed: KnownCorpus) -> None:
    encoder = WideEncoder()
    opened = open_with(indexed.config.into, encoder, Reader())
    found = opened.similar_to_file(indexed.uri("a.wav"), k=20, all_windows=True)
    assert encoder.n_windows == 2
    encoder.n_windows = 0
    opened.similar(noise(LENGTH_S), 48_000)
    assert encoder.n_windows == 2
    rows = opened.to_arrow("clips", ["clip_id", "vector"], f"uri = '{indexed.uri('a.wav')}'").to_pylist()
    vectors = np.array([row["vector"] for row in rows], np.float64)
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = {hit.clip_id: hit.score for hit in found}
    for row, cosine in zip(rows, directions @ directions.mean(axis=0), strict=True):
        expected = cosine / np.linalg.norm(directions.mean(axis=0))
        assert scores[row["clip_id"]] == pytest.approx(expected, abs=2e-3)
