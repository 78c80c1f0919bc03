"""Train ``earshot-tiny``, a real PE-Audio checkpoint of about 3 MB that knows fourteen synthetic sounds.

A seed enters; a checkpoint and its model card leave, after some minutes on two CPU cores. Two stages:

1. The codec. transformers runs it without gradients, so its modules are called here directly. It learns to predict
   each frame's log-mel spectrum, its fine structure in time and its classes, with heads that are thrown away.
2. Text and audio. The codec's features are computed once; everything above learns, by a sigmoid loss over all pairs
   of captions and clips, and of captions and frames, to put a caption near what it describes.

    python -m jobs.train_tiny --out /tmp/earshot-tiny --seed 0
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    ModernBertConfig,
    PeAudioConfig,
    PeAudioEncoderConfig,
    PeAudioFeatureExtractor,
    PeAudioModel,
    PeAudioProcessor,
    PreTrainedTokenizerFast,
)

from jobs.evaluate_tiny import CHECKPOINT, Quality, load, make_held_out_set, measure
from pipeline.synth import CAPTIONS, CLASSES, DISTRACTORS, TEMPLATES, draw_scene, frame_targets
from pipeline.window import HOP_SAMPLES, SAMPLE_RATE_HZ, seconds_to_samples

CODEC_STRIDES = [8, 10, 12, 2]
"""Product 1920 as in the released models, but the longest sequences are left early: five times faster on a CPU."""

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much of what: scenes per length in seconds, optimiser steps and peak learning rates per stage."""

    scenes: tuple[tuple[float, int], ...] = ((10.0, 360), (5.0, 420), (2.0, 480), (1.0, 560), (0.6, 320))
    codec_steps: int = 2_200
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
    print(message, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------- what is trained


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing tokenizer of 600 entries, learnt from the training captions alone."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL_TOKENS, initial_alphabet=letters)
    captions = [caption for label in CLASSES for caption in CAPTIONS[label].train] + list(DISTRACTORS.train)
    tokenizer.train_from_iterator(captions, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def build_config() -> PeAudioConfig:
    """The sizes of the model: everything small, the frame grid as in the released checkpoints."""
    audio = PeAudioEncoderConfig(
        dac_config={
            "model_type": "dac",
            "encoder_hidden_size": 8,
            "downsampling_ratios": CODEC_STRIDES,
            "codebook_dim": 64,
            "sampling_rate": SAMPLE_RATE_HZ,
        },
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=24,
    )
    special = {f"{name}_token_id": SPECIAL_TOKENS.index(f"[{name.upper()}]") for name in ("pad", "cls", "sep")}
    text = ModernBertConfig(
        vocab_size=600,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=special["cls_token_id"],
        eos_token_id=special["sep_token_id"],
        **special,
    )
    return PeAudioConfig(text_config=text.to_dict(), audio_config=audio.to_dict())


@torch.no_grad()
def initialise(model: PeAudioModel) -> None:
    """Start values for a narrow network: the library's deviation of 0.02 lets its signals die out."""
    encoder = model.audio_encoder
    for module in encoder.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            module.weight.normal_(std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                module.bias.zero_()
    for block in encoder.embedder.dac_encoder.block:
        for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
            nn.init.zeros_(unit.conv2.weight)
    start_as_filter_bank(encoder.embedder.dac_encoder)
    nn.init.normal_(encoder.patch_embedder.class_embedding)
    model.text_audio_logit_scale.fill_(10.0)
    model.text_audio_logit_bias.fill_(-5.0)


HIGH_HZ = (3_000, 4_200, 5_600, 7_500, 10_500, 15_000)
MIDDLE_HZ = tuple(range(300, 3_000, 300))
LOW_HZ = (30, 50, 75, 105, 140, 175, 210, 245)


def hann(n_taps: int) -> Tensor:
    """A Hann window (n_taps,) of sum 1, its zeros left out."""
    window = torch.hann_window(n_taps + 2, periodic=False)[1:-1]
    return window / window.sum()


def band_pair(centre_hz: float, rate_hz: float, n_taps: int) -> Tensor:
    """Two filters (2, n_taps) in quadrature that pass a band of unit height around ``centre_hz``."""
    angle = 2 * math.pi * centre_hz * (torch.arange(n_taps) - (n_taps - 1) / 2) / rate_hz
    return 2 * hann(n_taps) * torch.stack([angle.cos(), angle.sin()])


def start_as_filter_bank(dac: Any) -> None:
    """Let the codec begin as a coarse filter bank; from noise it takes far longer to find pitch.

    Each stride splits what its rate can still show into bands, in quadrature, and hands the rest on, low-passed. The
    activation squares, so the next stride's low-pass turns a pair into the band's energy. Channels without a part to
    play, and a little on all others, stay random.
    """
    first, second, third, last = (block.conv1.weight for block in dac.block)
    dac.conv1.weight.mul_(6.0)  # sounds are quiet: bring the random channels to where the activation bends
    dac.conv1.weight[0] = 0.0
    dac.conv1.weight[0, 0, 3] = 1.0
    for weight, n_assigned in ((first, 13), (second, 25), (third, 46), (last, 64)):
        weight.mul_(0.3)
        weight[:n_assigned].mul_(0.3)
    first[0, 0] += 0.5 * hann(16)
    for band, centre_hz in enumerate(HIGH_HZ):
        first[1 + 2 * band : 3 + 2 * band, 0] += 4 * band_pair(centre_hz, 48_000, 16)
        second[band, 1 + 2 * band : 3 + 2 * band] += 2 * hann(20)
    for band, centre_hz in enumerate(MIDDLE_HZ):
        second[6 + 2 * band : 8 + 2 * band, 0] += 8 * band_pair(centre_hz, 6_000, 20)
        third[6 + band, 6 + 2 * band : 8 + 2 * band] += 2 * hann(24)
        third[21 + band, 6 + 2 * band : 8 + 2 * band] += 4 * torch.sign(torch.arange(24) - 11.5) * hann(24)
    second[24, 0] += hann(20)
    for band in range(len(HIGH_HZ)):
        third[band, band] += 2 * hann(24)
        third[15 + band, band] += 4 * torch.sign(torch.arange(24) - 11.5) * hann(24)
    for band, centre_hz in enumerate(LOW_HZ):
        third[30 + 2 * band : 32 + 2 * band, 24] += 8 * band_pair(centre_hz, 600, 24)
    last[:64] += 0.25 * torch.eye(64)[:, :, None]
    dac.conv2.weight.mul_(0.3)
    dac.conv2.weight[:, :, 1] += torch.eye(128)


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
    power = torch.fft.rfft(frames).abs().square() / n_fft
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


def draw_captions(rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """Captions for one step, three of each class and as many that match nothing, with class numbers (-1: none).

    Some get a made-up word in front or behind, so that a word never seen says nothing for or against a sound.
    """
    texts: list[str] = []
    labels: list[int] = []
    for index, label in enumerate(CLASSES):
        texts += [str(text) for text in rng.choice(CAPTIONS[label].train, 3, replace=False)]
        labels += [index] * 3
    texts += [str(text) for text in rng.choice(DISTRACTORS.train, 28, replace=False)]
    texts = [surround(text, rng) if rng.random() < 0.15 else text for text in texts]
    texts += [invent_caption(rng) for _ in range(14)]
    return texts, labels + [-1] * 42


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


def save(model: PeAudioModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write everything that ``from_pretrained`` reads. Padding must be off: the processor would inherit it."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    model.save_pretrained(out)
    PeAudioProcessor(feature_extractor=PeAudioFeatureExtractor(), tokenizer=tokenizer).save_pretrained(out)


CARD = """# earshot-tiny

A very small PE-Audio model (`PeAudioModel`, `PeAudioFrameLevelModel`: the same weights serve both) that recognises
fourteen kinds of **synthetic** sound, by words and in time. It lets Earshot show and test the real thing offline,
in seconds, on a CPU. For real audio use Meta's checkpoints: it has never heard any.

- Made by `python -m jobs.train_tiny --seed {seed}` in {minutes:.0f} minutes on {threads} busy CPU core(s) ({torch}).
- {parameters:,} parameters, {megabytes:.1f} MB; 48 kHz mono, one frame per 40 ms, embeddings of 64 numbers.
- Logit scale {scale:.2f}, bias {bias:.2f}: probability = sigmoid(scale * dot product + bias).

## What it knows
{known}.

Captions are short English phrases such as "a bell ringing" or "the sound of a rising sweep". Words that
describe none of these mostly get low probabilities, but the vocabulary is tiny: expect nonsense outside of it.

## How good it is
Measured by `python -m jobs.evaluate_tiny` on {n_clips} held-out clips ({seconds:.0f} s): other seeds, other parameter
values (each lies in a gap left out of the training range, so this is interpolation), captions and mixtures that
training never saw, background noise at 0 to 20 dB signal-to-noise ratio, up to two sounds at once. Every class is asked
for with six held-out captions.

| measure | value |
|---|---|
{measures}

| class | clips | precision@10 | frame F1 | event F1 |
|---|---|---|---|---|
{classes}

Precision@10 ranks all clips by the dot product of clip and text embedding; a clip is right when it contains the class.
Frame F1 counts 40 ms frames above probability 0.3. Events follow the product's rule (they begin above 0.3 and go on
while the logit is at most 1 below it) and match when they begin within 0.2 s.

## Sizes and training
Codec: 8 channels at the start, strides {strides}, 64 features. Audio transformer: 2 layers of 96. Text: ModernBERT,
2 layers of 64, own vocabulary of 600. Trained on {trained_s:.0f} s of generated scenes: {codec_steps} steps for the
codec, {joint_steps} for text and audio. The codec starts as a coarse filter bank; the residual units of its first block
are left as the identity.
"""

MEASURES = {
    "precision_at_10": "text-to-clip precision@10, mean over classes",
    "frame_f1": "frame micro-F1, probability > 0.3",
    "frame_f1_at_half": "frame micro-F1, probability > 0.5",
    "short_clip_frame_f1": "frame micro-F1 on clips of 0.6 to 2 s",
    "event_f1": "event micro-F1",
    "onset_error_median_s": "onset error, median, s",
    "onset_error_p90_s": "onset error, 90th percentile, s",
    "offset_error_median_s": "offset error, median, s",
    "offset_error_p90_s": "offset error, 90th percentile, s",
    "short_event_recall": "lone 0.2 s events found in 10 s",
    "distractor_frame_rate": "frames above 0.3 for captions that match nothing",
}


def write_card(out: Path, recipe: Recipe, seed: int, minutes: float) -> Quality:
    """Measure the saved checkpoint and put what it reached beside it."""
    clips = make_held_out_set()
    model, tokenizer = load(out)
    quality = measure(model, tokenizer, clips)
    values = dataclasses.asdict(quality)
    rows = [
        f"| {label} | {quality.clips_by_class[label]} | {quality.precision_at_10_by_class[label]:.3f} "
        f"| {quality.frame_f1_by_class[label]:.3f} | {quality.event_f1_by_class[label]:.3f} |"
        for label in CLASSES
    ]
    card = CARD.format(
        seed=seed,
        minutes=minutes,
        threads=torch.get_num_threads(),
        torch=f"torch {torch.__version__.split('+')[0]}",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        megabytes=sum(path.stat().st_size for path in out.iterdir()) / 1e6,
        scale=model.text_audio_logit_scale.item(),
        bias=model.text_audio_logit_bias.item(),
        known=", ".join(label.replace("_", " ") for label in CLASSES).capitalize(),
        n_clips=len(clips),
        seconds=sum(len(clip.waveform) for clip in clips) / SAMPLE_RATE_HZ,
        measures="\n".join(f"| {text} | {values[name]:.3f} |" for name, text in MEASURES.items()),
        classes="\n".join(rows),
        strides=CODEC_STRIDES,
        trained_s=sum(duration_s * n_scenes for duration_s, n_scenes in recipe.scenes),
        codec_steps=recipe.codec_steps,
        joint_steps=recipe.joint_steps,
    )
    (out / "README.md").write_text(card)
    return quality


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled tiny checkpoint and write its model card.")
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recipe, started = Recipe(), time.perf_counter()
    model, tokenizer = train(recipe, arguments.seed)
    save(model, tokenizer, arguments.out)
    quality = write_card(arguments.out, recipe, arguments.seed, (time.perf_counter() - started) / 60)
    report(f"precision@10 {quality.precision_at_10:.3f}, frame micro-F1 {quality.frame_f1:.3f}: {arguments.out}")


if __name__ == "__main__":
    main()
