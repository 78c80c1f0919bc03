"""Damaged files of every format in one run: each becomes one row with a reason, and no worker dies of one.

`make fuzz SEED=7 FILES=2000` tries others than those of the seed here.
"""

import json
import os
from collections import Counter
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.config import make_config
from pipeline.errors import REASONS
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.corpora import write_manifest
from tests.helpers.processes import run_python
from tests.helpers.shards import pack
from tests.helpers.sounds import FORMATS, by_av, encode, tone

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


FILMS = {"mkv": ("matroska", "aac"), "m2ts": ("mpegts", "aac"), "mpg": ("mpeg", "mp2"), "avi": ("avi", "libmp3lame")}
FILMS |= {"wmv": ("asf", "libmp3lame"), "mov": ("mov", "alac")}
"""By extension: container and codec of the sound, beside those of ``FORMATS``."""


def write_mutants(folder: Path, n_files: int, seed: int) -> set[str]:
    """Write mutants of every format in turns; returns their paths."""
    rng, sound = np.random.default_rng(seed), tone(2.0, 48_000)
    healthy = {
        f"{name}.{format_.suffix}": encode(name, sound, 48_000)
        for name, format_ in FORMATS.items()
        if format_.takes(48_000, 1)
    }
    for suffix, (container, codec) in FILMS.items():
        healthy[f"film.{suffix}"] = by_av(container, codec, film="with sound")(sound, 48_000)
    return set(map(str, write_in_turns(folder, healthy, n_files, rng)))


def write_in_turns(folder: Path, healthy: dict[str, bytes], n_files: int, rng: np.random.Generator) -> list[Path]:
    folder.mkdir()
    paths = []
    for number, (name, data) in zip(range(n_files), cycle(healthy.items()), strict=False):
        paths.append(folder / f"{number:05d}-{name}")
        paths[-1].write_bytes(mutate(data, rng))
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


# --- shards and tables ------------------------------------------------------------------------------------------------

READ = """
import json, sys
from pathlib import Path
from jobs.bench.hostile import read_rows
from pipeline.errors import EarshotError

for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)  # the last one, if the process dies
    try:
        rows, _ = read_rows(str(path))
        print(json.dumps([[row["reason"], row["message"]] for row in rows]))
    except EarshotError as error:
        print(json.dumps(str(error)))
"""


@pytest.mark.slow
def test_damaged_shards_and_tables_are_rows_or_one_line(tmp_path: Path) -> None:
    sounds = [(f"{number}.wav", encode("wav_s16", tone(0.2 + number / 10, 48_000), 48_000)) for number in range(4)]
    for name, data in sounds:
        (tmp_path / name).write_bytes(data)
    uris = [str(tmp_path / name) for name, _ in sounds]
    for name in ("a.tar", "a.parquet", "stream.arrow", "file.arrow"):
        pack(tmp_path / "shards" / name, sounds, row_group_size=2)
    for name in ("m.csv", "m.tsv", "m.jsonl", "m.parquet"):
        write_manifest(tmp_path / "shards" / name, uris, start_s=[None, 0.1, None, 0.2], words=["a", "b, c", 'd"', "e"])
    healthy = {path.name: path.read_bytes() for path in sorted((tmp_path / "shards").iterdir())}
    paths = write_in_turns(tmp_path / "in", healthy, N_FILES, np.random.default_rng(SEED))
    done = run_python("-c", READ, tmp_path / "in")
    assert done.returncode == 0, (done.stdout[-200:], done.stderr[-2_000:])
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(found) == {path.name for path in paths}
    outcomes = {name: json.loads(text) for name, text in found.items()}
    print(
        Counter("error" if isinstance(said, str) else reason for said in outcomes.values() for reason in said_of(said))
    )
    for name, said in outcomes.items():
        if isinstance(said, str):
            assert said.startswith("/"), name  # the path, or that of a file in it
            assert "\n" not in said, name
        for reason in said_of(said):
            assert reason in (None, "error", *REASONS), name
            assert reason != "crashed", name
    assert sum(None in said_of(said) for said in outcomes.values()) > N_FILES / 8


def said_of(said: str | list[list[str | None]]) -> list[str | None]:
    """The reasons of rows, or that there is an error instead."""
    return ["error"] if isinstance(said, str) else [reason for reason, _ in said]
