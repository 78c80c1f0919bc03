"""Synthetic audio matches its labels and times, and the held-out half shares nothing with training."""

import itertools
import re
from collections.abc import Iterable

import numpy as np
import pytest

from jobs.tiny.captions import CAPTIONS, DISTRACTORS
from jobs.tiny.synth import (
    CLASSES,
    LENGTHS_S,
    RANGES,
    Event,
    Interval,
    draw_scene,
    frame_targets,
    make_scene,
    make_sound,
    place_events,
)
from pipeline.grid import SAMPLE_RATE_HZ, Waveform, seconds_to_samples


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def power(waveform: Waveform, start_s: float, end_s: float) -> float:
    part = waveform[seconds_to_samples(start_s) : seconds_to_samples(end_s)].astype(np.float64)
    return float(np.mean(part**2))


def peak_hz(waveform: Waveform) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 18))
    return float(np.argmax(spectrum) * SAMPLE_RATE_HZ / (1 << 18))


def test_there_are_fourteen_classes_with_captions_and_lengths() -> None:
    assert len(set(CLASSES)) == 14
    assert set(CAPTIONS) == set(CLASSES) == set(LENGTHS_S)


@pytest.mark.parametrize("label", CLASSES)
def test_sound_has_the_documented_length_type_and_peak(label: str) -> None:
    sound = make_sound(label, 1.2, rng())
    assert sound.dtype == np.float32
    assert sound.shape == (57_600,)
    assert float(np.abs(sound).max()) == (
        pytest.approx(0.5, abs=1e-6) if label != "silence" else pytest.approx(0, abs=1e-3)
    )


@pytest.mark.parametrize("label", CLASSES)
def test_seed_determines_the_sound(label: str) -> None:
    np.testing.assert_array_equal(make_sound(label, 0.8, rng(3)), make_sound(label, 0.8, rng(3)))
    assert not np.array_equal(make_sound(label, 0.8, rng(3)), make_sound(label, 0.8, rng(4)))


def test_seed_determines_the_scene() -> None:
    first, first_events = draw_scene(rng(5), 10.0)
    again, again_events = draw_scene(rng(5), 10.0)
    np.testing.assert_array_equal(first, again)
    assert first_events == again_events
    assert not np.array_equal(first, draw_scene(rng(6), 10.0)[0])


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("label", ["low_tone", "high_tone"])
def test_tone_has_a_pitch_from_its_half(label: str, held_out: bool) -> None:
    pitch_range = RANGES[label]["pitch_hz"]
    for seed in range(20):
        pitch_hz = peak_hz(make_sound(label, 1.0, rng(seed), held_out))
        inside_gap = pitch_range.gap_low - 1 <= pitch_hz <= pitch_range.gap_high + 1
        assert pitch_range.low - 1 <= pitch_hz <= pitch_range.high + 1
        assert inside_gap == held_out


@pytest.mark.parametrize(("label", "direction"), [("rising_sweep", 1), ("falling_sweep", -1)])
def test_sweep_moves_its_pitch_in_its_direction(label: str, direction: int) -> None:
    for seed in range(10):
        sound = make_sound(label, 1.0, rng(seed))
        pitches_hz = [peak_hz(part) for part in np.split(sound, 8)]
        assert all(direction * (after - before) > 0 for before, after in itertools.pairwise(pitches_hz))


def test_number_of_clicks_matches_the_rate() -> None:
    sound = np.abs(make_sound("clicks", 2.0, rng(), held_out=True))
    loud = sound > 0.1
    onsets = [i for i in np.flatnonzero(loud) if not loud[max(0, i - 960) : i].any()]
    rate_hz = RANGES["clicks"]["rate_hz"]
    assert 2 * rate_hz.gap_low - 1 <= len(onsets) <= 2 * rate_hz.gap_high + 1


def test_hum_pulses_at_its_rate() -> None:
    asked = RANGES["hum"]["rate_hz"]
    for seed in range(5):
        envelope = np.abs(make_sound("hum", 3.0, rng(seed), held_out=True)).reshape(-1, 480).mean(1)
        rate_hz = np.argmax(np.abs(np.fft.rfft(envelope - envelope.mean()))[:90]) / 3.0
        assert asked.gap_low - 0.4 <= rate_hz <= asked.gap_high + 0.4


@pytest.mark.parametrize("name", [f"{label}.{name}" for label, ranges in RANGES.items() for name in ranges])
def test_training_and_held_out_values_are_disjoint(name: str) -> None:
    label, parameter = name.split(".")
    asked = RANGES[label][parameter]
    generator = rng()
    training = np.array([asked.draw(generator, held_out=False) for _ in range(500)])
    held_out = np.array([asked.draw(generator, held_out=True) for _ in range(500)])
    slack = 1 + 1e-9
    assert asked.low < asked.gap_low < asked.gap_high < asked.high
    assert ((held_out >= asked.gap_low / slack) & (held_out <= asked.gap_high * slack)).all()
    assert ((training <= asked.gap_low * slack) | (training >= asked.gap_high / slack)).all()
    assert training.min() < asked.gap_low
    assert training.max() > asked.gap_high
    assert ((training >= asked.low / slack) & (training <= asked.high * slack)).all()


