"""Labelled synthetic audio: fourteen kinds of sound, and scenes that mix them over noise.

A seeded generator enters; 48 kHz mono float32 waveforms with exact event times leave. The bundled model learns from
these sounds and is judged on them, so everything exists twice: a *training* half and a *held-out* half. For every
parameter in ``RANGES`` the held-out half is a gap in the training range. ``captions`` has the texts.

    rng = np.random.default_rng(0)
    waveform, events = make_scene(rng, 10.0, ["bell", Event("high_tone", 3.0, 3.2)], snr_db=10.0)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Waveform, samples_to_seconds, seconds_to_samples

Signal = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Event:
    """One sound of a scene: ``label`` (of ``CLASSES``) sounds in [start_s, end_s), seconds from the scene's start."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Interval:
    """The interval [low, high] of a parameter, with a gap: training draws outside the gap, the held-out half inside."""

    low: float
    gap_low: float
    gap_high: float
    high: float

    def draw(self, rng: np.random.Generator, held_out: bool) -> float:
        """One value from a half, uniform in the logarithm."""
        low, gap_low, gap_high, high = np.log([self.low, self.gap_low, self.gap_high, self.high])
        if held_out:
            return float(np.exp(rng.uniform(gap_low, gap_high)))
        value = rng.uniform(low, high - (gap_high - gap_low))
        return float(np.exp(value if value < gap_low else value + gap_high - gap_low))


RANGES: dict[str, dict[str, Interval]] = {
    "low_tone": {"pitch_hz": Interval(120, 175, 198, 450)},
    "high_tone": {"pitch_hz": Interval(1_800, 4_200, 4_750, 7_000)},
    "rising_sweep": {"start_hz": Interval(250, 360, 407, 900), "octaves": Interval(1.3, 2.23, 2.52, 3.2)},
    "falling_sweep": {"start_hz": Interval(250, 550, 625, 900), "octaves": Interval(1.3, 1.65, 1.86, 3.2)},
    "noise": {"low_cut_hz": Interval(100, 240, 305, 2_000)},
    "clicks": {"rate_hz": Interval(9, 11, 12.5, 20), "ring_hz": Interval(2_000, 3_900, 4_430, 6_000)},
    "siren": {"pitch_hz": Interval(550, 670, 755, 1_200), "rate_hz": Interval(1.6, 2.78, 3.13, 4.0)},
    "bell": {"pitch_hz": Interval(450, 985, 1_115, 1_600)},
    "buzz": {"pitch_hz": Interval(110, 162, 183, 420)},
    "hum": {"pitch_hz": Interval(90, 163, 184, 240), "rate_hz": Interval(6, 7.3, 8.25, 13)},
    "rumble": {"firing_hz": Interval(22, 28.8, 32.7, 60)},
    "chirps": {"pitch_hz": Interval(3_000, 4_480, 5_060, 6_000), "rate_hz": Interval(5, 5.9, 6.67, 10)},
    "drum": {"pitch_hz": Interval(60, 104, 117.5, 150), "rate_hz": Interval(3, 3.55, 3.98, 6)},
    "silence": {"floor": Interval(1e-7, 3.2e-6, 6.5e-6, 3e-5)},
    "background": {"slope": Interval(1.5, 1.68, 1.84, 2.4)},
}
"""The parameters of each class. ``background`` is the noise of a scene, a low wind-like roar whose power falls as
1 / f**slope. The gaps, mostly 13 % wide, lie about one or two thirds up their interval on a log scale, in turns."""

CLASSES = tuple(label for label in RANGES if label != "background")

LENGTHS_S: dict[str, tuple[float, float]] = {
    **dict.fromkeys(CLASSES, (0.5, 3.0)),
    "high_tone": (0.2, 3.0),
    "clicks": (0.2, 3.0),
    "drum": (0.2, 3.0),
    "noise": (0.3, 3.0),
    "rising_sweep": (0.4, 1.6),
    "falling_sweep": (0.4, 1.6),
    "siren": (1.0, 4.0),
    "bell": (0.5, 2.5),
}
"""Shortest and longest event of each class, in seconds. A shorter event would not be recognisable."""


# ---------------------------------------------------------------------------------------------- the sounds
# Each takes times t (samples,) in seconds, a draw(name) for its parameters, and the generator. Their level is free.

