"""Measure what reindexing costs, and whether an index stays fast however it was fed.

    python -m jobs.measure_reindex                     # all three: takes about ten minutes
    python -m jobs.measure_reindex plan change batches

``plan``: 100,000 small files of which nothing changed. A fresh process plans them, another one runs; counted from when
its modules are loaded, in seconds and in memory. The files really lie in 1,000 folders, 8 to 23 bytes each; their rows
were committed without decoding anything, with one clip and one frame for each.

``change``: 30 of 3,000 files of 1 s get other bytes of the same length, the worst case, for they must be hashed.
Indexing the changed corpus, against indexing the 30 files into an index of their own. Its tables are there before the
clock starts: looking at the models and making tables would only flatter the ratio. Stages run in this process, and Ray
does not start, which takes longer than all that is measured. Once with the bundled model, loaded before, and once with
an encoder that takes no time, so that nothing but reading, planning and committing is left; each time in both orders.

``batches``: 1,000 small commits in runs of ten, with replacements and deletions among them and upkeep at the usual
intervals (``edited``), or with nothing but additions (``added``). How long commits take, and queries against those of a
fresh index with the same rows committed in one batch, in turns: after upkeep, and once more just before the next one is
due. On the way there each commit takes turns with one to a young index, so that what else the machine does meanwhile
slows down both. Clean-up leaves what is younger than a day: all versions made here are still on the disk at the end.

The exit code is 1 where a limit is missed.
"""

import datetime as dt
import hashlib
import json as jsonlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import typer

from jobs.output import print_json, print_table
from jobs.query import Json
from pipeline import journal, schema, store
from pipeline.collect import clip_rows, files_table
from pipeline.config import Config, anchor, make_config
from pipeline.locate import Levels, find_events
from pipeline.plan import Ledger, empty_row, gone_row
from pipeline.run import Stages, describe_run, index_corpus, plan_corpus
from pipeline.search import find_clips, open_table, read_rows
from pipeline.window import FRAME_S, HOP_SAMPLES, Grid, Waveform, frames_to_seconds

Row = dict[str, Any]
Tables = dict[str, Any]
Vectors = npt.NDArray[np.float16]

FILES_PER_FOLDER = 100
CHANGED_FRACTION = 0.01

DIMENSION = 256
FILES_PER_BATCH, FRAMES_PER_FILE = 4, 35
BATCHES_PER_RUN = 10
REPLACE_EVERY, DELETE_EVERY = 5, 7
"""Batches of which one replaces, or deletes, two earlier files beside adding its own."""
PLANT_EVERY = 50
"""Batches of which one has an event in each of its files: frames in one direction, which no others have."""
DIRECTION = np.full(DIMENSION, DIMENSION**-0.5, np.float32)

N_QUERIES, WARM_UP_QUERIES = 30, 3
RATIO_LIMIT = 1.5
GRID = Grid(250, 10)


class What(StrEnum):
    """A measurement; see above."""

    plan = "plan"
    change = "change"
    batches = "batches"


@dataclass(frozen=True)
class Figure:
    """A measured value, and what it must stay below, where there is such a limit."""

    measurement: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    detail: str = ""

    @property
    def is_missed(self) -> bool:
        return self.limit is not None and self.value >= self.limit


def measure(
    what: Annotated[list[What] | None, typer.Argument(help="All of them by default.")] = None,
    scale: Annotated[float, typer.Option(min=0.001, help="Of the files and batches, to try it out.")] = 1.0,
    json: Json = False,
    here: Annotated[tuple[str, str, str] | None, typer.Option(hidden=True)] = None,  # what a fresh process measures
) -> None:
    """Print what reindexing costs, with the limits beside it."""
    if here is not None:
        print(jsonlib.dumps(measure_here(*here)))
        return
    figures: list[Figure] = []
    measurements = {What.plan: measure_plan, What.change: measure_change, What.batches: measure_batches}
    for each in what or list(What):
        with tempfile.TemporaryDirectory() as folder:
            figures += measurements[each](Path(folder), scale)
    if json:
        print_json({**asdict(figure), "missed": figure.is_missed} for figure in figures)
    else:
        columns = ["", "what", "measured", "limit", "of which"]
        print_table("what reindexing costs", columns, map(_show, figures), ["measured"])
    if any(figure.is_missed for figure in figures):
        raise typer.Exit(1)


