"""The speed of the encoder beside transformers' own forward, in one run: same sounds, same batch, same threads.

    python -m jobs.bench encoder [--seconds 10] [--batch 1] [--threads 2] [--rounds 3] [--profile] [--json]

It needs torch, transformers and numpy, nothing else. The models have the default size of PE-Audio and random weights
(one for clips, and one for frames with the same codec), or are a checkpoint: ``--model``. The ways of encoding take
turns in each round. It prints medians, ratios of medians, and how close the embeddings are to those of transformers in
float32. It exits with 1 where Earshot's are not close enough, or where nothing fits the device. Each way has the
settings of the C library's allocator that it would have in use: the defaults, or those of Earshot's workers (``memory
kept``: transformers with these). ``from host memory`` is what a run does, except rounding to float16: arrays in, arrays
out, and on a GPU several batches with copies at the same time.

On a GPU transformers switches cuDNN off for the codec; ``cuDNN on`` is its forward without that. GPUs since Ampere then
compute float32 convolutions with the ten bits of TF32, by torch's defaults. The reference embeddings are computed
without TF32; transformers is timed with torch's defaults, and Earshot computes no convolution with TF32.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from jobs.bench.profile import attempt, print_profile, profile
from jobs.bench.sounds import make_sounds
from jobs.shared.output import print_error, print_json, print_line
from pipeline.encoder.batching import BATCHES_PER_CALL, MOST_GPU_WINDOWS, WINDOW_SAMPLES
from pipeline.encoder.parity import (
    LARGEST_DIFFERENCE,
    LEAST_CLIP_COSINE,
    LEAST_FRAME_COSINE,
    cosine,
    describe_machine,
    relative,
    without_tf32,
)
from pipeline.grid import SAMPLE_RATE_HZ

Row = dict[str, Any]

Sounds = Any  # (n, samples) tensor on the device, or a list of arrays

HOST_BATCHES = {"cpu": 1, "cuda": BATCHES_PER_CALL}
"""Batches in one call of ``from host memory``."""


@dataclass(frozen=True)
class Way:
    """A way of encoding: its function and sounds, and whether the process keeps the memory that it frees."""

    name: str
    precision: str
    models: int
    keeps_memory: bool
    run: Callable[[Sounds], tuple[Any, Any]]
    sounds: Sounds


@dataclass(frozen=True)
class Speed:
    """A measured way of encoding: its time for a batch, its speed, and how close its embeddings are."""

    way: str
    precision: str
    models: int
    seconds: float
    x_real_time: float
    ratio: float
    """To transformers in float32, with as many models."""
    clip_cosine: float
    """The lowest of all sounds, to transformers in float32."""
    frame_cosine: float
    """The mean of all frames."""
    difference: float
    """Largest relative difference of an embedding."""

    @property
    def parity(self) -> bool:
        """Whether its embeddings are as close to transformers' float32 as its precision must be."""
        if self.precision == "float32":
            return self.difference <= LARGEST_DIFFERENCE
        return self.clip_cosine >= LEAST_CLIP_COSINE and self.frame_cosine >= LEAST_FRAME_COSINE

    @property
    def is_ours(self) -> bool:
        return self.way.startswith("earshot")

    def __str__(self) -> str:
        return (
            f"{self.way}, {self.precision}, models: {self.models} (difference {self.difference:.1e}, clip cosine"
            f" {self.clip_cosine:.6f}, frame cosine {self.frame_cosine:.6f})"
        )


Measured = tuple[list[Speed], Row]


def main(arguments: Sequence[str]) -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench encoder", description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a checkpoint, as in `earshot index`; random weights without it")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a sound (default: 10)")
    parser.add_argument("--batch", type=int, nargs="+", help="sounds in a batch (default: 1 on a CPU, 8 32 on a GPU)")
    parser.add_argument("--threads", type=int, help="of torch, on a CPU (default: one for each core)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is timed (default: 3)")
    parser.add_argument("--bfloat16", action="store_true", help="time it where the device only emulates it, too")
    parser.add_argument("--profile", action="store_true", help="show where the encoder spends its time")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of tables")
    asked = parser.parse_args(arguments)

    import torch

    from pipeline.encoder.encoder import resolve_device, resolve_precision

    device = resolve_device(asked.device)
    native = resolve_precision("auto", device)
    precisions = ["float32", *(["bfloat16"] if asked.bfloat16 or native == "bfloat16" else [])]
    if device == "cpu":
        torch.set_num_threads(asked.threads or len(os.sched_getaffinity(0)))
    batches = asked.batch or ([1] if device == "cpu" else [8, 32])
    if device != "cpu" and max(batches) * asked.seconds * SAMPLE_RATE_HZ > MOST_GPU_WINDOWS * WINDOW_SAMPLES:
        parser.error(f"--batch {max(batches)}: too long for a GPU, {MOST_GPU_WINDOWS} sounds of 10 s at most")
    make = make_random_models if asked.model is None else (lambda: load_models(asked.model))
    machine = describe_machine(device)
    show = _print_as_json if asked.json else _print_as_tables
    if not asked.json:
        print_line(machine)

    def measure_batch(batch: int) -> Measured:
        return measure(*make(), device, precisions, make_sounds(batch, asked.seconds), asked.rounds)

    far: list[str] = []
    n_measured = 0
    for batch in batches:
        run = {"machine": machine, "batch": batch, "seconds_of_sound": asked.seconds}
        measured = attempt(measure_batch, batch)
        show(run, measured)
        if not isinstance(measured, str):
            n_measured += 1
            far += [f"{batch} in a batch, {speed}" for speed in measured[0] if speed.is_ours and not speed.parity]
    if asked.profile:
        clip, frame = make()
        rows = profile(clip, frame if asked.model is None else clip, device, native, asked.seconds)
        print_json({"machine": machine, **row} for row in rows) if asked.json else print_profile(rows)
    for row in far:
        print_error(f"not close enough to transformers in float32: {row}")
    return 1 if far or not n_measured else 0


