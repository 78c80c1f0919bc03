"""How well a checkpoint finds synthetic sounds by words: the held-out exam and the metrics.

A checkpoint enters; a ``Quality`` leaves. The model card states it and the tests measure it again. Training uses
nothing of the held-out exam: it has other seeds, parameter values, captions and mixtures. Choose between recipes by
the validation exam, which is drawn in the same way from the training half.

After a second look at the held-out half, a good figure is partly luck. If you change the training because of it, say so
in the history of the model card, or move the gaps and write new captions.

    python -m jobs.tiny.evaluate [CHECKPOINT]
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PeAudioModel, PreTrainedTokenizerBase

from jobs.shared.output import print_json
from jobs.tiny.captions import CAPTIONS, DISTRACTORS
from jobs.tiny.network import embed_texts
from jobs.tiny.synth import CLASSES, LENGTHS_S, Event, frame_targets, make_scene
from pipeline.encoder.checkpoint import find_checkpoint
from pipeline.encoder.loading import load_model, load_tokenizer
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.grid import FRAME_S, HOP_SAMPLES, Grid, Span, Waveform, count_frames, plan_windows

CHECKPOINT = Path(__file__).parents[2] / "pipeline" / "encoder" / "models" / "earshot-tiny"
HELD_OUT_SEED, VALIDATION_SEED, LONG_SEED = 2_000_029, 3_000_017, 4_000_037
"""Far from the seeds of training, which count up from its own."""

ONSET_PROBABILITY = 0.3
"""An event begins above it. Source: PE-Audio's official localisation code."""

TOLERANCE_S = 0.2
"""A found event is right if it begins within this time of a true one: the usual collar of event-based scores."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Embed = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Clip:
    """A waveform (samples,) at 48 kHz, a whole number of frames long, and its events."""

    waveform: Waveform
    events: list[Event]
    kind: str

    @property
    def labels(self) -> set[str]:
        return {event.label for event in self.events}


@dataclass(frozen=True, slots=True)
class Exam:
    """Clips to search, captions for each class, and captions of sounds that no clip has."""

    clips: list[Clip]
    captions: dict[str, tuple[str, ...]]
    distractors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of a checkpoint; dictionaries are by class, times in seconds.

    ``frame_f1`` counts frames above probability 0.3, ``frame_f1_at_half`` above 0.5; both micro-averages pool all
    classes, captions and frames. Event scores follow the rule of `locate` for the start and end of an event.
    """

    precision_at_10: float
    frame_f1: float
    frame_f1_at_half: float
    event_f1: float
    onset_error_median_s: float
    onset_error_p90_s: float
    offset_error_median_s: float
    offset_error_p90_s: float
    short_clip_frame_f1: float
    short_event_recall: float
    distractor_frame_rate: float
    precision_at_10_by_class: dict[str, float]
    frame_f1_by_class: dict[str, float]
    event_f1_by_class: dict[str, float]
    clips_by_class: dict[str, int]


def make_exam(held_out: bool) -> Exam:
    """The held-out exam, or one of the same shape from the training half with nine training captions a class."""
    rng = np.random.default_rng(HELD_OUT_SEED if held_out else VALIDATION_SEED)
    clips = make_clips(rng, held_out)
    if held_out:
        return Exam(clips, {label: CAPTIONS[label].held_out for label in CLASSES}, DISTRACTORS.held_out)

    def some(captions: Sequence[str], n_captions: int) -> tuple[str, ...]:
        return tuple(str(caption) for caption in rng.choice(captions, n_captions, replace=False))

    return Exam(clips, {label: some(CAPTIONS[label].train, 9) for label in CLASSES}, some(DISTRACTORS.train, 36))


def make_clips(rng: np.random.Generator, held_out: bool) -> list[Clip]:
    """About 150 clips, over 20 with each class: 10 s mixtures, clips of 0.6 to 2 s, and lone 0.2 s events in 10 s."""
    clips = []
    decks = [label for _ in range(18) for label in rng.permutation(CLASSES)]
    for first in range(0, len(decks), 4):
        sounds = [str(label) for label in decks[first : first + 4]]
        clips.append(Clip(*make_scene(rng, 10.0, sounds, float(rng.uniform(0, 20)), held_out), "mixture"))
    for label in CLASSES:
        for seconds in (0.6, 0.8, 1.2, 1.6, 2.0):
            shortest_s = round(LENGTHS_S[label][0] * 1.2 / FRAME_S) * FRAME_S
            snr_db = float(rng.uniform(0, 20))
            clips.append(Clip(*make_scene(rng, max(seconds, shortest_s), [label], snr_db, held_out), "short"))
    for label in ("high_tone", "drum", "clicks"):
        for start_s in rng.uniform(0, 9.8, 5):
            event = Event(label, float(start_s), float(start_s) + 0.2)
            clips.append(Clip(*make_scene(rng, 10.0, [event], 10.0, held_out), "lone"))
    return clips