def _show(figure: Figure) -> tuple[str, ...]:
    limit = "" if figure.limit is None else f"< {figure.limit:g} {'MISSED' if figure.is_missed else 'ok'}"
    digits = 0 if figure.unit == "" else 2
    value = f"{figure.value:,.{digits}f} {figure.unit}".strip()
    return figure.measurement, figure.what, value, limit, figure.detail


# --- plan -------------------------------------------------------------------------------------------------------------


def measure_plan(folder: Path, scale: float = 1.0) -> list[Figure]:
    """Time and memory of planning 100,000 unchanged files, and of a run over them."""
    config = make_config({"sources": [str(folder / "in")], "into": str(folder / "index")})
    n_files = _note_files(config, _write_small_files(folder / "in", round(1000 * scale)))
    figures = []
    for what, limit_s, limit_mb in (("plan", 15.0, 1000.0), ("run", None, None)):
        measured = _measure_fresh(what, config)
        if measured["n_unchanged"] != n_files or measured["n_others"]:
            raise SystemExit(f"{what}: {n_files:,} files should be unchanged, and not {measured}")
        figures += [
            Figure("plan", f"{what}: {n_files:,} unchanged files", measured["seconds"], "s", limit_s),
            Figure("plan", f"{what}: peak memory after start-up", measured["extra_bytes"] / 1e6, "MB", limit_mb),
            Figure("plan", f"{what}: peak memory in all", measured["peak_bytes"] / 1e6, "MB"),
        ]
    return figures


def measure_here(what: str, source: str, into: str) -> dict[str, float]:
    """Plan a corpus, or run over it, in this process, which should have done nothing else: all is unchanged."""
    config = make_config({"sources": [source], "into": into})
    start_bytes = _read_status("VmRSS")
    begin_s = time.monotonic()
    if what == "plan":
        plan = plan_corpus(config)
        n_unchanged, n_others = plan.n_unchanged, len(plan.actions) - plan.n_unchanged
    else:
        progress = index_corpus(config)
        n_unchanged, n_others = progress.n_unchanged, progress.n_files + progress.n_deleted - progress.n_unchanged
    seconds, peak_bytes = time.monotonic() - begin_s, _read_status("VmHWM")
    return {
        "seconds": seconds,
        "extra_bytes": peak_bytes - start_bytes,
        "peak_bytes": peak_bytes,
        "n_unchanged": n_unchanged,
        "n_others": n_others,
    }


def _measure_fresh(what: str, config: Config) -> dict[str, float]:
    command = [sys.executable, "-m", "jobs.measure_reindex", "--here", what, config.sources[0], config.into]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    measured: dict[str, float] = jsonlib.loads(done.stdout)
    return measured


