"""Where the encoder spends its time, by torch's profiler: the stages of the tower, then the longest operations.

It needs torch, transformers and numpy, nothing else.
"""

import gc
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jobs.bench.sounds import make_sounds
from jobs.shared.output import print_line
from pipeline.encoder.batching import is_out_of_memory

Row = dict[str, Any]
T = TypeVar("T")

PROFILED = {"cpu": 1, "cuda": 8}
"""Sounds in the profiled batch, if they fit."""

LONGEST = 12
"""Operations of a profile that are shown."""


def profile(clip: Any, frame: Any | None, device: str, precision: str, seconds: float) -> list[Row]:
    """Where a batch spends its time: the stages in order, then the operations that take longest by themselves.

    It runs as an encoder process does: on a CPU with one thread, which keeps the memory that it frees. The models are
    taken apart; ``frame`` may be the same object as ``clip``.
    """
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiling

    from pipeline.encoder.encoder import make_tower
    from pipeline.encoder.malloc import keep_freed_memory

    threads = torch.get_num_threads()
    if device == "cpu":
        keep_freed_memory()
        torch.set_num_threads(1)
    tower = make_tower(clip, frame, device, precision)
    tower.compile()

    def load(n: int) -> Any:
        return torch.from_numpy(make_sounds(n, seconds)).to(device)

    n = PROFILED[device]
    while isinstance(attempt(lambda n: tower(load(n)), n), str) and n > 1:
        n //= 2
    sounds = load(n)
    tower(sounds)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profiling(activities=activities) as seen:
        tower(sounds)
        if device == "cuda":
            torch.cuda.synchronize()
    torch.set_num_threads(threads)
    kind = "device" if device == "cuda" else "cpu"  # "device": the time of the kernels that a call on the CPU starts
    called = [event for event in seen.key_averages() if event.device_type.name == "CPU"]
    total = max(1e-9, sum(getattr(event, f"self_{kind}_time_total") for event in called))
    stages = [(event.key, getattr(event, f"{kind}_time_total")) for event in called if is_stage(event.key)]
    operations = [(e.key, getattr(e, f"self_{kind}_time_total")) for e in called if not is_stage(e.key)]
    longest = sorted(operations, key=lambda row: -row[1])[:LONGEST]
    whole = {"part": "profile", "sounds": n}
    return [{**whole, "stage": k, "total_s": us / 1e6, "share": us / total} for k, us in sorted(stages)] + [
        {**whole, "operation": k, "self_s": us / 1e6, "share": us / total} for k, us in longest
    ]


def attempt(call: Callable[..., T], *arguments: Any) -> T | str:
    """The result of a call, or torch's message if the device has too little memory for it."""
    import torch

    try:
        return call(*arguments)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).split("\n")[0]
    gc.collect()  # frees what the frames of the error held, also in cycles
    torch.cuda.empty_cache()
    return said


def is_stage(name: str) -> bool:
    """Whether this is the name of a part of the tower."""
    return name.startswith("codec ") or name == "transformer"


def print_profile(rows: Sequence[Row]) -> None:
    """Print the stages, then the operations."""
    print_line(f"seconds of a batch of {rows[0]['sounds']}")
    for row in rows:
        name, took = (row["stage"], row["total_s"]) if "stage" in row else (row["operation"], row["self_s"])
        print_line(f"{'stage' if 'stage' in row else 'operation':11}{name:44}{took:9.3f} s{row['share']:8.1%}")
