"""Stage 2 of training, text and audio: captions come near what they describe, in clips and in frames.

The codec's features are computed once; everything above learns, by a sigmoid loss over all pairs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PeAudioModel, PreTrainedTokenizerFast

from jobs.shared.output import print_error
from jobs.tiny.captions import CAPTIONS, DISTRACTORS, TEMPLATES
from jobs.tiny.codec import schedule
from jobs.tiny.network import embed_texts
from jobs.tiny.scenes import Pool, Recipe
from jobs.tiny.synth import CLASSES


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
    """For every class, the words of at least four letters that only its training captions use."""
    captions = {**{label: CAPTIONS[label].train for label in CLASSES}, "": DISTRACTORS.train}
    words = {label: set(re.findall("[a-z]{4,}", " ".join(texts).lower())) for label, texts in captions.items()}
    return {label: sorted(words[label].difference(*(words[k] for k in words if k != label))) for label in CLASSES}


OWN_WORDS = find_own_words()


def draw_captions(rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """Captions for one step, three of each class and as many that match nothing, with class numbers (-1: none).

    Some are a few of the class's own words in any order, so that the model learns each word and not only the sentence.
    Some get a made-up word before or after, so that an unknown word counts neither for nor against a sound.
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
    """Two or three meaningless syllables."""
    letters = ("bcdfghklmnprstvwz", "aeiou")
    return "".join(str(rng.choice(list(letters[i % 2]))) for i in range(2 * int(rng.integers(2, 4))))


def surround(text: str, rng: np.random.Generator) -> str:
    return f"{invent_word(rng)} {text}" if rng.random() < 0.5 else f"{text} {invent_word(rng)}"


def invent_caption(rng: np.random.Generator) -> str:
    """A caption about made-up things, so that unknown words match no sound."""
    form = str(rng.choice(["{}", "a {}", "{} {}", "a {} {}ing", "a {} of {}"]))
    return str(rng.choice(TEMPLATES.train)).format(form.format(invent_word(rng), invent_word(rng)))


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Codec features (clips, frames, 64) with frame and clip targets; ``sure`` 0 means that nothing is learnt.

    ``frames`` is (clips, frames, classes); ``clips`` and ``sure`` are (clips, classes). All float32.
    """

    features: Tensor
    frames: Tensor
    clips: Tensor
    sure: Tensor


def draw_batches(pools: list[Pool], features: list[Tensor], rng: np.random.Generator) -> Iterator[TrainingBatch]:
    """Endless batches of about 80 s: whole scenes of any length, and crops of 1 to 5 s from the longer ones."""
    while True:
        index = int(rng.choice(len(pools), p=[0.25, 0.3, 0.17, 0.1, 0.1, 0.08]))
        pool, source = pools[index], features[index]
        total = pool.targets.shape[1]
        whole = index > 2 or rng.random() < 0.4
        n_frames = total if whole else int(rng.integers(25, 126))
        rows = rng.integers(0, len(source), int(np.clip(2_000 // n_frames, 8, 64)))
        firsts = rng.integers(0, total - n_frames + 1, len(rows))
        spans = [(row, slice(first, first + n_frames)) for row, first in zip(rows, firsts, strict=True)]
        frames = torch.stack([pool.targets[row, span] for row, span in spans]).float()
        n_seen = frames.sum(1)
        sure = torch.ones_like(n_seen) if whole else ((n_seen == 0) | (n_seen >= 8)).float()
        yield TrainingBatch(torch.stack([source[row, span] for row, span in spans]), frames, (n_seen > 0).float(), sure)


class Auxiliary(nn.Module):
    """Plain classifiers of clips and frames that guide the first part of stage 2. They are not saved."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.clip, self.frame = nn.Linear(hidden_size, len(CLASSES)), nn.Linear(hidden_size, len(CLASSES))

    def forward(self, clip: Tensor, frames: Tensor, batch: TrainingBatch) -> Tensor:
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
    """Everything but the codec; scale and bias of the logits learn ten times faster, without decay."""
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
    model: PeAudioModel, tokenizer: PreTrainedTokenizerFast, batches: Iterator[TrainingBatch], recipe: Recipe, seed: int
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
        texts = embed_texts(model, tokenizer, captions)
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
            print_error("joint {}: clips {:.3f}, frames {:.3f}".format(step + 1, *np.mean(losses[-100:], axis=0)))