def _read_status(name: str) -> int:
    """Bytes of memory, as the kernel counts them. (``ru_maxrss`` would begin with the memory of the parent.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


def _write_small_files(folder: Path, n_folders: int) -> Iterator[Row]:
    """Write the files, and yield the ledger row of each. Their sizes are not all equal, nor all distinct."""
    for number in range(n_folders * FILES_PER_FOLDER):
        path = folder / f"{number // FILES_PER_FOLDER:04d}" / f"{number % FILES_PER_FOLDER:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = f"{number:08d}".encode() + b"." * (number % 16)
        path.write_bytes(data)
        row = _indexed_row(str(path), hashlib.sha256(data).hexdigest(), n_frames=1)
        yield row | {"size_bytes": len(data), "modified_ns": path.stat().st_mtime_ns}


def _note_files(config: Config, rows: Iterator[Row]) -> int:
    """Commit these rows as a run that indexed the files would leave them."""
    settings, dimension, _ = describe_run(config)
    store.create(config.into, settings, clip_dimension=dimension, frame_dimension=dimension)
    writer = store.Writer(config.into, uuid.uuid4().hex)
    writer.configure(anchor(config).model_dump(mode="json"))
    listed = list(rows)
    rng = np.random.default_rng(1)
    for first in range(0, len(listed), 10_000):
        part = listed[first : first + 10_000]
        vectors = rng.standard_normal((len(part), dimension)).astype(np.float16)
        writer.commit([_make_batch(config.into, f"{first:032d}", part, vectors)])
    writer.refresh_indexes()
    return len(listed)


# --- change -----------------------------------------------------------------------------------------------------------


def measure_change(folder: Path, scale: float = 1.0) -> list[Figure]:
    """A run after 1% of the files have changed, against indexing that 1% alone."""
    from pipeline.config import EncodeConfig
    from pipeline.encode import load_encoder

    paths = [folder / "in" / f"{number:05d}.wav" for number in range(round(3000 * scale))]
    for seed, path in enumerate(paths):
        _write_noise(path, seed)
    config = make_config({"sources": [str(folder / "in")], "into": str(folder / "index")})
    _, dimension, _ = describe_run(config)
    no_time = _run_here(_NoTimeEncoder(dimension))
    index_corpus(config, stages=no_time)
    figures = []
    encoders = {
        "bundled model": (_run_here(load_encoder(EncodeConfig(device="cpu"))), 6, 1.3),
        "encoder of no time": (no_time, 20, None),
    }
    for name, (stages, n_rounds, limit) in encoders.items():
        changed, alone = _measure_changes(config, paths, stages, n_rounds)
        ratio = statistics.median(a / b for a, b in zip(changed, alone, strict=True))
        detail = f"{statistics.median(changed):.2f} s, alone {statistics.median(alone):.2f} s; median of {n_rounds}"
        what = f"{name}: {round(len(paths) * CHANGED_FRACTION)} of {len(paths):,} files"
        figures.append(Figure("change", what, ratio, "x", limit, detail))
    return figures


def _measure_changes(
    config: Config, paths: Sequence[Path], stages: Stages, n_rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of each round: of the changed corpus, and of what changed, alone. The first one goes first every other
    time, and one round before the others is not counted."""
    n_changed = round(len(paths) * CHANGED_FRACTION)
    apart = Path(config.into).parent / "alone"
    alone = config.model_copy(update={"sources": (str(apart / "in"),), "into": str(apart / "index")})
    settings, dimension, _ = describe_run(config)
    seconds: dict[str, list[float]] = {config.into: [], alone.into: []}
    for number in range(n_rounds + 1):
        (apart / "in").mkdir(parents=True)
        store.create(alone.into, settings, clip_dimension=dimension, frame_dimension=dimension)
        for path in (chosen := paths[number::n_rounds][:n_changed]):
            _write_noise(path, time.time_ns())
            os.link(path, apart / "in" / path.name)
        for run in (config, alone) if number % 2 else (alone, config):
            begin_s = time.monotonic()
            progress = index_corpus(run, stages=stages)
            seconds[run.into].append(time.monotonic() - begin_s)
            if progress.n_indexed != len(chosen):
                raise SystemExit(f"{len(chosen)} files should be indexed, and not {progress}")
        shutil.rmtree(apart)
    return seconds[config.into][1:], seconds[alone.into][1:]


def _write_noise(path: Path, seed: int) -> None:
    """One second of noise, 16 bits at 48 kHz."""
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.random.default_rng(seed).integers(-8000, 8000, 48_000, np.int16).tobytes())


