"""Vectors in, one number out that changes when any of them does: so `verify` notices rot on a disk.

The number of a set of rows is the sum of the hashes of its rows, modulo 2^64. So it does not matter in which order rows
are read, or in how many parts they were written: the sums of the parts add up.

A row is hashed by its frame number and by the bits of its vector. Each 8 bytes are multiplied by an odd number of
their own and summed up, so any change within 8 bytes changes the sum. Then the bits are mixed, so that changes of
several rows do not cancel out. It guards against accidents, not against forgery.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

_WORD_BYTES = 8


def sum_rows(frames: npt.ArrayLike, vectors: npt.NDArray[np.float16]) -> int:
    """The checksum of rows, as a signed integer of 64 bits.

    Args:
        frames: the number of each row, (n,): the frame, or the first frame of a clip.
        vectors: (n, D).
    """
    return add_up(hash_rows(frames, vectors))


def hash_rows(frames: npt.ArrayLike, vectors: npt.NDArray[np.float16]) -> Words:
    """The hash of each row, (n,)."""
    words = _as_words(vectors)
    factors = _mix(np.arange(1, words.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    numbers = np.asarray(frames, np.int64).astype(np.uint64)
    return _mix(words @ factors + _mix(numbers + np.uint64(1)))


def add_up(sums: Any) -> int:
    """Hashes, or checksums, added modulo 2^64; signed, as the tables store it."""
    total = int(np.asarray(sums).astype(np.uint64).sum(dtype=np.uint64))
    return total - 2**64 if total >= 2**63 else total


def _as_words(vectors: npt.NDArray[np.float16]) -> Words:
    """The bits of each vector in pieces of 8 bytes, the last one filled up with zeros."""
    raw = np.ascontiguousarray(vectors).view(np.uint8).reshape(len(vectors), vectors.shape[1] * 2)
    if missing := -raw.shape[1] % _WORD_BYTES:
        raw = np.pad(raw, ((0, 0), (0, missing)))
    return raw.view("<u8")


def _mix(numbers: Words) -> Words:
    """Spread each bit over all others. Source: the finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
