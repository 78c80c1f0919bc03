"""Writes samples as a sound file that other programs open: wav or flac, 24 bits."""

from collections.abc import Iterable
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import soundfile

from pipeline.errors import FileFailure, one_line

Container = Literal["wav", "flac"]

BITS = 24
"""Of a sample: all that sources of up to 24 bits have. FLAC takes no more room for those of 16."""

_LARGEST = 1 - 2.0 ** (1 - BITS)


def write_sound(
    file: BinaryIO,
    blocks: Iterable[npt.NDArray[np.float32]],
    sample_rate_hz: int,
    channels: int,
    container: Container,
) -> int:
    """Write blocks of samples (n, channels), floats of full scale 1; returns how many samples there were.

    What exceeds full scale is clipped: the library would wrap around.

    Args:
        file: seekable, open for writing.

    Raises:
        FileFailure: the container cannot hold so many channels, or this rate; or as ``blocks`` raise.
    """
    n_samples = 0
    try:
        sound = soundfile.SoundFile(file, "w", sample_rate_hz, channels, f"PCM_{BITS}", format=container.upper())
    except (soundfile.LibsndfileError, ValueError, TypeError) as error:
        what = f"{channels} channels at {sample_rate_hz} Hz"
        raise FileFailure("write", "unsupported", f"{container} cannot hold {what}: {one_line(error)}") from None
    with sound:
        for block in blocks:
            sound.write(np.clip(block, -1.0, _LARGEST))
            n_samples += len(block)
    return n_samples
