"""Train ``earshot-tiny``, a real PE-Audio checkpoint of about 3 MB that knows fourteen synthetic sounds.

A seed enters; a checkpoint and its model card leave, after some minutes on a CPU core. Two stages:

1. The codec. transformers runs it without gradients, so its modules are called here directly. It learns to predict
   each frame's log-mel spectrum, its fine structure in time and its classes, with heads that are thrown away.
2. Text and audio. The codec's features are computed once; everything above learns, by a sigmoid loss over all pairs
   of captions and clips, and of captions and frames, to put a caption near what it describes.

    python -m jobs.tiny.train --out my-checkpoint --seed 0
    python -m jobs.tiny.card my-checkpoint

The first command prints figures on a validation exam from the training half, to choose recipes by; only the second
looks at the held-out half. Where other programs share the cores, OMP_NUM_THREADS=1 is faster than threads that wait
for each other.
"""

import argparse
import dataclasses
import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PeAudioModel, PreTrainedTokenizerFast

from jobs.shared.output import print_error
from jobs.tiny.card import CARD
from jobs.tiny.evaluate import CHECKPOINT, Quality, load, make_exam, measure
from jobs.tiny.network import CODEC_STRIDES, build_config, build_tokenizer, initialise, save
from jobs.tiny.synth import CAPTIONS, CLASSES, DISTRACTORS, TEMPLATES, draw_scene, frame_targets
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, seconds_to_samples


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much of what: scenes per length in seconds, optimiser steps and peak learning rates per stage."""

    scenes: tuple[tuple[float, int], ...] = ((10.0, 360), (5.0, 420), (2.0, 480), (1.0, 560), (0.6, 320))
    codec_steps: int = 2_000
    codec_crops: int = 6
    codec_rate: float = 1.5e-3
    joint_steps: int = 1_600
    joint_rate: float = 2.5e-3


@dataclass(frozen=True, slots=True)
class Pool:
    """Scenes of one length: waveforms (scenes, samples) int16 and targets (scenes, frames, classes) bool."""

    waveforms: Tensor
    targets: Tensor


def report(message: str) -> None:
    print_error(message)


# ---------------------------------------------------------------------------------------------- what it hears


def make_pools(recipe: Recipe, seed: int) -> list[Pool]:
    """All training scenes, each from a generator of its own."""
    pools = []
    for index, (duration_s, n_scenes) in enumerate(recipe.scenes):
        n_frames = seconds_to_samples(duration_s) // HOP_SAMPLES
        waveforms = torch.empty(n_scenes, n_frames * HOP_SAMPLES, dtype=torch.int16)
        targets = torch.empty(n_scenes, n_frames, len(CLASSES), dtype=torch.bool)
        for row in range(n_scenes):
            waveform, events = draw_scene(np.random.default_rng([seed, index, row]), duration_s)
            waveforms[row] = torch.from_numpy(np.round(waveform * 32_767).astype(np.int16))
            targets[row] = torch.from_numpy(frame_targets(events, n_frames))
        pools.append(Pool(waveforms, targets))
    return pools


# ---------------------------------------------------------------------------------------------- stage 1: the codec


class _Snake(torch.autograd.Function):
    """The codec's activation at its start value alpha = 1, x + sin(x)^2, in a quarter of the memory traffic."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        ctx.save_for_backward(hidden)
        return torch.sin(hidden).square_().add_(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (hidden,) = ctx.saved_tensors
        return torch.sin(2 * hidden).add_(1).mul_(gradients[0])


def snake(hidden: Tensor) -> Tensor:
    """x + sin(x)^2; alpha stays at 1, the convolutions around it scale."""
    activated: Tensor = _Snake.apply(hidden)  # type: ignore[no-untyped-call]
    return activated


def codec_features(model: PeAudioModel, waveforms: Tensor) -> Tensor:
    """Codec features (batch, frames, 64) of (batch, samples), with gradients.

    The first block's residual units run at the full rate and cost most. They start as the identity and are passed
    over here, so they stay it, and the saved model computes the same.
    """
    dac = model.audio_encoder.embedder.dac_encoder
    hidden = dac.block[0].conv1(snake(dac.conv1(waveforms[:, None])))
    for block in dac.block[1:]:
        for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
            hidden = hidden + unit.conv2(snake(unit.conv1(snake(hidden))))
        hidden = block.conv1(snake(hidden))
    features: Tensor = model.audio_encoder.embedder.bottleneck(dac.conv2(snake(hidden)))
    return features.transpose(1, 2)


def mel_filters(n_bands: int, n_fft: int) -> Tensor:
    """Triangular filters (bins, n_bands), equally spaced on the mel scale from 40 Hz to 20 kHz."""
    edges_mel = torch.linspace(2595 * math.log10(1 + 40 / 700), 2595 * math.log10(1 + 20_000 / 700), n_bands + 2)
    edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
    bins_hz = torch.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE_HZ)[:, None]
    rise = (bins_hz - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    fall = (edges_hz[2:] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)


def mel_power(waveforms: Tensor, n_bands: int, hop_samples: int, n_fft: int) -> Tensor:
    """Power (batch, samples / hop, n_bands) in mel bands, of windows of ``n_fft`` samples centred on each hop."""
    margin = (n_fft - hop_samples) // 2
    padded = functional.pad(waveforms, (margin, margin))
    frames = padded.unfold(1, n_fft, hop_samples) * torch.hann_window(n_fft)
    power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1) / n_fft
    bands: Tensor = power @ mel_filters(n_bands, n_fft)
    return bands


