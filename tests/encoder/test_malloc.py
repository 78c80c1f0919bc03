"""Kept memory is used again."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_kept_memory_is_used_again() -> None:
    """An encoder maps next to no fresh memory: counted in page faults, in a fresh process.

    The median of some passes: the first ones after the setting, and now and then another, still grow the pool.
    """
    code = """
import resource, statistics
import numpy as np, torch
from pipeline.config import EncodeConfig
from pipeline.encoder.encoder import load_encoder
from pipeline.encoder.malloc import keep_freed_memory
torch.set_num_threads(1)
encoder = load_encoder(EncodeConfig(clip_model="earshot-tiny", device="cpu"))
windows = [np.zeros(100 * 1920, np.float32)] * 2
def count_faults():
    passes = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        encoder.encode(windows)
        passes.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return int(statistics.median(passes[1:]))
print(count_faults(), keep_freed_memory(), count_faults())
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    before, can, after = done.stdout.split()
    if can == "False":
        pytest.skip("no glibc")
    assert int(after) < int(before) / 5
