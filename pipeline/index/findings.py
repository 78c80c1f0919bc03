"""What ``verify`` finds wrong in an index, and what its checks share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import Row

FILES_AT_ONCE = 10_000
"""Rows of the ledger that are Python objects at a time: each value takes some hundred bytes."""

MAX_DURATION_S = 1e9

ROTTEN = "its vectors are not those that were written: their checksum differs"


@dataclass(frozen=True)
class Finding:
    """Something wrong: in which table, what, and whose rows have to be made again.

    ``file_id`` and ``audio_id`` name rows of a file or of an audio. ``fragment`` is the number of a fragment of the
    table that cannot be read, and has to be given up. All are None where only a copy of the index helps.
    """

    table: str
    what: str
    file_id: str | None = None
    audio_id: str | None = None
    uri: str | None = None
    fragment: int | None = None


def ids_of(row: Row) -> Any:
    """The fields of a finding that name the file of a ledger row."""
    return {name: row[name] for name in ("file_id", "audio_id", "uri")}


def is_duration(value: float | None) -> bool:
    return value is not None and 0 < value < MAX_DURATION_S


def are_finite(vectors: npt.NDArray[np.float16]) -> npt.NDArray[np.bool_]:
    """(n,): whether all numbers of a vector are finite."""
    return np.asarray(np.isfinite(vectors).all(axis=1))


def to_numbers(rows: Any, name: str) -> Any:
    """A column of numbers, of a table or a piece of it, as an array (n,)."""
    column = rows[name]
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


class Spans:
    """The frames of each of ``n`` audios, as they are read: spans that may lie in any order, since merging fragments
    moves some of them to the end."""

    def __init__(self, n: int) -> None:
        self._stop = np.zeros(n, np.int64)
        self._others: dict[int, list[tuple[int, int]]] = {}
        """Spans that do not follow on those read before."""

    def add(self, number: int, first: int, stop: int) -> None:
        if self._stop[number] == first and number not in self._others:
            self._stop[number] = stop
        else:
            self._others.setdefault(number, []).append((first, stop))

    def of(self, number: int) -> list[tuple[int, int]]:
        """The spans of an audio, in order of time; those that follow on each other are one."""
        joined: list[tuple[int, int]] = []
        for first, stop in sorted([(0, int(self._stop[number])), *self._others.get(number, [])]):
            if joined and joined[-1][1] == first:
                first = joined.pop()[0]
            joined.append((first, stop))
        return [(first, stop) for first, stop in joined if first != stop]


def select_unknown(piece: pa.RecordBatch, column: str, known: pa.Array) -> set[str]:
    """The values of ``column`` in rows whose ``batch_id`` is not among those known."""
    return set(piece[column].filter(pc.invert(pc.is_in(piece["batch_id"], known))).to_pylist())
