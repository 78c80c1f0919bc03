"""Measure what a corpus of very many files costs before the first one is decoded.

    python -m jobs.bench many                            # all: a million files each, takes about half an hour
    python -m jobs.bench many manifest --files 100000

``folder``: files of many sizes in folders of 1,000, on the disk. ``manifest``: a CSV file that names them, with three
columns of metadata. ``ranges``: a manifest of a hundred ranges in each of fewer files, with one column. ``shards``: tar
files of 10,000 members. ``tables``: Parquet files of 1,000 rows, with three columns beside the audio. The files are
empty: nothing is decoded.

For each corpus a fresh process lists it, reads its metadata and plans a first index; another one does so for an index
that knows all files. Seconds count from when the modules are loaded, memory beyond what the process held then. The exit
code is 1 where a limit is missed.
"""

import os
import tarfile
import time
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from pyarrow import csv

from jobs.bench.figures import Figure, call_fresh, measure_and_report, read_memory
from jobs.shared.options import Json
from pipeline import schema
from pipeline.audio.source import hash_file, probe_file
from pipeline.config import CorpusConfig
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.metadata import read_metadata
from pipeline.index.metadata_columns import MetadataColumns
from pipeline.index.tables import select_metadata
from pipeline.planning.decide import PlanSetup, make_plan
from pipeline.planning.ledger import Ledger

FILES_PER_FOLDER, FILES_PER_SHARD, ROWS_PER_TABLE, RANGES_PER_FILE = 1_000, 10_000, 1_000, 100
SIZES = 50_000
ALWAYS_S, ALWAYS_GB = 5.0, 0.2  # of any number of files
MAX_S, MAX_GB = 60.0, 1.0  # of a million files
METADATA_GB = 0.2  # more, for metadata


class What(StrEnum):
    """A kind of corpus; the module describes each."""

    FOLDER = "folder"
    MANIFEST = "manifest"
    RANGES = "ranges"
    SHARDS = "shards"
    TABLES = "tables"


def write_folder(folder: Path, n_files: int) -> Path:
    """Sparse files, which take no room on the disk."""
    for number in range(n_files):
        inner = folder / "in" / f"recorder-{number // FILES_PER_FOLDER:05d}"
        if number % FILES_PER_FOLDER == 0:
            inner.mkdir(parents=True)
        handle = os.open(inner / f"2026-01-01-{number:08d}.wav", os.O_CREAT | os.O_WRONLY)
        os.truncate(handle, _size(number))
        os.close(handle)
    return folder / "in"


def _size(number: int) -> int:
    """The size of a file, the same for about twenty of a million."""
    return 44 + number * 7919 % SIZES


def write_manifest(folder: Path, n_files: int) -> Path:
    names = sorted(str(path) for path in write_folder(folder, n_files).rglob("*.wav"))
    return _write_csv(folder, {"uri": pa.array(names), **_metadata(np.arange(n_files))})


