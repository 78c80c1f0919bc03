"""Earshot and the baselines get the same files."""

from typing import Any

import numpy as np
import pytest

from jobs.bench import baselines


@pytest.mark.parametrize("frames", [[[0.0] * 4] * 3, [0.0] * 12, np.zeros((3, 4)), [np.zeros(4)] * 3])
def test_frames_are_counted_in_every_layout(frames: Any) -> None:
    assert baselines.count_written(frames, 4) == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_baselines_agree_on_plain_files_only() -> None:
    rows = {row["baseline"]: row for row in baselines.measure("earshot-tiny", 3)}
    for name in ("loop", "ray", "earshot"):
        assert rows[name].get("x", 0) > 0, rows[name]
        assert rows[name]["odd"]["long.wav"]["frames"] == {"plain.wav": 250, "long.wav": 2250}
    ours = rows["earshot"]["odd"]
    assert ours["resample.wav"] == {"frames": {"plain.wav": 250, "resample.wav": 250}, "error": ""}
    assert ours["broken.wav"] == {"frames": {"plain.wav": 250}, "error": ""}
    assert rows["loop"]["odd"]["broken.wav"]["error"]
