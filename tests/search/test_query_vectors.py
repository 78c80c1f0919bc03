"""Embeddings of questions: long sounds, and sounds that are refused."""

import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.audio.windows import cut_windows
from pipeline.errors import UsageError
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Waveform, window_starts
from pipeline.search.query_vectors import WINDOWS_AT_ONCE
from tests.helpers.ears import GRID, Ear, open_with
from tests.helpers.ears import index as index
from tests.helpers.fakes import noise


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
