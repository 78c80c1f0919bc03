"""The channels of a sound, mixed to one: their mean, unless they cancel each other.

A cable that is wired wrongly gives a left channel that is the right one upside down, and their mean is silence. If the
energy of the mean lies 40 dB below that of the two channels, the first channel is taken instead. This is decided once
for a content: from sixteen seconds at fixed fractions of a file that can be sought in, from its first minute otherwise.
Silence that fills gaps does not count. If these are silent, the mean is taken: to wait for the first sound, each part
of a recording would need all before it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.audio.pieces import Piece, check_rate, mean_channels

Channels = tuple[int, npt.NDArray[Any]]
"""A sample rate in hertz, and samples (channels, n) at that rate, floats or integers."""

PROBES = 16
"""Seconds that decide on a file that can be sought in."""

_MINUTE_S = 60.0
_CANCELLED = 1e-4
"""40 dB."""

_MOST_HELD_BYTES = 1 << 26
"""A minute of 48 kHz takes a third to two thirds of this. At higher rates, less than a minute decides."""


class Mixer:
    """Mixes the channels of one sound. Decides in the first minute, unless ``decide`` was called before.

    Args:
        decisive_s: how much sound decides.
    """

    def __init__(self, decisive_s: float = _MINUTE_S) -> None:
        self.channel: int | None = None
        self.decided = False
        self.is_filling = False
        """Whether the next part fills a gap: it decides nothing."""
        self._decisive_s = decisive_s
        self._heard_s = 0.0
        self._held_bytes = 0
        self._mono_energy = 0.0
        self._held: list[tuple[Channels, Piece]] = []

    @property
    def note(self) -> str | None:
        """A remark for people."""
        return None if self.channel is None else "its two channels cancel each other: the first is read"

    def mix(self, parts: Iterator[Channels]) -> Iterator[Piece]:
        """The mono samples of a sound."""
        for rate_hz, channels in parts:
            check_rate(rate_hz)
            if not self.decided:
                self.listen(rate_hz, channels)
                if self.decided:
                    yield from self._release()
            elif self.channel is not None and len(channels) == 2:
                yield rate_hz, _take(channels, self.channel)
            else:
                yield rate_hz, mean_channels(channels)
        if not self.decided:
            self.decide()
            yield from self._release()

    def listen(self, rate_hz: int, channels: npt.NDArray[Any]) -> None:
        """Take a part of the sound into account, and decide if that is enough."""
        if self.is_filling:
            silence = np.broadcast_to(np.float32(0), channels.shape)  # takes no memory, however long it is
            self._held.append(((rate_hz, silence), (rate_hz, silence[0])))
            return
        mono = mean_channels(channels)
        self._held.append(((rate_hz, channels), (rate_hz, mono)))
        self._held_bytes += channels.nbytes + mono.nbytes
        self._heard_s += len(mono) / rate_hz
        self._mono_energy += _energy(rate_hz, mono)
        # The energy of the channels cannot be more than full scale all the time.
        is_loud = self._mono_energy > _CANCELLED * self._decisive_s
        is_enough = self._heard_s >= self._decisive_s or self._held_bytes >= _MOST_HELD_BYTES
        if len(channels) != 2 or is_loud or is_enough:
            self.decide()

    def decide(self) -> None:
        """Decide by what has been heard so far."""
        self.decided = True
        if self._mono_energy > _CANCELLED * self._decisive_s:
            return
        energies = [
            _energy(rate_hz, _take(channels, number)) / 2
            for (rate_hz, channels), _ in self._held
            if len(channels) == 2
            for number in (0, 1)
        ]
        if self._mono_energy < _CANCELLED * sum(energies):
            self.channel = 0

    def forget(self) -> None:
        """Let go of what was heard."""
        self._held = []

    def _release(self) -> Iterator[Piece]:
        held, self._held = self._held, []
        for (rate_hz, channels), piece in held:
            is_one = self.channel is not None and len(channels) == 2
            yield (rate_hz, _take(channels, self.channel or 0)) if is_one else (rate_hz, np.ascontiguousarray(piece[1]))


def _take(channels: npt.NDArray[Any], number: int) -> npt.NDArray[np.float32]:
    return mean_channels(channels[number : number + 1])


def _energy(rate_hz: int, mono: npt.NDArray[np.float32]) -> float:
    """Of samples (n,), in seconds at full scale."""
    return float(np.dot(mono, mono)) / rate_hz
