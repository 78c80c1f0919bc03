"""Cut audio: the span of each label as a sound file of its own, at the rate and with the channels of the recording.

Names begin with a number, so they sort in the order of the labels. A manifest beside the files says what each is; it is
a CSV that ``--hits`` reads.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import numpy.typing as npt

from pipeline.audio.sound_writer import Container, write_sound
from pipeline.errors import FileFailure
from pipeline.export.labels import Label, find_recording
from pipeline.export.names import make_safe, make_slug
from pipeline.export.texts import csv_lines, encode_lines
from pipeline.search.stopping import until_stopped

MANIFEST = "manifest.csv"

CUT_COLUMNS = ("file", "cut_start_s", "cut_end_s", "channels", "is_approximate", "reason", "message")
"""What the manifest has besides the columns of a CSV export. ``cut_start_s`` and ``cut_end_s`` are where the cut lies
in the file; a label that could not be cut has ``reason`` and ``message`` instead."""

GONE = "the file has another content now than the one that this is about"

IN_MEMORY_BYTES, PIECE_BYTES = 64 * 2**20, 2**20
"""A cut up to this size is made in memory; and it is written in pieces of this size."""

OnFailure = Callable[[Label, Mapping[str, Any]], object]
"""Told the ``reason`` and the ``message`` of a label that could not be cut."""

AT_ONCE = 16
"""Cuts after which an export notes how far it has come."""


class Sound(Protocol):
    """An open span of a recording, at its own rate: an ``Excerpt``.

    ``blocks`` yields samples (n, channels), float32 of full scale 1. ``is_approximate``: a whole decode may have the
    first one at another time.
    """

    sample_rate_hz: int
    channels: int

    @property
    def is_approximate(self) -> bool: ...

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]: ...


OpenSound = Callable[[Label, float, float | None], AbstractContextManager[Sound]]
"""Opens the file of a label from one second to another, or to its end. Raises ``FileFailure``. See ``recordings``."""


@dataclass(frozen=True)
class Cut:
    """A sound file to be made: ``name``, and its span in the file of the label."""

    name: str
    label: Label
    start_s: float
    end_s: float


def plan_cuts(labels: Sequence[Label], container: Container, padding_s: float = 0.0) -> list[Cut]:
    """The cuts of labels, in their order. No cut begins before its file; the end of the file cuts the others.

    Args:
        padding_s: more of the recording before and after each label.
    """
    width = max(4, len(str(len(labels))))
    return [
        Cut(
            f"{_name(number, width, label)}.{container}",
            label,
            max(0.0, label.start_s - padding_s),
            label.end_s + padding_s,
        )
        for number, label in enumerate(labels, start=1)
    ]


def _name(number: int, width: int, label: Label) -> str:
    """``0001_a-bell-ringing_11.mp3_3.80s``: the number, what it is, the recording, and where it begins there."""
    recording, begin_s = find_recording(label.uri)
    verdict = [label.verdict] if label.verdict else []
    of = make_safe(recording.rpartition("/")[2], 48)
    parts = [f"{number:0{width}d}", make_slug(label.text), *verdict, of, f"{begin_s + label.start_s:.2f}s"]
    return make_safe("_".join(filter(None, parts)))


@contextmanager
def made(
    cut: Cut, container: Container, open_sound: OpenSound
) -> Iterator[tuple[Iterator[bytes] | None, dict[str, Any]]]:
    """The content of a cut in pieces, and its values of ``CUT_COLUMNS`` and ``sample_rate_hz``, JSON.

    The whole cut is made before, in memory or, if it is long, in a temporary file, which lasts as long as the context.
    Instead of content there is None where the file cannot be read: the values say why.
    """
    with SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
        try:
            values = _write(cast(BinaryIO, file), cut, container, open_sound)
        except FileFailure as failure:
            yield None, {"reason": failure.reason, "message": failure.message}
            return
        file.seek(0)
        yield iter(partial(file.read, PIECE_BYTES), b""), values


def _write(file: BinaryIO, cut: Cut, container: Container, open_sound: OpenSound) -> dict[str, Any]:
    if cut.label.status == "gone":
        raise FileFailure("read", "vanished", GONE)
    with open_sound(cut.label, cut.start_s, cut.end_s) as sound:
        rate_hz, channels = sound.sample_rate_hz, sound.channels
        n_samples = write_sound(file, until_stopped(sound.blocks()), rate_hz, channels, container)
        is_approximate = sound.is_approximate
    if not n_samples:
        raise FileFailure("decode", "out_of_range", f"nothing from {cut.start_s:.3f} s on")
    first = round(cut.start_s * rate_hz)
    values = {"file": cut.name, "cut_start_s": first / rate_hz, "cut_end_s": (first + n_samples) / rate_hz}
    return values | {"channels": channels, "is_approximate": is_approximate, "sample_rate_hz": rate_hz}


def manifest_lines(cuts: Sequence[Cut], all_values: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The manifest, CSV: ``file`` first, then the columns of a CSV export, then the other ``CUT_COLUMNS``."""
    labels = [
        replace(cut.label, sample_rate_hz=values.get("sample_rate_hz"))
        for cut, values in zip(cuts, all_values, strict=True)
    ]
    return csv_lines(labels, all_values, first=CUT_COLUMNS[:1], last=CUT_COLUMNS[1:])


def cut_files(
    labels: Sequence[Label],
    container: Container,
    open_sound: OpenSound,
    padding_s: float = 0.0,
    on_failure: OnFailure = lambda label, values: None,
) -> Iterator[tuple[str, Iterable[bytes]]]:
    """All files of an export, for a stream: each cut as it is made, then the manifest.

    The content of a file must be taken before the next one is asked for.
    """
    cuts = plan_cuts(labels, container, padding_s)
    all_values: list[Mapping[str, Any]] = []
    for cut in until_stopped(cuts):
        with made(cut, container, open_sound) as (pieces, values):
            all_values.append(values)
            if pieces is None:
                on_failure(cut.label, values)
            else:
                yield cut.name, pieces
    yield MANIFEST, encode_lines(manifest_lines(cuts, all_values))
