"""Exports that are stopped at each step in turn, and sounds to cut."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import FileFailure
from pipeline.export.cuts import OpenSound
from pipeline.export.exporting import Exported
from pipeline.export.folder import Folder
from pipeline.export.labels import Label

RATE_HZ = 44_100


class Death(BaseException):
    """Stands for a SIGKILL: nothing catches it to tidy up."""


def read_folder(path: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones and those of folders in it too."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def die_at_every_step(path: Path, export: Callable[[Folder], Exported]) -> Exported:
    """Export into ``path``; each attempt is stopped one step later than the one before, until one comes to its end."""
    for n_steps in range(1_000):
        left = n_steps

        def count_down(step: str) -> None:
            nonlocal left
            if not left:
                raise Death(step)
            left -= 1

        try:
            return export(Folder(str(path), count_down))
        except Death:
            continue
    raise AssertionError("the export never ends")


def list_steps(path: Path, export: Callable[[Folder], Exported]) -> list[str]:
    """The names of the steps of an undisturbed export."""
    steps: list[str] = []
    export(Folder(str(path), steps.append))
    return steps


class Tape:
    """An open span of a made recording of four seconds, stereo: the channels hold the number of the sample."""

    sample_rate_hz, channels, is_approximate = RATE_HZ, 2, False

    def __init__(self, start_s: float, end_s: float | None) -> None:
        self._first, n_samples = round(start_s * RATE_HZ), 4 * RATE_HZ
        self._stop = n_samples if end_s is None else min(n_samples, round(end_s * RATE_HZ))

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        for first in range(self._first, self._stop, 10_000):
            numbers = np.arange(first, min(self._stop, first + 10_000), dtype=np.float32) / 2**20
            yield np.stack([numbers, -numbers], axis=1)


@contextmanager
def open_tape(label: Label, start_s: float, end_s: float | None) -> Iterator[Any]:
    """Every file is such a recording, except those with ``gone`` or ``cut`` in their names."""
    if "gone" in label.uri:
        raise FileFailure("read", "vanished", os.strerror(2))
    tape = Tape(start_s, end_s)
    if "cut" in label.uri:
        tape.blocks = _fail_after_one(tape)  # type: ignore[method-assign]
    yield tape


def find_tapes(labels: Sequence[Label]) -> OpenSound:
    return open_tape


def _fail_after_one(tape: Tape) -> Callable[[], Iterator[npt.NDArray[np.float32]]]:
    def blocks() -> Iterator[npt.NDArray[np.float32]]:
        yield next(Tape.blocks(tape))
        raise FileFailure("read", "unreadable", "input/output error")

    return blocks