class _NoTimeEncoder:
    """Embeds every window as ones."""

    precision = "float32"

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    def encode(self, windows: Sequence[Waveform]) -> tuple[Any, list[Any] | None]:
        frames = [np.ones((len(window) // HOP_SAMPLES, self._dimension), np.float32) for window in windows]
        return np.ones((len(windows), self._dimension), np.float32), frames


def _run_here(encoder: Any) -> Stages:
    """Stages in this process, one batch after the other."""
    from pipeline.stages import decode_batch, encode_windows, write_windows

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[Row]:
        for planned in batches.to_pylist():
            for block in decode_batch(planned, config.decode, config.window.grid):
                yield from write_windows(
                    encode_windows(block, encoder),
                    frames_schema,
                    lambda rows: store.write_frames(config.into, rows, frames_schema),
                ).to_pylist()

    return stages


# --- batches ----------------------------------------------------------------------------------------------------------


def measure_batches(folder: Path, scale: float = 1.0) -> list[Figure]:
    """Commits and queries of indexes fed in 1,000 batches; queries against fresh ones with the same rows."""
    figures = []
    n_batches = round(1000 * scale)
    every = make_config({"sources": ["x"], "into": "x"}).store.optimize_every
    for name, with_edits in (("edited", True), ("added", False)):
        feed, young = (_Feed(str(folder / f"{name}{age}"), with_edits=with_edits) for age in ("", " young"))
        for _ in range(n_batches):
            feed.add_batch()
        feed.end_run()
        figures += [
            Figure(name, "commits", n_batches, ""),
            Figure(name, "versions on the disk", _count_versions(feed.into), ""),
            Figure(name, "upkeep per commit", 1e3 * sum(feed.upkeep_s) / n_batches, "ms"),
            _compare(name, "opening a writer", feed.open_s[-10:], feed.open_s[:10], "first", None),
            _compare(name, "commit, last to 10th", feed.commits_s[-20:], feed.commits_s[4:15], "10th"),
            *_compare_queries(name, feed),
        ]
        for _ in range(every - 1):
            young.add_batch()
            feed.add_batch()
        feed.end_run()
        name = f"{name} + {every - 1}"
        figures.append(_compare(name, "commit", feed.commits_s[n_batches:], young.commits_s, "1st on"))
        figures += _compare_queries(name, feed)
    return figures


def _compare_queries(name: str, feed: "_Feed") -> list[Figure]:
    fresh = f"{feed.into} fresh"
    figures = [Figure(name, "live frame rows", _copy_index(feed.into, fresh), "")]
    for query, (fed_s, fresh_s) in _measure_queries(feed.into, fresh).items():
        figures.append(_compare(name, query, fed_s, fresh_s, "fresh"))
    shutil.rmtree(fresh)
    return figures


def _compare(
    name: str, what: str, now_s: list[float], base_s: list[float], base: str, limit: float | None = RATIO_LIMIT
) -> Figure:
    now, then = statistics.median(now_s), statistics.median(base_s)
    return Figure(name, what, now / then, "x", limit, f"{1e3 * now:.0f} ms, {base} {1e3 * then:.0f}")


@contextmanager
def _timed(seconds: list[float]) -> Iterator[None]:
    begin_s = time.monotonic()
    yield
    seconds.append(time.monotonic() - begin_s)


class _Feed:
    """Feeds an index in small batches, ten to a run, as runs do; takes the seconds of what a driver does meanwhile.

    A batch has four new files. With edits, every few batches two files change, or two go.
    """

    def __init__(self, into: str, *, with_edits: bool) -> None:
        self.into, self._with_edits = into, with_edits
        self.commits_s: list[float] = []
        self.upkeep_s: list[float] = []  # merging small fragments, and indexes at the end of runs
        self.open_s: list[float] = []  # making a writer
        self._rng = np.random.default_rng(2)
        self._ledger = Ledger(schema.FILES.empty_table())
        self._limits = make_config({"sources": ["x"], "into": into}).store
        self._writer: store.Writer | None = None
        store.create(into, _settings(), clip_dimension=DIMENSION, frame_dimension=DIMENSION)

    def add_batch(self) -> None:
        """Commit one more batch; begins a run, or ends it, where that is due."""
        if self._writer is None:
            with _timed(self.open_s):
                self._writer = store.Writer(self.into, uuid.uuid4().hex, keep_versions=self._limits.keep_versions)
        batch = self._next_batch(len(self.commits_s))
        with _timed(self.commits_s):
            self._writer.commit([batch])
        if self._writer.n_commits >= self._limits.optimize_every:
            with _timed(self.upkeep_s):
                self._writer.optimize(older_than=dt.timedelta(hours=self._limits.keep_hours))
        if len(self.commits_s) % BATCHES_PER_RUN == 0:
            self.end_run()

    def end_run(self) -> None:
        """Leave the index as a run does."""
        if self._writer is not None:
            with _timed(self.upkeep_s):
                self._writer.refresh_indexes()
            self._writer = None

    def _next_batch(self, number: int) -> store.Batch:
        rows, gone = self._next_files(number)
        vectors = self._rng.standard_normal((len(rows), FRAMES_PER_FILE, DIMENSION))
        if number % PLANT_EVERY == 0:
            vectors[:, 10:16] += 20 * DIRECTION
        batch_id = schema.make_batch_id("measure", number)
        batch = _make_batch(self.into, batch_id, rows, vectors.reshape(-1, DIMENSION).astype(np.float16))
        drop_files, drop_frames = self._ledger.apply([*rows, *gone])
        return replace(batch, files=files_table([*rows, *gone]), drop_files=drop_files, drop_frames=drop_frames)

    def _next_files(self, number: int) -> tuple[list[Row], list[Row]]:
        """The ledger rows of files to index, and of files that are gone."""
        uris = [f"/corpus/{number:05d}-{k}.wav" for k in range(FILES_PER_BATCH)]
        there = [row for row in self._ledger.rows.values() if row["status"] == "indexed"]
        gone: list[Row] = []
        if self._with_edits and number and number % REPLACE_EVERY == 0:
            uris += [there.pop(self._rng.integers(len(there)))["uri"] for _ in range(2)]
        if self._with_edits and number and number % DELETE_EVERY == 0:
            gone = [gone_row(there.pop(self._rng.integers(len(there)))) for _ in range(2)]
        return [_indexed_row(uri, f"{uri} {number}", FRAMES_PER_FILE) for uri in uris], gone


def _copy_index(source: str, into: str) -> int:
    """Commit the live rows of an index to a fresh one, in one batch; returns how many frame rows there are."""
    store.create(into, _settings(), clip_dimension=DIMENSION, frame_dimension=DIMENSION)
    writer = store.Writer(into, uuid.uuid4().hex)
    files, clips, frames = (store.open_published(source, name).to_table() for name in journal.DATA_TABLES)
    fragments = store.write_frames(into, frames.to_batches(), frames.schema)
    batch_id = schema.make_batch_id("measure", 0)
    writer.commit([store.Batch(batch_id, files.drop(["batch_id"]), clips.drop(["batch_id"]), fragments)])
    writer.refresh_indexes()
    return int(frames.num_rows)


def _count_versions(path: str) -> int:
    return sum(
        len(list(Path(path, f"{name}.lance", "_versions").iterdir())) for name in (*journal.DATA_TABLES, "batches")
    )


def _measure_queries(fed: str, fresh: str) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of each query of either index, in turns; that they answer alike is checked."""
    rng = np.random.default_rng(4)
    rows = store.open_published(fed, "files").to_table(filter="status = 'indexed'").to_pylist()
    opened = [_open(path) for path in (fed, fresh)]
    seconds: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for number in range(N_QUERIES + WARM_UP_QUERIES):
        if number == WARM_UP_QUERIES:
            seconds.clear()
        queries = _make_queries(rows[rng.integers(len(rows))], rng.standard_normal(DIMENSION))
        answers: list[dict[str, Any]] = [{}, {}]
        for which in (0, 1) if number % 2 else (1, 0):
            with _timed(seconds["open"][which]):
                _open((fed, fresh)[which])
            for name, ask in queries.items():
                with _timed(seconds[name][which]):
                    answers[which][name] = ask(opened[which])
            with _timed(seconds["open, then all these"][which]):
                tables = _open((fed, fresh)[which])
                for ask in queries.values():
                    ask(tables)
        if wrong := [name for name in queries if answers[0][name] != answers[1][name]]:
            raise SystemExit(f"{', '.join(wrong)}: the two indexes answer differently")
    return seconds


def _make_queries(row: Row, query: npt.NDArray[np.float64]) -> dict[str, Callable[[Tables], Any]]:
    """Queries by name: for a clip like ``query``, for events in ``DIRECTION``, for the file of ``row``."""
    levels = Levels(on=15.0, off=10.0, gap_frames=5, min_frames=0)

    def find_rows(tables: Tables) -> Any:
        return [_read(tables[name], f"file_id = '{row['file_id']}'") for name in ("files", "clips")]

    return {
        "find_clips": lambda tables: find_clips(tables["clips"], query.astype(np.float32), k=10),
        "find_events": lambda tables: find_events(tables["frames"], tables["files"], DIRECTION, levels, 10),
        "rows of a file": find_rows,
        "frames of an audio": lambda tables: _read(tables["frames"], f"audio_id = '{row['audio_id']}'"),
    }


def _open(path: str) -> Tables:
    """The tables as ``pipeline.open`` finds them."""
    state = journal.read_state(path)
    return {name: open_table(state.tables, name, state.published.versions[name]) for name in journal.DATA_TABLES}


def _read(table: Any, where: str) -> list[Row]:
    columns = [name for name in table.schema.names if name != "batch_id"]
    rows: list[Row] = read_rows(table, columns, where).to_pylist()
    return rows


# --- rows without audio -----------------------------------------------------------------------------------------------


def _settings() -> dict[str, Any]:
    return {"clip_model": None, "frame_model": None, "window": {}, "decode": {}, "frames": "all"}


def _indexed_row(uri: str, content_hash: str, n_frames: int) -> Row:
    """The ledger row of an indexed file of one clip."""
    row = empty_row(uri, schema.make_audio_id(content_hash))
    return row | {
        "status": "indexed",
        "duration_s": frames_to_seconds(n_frames),
        "expected_duration_s": frames_to_seconds(n_frames),
        "sample_rate_hz": 48_000,
        "channels": 1,
        "codec": "pcm_s16le",
        "size_bytes": 1,
        "modified_ns": 1,
        "content_hash": content_hash,
        "n_clips": 1,
        "n_frames": n_frames,
    }


def _make_batch(into: str, batch_id: str, rows: list[Row], vectors: Vectors) -> store.Batch:
    """A batch of indexed files. ``vectors`` (n, D) are those of all frames; a clip has that of its first frame."""
    counts = [row["n_frames"] for row in rows]
    frames = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
    frames_schema = schema.frames_schema(vectors.shape[1])
    columns = [
        pa.array(np.repeat([row["audio_id"] for row in rows], counts)),
        pa.array(frames),
        pa.array(frames * FRAME_S),
        pa.array([batch_id] * len(frames)),
        _lists(vectors, frames_schema),
    ]
    fragments = store.write_frames(into, [pa.RecordBatch.from_arrays(columns, schema=frames_schema)], frames_schema)
    clips_schema = schema.clips_schema(vectors.shape[1])
    columns_known = pa.schema([column for column in clips_schema if column.name not in ("vector", "batch_id")])
    clips = pa.Table.from_pylist([clip for row in rows for clip in clip_rows(row, GRID)], schema=columns_known)
    firsts = np.cumsum([0, *counts[:-1]])
    return store.Batch(
        batch_id, files_table(rows), clips.append_column("vector", _lists(vectors[firsts], clips_schema)), fragments
    )


def _lists(vectors: Vectors, table_schema: pa.Schema) -> pa.Array:
    flat = pa.array(vectors.reshape(-1), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]).cast(table_schema.field("vector").type)


if __name__ == "__main__":
    typer.run(measure)
