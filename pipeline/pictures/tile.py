"""Spectrograms as the bytes of a picture: PNG or WebP."""

import io
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.pictures.colours import N_STEPS, scale
from pipeline.pictures.missing import missing

try:
    from PIL import Image
except ImportError as error:
    raise missing(error, "pillow") from None

Kind = Literal["png", "webp"]

DARKEST_DB, RANGE_DB = -100.0, 80.0
"""Levels up to the first are darkest; those that are ``RANGE_DB`` above it are lightest. Full scale is 0 dB."""


def draw_tile(levels_db: npt.NDArray[np.float32], gain_db: float = 0.0, kind: Kind = "webp") -> bytes:
    """The picture of levels (height, width).

    The same level always has the same colour, so tiles of one recording fit together.

    Args:
        gain_db: added to all levels.
    """
    steps = to_steps(levels_db, gain_db)
    file = io.BytesIO()
    if kind == "png":
        picture = Image.fromarray(steps)
        picture.putpalette(scale().tobytes())
        picture.save(file, "PNG", compress_level=3)
    else:
        Image.fromarray(scale()[steps]).save(file, "WEBP", quality=80, method=0)
    return file.getvalue()


def to_steps(levels_db: npt.NDArray[np.float32], gain_db: float = 0.0) -> npt.NDArray[np.uint8]:
    """Steps of the scale, from 0 to 255, for levels of any shape."""
    heights = (levels_db + np.float32(gain_db - DARKEST_DB)) * np.float32((N_STEPS - 1) / RANGE_DB)
    return np.asarray(np.rint(heights.clip(0, N_STEPS - 1)), np.uint8)
