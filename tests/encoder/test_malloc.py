"""Kept memory stays with the process and is used again."""

from pathlib import Path

import pytest

from tests.helpers.processes import print_of


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not show what a process has mapped")
def test_freed_block_stays_with_the_process_only_while_memory_is_kept() -> None:
    """The list of mapped memory still holds a block that was freed, or does not: on every Linux, whatever it counts."""
    code = """
import ctypes
from pipeline.encoder.malloc import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 2**27
def is_kept():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    with open("/proc/self/maps") as maps:
        spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
    return any(start <= block and block + size <= end for start, end in spans)
print(is_kept(), keep_freed_memory(), is_kept(), keep_freed_memory(False), is_kept())
"""
    at_first, can, kept, _, given_back = print_of(code).split()
    if can == "False":
        pytest.skip("no glibc")
    assert (at_first, kept, given_back) == ("False", "True", "False")


@pytest.mark.slow
def test_kept_memory_is_used_again() -> None:
    """An encoder maps next to no fresh memory: counted in page faults, in a fresh process.

    Compared with its first pass ever, which has to map all it needs. Passes without the setting would not do: they map
    most of it again, or nothing, as the heap happens to lie. The first pass with the setting may still grow the heap.
    """
    code = """
import resource
import numpy as np, torch
from pipeline.config import EncodeConfig
from pipeline.encoder.encoder import load_encoder
from pipeline.encoder.malloc import keep_freed_memory
torch.set_num_threads(1)
encoder = load_encoder(EncodeConfig(clip_model="earshot-tiny", device="cpu"))
windows = [np.zeros(100 * 1920, np.float32)] * 2
def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    encoder.encode(windows)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first, can = count_faults(), keep_freed_memory()
count_faults()
print(first, can, sum(count_faults() for _ in range(5)))
"""
    first, can, after = print_of(code).split()
    if can == "False":
        pytest.skip("no glibc")
    if first == "0":
        pytest.skip("the system counts no page faults")
    assert int(after) < int(first) / 2
