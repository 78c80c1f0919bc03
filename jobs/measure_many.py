"""Measure what a corpus of very many files costs before the first one is decoded.

    python -m jobs.measure_many                            # all: a million files each, takes about fifteen minutes
    python -m jobs.measure_many manifest --files 100000

``folder``: files of many sizes in folders of 1,000, on the disk. ``manifest``: a CSV file that names them.
``shards``: tar files of 10,000 members. Nothing is in the files: they are never decoded.

Of each, in a fresh process: listing and planning a first index; and listing and planning once more, where the index
knows all of them. Seconds from when the modules are loaded, and memory beyond what the process had then. The exit code
is 1 where a limit is missed.
"""

import json as jsonlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from jobs.figures import Figure, report
from jobs.query import Json
from pipeline import schema
from pipeline.config import CorpusConfig
from pipeline.corpus import list_corpus
from pipeline.ledger import Ledger
from pipeline.plan import make_plan
from pipeline.read import hash_file, probe_file

FILES_PER_FOLDER, FILES_PER_SHARD = 1_000, 10_000
SIZES = 50_000
MAX_S, MAX_GB = 60.0, 1.0  # for a million files


class What(StrEnum):
    """A kind of corpus; see above."""

    FOLDER = "folder"
    MANIFEST = "manifest"
    SHARDS = "shards"


def write_folder(folder: Path, n_files: int) -> Path:
    """Sparse files, whose bytes take no room on the disk."""
    for number in range(n_files):
        inner = folder / "in" / f"recorder-{number // FILES_PER_FOLDER:05d}"
        if number % FILES_PER_FOLDER == 0:
            inner.mkdir(parents=True)
        handle = os.open(inner / f"2026-01-01-{number:08d}.wav", os.O_CREAT | os.O_WRONLY)
        os.truncate(handle, _size(number))
        os.close(handle)
    return folder / "in"


def _size(number: int) -> int:
    """About twenty files have the same."""
    return 44 + number * 7919 % SIZES


def write_manifest(folder: Path, n_files: int) -> Path:
    names = sorted(str(path) for path in write_folder(folder, n_files).rglob("*.wav"))
    (folder / "manifest.csv").write_text("\n".join(["uri", *names]) + "\n")
    return folder / "manifest.csv"


def write_shards(folder: Path, n_files: int) -> Path:
    (folder / "in").mkdir()
    for first in range(0, n_files, FILES_PER_SHARD):
        with tarfile.open(folder / "in" / f"{first // FILES_PER_SHARD:05d}.tar", "w") as tar:
            for number in range(first, min(n_files, first + FILES_PER_SHARD)):
                tar.addfile(tarfile.TarInfo(f"2026-01-01-{number:08d}.wav"))
    return folder / "in" / "*.tar"


def know_all(listed: pa.Table) -> pa.Table:
    """The ``files`` table of an index of a corpus, every file with a content of its own."""
    n_files = listed.num_rows
    ids = pa.array([schema.digest(str(number)) for number in range(n_files)])
    columns: dict[str, Any] = {name: listed[name] for name in ("uri", "size_bytes", "modified_ns")}
    columns |= {"file_id": ids, "audio_id": ids, "content_hash": pc.binary_join_element_wise(ids, ids, "")}
    columns |= {"status": ["indexed"] * n_files, "batch_id": [schema.digest("")] * n_files}
    columns |= {name: np.ones(n_files, np.int32) for name in ("n_clips", "n_frames")}
    for column in schema.FILES:
        columns.setdefault(column.name, pa.nulls(n_files, column.type))
    return pa.table({name: columns[name] for name in schema.FILES.names}, schema=schema.FILES)


def look(source: str, ledger: str) -> dict[str, float]:
    """What a fresh process needs to list and plan; of the first time, it leaves the ``files`` that would be known."""
    is_known = os.path.exists(ledger)
    files = pa.ipc.open_file(ledger).read_all() if is_known else schema.FILES.empty_table()
    base, began = _peak_bytes(), time.perf_counter()
    listed = list_corpus([source], CorpusConfig())
    listed_s, listed_bytes = time.perf_counter() - began, _peak_bytes() - base
    plan = make_plan(
        listed,
        Ledger(files),
        batch_s=300.0,
        run_id="0" * 32,
        hash_file=hash_file,
        probe_file=probe_file,
        list_actions=False,
    )
    seconds, n_bytes = time.perf_counter() - began, _peak_bytes() - base
    assert (plan.n_unchanged if is_known else plan.n_to_decode) == listed.num_rows
    if not is_known:
        with pa.ipc.new_file(ledger, schema.FILES) as file:
            file.write_table(know_all(listed))
    return {"listed_s": listed_s, "listed_bytes": listed_bytes, "seconds": seconds, "n_bytes": n_bytes}


def _peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())  # getrusage tells the parent's, too
    return int(found[1]) * 1024 if found else 0


def measure(what: What, folder: Path, n_files: int) -> Iterator[Figure]:
    """Both, in processes of their own."""
    source = {What.FOLDER: write_folder, What.MANIFEST: write_manifest, What.SHARDS: write_shards}[what](
        folder, n_files
    )
    for run in ("first index", "nothing new"):
        command = [sys.executable, "-m", "jobs.measure_many", "--here", str(source), str(folder / "ledger.arrow")]
        told = jsonlib.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        scale = n_files / 1_000_000
        detail = f"listing {told['listed_s']:.1f} s"
        yield Figure(what, f"{n_files:,} files, {run}: time", told["seconds"], "s", MAX_S * scale, detail)
        detail = f"listing {told['listed_bytes'] / 1e9:.2f} GB"
        yield Figure(what, f"{n_files:,} files, {run}: memory", told["n_bytes"] / 1e9, "GB", MAX_GB * scale, detail)


def main(
    what: Annotated[list[What] | None, typer.Argument(help="All by default.")] = None,
    files: Annotated[int, typer.Option(min=1)] = 1_000_000,
    json: Json = False,
    here: Annotated[tuple[str, str] | None, typer.Option(hidden=True)] = None,  # what a fresh process measures
) -> None:
    """Print what many files cost, with the limits beside it."""
    if here is not None:
        print(jsonlib.dumps(look(*here)))
        return
    figures: list[Figure] = []
    for each in what or list(What):
        with tempfile.TemporaryDirectory() as folder:
            figures += measure(each, Path(folder), files)
    report("what many files cost", figures, json=json)


if __name__ == "__main__":
    typer.run(main)
