"""Encoder speed beside that of transformers' own forward, in one run: same sounds, same batch, same threads.

    python -m jobs.bench --encoder [--seconds 10] [--batch 1] [--threads 2] [--rounds 3] [--profile] [--json]

It needs torch, transformers and numpy, nothing else. The model has the default size of PE-Audio and random weights
(one for clips, and one for frames with the same codec), or is a checkpoint: ``--model``. The ways take turns in each
round; printed are medians, ratios of medians, and how close the embeddings are to those of transformers in float32. On
a CPU each way has the C library's allocator as it would find it: with its own settings, or as workers set it.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

SAMPLE_RATE_HZ = 48_000
Sounds = Any  # (n, samples) tensor on the device
Way = Callable[[Sounds], tuple[Any, Any]]


@dataclass(frozen=True)
class Speed:
    """One way of encoding: its time for a batch, what that is in real time, and its embeddings' likeness."""

    way: str
    precision: str
    models: int
    seconds: float
    x_real_time: float
    ratio: float
    """To transformers' float32 of the same run, with as many models."""
    clip_cosine: float
    """The least of all sounds, to transformers' float32."""
    frame_cosine: float
    """The mean of all frames."""
    difference: float
    """Largest relative difference of an embedding."""


def main(arguments: Sequence[str]) -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench --encoder", description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a checkpoint, as in `earshot index`; random weights without it")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a sound (default: 10)")
    parser.add_argument("--batch", type=int, nargs="+", help="sounds in a batch (default: 1 on a CPU, 8 32 on a GPU)")
    parser.add_argument("--threads", type=int, help="of torch, on a CPU (default: one for each core)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is timed (default: 3)")
    parser.add_argument("--bfloat16", action="store_true", help="time it where the device only emulates it, too")
    parser.add_argument("--profile", action="store_true", help="say where the encoder's time goes")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of tables")
    asked = parser.parse_args([argument for argument in arguments if argument != "--encoder"])

    import torch

    from pipeline.encode import resolve_device, resolve_precision

    device = resolve_device(asked.device)
    native = resolve_precision("auto", device)
    precisions = ["float32", *(["bfloat16"] if asked.bfloat16 or native == "bfloat16" else [])]
    if device == "cpu":
        torch.set_num_threads(asked.threads or len(os.sched_getaffinity(0)))
    make = make_random_models if asked.model is None else (lambda: load_models(asked.model))
    machine = describe_machine(device)
    if not asked.json:
        print(machine, flush=True)
    for batch in asked.batch or ([1] if device == "cpu" else [8, 32]):
        speeds, stages = measure(make, device, precisions, batch, asked.seconds, asked.rounds)
        run = {"machine": machine, "batch": batch, "seconds_of_sound": asked.seconds}
        if asked.json:
            for speed in speeds:
                print(json.dumps({**run, **vars(speed)}))
            print(json.dumps({**run, **stages}))
        else:
            print_speeds(f"{batch} x {asked.seconds:g} s in a batch", speeds)
            print_stages(stages)
    if asked.profile:
        print(profile(make, device, native, 1, asked.seconds))
    return 0


def measure(
    make: Callable[[], tuple[Any, Any]],
    device: str,
    precisions: Sequence[str],
    batch: int,
    seconds: float,
    rounds: int,
) -> tuple[list[Speed], dict[str, float]]:
    """Time every way on the same sounds, in turns.

    Returns:
        The ways, and seconds of the stages in the device's precision: ``codec``, ``transformer``, both models in one
        pass of the codec (``shared``) and what share that is of 2 (C + E) / (C + 2 E).
    """
    import torch

    from pipeline.encode import make_tower

    sounds = torch.from_numpy(make_sounds(batch, seconds)).to(device)
    clip, frame = make()
    ways: list[tuple[str, str, int, Way]] = []
    for precision in precisions:
        plain = [copy.deepcopy(model).to(device, getattr(torch, precision)) for model in (clip, frame)]
        ways.append(("transformers", precision, 1, partial(run_plainly, plain[:1])))
        ways.append(("transformers", precision, 2, partial(run_plainly, plain)))
    towers = {}
    for precision in precisions:
        same = copy.deepcopy(clip)
        towers[precision] = make_tower(same, same, device, precision)
        ways.append(("earshot", precision, 1, towers[precision]))
        both = make_tower(copy.deepcopy(clip), copy.deepcopy(frame), device, precision)
        ways.append(("earshot", precision, 2, both))
    with torch.inference_mode():
        outputs = [tuple(part.float().cpu().numpy() for part in way(sounds)) for *_, way in ways]
        tower = towers[precisions[-1]]
        features = tower.codec(sounds)
        timed = [(name == "earshot", way, sounds) for name, *_, way in ways]
        timed += [(True, tower.codec, sounds), (True, tower.clip, features)]
        times = take_turns(timed, device, rounds)
    medians = [statistics.median(taken) for taken in times]
    reference = {models: k for k, (way, precision, models, _) in enumerate(ways) if (way, precision) == ways[0][:2]}
    speeds = []
    for k, (way, precision, models, _) in enumerate(ways):
        clips, frames = outputs[k]
        plain_clips, plain_frames = outputs[reference[models]]
        differences = [relative(clips, plain_clips), relative(frames, plain_frames)]
        speeds.append(
            Speed(
                way,
                precision,
                models,
                medians[k],
                batch * seconds / medians[k],
                medians[reference[models]] / medians[k],
                float(cosine(clips, plain_clips).min()),
                float(cosine(frames, plain_frames).mean()),
                float(max(differences)),
            )
        )
    codec, rest = medians[-2:]
    one, two = (
        median for (way, precision, *_), median in zip(ways, medians, strict=False)
        if (way, precision) == ("earshot", precisions[-1])
    )  # fmt: skip
    allowed = 2 * (codec + rest) / (codec + 2 * rest)
    stages = {"codec": codec, "transformer": rest, "shared": two, "of_what_is_possible": 2 * one / two / allowed}
    return speeds, stages


