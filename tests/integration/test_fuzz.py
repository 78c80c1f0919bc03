"""Damaged files of every format in one run: each becomes one row with a reason, and no worker dies of one.

`make fuzz SEED=7 FILES=2000` tries others than those of the seed here.
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.config import make_config
from pipeline.errors import REASONS
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.sounds import FORMATS, encode, tone

SEED, N_FILES = int(os.environ.get("EARSHOT_FUZZ_SEED", "0")), int(os.environ.get("EARSHOT_FUZZ_FILES", "300"))

LONGEST_S = 600.0
"""More than any mutant may become: the sounds last two seconds, and times of packets may be damaged, too."""

EXTREMES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with one to three damages, more of them near the beginning, where the headers are."""
    mutant = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not mutant:
            break
        at = int(len(mutant) * rng.random() ** rng.integers(1, 6))
        length = int(rng.integers(1, max(2, min(2_000, len(mutant) // 4))))
        match rng.integers(8):
            case 0:
                for _ in range(rng.integers(1, 20)):
                    mutant[int(len(mutant) * rng.random() ** 3)] = rng.integers(256)
            case 1:
                del mutant[at:]
            case 2:
                del mutant[at : at + length]
            case 3:
                mutant[at:at] = mutant[at : at + length]
            case 4:
                mutant[at:at] = rng.bytes(length)
            case 5:
                mutant[at : at + length] = bytes(length)
            case 6:
                order = "little" if rng.random() < 0.5 else "big"
                mutant[at : at + 4] = int(rng.choice(EXTREMES)).to_bytes(4, order)  # type: ignore[arg-type]
            case 7:
                other = int(rng.integers(len(mutant)))
                mutant[at : at + length], mutant[other : other + length] = (
                    mutant[other : other + length],
                    mutant[at : at + length],
                )
    return bytes(mutant)


def write_mutants(folder: Path, n_files: int, seed: int) -> set[str]:
    """Write mutants of every format in turns; returns their paths."""
    folder.mkdir()
    rng, sound = np.random.default_rng(seed), tone(2.0, 48_000)
    healthy = {name: encode(name, sound, 48_000) for name, format_ in FORMATS.items() if format_.takes(48_000, 1)}
    paths = set()
    for number in range(n_files):
        name = list(healthy)[number % len(healthy)]
        path = folder / f"{number:05d}-{name}.{FORMATS[name].suffix}"
        path.write_bytes(mutate(healthy[name], rng))
        paths.add(str(path))
    return paths


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_damaged_files_are_rows(tmp_path: Path) -> None:
    paths = write_mutants(tmp_path / "in", N_FILES, SEED)
    values = {"sources": [str(tmp_path / "in")], "into": str(tmp_path / "index"), "run": {"max_failed_fraction": 1.0}}
    config = make_config(values)
    progress = index_corpus(config)
    rows = pipeline.open(config.into).to_arrow("files").to_pylist()
    print(Counter((row["status"], row["reason"]) for row in rows))
    assert (progress.n_files, progress.n_indexed + progress.n_failed) == (N_FILES, N_FILES)
    assert {row["uri"] for row in rows} == paths
    assert len(rows) == N_FILES
    for row in rows:
        assert row["reason"] in (None, *REASONS), row
        assert row["reason"] != "crashed", row
        assert (row["status"] == "indexed") == (row["n_clips"] > 0), row
        assert row["status"] == "indexed" or row["reason"], row
        assert (row["duration_s"] or 0.0) < LONGEST_S, row
    assert sum(row["status"] == "indexed" for row in rows) > N_FILES / 4
    assert verify_index(config.into) == []