def spectral_targets(waveforms: Tensor) -> Tensor:
    """What stage 1 predicts per 40 ms frame: 48 mel bands, 10 bands for each of its four quarters, and its level.

    Bands are compressed as log(1 + power / floor), so that sounds count and what is inaudible does not.
    """
    coarse = mel_power(waveforms, 48, HOP_SAMPLES, 2 * HOP_SAMPLES)
    fine = mel_power(waveforms, 10, HOP_SAMPLES // 4, HOP_SAMPLES // 2).reshape(*coarse.shape[:2], 40)
    level = (coarse + 1e-6).log().mean(2, keepdim=True)
    return torch.cat([torch.log1p(torch.cat([coarse, fine], 2) / 3e-3), level], 2)


def draw_crops(pools: list[Pool], rng: np.random.Generator, n_crops: int) -> tuple[Tensor, Tensor]:
    """One-second crops: waveforms (crops, 48000) float32 and targets (crops, 25, classes) float32."""
    long = [pool for pool in pools if pool.targets.shape[1] >= 25]
    share = np.array([pool.targets.shape[0] * pool.targets.shape[1] for pool in long], float)
    waveforms, targets = [], []
    for index in rng.choice(len(long), n_crops, p=share / share.sum()):
        row = int(rng.integers(0, len(long[index].targets)))
        first = int(rng.integers(0, long[index].targets.shape[1] - 24))
        waveforms.append(long[index].waveforms[row, first * HOP_SAMPLES : (first + 25) * HOP_SAMPLES])
        targets.append(long[index].targets[row, first : first + 25])
    return torch.stack(waveforms).float() / 32_767, torch.stack(targets).float()


def schedule(optimizer: torch.optim.Optimizer, n_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over 5 % of the steps, then linearly down to zero: the small steps are where it learns most."""
    warm = max(1, n_steps // 20)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (1 - min(1.0, step / n_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class CodecHeads(nn.Module):
    """What reads the codec's features in stage 1: spectra from each frame, classes from about ten. Thrown away."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        targets = spectral_targets(example)
        self.mean, self.deviation = targets.mean((0, 1)), targets.std((0, 1))
        self.spectrum = nn.Linear(64, targets.shape[2])
        self.near, self.wide, self.tags = (
            nn.Conv1d(64, 64, 5, padding=2),
            nn.Conv1d(64, 64, 5, padding=2),
            nn.Linear(64, 14),
        )

    def forward(self, features: Tensor, waveforms: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The two losses, of spectra and of classes."""
        wanted = (spectral_targets(waveforms) - self.mean) / self.deviation
        hidden = functional.silu(self.wide(functional.silu(self.near(features.transpose(1, 2))))).transpose(1, 2)
        spectral = functional.smooth_l1_loss(self.spectrum(features), wanted, beta=0.5)
        return spectral, functional.binary_cross_entropy_with_logits(self.tags(hidden), targets)


def train_codec(model: PeAudioModel, pools: list[Pool], recipe: Recipe, rng: np.random.Generator) -> None:
    """Stage 1, on crops of one second."""
    embedder = model.audio_encoder.embedder
    heads = CodecHeads(draw_crops(pools, rng, 64)[0])
    trained = [embedder.dac_encoder, embedder.bottleneck, heads]
    parameters = [parameter for module in trained for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.codec_rate, weight_decay=1e-3)
    scheduler = schedule(optimizer, recipe.codec_steps)
    losses = []
    for step in range(recipe.codec_steps):
        waveforms, targets = draw_crops(pools, rng, recipe.codec_crops)
        spectral, tagging = heads(codec_features(model, waveforms), waveforms, targets)
        optimizer.zero_grad()
        torch.autograd.backward(spectral + 2 * tagging)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        losses.append((spectral.item(), tagging.item()))
        if step % 100 == 99:
            report("codec {}: spectra {:.3f}, classes {:.3f}".format(step + 1, *np.mean(losses[-100:], axis=0)))


@torch.no_grad()
def extract_features(model: PeAudioModel, pools: list[Pool]) -> list[Tensor]:
    """The codec features (scenes, frames, 64) of every pool, computed once."""
    return [
        torch.cat([codec_features(model, waveforms.float()[None] / 32_767) for waveforms in pool.waveforms])
        for pool in pools
    ]


@torch.no_grad()
def normalise_features(model: PeAudioModel, features: list[Tensor]) -> list[Tensor]:
    """Fold mean and deviation of each feature into the bottleneck; returns the features as they are from then on."""
    flat = torch.cat([part.reshape(-1, part.shape[2]) for part in features])
    mean, deviation = flat.mean(0), flat.std(0) + 1e-6
    bottleneck = model.audio_encoder.embedder.bottleneck
    bottleneck.weight.div_(deviation[:, None, None])
    bottleneck.bias.sub_(mean).div_(deviation)
    return [(part - mean) / deviation for part in features]


# ---------------------------------------------------------------------------------------------- stage 2: text and audio


def encode_features(model: PeAudioModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """The audio encoder above its codec: clip states (batch, 96) and frame states (batch, frames, 96)."""
    encoder = model.audio_encoder
    hidden, _ = encoder.patch_embedder(encoder.embedder.data_proj(features))
    positions = encoder.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])
    for layer in encoder.layers:
        hidden = layer(hidden, attention_mask=None, position_embeddings=positions)
    hidden = encoder.output(encoder.norm(hidden))
    return hidden[:, 0], hidden[:, 1:]


def find_own_words() -> dict[str, list[str]]:
    """For every class the words of at least four letters that its training captions use and no others do."""
    captions = {**{label: CAPTIONS[label].train for label in CLASSES}, "": DISTRACTORS.train}
    words = {label: set(re.findall("[a-z]{4,}", " ".join(texts).lower())) for label, texts in captions.items()}
    return {label: sorted(words[label].difference(*(words[k] for k in words if k != label))) for label in CLASSES}


OWN_WORDS = find_own_words()


def draw_captions(rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """Captions for one step, three of each class and as many that match nothing, with class numbers (-1: none).

    Some are a few of the class's own words in any order, so that each of them is learnt and not the sentence alone.
    Some get a made-up word in front or behind, so that a word never seen says nothing for or against a sound.
    """
    texts: list[str] = []
    labels: list[int] = []
    for index, label in enumerate(CLASSES):
        whole = rng.choice(CAPTIONS[label].train, 3, replace=False)
        texts += [str(text) if rng.random() > 0.1 else some_words(OWN_WORDS[label], rng) for text in whole]
        labels += [index] * 3
    texts += [str(text) for text in rng.choice(DISTRACTORS.train, 28, replace=False)]
    texts = [surround(text, rng) if rng.random() < 0.15 else text for text in texts]
    texts += [invent_caption(rng) for _ in range(14)]
    return texts, labels + [-1] * 42


def some_words(words: Sequence[str], rng: np.random.Generator) -> str:
    """One to three of the words, in any order."""
    return " ".join(rng.permutation(words)[: rng.integers(1, 4)])


def invent_word(rng: np.random.Generator) -> str:
    """Two or three syllables that mean nothing."""
    letters = ("bcdfghklmnprstvwz", "aeiou")
    return "".join(str(rng.choice(list(letters[i % 2]))) for i in range(2 * int(rng.integers(2, 4))))


def surround(text: str, rng: np.random.Generator) -> str:
    return f"{invent_word(rng)} {text}" if rng.random() < 0.5 else f"{text} {invent_word(rng)}"


def invent_caption(rng: np.random.Generator) -> str:
    """A caption about made-up things, so that words never seen are not taken for a sound."""
    form = str(rng.choice(["{}", "a {}", "{} {}", "a {} {}ing", "a {} of {}"]))
    return str(rng.choice(TEMPLATES.train)).format(form.format(invent_word(rng), invent_word(rng)))


@dataclass(frozen=True, slots=True)
class Batch:
    """Codec features (clips, frames, 64) with frame targets and clip targets; where ``sure`` is 0 nothing is learnt.

    ``frames`` is (clips, frames, classes); ``clips`` and ``sure`` are (clips, classes). All float32.
    """

    features: Tensor
    frames: Tensor
    clips: Tensor
    sure: Tensor


def draw_batches(pools: list[Pool], features: list[Tensor], rng: np.random.Generator) -> Iterator[Batch]:
    """Endless batches of about 80 s: whole scenes of any length, and crops of 1 to 5 s from the longer ones."""
    while True:
        index = int(rng.choice(len(pools), p=[0.45, 0.25, 0.12, 0.1, 0.08]))
        pool, source = pools[index], features[index]
        total = pool.targets.shape[1]
        whole = index > 1 or rng.random() < 0.4
        n_frames = total if whole else int(rng.integers(25, 126))
        rows = rng.integers(0, len(source), int(np.clip(2_000 // n_frames, 8, 64)))
        firsts = rng.integers(0, total - n_frames + 1, len(rows))
        spans = [(row, slice(first, first + n_frames)) for row, first in zip(rows, firsts, strict=True)]
        frames = torch.stack([pool.targets[row, span] for row, span in spans]).float()
        n_seen = frames.sum(1)
        sure = torch.ones_like(n_seen) if whole else ((n_seen == 0) | (n_seen >= 8)).float()
        yield Batch(torch.stack([source[row, span] for row, span in spans]), frames, (n_seen > 0).float(), sure)


class Auxiliary(nn.Module):
    """Plain classifiers of clips and frames that guide the first part of stage 2 and are thrown away."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.clip, self.frame = nn.Linear(hidden_size, len(CLASSES)), nn.Linear(hidden_size, len(CLASSES))

    def forward(self, clip: Tensor, frames: Tensor, batch: Batch) -> Tensor:
        of_clips = functional.binary_cross_entropy_with_logits(self.clip(clip), batch.clips, batch.sure)
        of_frames = functional.binary_cross_entropy_with_logits(self.frame(frames), batch.frames)
        return (of_clips + 2 * of_frames) * len(CLASSES)


def pair_loss(model: PeAudioModel, audio: Tensor, texts: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    """Sigmoid loss of all pairs of audio (..., dim) and texts (texts, dim), summed over the texts.

    Source: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023.
    """
    logits = audio @ texts.T * model.text_audio_logit_scale + model.text_audio_logit_bias
    return functional.binary_cross_entropy_with_logits(logits, targets, weight) * len(texts)


def joint_optimizer(model: PeAudioModel, auxiliary: nn.Module, rate: float) -> torch.optim.Optimizer:
    """All but the codec; scale and bias of the logits move ten times faster, and do not decay."""
    codec = {
        *model.audio_encoder.embedder.dac_encoder.parameters(),
        *model.audio_encoder.embedder.bottleneck.parameters(),
    }
    logit = [model.text_audio_logit_scale, model.text_audio_logit_bias]
    rest = [p for p in model.parameters() if p not in codec and all(p is not q for q in logit)]
    groups = [
        {"params": [*rest, *auxiliary.parameters()], "lr": rate, "weight_decay": 0.01},
        {"params": logit, "lr": 10 * rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups)


def train_joint(
    model: PeAudioModel, tokenizer: PreTrainedTokenizerFast, batches: Iterator[Batch], recipe: Recipe, seed: int
) -> None:
    """Stage 2."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 2])
    auxiliary = Auxiliary(model.config.audio_config.hidden_size)
    optimizer = joint_optimizer(model, auxiliary, recipe.joint_rate)
    scheduler = schedule(optimizer, recipe.joint_steps)
    losses = []
    for step in range(recipe.joint_steps):
        batch = next(batches)
        captions, labels = draw_captions(rng)
        tokens = tokenizer(captions, return_tensors="pt", padding=True)
        hidden = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        texts = model.text_audio_head(hidden.last_hidden_state[:, 0])
        clip_states, frame_states = encode_features(model, batch.features)
        clips, frames = model.audio_head(clip_states), model.audio_head(frame_states)
        known = torch.tensor([label >= 0 for label in labels])
        of_clips = pair_loss(
            model, clips, texts, batch.clips[:, labels] * known, torch.where(known, batch.sure[:, labels], 1.0)
        )
        of_frames = pair_loss(model, frames, texts, batch.frames[:, :, labels] * known, None)
        norms = [part.norm(dim=-1).sub(1).square().mean() for part in (clips, frames, texts)]
        helping = auxiliary(clip_states, frame_states, batch) * 2 * max(0.0, 1 - step / (0.7 * recipe.joint_steps))
        loss = of_clips + 2 * of_frames + 0.1 * torch.stack(norms).sum() + helping
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        scheduler.step()
        losses.append((of_clips.item(), of_frames.item()))
        if step % 100 == 99:
            report("joint {}: clips {:.3f}, frames {:.3f}".format(step + 1, *np.mean(losses[-100:], axis=0)))


# ---------------------------------------------------------------------------------------------- the whole run


def train(recipe: Recipe, seed: int) -> tuple[PeAudioModel, PreTrainedTokenizerFast]:
    """Both stages; the same seed gives the same model on the same machine."""
    torch.manual_seed(seed)
    started = time.perf_counter()

    def done(what: str) -> None:
        report(f"{time.perf_counter() - started:5.0f} s: {what}")

    model = PeAudioModel(build_config())
    initialise(model)
    tokenizer = build_tokenizer()
    pools = make_pools(recipe, seed + 1)
    done("scenes made")
    train_codec(model, pools, recipe, np.random.default_rng([seed, 1]))
    done("codec trained")
    features = normalise_features(model, extract_features(model, pools))
    done("features extracted")
    batches = draw_batches(pools, features, np.random.default_rng([seed, 3]))
    train_joint(model, tokenizer, batches, recipe, seed)
    done("text and audio trained")
    return model.eval(), tokenizer


def write_card(out: Path, recipe: Recipe, seed: int, minutes: float) -> Quality:
    """Measure the saved checkpoint on the validation exam and write its card, yet without held-out figures."""
    model, tokenizer = load(out)
    quality = measure(model, tokenizer, make_exam(held_out=False))
    worst = min(CLASSES, key=lambda label: quality.frame_f1_by_class[label])
    card = CARD.format(
        seed=seed,
        minutes=minutes,
        threads=torch.get_num_threads(),
        torch=f"torch {torch.__version__.split('+')[0]}",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        megabytes=sum(path.stat().st_size for path in out.iterdir() if path.name != "README.md") / 1e6,
        scale=model.text_audio_logit_scale.item(),
        bias=model.text_audio_logit_bias.item(),
        known=", ".join(label.replace("_", " ") for label in CLASSES).capitalize(),
        strides=CODEC_STRIDES,
        trained_s=sum(duration_s * n_scenes for duration_s, n_scenes in recipe.scenes),
        codec_steps=recipe.codec_steps,
        joint_steps=recipe.joint_steps,
        precision_at_10=quality.precision_at_10,
        frame_f1=quality.frame_f1,
        worst=worst.replace("_", " "),
        worst_f1=quality.frame_f1_by_class[worst],
    )
    (out / "README.md").write_text(card)
    return quality


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled tiny checkpoint and write its model card.")
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keep_freed_memory()
    recipe, started = Recipe(), time.perf_counter()
    model, tokenizer = train(recipe, arguments.seed)
    save(model, tokenizer, arguments.out)
    quality = write_card(arguments.out, recipe, arguments.seed, (time.perf_counter() - started) / 60)
    report(f"validation: {json.dumps(dataclasses.asdict(quality))}")
    report(f"saved: {arguments.out}")


if __name__ == "__main__":
    main()