def write_ranges(folder: Path, n_files: int) -> Path:
    """Ranges of ten seconds, one every five."""
    names = sorted(str(path) for path in write_folder(folder, -(-n_files // RANGES_PER_FILE)).rglob("*.wav"))
    numbers = np.arange(n_files)
    start_s = 5.0 * (numbers % RANGES_PER_FILE) + 0.125
    uris = pa.array(names).take(pa.array(numbers // RANGES_PER_FILE))
    return _write_csv(
        folder, {"uri": uris, "start_s": start_s, "end_s": start_s + 10, "text": _metadata(numbers)["text"]}
    )


def _write_csv(folder: Path, columns: dict[str, Any]) -> Path:
    csv.write_csv(pa.table(columns), folder / "manifest.csv")
    return folder / "manifest.csv"


def _metadata(numbers: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
    """A column of few values, one of numbers, and one with a sentence of its own for each file."""
    return {
        "mic": pa.array(["MKH 50", "H5", "SM 58"]).take(pa.array(numbers % 3)),
        "take": pa.array(numbers),
        "text": pa.array([f"what is heard in recording number {number}" for number in numbers]),
    }


def write_shards(folder: Path, n_files: int) -> Path:
    (folder / "in").mkdir()
    for first in range(0, n_files, FILES_PER_SHARD):
        with tarfile.open(folder / "in" / f"{first // FILES_PER_SHARD:05d}.tar", "w") as tar:
            for number in range(first, min(n_files, first + FILES_PER_SHARD)):
                tar.addfile(tarfile.TarInfo(f"2026-01-01-{number:08d}.wav"))
    return folder / "in" / "*.tar"


def write_tables(folder: Path, n_files: int) -> Path:
    (folder / "in").mkdir()
    for first in range(0, n_files, ROWS_PER_TABLE):
        numbers = np.arange(first, min(n_files, first + ROWS_PER_TABLE))
        audio = pa.array([{"bytes": b"", "path": f"2026-01-01-{number:08d}.wav"} for number in numbers])
        table = pa.table({"audio": audio, **_metadata(numbers)})
        pq.write_table(table, folder / "in" / f"{first // ROWS_PER_TABLE:05d}.parquet")
    return folder / "in" / "*.parquet"


WITH_METADATA = (What.MANIFEST, What.RANGES, What.TABLES)
WRITERS = {
    What.FOLDER: write_folder,
    What.MANIFEST: write_manifest,
    What.RANGES: write_ranges,
    What.SHARDS: write_shards,
    What.TABLES: write_tables,
}


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


def list_and_plan(source: str, ledger: str) -> dict[str, float]:
    """Seconds and bytes that listing and planning take. The first call writes ``ledger``: the ``files`` of an index."""
    is_known = os.path.exists(ledger)
    files = pa.ipc.open_file(ledger).read_all() if is_known else schema.FILES.empty_table()
    base, began = read_memory()["VmHWM"], time.perf_counter()
    costs: dict[str, float] = {}

    def note(stage: str) -> None:
        costs[f"{stage}_s"] = time.perf_counter() - began
        costs[f"{stage}_bytes"] = read_memory()["VmHWM"] - base

    config, manifests = CorpusConfig(), list[str]()
    listed = list_corpus([source], config, manifests=manifests)
    note("listed")
    metadata = MetadataColumns(
        read_metadata(listed, manifests, config, schema.metadata_columns(files.schema)), select_metadata(files)
    )
    outdated = metadata.outdated()
    note("described")
    plan = make_plan(
        listed,
        Ledger(files.select(schema.FILES.names)),
        PlanSetup(batch_s=300.0, run_id="0" * 32, hash_file=hash_file, probe_file=probe_file, list_actions=False),
        outdated=outdated,
    )
    note("planned")
    assert (plan.n_unchanged if is_known else plan.n_to_decode) == listed.num_rows
    assert not outdated
    if not is_known:
        known = metadata.join(know_all(listed))
        with pa.ipc.new_file(ledger, known.schema) as file:
            file.write_table(known)
    return costs


def measure(folder: Path, what: What, n_files: int) -> Iterator[Figure]:
    """A first index and an index that knows all files, each in a process of its own."""
    source = WRITERS[what](folder, n_files)
    for run in ("first index", "nothing new"):
        costs = call_fresh(list_and_plan, str(source), str(folder / "ledger.arrow"))
        listed_s, described_s, seconds = (costs[f"{stage}_s"] for stage in ("listed", "described", "planned"))
        detail = f"listing {listed_s:.1f} s, metadata {described_s - listed_s:.1f} s"
        limit = _limit(ALWAYS_S, MAX_S, n_files)
        yield Figure(what, f"{n_files:,} files, {run}: time", seconds, "s", limit, detail)
        listed_gb, described_gb, gb = (costs[f"{stage}_bytes"] / 1e9 for stage in ("listed", "described", "planned"))
        detail = f"listing {listed_gb:.2f} GB, with metadata {described_gb:.2f} GB"
        limit = _limit(ALWAYS_GB, MAX_GB + METADATA_GB * (what in WITH_METADATA), n_files)
        yield Figure(what, f"{n_files:,} files, {run}: memory", gb, "GB", limit, detail)


def _limit(always: float, most: float, n_files: int) -> float:
    """``always``, and as much for each file that a million need ``most``."""
    return always + (most - always) * n_files / 1_000_000


def many(
    what: Annotated[list[What] | None, typer.Argument(help="Kinds of corpus; by default all.")] = None,
    files: Annotated[int, typer.Option(help="Number of files.", min=1)] = 1_000_000,
    json: Json = False,
) -> None:
    """Measure listing and planning a corpus of very many files: half an hour."""
    measurements = [partial(measure, what=each, n_files=files) for each in what or What]
    measure_and_report("what many files cost", measurements, json=json)