Draw = Callable[[str], float]


def _sine(pitch_hz: float | Signal, t: Signal, phase: float = 0.0) -> Signal:
    """A sine whose pitch is constant or follows an array of Hz per sample."""
    cycles = pitch_hz * t if isinstance(pitch_hz, float) else np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    wave: Signal = np.sin(2 * np.pi * cycles + phase)
    return wave


def _repeat(t: Signal, rate_hz: float, stroke_s: float, stroke: Callable[[Signal], Signal]) -> Signal:
    """Strokes at about ``rate_hz``, shifted so that the first begins at 0 and the last ends with ``t``."""
    n_strokes = round((t[-1] - stroke_s) * rate_hz) + 1
    if n_strokes < 2:
        return stroke(t)
    one = stroke(t[: seconds_to_samples(stroke_s)])
    out = np.zeros(len(t))
    for first in np.linspace(0, len(t) - len(one), n_strokes).astype(int):
        out[first : first + len(one)] += one
    return out


def _tone(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    return _sine(draw("pitch_hz"), t, rng.uniform(0, 6))


def _rising_sweep(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    return _sine(draw("start_hz") * 2.0 ** (draw("octaves") * t / t[-1]), t)


def _falling_sweep(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    return _sine(draw("start_hz") * 2.0 ** (draw("octaves") * (1 - t / t[-1])), t)


def _noise(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    low_cut_hz = draw("low_cut_hz")
    return _shape_noise(len(t), rng, lambda f: np.minimum(1.0, f / low_cut_hz))


def _clicks(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    ring_hz = draw("ring_hz")
    return _repeat(t, draw("rate_hz"), 0.02, lambda s: _sine(ring_hz, s) * np.exp(-s / 0.003))


def _siren(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    swing = _sine(draw("rate_hz"), t, rng.uniform(0, 6))
    pitch_hz = draw("pitch_hz") * 2.0 ** (rng.uniform(0.35, 0.5) * swing)
    return _sine(pitch_hz, t) + 0.3 * _sine(2 * pitch_hz, t) + 0.15 * _sine(3 * pitch_hz, t)


def _bell(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    """Inharmonic partials, each dying faster than the one below; the lowest loses 10 dB by the end, then is damped."""
    pitch_hz, decay = draw("pitch_hz"), 1.2 / t[-1]
    partials = ((1.0, 1.0, 1.0), (2.0, 0.7, 1.1), (2.76, 0.6, 1.3), (5.4, 0.4, 1.8), (8.9, 0.2, 2.5))
    return sum((a * _sine(r * pitch_hz, t) * np.exp(-d * decay * t) for r, a, d in partials), np.zeros(len(t)))


def _buzz(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    """A square wave from its odd harmonics below 9 kHz, so that nothing folds back."""
    pitch_hz = draw("pitch_hz")
    orders = range(1, int(9_000 / pitch_hz), 2)
    return sum((_sine(n * pitch_hz, t) / n for n in orders), np.zeros(len(t)))


def _hum(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    pitch_hz = draw("pitch_hz")
    carrier = _sine(pitch_hz, t) + 0.5 * _sine(2 * pitch_hz, t) + 0.25 * _sine(3 * pitch_hz, t)
    return (1 + 0.95 * _sine(draw("rate_hz"), t, rng.uniform(0, 6))) * carrier


def _rumble(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    """An engine: many harmonics of a wandering firing rate, and low noise that pulses with it."""
    wander = _sine(rng.uniform(0.5, 1.5), t, rng.uniform(0, 6))
    cycles = np.cumsum(draw("firing_hz") * (1 + 0.03 * wander)) / SAMPLE_RATE_HZ
    harmonics = sum(
        (np.sin(2 * np.pi * n * cycles + rng.uniform(0, 6)) / n**0.5 for n in range(1, 13)), np.zeros(len(t))
    )
    roar = _shape_noise(len(t), rng, lambda f: 1 / (1 + (f / 300) ** 2))
    return harmonics + 3 * (0.3 + np.sin(np.pi * cycles) ** 2) * roar


def _chirps(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    """Short whistles, each bending up and down again."""
    pitch_hz, rate_hz, bend = draw("pitch_hz"), draw("rate_hz"), rng.uniform(0.15, 0.35)

    def whistle(s: Signal) -> Signal:
        shape: Signal = np.sin(np.pi * s / s[-1])
        return _sine(pitch_hz * 2.0 ** (bend * (2 * shape - 1)), s) * shape

    return _repeat(t, rate_hz, 0.7 / rate_hz, whistle)


def _drum(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    """Strokes of a skin whose pitch drops, with a short slap at the start."""
    pitch_hz = draw("pitch_hz")

    def stroke(s: Signal) -> Signal:
        skin = _sine(pitch_hz * (1 + 0.8 * np.exp(-s / 0.02)), s) * np.exp(-s / 0.06)
        return skin + 0.5 * rng.standard_normal(len(s)) * np.exp(-s / 0.008)

    return _repeat(t, draw("rate_hz"), 0.16, stroke)


def _silence(t: Signal, draw: Draw, rng: np.random.Generator) -> Signal:
    return draw("floor") * rng.standard_normal(len(t))


_SOUNDS: dict[str, Callable[[Signal, Draw, np.random.Generator], Signal]] = {
    "low_tone": _tone,
    "high_tone": _tone,
    "rising_sweep": _rising_sweep,
    "falling_sweep": _falling_sweep,
    "noise": _noise,
    "clicks": _clicks,
    "siren": _siren,
    "bell": _bell,
    "buzz": _buzz,
    "hum": _hum,
    "rumble": _rumble,
    "chirps": _chirps,
    "drum": _drum,
    "silence": _silence,
}


def _shape_noise(n_samples: int, rng: np.random.Generator, gain: Callable[[Signal], Signal]) -> Signal:
    """Gaussian noise (n_samples,) of RMS 1 whose spectrum follows ``gain(frequency_hz)``."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequency_hz = np.asarray(np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE_HZ), np.float64)
    shaped: Signal = np.fft.irfft(spectrum * gain(frequency_hz), n_samples)
    return shaped / _rms(shaped)


def _rms(signal: Signal) -> float:
    return float(np.sqrt(np.mean(np.square(signal))))


def _render(label: str, n_samples: int, rng: np.random.Generator, held_out: bool) -> Signal:
    """The sound (n_samples,) of RMS 1 with 4 ms ramps at both ends; silence keeps its tiny level."""

    def draw(name: str) -> float:
        return RANGES[label][name].draw(rng, held_out)

    signal = _SOUNDS[label](np.arange(n_samples) / SAMPLE_RATE_HZ, draw, rng)
    if label == "silence":
        return signal
    ramp = np.minimum(1.0, np.arange(n_samples) / (0.004 * SAMPLE_RATE_HZ))
    signal = signal * np.minimum(ramp, ramp[::-1])
    return signal / _rms(signal)


def make_sound(label: str, duration_s: float, rng: np.random.Generator, held_out: bool = False) -> Waveform:
    """One sound alone, (duration_s * 48000,) float32 with a peak of 0.5; silence is inaudible noise.

    Raises KeyError for a label outside ``CLASSES``.
    """
    signal = _render(label, seconds_to_samples(duration_s), rng, held_out)
    peak = 1.0 if label == "silence" else 2 * float(np.max(np.abs(signal)))
    return (signal / peak).astype(np.float32)


# ---------------------------------------------------------------------------------------------- the scenes


def place_events(
    rng: np.random.Generator, duration_s: float, labels: Iterable[str], placed: Sequence[Event] = ()
) -> list[Event]:
    """Random times for one event per label beside those already ``placed``, by start. Labels without room are left out.

    Lengths are uniform in the logarithm. At most two events sound at once, never two of one class, and never anything
    with silence.
    """
    events = list(placed)
    for label in labels:
        for _ in range(30):
            length_s = min(float(np.exp(rng.uniform(*map(np.log, LENGTHS_S[label])))), duration_s)
            start_s = rng.uniform(0, duration_s - length_s)
            event = _snap(Event(label, start_s, start_s + length_s))
            if _fits(event, events):
                events.append(event)
                break
    return sorted(events, key=lambda event: event.start_s)


def _snap(event: Event) -> Event:
    """The event with its times rounded to samples."""
    start, stop = seconds_to_samples(event.start_s), seconds_to_samples(event.end_s)
    return Event(event.label, samples_to_seconds(start), samples_to_seconds(stop))


def _fits(event: Event, others: Sequence[Event]) -> bool:
    near = [o for o in others if o.start_s < event.end_s + 0.1 and event.start_s < o.end_s + 0.1]
    labels = {o.label for o in near}
    return len(near) < 2 and event.label not in labels and not (near and "silence" in labels | {event.label})


def make_scene(
    rng: np.random.Generator,
    duration_s: float,
    sounds: Sequence[str | Event],
    snr_db: float | None = 10.0,
    held_out: bool = False,
) -> tuple[Waveform, list[Event]]:
    """Mix sounds over background noise: a waveform (duration_s * 48000,) float32 and its events by start.

    A label in ``sounds`` is placed at random, an ``Event`` at its times. Every event has the power of the noise plus
    ``snr_db``, over its own length. Silence interrupts the noise, too. With ``snr_db=None`` there is no noise: events
    get levels up to 6 dB apart, and every pause of at least 0.2 s between them is returned as silence. The RMS of the
    events is drawn between 0.03 and 0.2, less where a peak would pass 0.95.
    """
    n_samples = seconds_to_samples(duration_s)
    fixed = [_snap(sound) for sound in sounds if isinstance(sound, Event)]
    events = place_events(rng, duration_s, [sound for sound in sounds if isinstance(sound, str)], fixed)
    mixture = np.zeros(n_samples)
    if snr_db is not None:
        slope = RANGES["background"]["slope"].draw(rng, held_out)
        mixture += _shape_noise(n_samples, rng, lambda f: np.maximum(f, 30.0) ** (-slope / 2))
    for event in (e for e in events if e.label == "silence"):
        mixture[_samples(event)] = 0.0
    for event in (e for e in events if e.label != "silence"):
        level_db = rng.uniform(-3, 3) if snr_db is None else snr_db
        span = _samples(event)
        mixture[span] += 10 ** (level_db / 20) * _render(event.label, span.stop - span.start, rng, held_out)
    if snr_db is None:
        events = sorted(events + _pauses(events, duration_s), key=lambda event: event.start_s)
    level = np.exp(rng.uniform(np.log(0.03), np.log(0.2))) / 10 ** ((snr_db or 0.0) / 20)
    mixture *= min(level, 0.95 / max(float(np.max(np.abs(mixture))), 1e-9))
    mixture += RANGES["silence"]["floor"].draw(rng, held_out) * rng.standard_normal(n_samples)
    return mixture.astype(np.float32), events


def _samples(event: Event) -> slice:
    return slice(seconds_to_samples(event.start_s), seconds_to_samples(event.end_s))


def _pauses(events: Sequence[Event], duration_s: float) -> list[Event]:
    """The spans of at least 0.2 s without an event, as silence."""
    pauses, quiet_from_s = [], 0.0
    for event in [*sorted(events, key=lambda e: e.start_s), Event("", duration_s, duration_s)]:
        if event.start_s - quiet_from_s >= 0.2:
            pauses.append(Event("silence", quiet_from_s, event.start_s))
        quiet_from_s = max(quiet_from_s, event.end_s)
    return pauses


def draw_scene(rng: np.random.Generator, duration_s: float) -> tuple[Waveform, list[Event]]:
    """A random scene: up to one event per 2 s (at least one), noise at 0 to 20 dB in four scenes of five."""
    n_events = int(rng.integers(1, 2 + int(duration_s / 2)))
    labels = [str(label) for label in rng.choice(CLASSES, n_events)]
    snr_db = None if rng.random() < 0.2 else float(rng.uniform(0, 20))
    return make_scene(rng, duration_s, labels, snr_db)


def frame_targets(events: Iterable[Event], n_frames: int) -> npt.NDArray[np.bool_]:
    """Which class sounds in which 40 ms frame: (n_frames, 14) bool, true if it fills at least half of the frame."""
    seconds = np.arange(n_frames + 1) * (HOP_SAMPLES / SAMPLE_RATE_HZ)
    covered_s = np.zeros((n_frames, len(CLASSES)))
    for event in events:
        overlap_s = np.minimum(seconds[1:], event.end_s) - np.maximum(seconds[:-1], event.start_s)
        covered_s[:, CLASSES.index(event.label)] += np.maximum(0.0, overlap_s)
    return covered_s >= 0.5 * HOP_SAMPLES / SAMPLE_RATE_HZ - 1e-9
