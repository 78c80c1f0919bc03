"""Train ``earshot-tiny``, a real PE-Audio checkpoint of about 3 MB that knows fourteen synthetic sounds.

A seed enters; a checkpoint and its model card leave, after some minutes on a CPU core. Two stages:

1. ``codec``: the codec learns to predict each frame's log-mel spectrum, its fine structure in time and its classes.
2. ``joint``: with the codec's features computed once, everything above learns to put a caption near the clips and
   frames that it describes.

    python -m jobs.tiny.train --out my-checkpoint --seed 0
    python -m jobs.tiny.card my-checkpoint

The first command prints figures on a validation exam from the training half, to choose recipes; only the second looks
at the held-out half. Where other programs share the cores, OMP_NUM_THREADS=1 is faster than threads that wait for each
other.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import PeAudioModel, PreTrainedTokenizerFast

from jobs.shared.output import print_error
from jobs.tiny.card import CARD
from jobs.tiny.codec import extract_features, normalise_features, train_codec
from jobs.tiny.evaluate import CHECKPOINT, Quality, load, make_exam, measure
from jobs.tiny.joint import draw_batches, train_joint
from jobs.tiny.network import CODEC_STRIDES, build_config, build_tokenizer, initialise, save
from jobs.tiny.scenes import Recipe, make_pools
from jobs.tiny.synth import CLASSES
from pipeline.encoder.malloc import keep_freed_memory


def train(recipe: Recipe, seed: int) -> tuple[PeAudioModel, PreTrainedTokenizerFast]:
    """Both stages; the same seed gives the same model on the same machine."""
    torch.manual_seed(seed)
    started = time.perf_counter()

    def done(what: str) -> None:
        print_error(f"{time.perf_counter() - started:5.0f} s: {what}")

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
    """Measure the saved checkpoint on the validation exam and write its card, without held-out figures."""
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
    print_error(f"validation: {json.dumps(dataclasses.asdict(quality))}")
    print_error(f"saved: {arguments.out}")


if __name__ == "__main__":
    main()
