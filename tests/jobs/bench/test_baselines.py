"""Earshot and the baselines get the same files."""

from typing import Any

import numpy as np
import pytest

from jobs.bench import baselines
from jobs.bench.baselines import Corpus


@pytest.mark.parametrize("frames", [[[0.0] * 4] * 3, [0.0] * 12, np.zeros((3, 4)), [np.zeros(4)] * 3])
def test_frames_are_counted_in_every_layout(frames: Any) -> None:
    assert baselines.count_written(frames, 4) == 3


def test_corpora_have_files_of_their_lengths() -> None:
    lengths = {corpus: [len(sound) / 48_000 for sound in baselines.make_corpus(corpus, 4)] for corpus in Corpus}
    assert lengths[Corpus.plain] == [10.0] * 4
    assert lengths[Corpus.over] == [10.02] * 4
    assert all(15 <= seconds <= 30 for seconds in lengths[Corpus.mixed])
    assert len(set(lengths[Corpus.mixed])) == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_baselines_agree_on_plain_files_only() -> None:
    measured = list(baselines.measure("earshot-tiny", 3, [Corpus.mixed]))
    times = {row["baseline"]: row for row in measured if "odd" not in row}
    rows = {row["baseline"]: row for row in measured if "odd" in row}
    for name in ("loop", "ray", "earshot"):
        assert times[name]["corpus"] == "15-30s"
        assert times[name].get("x", 0) > 0, times[name]
        assert rows[name]["odd"]["long.wav"]["frames"] == {"plain.wav": 250, "long.wav": 2250}
    ours = rows["earshot"]["odd"]
    assert ours["resample.wav"] == {"frames": {"plain.wav": 250, "resample.wav": 250}, "error": ""}
    assert ours["broken.wav"] == {"frames": {"plain.wav": 250}, "error": ""}
    assert rows["loop"]["odd"]["broken.wav"]["error"]