def run_plainly(models: Sequence[Any], sounds: Any) -> tuple[Any, Any]:
    """The loop that one would write: the forward of each model, clips from the first and frames from the last."""
    values = sounds[:, None].to(models[0].dtype)
    heard = [model.audio_encoder(values) for model in models]
    return models[0].audio_head(heard[0].pooler_output), models[-1].audio_head(heard[-1].last_hidden_state)


def take_turns(ways: Sequence[tuple[bool, Callable[[Any], Any], Any]], device: str, rounds: int) -> list[list[float]]:
    """Seconds of each call of each way, after one that is not counted; ``True``: it keeps the memory that it frees."""
    import torch

    from pipeline.memory import keep_freed_memory

    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for (keep, way, given), taken in zip(ways, times, strict=True):
            if device == "cpu":
                keep_freed_memory(keep)
                way(given)
            began = time.perf_counter()
            way(given)
            if device != "cpu":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    return times


def make_sounds(n: int, seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Gliding tones over noise, (n, samples)."""
    n_samples = max(1, round(seconds * SAMPLE_RATE_HZ / 1920)) * 1920
    rng, time_s = np.random.default_rng(7), np.arange(n_samples) / SAMPLE_RATE_HZ
    tones = [np.sin(2 * np.pi * (150 + 250 * k + 300 * time_s) * time_s) for k in range(n)]
    return (0.3 * np.stack(tones) + rng.normal(0, 0.05, (n, n_samples))).astype(np.float32)


def make_random_models() -> tuple[Any, Any]:
    """A clip and a frame model of the default size with equal codecs, weights as transformers draws them."""
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
    from pipeline.encode import load_audio_model

    model = load_audio_model(name)
    return model, copy.deepcopy(model)


def profile(make: Callable[[], tuple[Any, Any]], device: str, precision: str, batch: int, seconds: float) -> str:
    """torch's own table of operations, those first that take longest by themselves."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiling

    from pipeline.encode import make_tower

    model, _ = make()
    tower, sounds = (
        make_tower(model, model, device, precision),
        torch.from_numpy(make_sounds(batch, seconds)).to(device),
    )
    tower(sounds)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profiling(activities=activities) as seen:
        tower(sounds)
    by = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    table: str = seen.key_averages().table(sort_by=by, row_limit=12, max_name_column_width=40)
    return table


def cosine(rows: Any, others: Any) -> Any:
    return (rows * others).sum(-1) / np.linalg.norm(rows, axis=-1) / np.linalg.norm(others, axis=-1)


def relative(rows: Any, expected: Any) -> Any:
    return (np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max()


def describe_machine(device: str) -> str:
    """The processor, what of it is used, and the versions that matter."""
    import torch
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {versions}"
    capabilities = torch.cpu.get_capabilities()
    known = [name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if capabilities.get(name)]
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(known[:2]) or platform.machine()}), {torch.get_num_threads()} threads, {versions}"


def print_speeds(title: str, speeds: Sequence[Speed]) -> None:
    """A table without any package for tables."""
    print(f"\n{title}\n{'':14}{'precision':>10}{'models':>8}{'seconds':>9}{'x real time':>13}{'ratio':>7}", end="")
    print(f"{'clip cosine':>13}{'frame cosine':>14}{'difference':>12}")
    for speed in speeds:
        print(
            f"{speed.way:14}{speed.precision:>10}{speed.models:>8}{speed.seconds:>9.3f}{speed.x_real_time:>13.2f}"
            f"{speed.ratio:>7.2f}{speed.clip_cosine:>13.6f}{speed.frame_cosine:>14.6f}{speed.difference:>12.1e}",
            flush=True,
        )


def print_stages(stages: dict[str, float]) -> None:
    print(
        f"codec {stages['codec']:.3f} s, transformer {stages['transformer']:.3f} s; one pass of the codec for two"
        f" models gives {stages['of_what_is_possible']:.2f} of what these times allow"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