def measure(clip: Any, frame: Any, device: str, precisions: Sequence[str], sounds: Any, rounds: int) -> Measured:
    """Time all ways on the same sounds, in turns.

    Returns:
        The ways, and seconds of the stages in the device's precision: ``codec``, ``transformer``, both models in one
        pass of the codec (``shared``) and what share that is of 2 (C + E) / (C + 2 E). ``compiled``: whether a part of
        the codec is.
    """
    import torch

    batch, seconds = len(sounds), sounds.size / SAMPLE_RATE_HZ
    ways = [*list_plain(clip, frame, device, precisions, sounds), *list_ours(clip, frame, device, precisions, sounds)]
    ours = ("earshot", precisions[-1])
    tower: Any = next(way.run for way in ways if (way.name, way.precision) == ours)
    with torch.inference_mode():
        with without_tf32():
            outputs = [tuple(as_array(part)[:batch] for part in way.run(way.sounds)) for way in ways]
            on_device = torch.from_numpy(sounds).to(device)
            features = tower.codec(on_device)
        parts = [Way(*ours, 1, True, tower.codec, on_device), Way(*ours, 1, True, tower.clip, [features])]
        medians = [statistics.median(taken) for taken in take_turns([*ways, *parts], device, rounds)]
    # A way may take several batches in one call: compare the time for one.
    per_batch = [median * batch / len(way.sounds) for way, median in zip(ways, medians, strict=False)]
    reference = {way.models: k for k, way in reversed(list(enumerate(ways))) if way.precision == "float32"}
    speeds = []
    for way, took, (clips, frames) in zip(ways, per_batch, outputs, strict=True):
        plain_clips, plain_frames = outputs[reference[way.models]]
        speeds.append(
            Speed(
                way.name,
                way.precision,
                way.models,
                took,
                seconds / took,
                per_batch[reference[way.models]] / took,
                float(cosine(clips, plain_clips).min()),
                float(cosine(frames, plain_frames).mean()),
                float(max(relative(clips, plain_clips), relative(frames, plain_frames))),
            )
        )
    codec, rest = medians[-2:]
    one, two = (speed.seconds for speed in speeds if (speed.way, speed.precision) == ours)
    allowed = 2 * (codec + rest) / (codec + 2 * rest)
    stages = {"codec": codec, "transformer": rest, "shared": two, "of_what_is_possible": 2 * one / two / allowed}
    return speeds, {**stages, "compiled": tower.codec.compiled}


def list_plain(clip: Any, frame: Any, device: str, precisions: Sequence[str], sounds: Any) -> Iterator[Way]:
    """transformers' forward, with one model and with two; with one, also with the workers' allocator on a CPU, or with
    cuDNN on a GPU."""
    import torch

    given = torch.from_numpy(sounds).to(device)
    runs = []
    for precision in precisions:
        plain = [copy.deepcopy(model).to(device, getattr(torch, precision)) for model in (clip, frame)]
        runs.append((precision, partial(run_plainly, plain[:1])))
        yield Way("transformers", precision, 1, False, runs[-1][1], given)
        yield Way("transformers", precision, 2, False, partial(run_plainly, plain), given)
    for precision, run in runs:  # not with two, which would take minutes in float32
        if device == "cpu":
            yield Way("transformers, memory kept", precision, 1, True, run, given)
        else:
            yield Way("transformers, cuDNN on", precision, 1, False, partial(run_with_cudnn, run), given)