def test_interval_is_uniform_in_the_logarithm_outside_its_gap() -> None:
    generator = rng()
    values = np.array([Interval(1, 10, 100, 1_000).draw(generator, held_out=False) for _ in range(4_000)])
    assert np.mean(values < 10) == pytest.approx(0.5, abs=0.03)


def test_held_out_captions_are_disjoint_from_training_captions() -> None:
    everything = [*CAPTIONS.values(), DISTRACTORS]
    training = {text.lower() for captions in everything for text in captions.train}
    held_out = [text.lower() for captions in everything for text in captions.held_out]
    assert not training & set(held_out)
    assert len(set(held_out)) == len(held_out)


def test_held_out_captions_use_training_words() -> None:
    def words(texts: Iterable[str]) -> set[str]:
        return set(re.findall("[a-z]+", " ".join(texts).lower()))

    taught = words(text for captions in CAPTIONS.values() for text in captions.train)
    assert all(words(captions.held_out) <= taught for captions in CAPTIONS.values())


def test_every_caption_names_one_class_only() -> None:
    for one, other in itertools.combinations([*CAPTIONS.values(), DISTRACTORS], 2):
        assert not {*one.train, *one.held_out} & {*other.train, *other.held_out}


def test_every_class_has_several_captions_of_both_kinds() -> None:
    assert all(len(captions.train) >= 50 and len(captions.held_out) >= 5 for captions in CAPTIONS.values())


def test_scene_is_silent_outside_its_events() -> None:
    placed = [Event("high_tone", 3.0, 3.2), Event("drum", 6.0, 6.2)]
    waveform, events = make_scene(rng(), 10.0, placed, snr_db=None)
    assert waveform.shape == (480_000,)
    assert waveform.dtype == np.float32
    assert [e for e in events if e.label != "silence"] == placed
    assert [(e.start_s, e.end_s) for e in events if e.label == "silence"] == [(0.0, 3.0), (3.2, 6.0), (6.2, 10.0)]
    inside = min(power(waveform, 3.0, 3.2), power(waveform, 6.0, 6.2))
    outside = max(power(waveform, 0.0, 3.0), power(waveform, 3.2, 6.0), power(waveform, 6.2, 10.0))
    assert inside > 1e4 * outside


def test_placed_events_fill_their_span_to_both_edges() -> None:
    for label in ("high_tone", "noise", "siren", "buzz", "clicks", "drum", "chirps"):
        waveform, events = make_scene(rng(2), 4.0, [label], snr_db=None)
        (event,) = [e for e in events if e.label == label]
        loudest = float(np.abs(waveform).max())
        loud_s = np.flatnonzero(np.abs(waveform) > 0.02 * loudest) / SAMPLE_RATE_HZ
        assert event.start_s - 1e-9 <= loud_s[0] < event.start_s + 0.02
        assert event.end_s - 0.1 < loud_s[-1] < event.end_s


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_scene_has_the_given_signal_to_noise_ratio(snr_db: float) -> None:
    waveform, (event,) = make_scene(rng(), 10.0, [Event("high_tone", 4.0, 7.0)], snr_db)
    noise = power(waveform, 0.0, 4.0)
    signal = power(waveform, event.start_s, event.end_s) - noise
    assert 10 * np.log10(signal / noise) == pytest.approx(snr_db, abs=1.0)


def test_silence_interrupts_the_background() -> None:
    waveform, _ = make_scene(rng(), 5.0, [Event("silence", 2.0, 3.0)], snr_db=10.0)
    assert power(waveform, 2.0, 3.0) < 1e-4 * min(power(waveform, 0.0, 2.0), power(waveform, 3.0, 5.0))


def test_at_most_two_different_classes_overlap() -> None:
    overlaps = 0
    for seed in range(40):
        events = place_events(rng(seed), 10.0, ["drum", "siren", "bell", "buzz", "drum", "silence"])
        for one, other in itertools.combinations(events, 2):
            if max(one.start_s, other.start_s) < min(one.end_s, other.end_s):
                overlaps += 1
                assert one.label != other.label
                assert "silence" not in (one.label, other.label)
        targets = frame_targets(events, 250)
        assert targets.sum(1).max() <= 2
    assert overlaps > 20


def test_event_lengths_stay_within_those_of_the_class() -> None:
    for seed in range(100):
        for event in draw_scene(rng(seed), 4.0)[1]:
            assert 0.0 <= event.start_s < event.end_s <= 4.0
            if event.label != "silence":
                shortest_s, longest_s = LENGTHS_S[event.label]
                assert shortest_s - 1e-4 <= event.end_s - event.start_s <= longest_s + 1e-4


def test_frames_are_marked_when_at_least_half_filled() -> None:
    column = CLASSES.index("bell")
    targets = frame_targets([Event("bell", 0.1, 0.22)], 8)
    assert targets.shape == (8, 14)
    np.testing.assert_array_equal(targets[:, column], [False, False, True, True, True, True, False, False])
    assert targets.sum() == 4
    assert not frame_targets([Event("bell", 0.101, 0.219)], 8)[[2, 5], column].any()


def test_unknown_label_is_an_error() -> None:
    with pytest.raises(KeyError):
        make_sound("piano", 1.0, rng())
