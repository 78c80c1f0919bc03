"""Embeddings of questions: long sounds, and sounds that are refused."""

import json
import re
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.audio.windows import cut_windows
from pipeline.encoder.checkpoint import read_identity
from pipeline.errors import IndexMismatch, UsageError
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Waveform, window_starts
from pipeline.search.query_vectors import WINDOWS_AT_ONCE, QueryModels
from tests.helpers.checkpoints import edit_weights, make_pe_audio
from tests.helpers.ears import GRID, Ear, open_with
from tests.helpers.ears import index as index
from tests.helpers.fakes import noise
from tests.helpers.tables import write_index


def test_long_sound_is_encoded_a_few_windows_at_a_time(index: Path) -> None:
    ear, block = Ear(), noise(1.0)
    tracemalloc.start()
    hits = open_with(index, ear).similar_to((block for _ in range(600)), k=3)  # 10 minutes: 115 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(hits) == 2  # overlapping windows count once
    assert max(ear.groups) == WINDOWS_AT_ONCE
    assert sum(ear.groups) == len(window_starts(15_000, GRID))
    assert peak < 60_000_000


@pytest.mark.parametrize("seconds", [0.05, 3.0, 10.0, 200.0])
def test_query_of_a_sound_is_the_mean_direction_of_its_windows(index: Path, seconds: float) -> None:
    samples, ear = noise(seconds), Ear()
    vectors = np.stack([ear.hear(window) for _, window in cut_windows([samples], GRID)])
    mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
    opened = open_with(index, ear)
    rows = {row["clip_id"]: row["vector"] for row in opened.to_arrow("clips").to_pylist()}
    for hits in (
        opened.similar(samples, SAMPLE_RATE_HZ, k=10, all_windows=True),
        opened.similar_to(np.array_split(samples, 7), k=10, all_windows=True),
    ):
        assert len(hits) == len(rows)
        for hit in hits:
            vector = np.array(rows[hit.clip_id], np.float32)
            cosine = vector @ mean / np.linalg.norm(vector) / np.linalg.norm(mean)
            assert hit.score == pytest.approx(float(cosine), abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros(HOP_SAMPLES - 1, np.float32), "shorter than one frame"),
        (np.zeros(0, np.float32), "shorter than one frame"),
        (np.r_[np.zeros(600_000, np.float32), np.float32(np.nan)], "NaN or infinite"),
        (np.full(5_000, np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_sound_too_short_or_not_finite_is_refused(index: Path, samples: Waveform, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_with(index, Ear()).similar_to([samples])


@pytest.mark.parametrize(
    ("waveform", "rate_hz", "said"),
    [
        (np.zeros((2, 48_000), np.float32), 48_000, "its transpose"),
        (np.zeros((2, 3, 4), np.float32), 48_000, "(n,) or (n, channels)"),
        (np.array(["a"]), 48_000, "give numbers"),
        (np.zeros(48_000, np.float32), 0, "sample_rate_hz: 0 is not a rate"),
    ],
)
def test_waveform_of_another_shape_or_rate_is_refused(index: Path, waveform: Any, rate_hz: int, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        pipeline.open(str(index)).similar(waveform, rate_hz)


# --- models -----------------------------------------------------------------------------------------------------------


TIES: dict[str, dict[str, Any]] = {"before the norm": {}, "after it": {"tie_last_hidden_states": True}}


def write_index_of(model: Path, path: Path, **changed: Any) -> Path:
    rows = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float16)
    identity = {key: value for key, value in (asdict(read_identity(str(model))) | changed).items() if value != ...}
    write_index(path, {"/a.wav": (rows, rows[:1])}, GRID, model=identity)
    return path


def lower_case(model: Path) -> None:
    values = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(values | {"normalizer": {"type": "Lowercase"}}))


def test_text_is_refused_where_the_tokenizer_has_changed(tmp_path: Path) -> None:
    model = make_pe_audio(tmp_path / "model", text={"hidden_size": 8})
    opened = pipeline.open(str(write_index_of(model, tmp_path / "index")))
    before = opened.search("wind")
    lower_case(model)
    assert opened.search("wind") == before  # with what it has loaded
    opened = pipeline.open(opened.path)
    for ask in (opened.search, opened.locate, opened.embed):
        with pytest.raises(IndexMismatch, match=r"another tokenizer .*; its weights are the same") as caught:
            ask("wind")
        assert "\n" not in str(caught.value)
    assert len(opened.similar(noise(1.0), SAMPLE_RATE_HZ)) == 1  # sounds do not need it


def test_index_without_a_stored_tokenizer_is_still_searched(tmp_path: Path) -> None:
    model = make_pe_audio(tmp_path / "model", text={"hidden_size": 8})
    path = write_index_of(model, tmp_path / "index", tokenizer=...)
    lower_case(model)
    assert len(pipeline.open(str(path)).search("wind")) == 1
    edit_weights(model, lambda state: state["audio_head.proj.weight"].mul_(2))
    with pytest.raises(IndexMismatch, match="other weights"):
        pipeline.open(str(path)).search("wind")


def test_models_of_equal_weights_and_another_text_state_stay_apart(tmp_path: Path) -> None:
    """Clips and frames may come from two checkpoints that differ only in how they read texts."""
    models = [make_pe_audio(tmp_path / name, text={"hidden_size": 8} | tied) for name, tied in TIES.items()]
    assert len({read_identity(str(model)).checksum for model in models}) == 1
    loaded = QueryModels(str(tmp_path))
    clip, frame = (loaded.for_texts(read_identity(str(model))).embed(["wind"])[0] for model in models)
    assert np.abs(clip - frame).max() > 1e-2