def list_ours(clip: Any, frame: Any, device: str, precisions: Sequence[str], sounds: Any) -> Iterator[Way]:
    """Earshot's tower, with one model and with two, and with one from arrays to arrays."""
    import torch

    from pipeline.encoder.batching import Batches
    from pipeline.encoder.encoder import make_tower

    given = torch.from_numpy(sounds).to(device)
    arrays = list(sounds) * HOST_BATCHES[device]
    windows = max(1, round(sounds.size / WINDOW_SAMPLES))
    for precision in precisions:
        same = copy.deepcopy(clip)
        tower = make_tower(same, same, device, precision)
        tower.compile()
        yield Way("earshot", precision, 1, True, tower, given)
        both = make_tower(copy.deepcopy(clip), copy.deepcopy(frame), device, precision)
        both.compile()
        yield Way("earshot", precision, 2, True, both, given)
        through = partial(run_batches, Batches(device, windows), tower)
        yield Way("earshot, from host memory", precision, 1, True, through, arrays)


def run_batches(batches: Any, tower: Any, sounds: Any) -> tuple[Any, Any]:
    """What a run does, in float32: arrays on the host in, lists of arrays on the host out, one for each batch."""
    parts = [rows for _, rows in batches.run(tower.embed, sounds)]  # all of one length, so in order
    return [clips for clips, _ in parts], [frames for _, frames in parts]


def as_array(rows: Any) -> Any:
    return np.concatenate(rows) if isinstance(rows, list) else rows.float().cpu().numpy()


def run_plainly(models: Sequence[Any], sounds: Any) -> tuple[Any, Any]:
    """A plain loop: the forward of each model, clips from the first and frames from the last."""
    values = sounds[:, None].to(models[0].dtype)
    heard = [model.audio_encoder(values) for model in models]
    return models[0].audio_head(heard[0].pooler_output), models[-1].audio_head(heard[-1].last_hidden_state)


def run_with_cudnn(run: Callable[[Sounds], tuple[Any, Any]], sounds: Sounds) -> tuple[Any, Any]:
    """With cuDNN where transformers switches it off."""
    import torch

    with patch.object(torch.backends.cudnn, "flags", lambda **_: nullcontext()):
        return run(sounds)


def take_turns(ways: Sequence[Way], device: str, rounds: int) -> list[list[float]]:
    """Seconds of each call of each way, after a warm-up call."""
    import torch

    from pipeline.encoder.malloc import keep_freed_memory

    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, times, strict=True):
            keep_freed_memory(way.keeps_memory)
            for _ in range(2):
                began = time.perf_counter()
                way.run(way.sounds)
                if device != "cpu":
                    torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    return times


def make_random_models() -> tuple[Any, Any]:
    """A clip and a frame model of the default size with equal codecs, and transformers' random weights."""
    import torch
    from transformers import PeAudioConfig, PeAudioModel

    text = {"hidden_size": 1024, "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 16}
    torch.manual_seed(0)
    models = [PeAudioModel(PeAudioConfig(text_config=text)).eval() for _ in range(2)]
    codecs = [model.audio_encoder.embedder for model in models]
    for part in ("dac_encoder", "bottleneck"):
        getattr(codecs[1], part).load_state_dict(getattr(codecs[0], part).state_dict())
    for model in models:
        del model.text_model, model.text_audio_head
    return models[0], models[1]


def load_models(name: str) -> tuple[Any, Any]:
    """A checkpoint, and a second copy of it for frames."""
    from pipeline.encoder.encoder import load_audio_model

    model = load_audio_model(name)
    return model, copy.deepcopy(model)


def _print_as_json(run: Row, measured: Measured | str) -> None:
    if isinstance(measured, str):
        print_json([{**run, "fits": False, "error": measured}])
    else:
        print_json({**run, **vars(speed), "parity": speed.parity} for speed in measured[0])
        print_json([{**run, **measured[1]}])


def _print_as_tables(run: Row, measured: Measured | str) -> None:
    """Print without a package for tables."""
    print_line()
    if isinstance(measured, str):
        print_line(f"{run['batch']} in a batch: does not fit ({measured})")
        return
    speeds, stages = measured
    print_line(f"{run['batch']} x {run['seconds_of_sound']:g} s in a batch")
    print_line(
        f"{'':27}{'precision':>10}{'models':>8}{'seconds':>9}{'x real time':>13}{'ratio':>7}"
        f"{'clip cosine':>13}{'frame cosine':>14}{'difference':>12}"
    )
    for speed in speeds:
        print_line(
            f"{speed.way:27}{speed.precision:>10}{speed.models:>8}{speed.seconds:>9.3f}{speed.x_real_time:>13.2f}"
            f"{speed.ratio:>7.2f}{speed.clip_cosine:>13.6f}{speed.frame_cosine:>14.6f}{speed.difference:>12.1e}"
        )
    print_line(f"the codec's Snake {'is compiled' if stages['compiled'] else 'is not compiled'}")
    print_line(
        f"codec {stages['codec']:.3f} s, transformer {stages['transformer']:.3f} s; one pass of the codec for two"
        f" models gives {stages['of_what_is_possible']:.2f} of what these times allow"
    )
