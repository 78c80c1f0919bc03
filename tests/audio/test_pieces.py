"""Channels become one, whatever the type of their numbers."""

import numpy as np
import pytest

from pipeline.audio.pieces import mean_channels


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_mean_of_channels_has_full_scale_1(dtype: str) -> None:
    info = np.iinfo(dtype) if dtype[0] in "iu" else None
    lowest, middle = (info.min, (info.min + info.max + 1) // 2) if info else (-1, 0)
    channels = np.array([[lowest, middle], [middle, middle], [middle, middle]], dtype)
    np.testing.assert_allclose(mean_channels(channels), [-1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(mean_channels(channels[:1]), [-1, 0], atol=1e-6)
