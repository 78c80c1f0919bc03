"""How close embeddings must be to those of transformers, how closeness is computed, and on which machine."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

LARGEST_DIFFERENCE = 1e-4
"""The largest difference of an embedding in float32, relative to its length."""

LEAST_CLIP_COSINE, LEAST_FRAME_COSINE = 0.9995, 0.999
"""In bfloat16: of each clip, and of frames on average."""


def cosine(rows: Any, others: Any) -> Any:
    return (rows * others).sum(-1) / np.linalg.norm(rows, axis=-1) / np.linalg.norm(others, axis=-1)


def relative(rows: Any, expected: Any) -> Any:
    """The largest difference of a row, relative to the length of the expected row."""
    return (np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max()


@contextmanager
def without_tf32() -> Iterator[None]:
    """Keep a GPU from rounding float32 to TF32, in matrix products and in cuDNN's convolutions."""
    import torch

    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(former)


def describe_machine(device: str) -> str:
    """The processor, its instruction sets that matter, the number of threads, and the versions of the libraries."""
    import torch
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, {versions}"
    capabilities = torch.cpu.get_capabilities()
    known = [name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if capabilities.get(name)]
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(known[:2]) or platform.machine()}), {torch.get_num_threads()} threads, {versions}"