def make_long_exam(shortest_s: float, longest_s: float, n_clips: int) -> Exam:
    """Mixtures as in the held-out exam, as dense, but of other lengths: uniform, a whole number of frames."""
    rng = np.random.default_rng(LONG_SEED)
    clips = []
    for _ in range(n_clips):
        seconds = round(float(rng.uniform(shortest_s, longest_s)) / FRAME_S) * FRAME_S
        sounds = [str(label) for label in rng.choice(CLASSES, round(seconds * 0.4))]
        clips.append(Clip(*make_scene(rng, seconds, sounds, float(rng.uniform(0, 20)), held_out=True), "mixture"))
    return Exam(clips, {label: CAPTIONS[label].held_out for label in CLASSES}, DISTRACTORS.held_out)


def embed_plainly(model: PeAudioModel, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, samples) -> (n, dim) clips and (n, frames, dim) frames, by transformers' own forward."""
    output = model.audio_encoder(samples[:, None])
    return model.audio_head(output.pooler_output), model.audio_head(output.last_hidden_state)


@torch.inference_mode()
def encode_clips(embed: Embed, clips: Sequence[Clip], grid: Grid | None = None) -> tuple[list[Floats], list[Floats]]:
    """For each clip, the embeddings of its windows (windows, dim) and of its frames (frames, dim), float32.

    Windows of equal length share a batch, so nothing is padded.

    Args:
        grid: cuts the clips into windows; by default each one is a window.
    """
    counts = [count_frames(len(clip.waveform)) for clip in clips]
    spans = [plan_windows(n, grid) if grid else [Span(0, n, 0, n)] for n in counts]
    windows = [
        clip.waveform[span.first * HOP_SAMPLES : (span.first + span.length) * HOP_SAMPLES]
        for clip, cut in zip(clips, spans, strict=True)
        for span in cut
    ]
    by_length: dict[int, list[int]] = {}
    for index, window in enumerate(windows):
        by_length.setdefault(len(window), []).append(index)
    encoded: dict[int, tuple[Floats, Floats]] = {}
    for n_samples, indices in by_length.items():
        at_once = max(1, 500_000 // n_samples)
        for first in range(0, len(indices), at_once):
            batch = indices[first : first + at_once]
            pooled, frames = (
                embeddings.float().numpy()
                for embeddings in embed(torch.from_numpy(np.stack([windows[i] for i in batch])))
            )
            encoded.update(zip(batch, zip(pooled, frames, strict=True), strict=True))
    found: tuple[list[Floats], list[Floats]] = [], []
    in_order = iter(encoded[index] for index in range(len(windows)))
    for cut in spans:
        pairs = [(span, *next(in_order)) for span in cut]
        found[0].append(np.stack([pooled for _, pooled, _ in pairs]))
        own = [rows[span.own_first - span.first : span.own_stop - span.first] for span, _, rows in pairs]
        found[1].append(np.concatenate(own))
    return found


@torch.inference_mode()
def encode_texts(model: PeAudioModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Floats:
    """Text embeddings (texts, dim) float32, from the last state of the model's ``text_model``."""
    embeddings: Floats = embed_texts(model, tokenizer, texts).numpy()
    return embeddings


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def find_events(logits: Floats) -> list[tuple[float, float]]:
    """Events as (start_s, end_s): from a frame above the onset probability, while logits stay within 1 below it."""
    going_on = np.flatnonzero(np.diff(np.concatenate([[False], logits >= logit(ONSET_PROBABILITY) - 1, [False]])))
    found = []
    for first, stop in going_on.reshape(-1, 2):
        above = np.flatnonzero(logits[first:stop] > logit(ONSET_PROBABILITY))
        if len(above):
            found.append((float(first + above[0]) * FRAME_S, float(stop) * FRAME_S))
    return found


def match_events(found: Sequence[tuple[float, float]], true: Sequence[Event]) -> list[tuple[float, float]]:
    """Signed (onset, offset) errors in seconds of the true events that were found, each by the nearest onset."""
    errors, free = [], list(found)
    for event in true:
        near = min(free, key=lambda span: abs(span[0] - event.start_s), default=None)
        if near is not None and abs(near[0] - event.start_s) <= TOLERANCE_S:
            free.remove(near)
            errors.append((near[0] - event.start_s, near[1] - event.end_s))
    return errors


def f1(n_true_positive: float, n_found: float, n_true: float) -> float:
    return 2 * n_true_positive / max(1.0, n_found + n_true)


def precision_at_10(clips: Sequence[Clip], encoded: Sequence[Floats], texts: Floats, label: str) -> float:
    """Share of clips with ``label`` among the ten best by dot product, averaged over the texts (texts, dim).

    Args:
        encoded: (windows, dim) of each clip, of which the best counts.
    """
    relevant = np.array([label in clip.labels for clip in clips])
    scores = np.stack([(texts @ windows.T).max(axis=1) for windows in encoded], axis=1)
    return float(relevant[np.argsort(-scores, axis=1)[:, :10]].mean())


class _Tally:
    """Counts of one class, pooled over its captions: true positives, found and true, of frames and of events."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, npt.NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
        self.errors: list[tuple[float, float]] = []

    def add(self, clip: Clip, label: str, target: Mask, logits: Floats) -> None:
        """Count one clip for one caption: ``target`` and ``logits`` are (frames,)."""
        for name, above in (("frames", logits > logit(ONSET_PROBABILITY)), ("frames_at_half", logits > 0)):
            counts = np.array([(above & target).sum(), above.sum(), target.sum()])
            self.counts[name] += counts
            self.counts[f"{clip.kind} {name}"] += counts
        true = [event for event in clip.events if event.label == label]
        found = find_events(logits)
        matched = match_events(found, true)
        for name in ("events", f"{clip.kind} events"):
            self.counts[name] += np.array([len(matched), len(found), len(true)])
        self.errors += matched


def measure(
    model: PeAudioModel,
    tokenizer: PreTrainedTokenizerBase,
    exam: Exam,
    embed: Embed | None = None,
    grid: Grid | None = None,
) -> Quality:
    """The quality of a checkpoint, by every caption of the exam.

    Args:
        embed: the audio tower to measure; by default transformers' own forward.
        grid: cuts the clips into windows; by default each one is a window.
    """
    model.eval()
    clips = exam.clips
    clip_embeddings, frame_embeddings = encode_clips(embed or partial(embed_plainly, model), clips, grid)
    scale, bias = model.text_audio_logit_scale.item(), model.text_audio_logit_bias.item()
    targets = [frame_targets(clip.events, count_frames(len(clip.waveform))) for clip in clips]
    precision: dict[str, float] = {}
    tallies = {label: _Tally() for label in CLASSES}
    for column, label in enumerate(CLASSES):
        texts = encode_texts(model, tokenizer, exam.captions[label])
        precision[label] = precision_at_10(clips, clip_embeddings, texts, label)
        for clip, frames, target in zip(clips, frame_embeddings, targets, strict=True):
            for logits in (frames @ texts.T * scale + bias).T:
                tallies[label].add(clip, label, target[:, column], logits)
    unknown = encode_texts(model, tokenizer, exam.distractors)
    alarms = np.concatenate([frames @ unknown.T * scale + bias for frames in frame_embeddings]) > logit(
        ONSET_PROBABILITY
    )

    def pool(name: str) -> Any:
        return np.sum([tally.counts[name] for tally in tallies.values()], axis=0)

    errors = np.abs(np.concatenate([np.reshape(t.errors, (-1, 2)) for t in tallies.values()] + [np.zeros((0, 2))]))
    spread = np.quantile(errors, [0.5, 0.9], axis=0) if len(errors) else np.full((2, 2), np.inf)
    lone = pool("lone events")
    return Quality(
        precision_at_10=float(np.mean(list(precision.values()))),
        frame_f1=f1(*pool("frames")),
        frame_f1_at_half=f1(*pool("frames_at_half")),
        event_f1=f1(*pool("events")),
        onset_error_median_s=float(spread[0, 0]),
        onset_error_p90_s=float(spread[1, 0]),
        offset_error_median_s=float(spread[0, 1]),
        offset_error_p90_s=float(spread[1, 1]),
        short_clip_frame_f1=f1(*pool("short frames")),
        short_event_recall=float(lone[0] / max(1, lone[2])),
        distractor_frame_rate=float(alarms.mean()),
        precision_at_10_by_class=precision,
        frame_f1_by_class={label: f1(*tally.counts["frames"]) for label, tally in tallies.items()},
        event_f1_by_class={label: f1(*tally.counts["events"]) for label, tally in tallies.items()},
        clips_by_class={label: sum(label in clip.labels for clip in clips) for label in CLASSES},
    )


def load(checkpoint: Path) -> tuple[PeAudioModel, PreTrainedTokenizerBase]:
    """The clip model, in evaluation mode, and its tokenizer.

    Raises:
        ModelError: the checkpoint does not load exactly.
    """
    found = find_checkpoint(str(checkpoint), None)
    return load_model(found, "float32"), load_tokenizer(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a checkpoint on the held-out synthetic exam.")
    parser.add_argument("checkpoint", nargs="?", type=Path, default=CHECKPOINT)
    checkpoint = parser.parse_args().checkpoint
    keep_freed_memory()
    print_json([measure(*load(checkpoint), make_exam(held_out=True))])


if __name__ == "__main__":
    main()
