"""Measure whether an index stays fast however it was fed: takes about six minutes.

    python -m jobs.bench maintenance

It makes 1,000 small commits in runs of ten, with maintenance at the usual intervals: with replacements and deletions
among them (``edited``), or with additions only (``added``). It measures the commits, and queries against a fresh index
with the same rows in one batch, in turns: right after maintenance, and once more just before the next one is due. On
the way there each commit takes turns with a commit to a young index, so that other load of the machine slows both.
Clean-up keeps everything younger than a day, so every version is still there at the end.

The exit code is 1 where a limit is missed.
"""

import datetime as dt
import shutil
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from jobs.bench.figures import Figure, indexed_row, make_batch, report
from jobs.shared.options import Json
from pipeline import schema
from pipeline.config import make_config
from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.index.maintenance import optimize, refresh_indexes
from pipeline.index.tables import create_tables, open_published, write_frames
from pipeline.index.writer import Batch, Writer
from pipeline.planning.file_rows import deleted_row, files_table
from pipeline.planning.ledger import Ledger
from pipeline.schema import Row
from pipeline.search.clips import find_clips
from pipeline.search.events import Levels
from pipeline.search.locate import EventQuery, find_events
from pipeline.search.tables import open_table, read_rows

Tables = dict[str, Any]

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


def maintenance(
    scale: Annotated[float, typer.Option(min=0.001, help="Fraction of the batches, to try it out.")] = 1.0,
    json: Json = False,
) -> None:
    """Measure commits and queries of an index fed in 1,000 batches, against young and fresh ones: six minutes."""
    with tempfile.TemporaryDirectory() as folder:
        report("an index fed in many batches", measure_batches(Path(folder), scale), json=json)


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
            Figure(name, "maintenance per commit", 1e3 * sum(feed.maintenance_s) / n_batches, "ms"),
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
    """Feeds an index in small batches, ten to a run, as runs do, and measures what a driver does.

    A batch has four new files. With edits, two files change or two are deleted every few batches.
    """

    def __init__(self, into: str, *, with_edits: bool) -> None:
        self.into, self._with_edits = into, with_edits
        self.commits_s: list[float] = []
        self.maintenance_s: list[float] = []  # merging small fragments, and indexes at the end of runs
        self.open_s: list[float] = []  # making a writer
        self._rng = np.random.default_rng(2)
        self._ledger = Ledger(schema.FILES.empty_table())
        self._limits = make_config({"sources": ["x"], "into": into}).store
        self._writer: Writer | None = None
        create_tables(into, _settings(), clip_dimension=DIMENSION, frame_dimension=DIMENSION)

    def add_batch(self) -> None:
        """Commit one more batch; begins and ends runs."""
        if self._writer is None:
            with _timed(self.open_s):
                self._writer = Writer(self.into, uuid.uuid4().hex)
        batch = self._next_batch(len(self.commits_s))
        with _timed(self.commits_s):
            self._writer.commit([batch])
        if self._writer.n_commits >= self._limits.optimize_every:
            with _timed(self.maintenance_s):
                optimize(self._writer, older_than=dt.timedelta(hours=self._limits.keep_hours))
        if len(self.commits_s) % BATCHES_PER_RUN == 0:
            self.end_run()

    def end_run(self) -> None:
        """Leave the index as a run does."""
        if self._writer is not None:
            with _timed(self.maintenance_s):
                refresh_indexes(self._writer)
            self._writer = None

    def _next_batch(self, number: int) -> Batch:
        rows, deleted = self._next_files(number)
        vectors = self._rng.standard_normal((len(rows), FRAMES_PER_FILE, DIMENSION))
        if number % PLANT_EVERY == 0:
            vectors[:, 10:16] += 20 * DIRECTION
        batch_id = schema.make_batch_id("measure", number)
        batch = make_batch(self.into, batch_id, rows, vectors.reshape(-1, DIMENSION).astype(np.float16))
        drop_files, drop_frames = self._ledger.apply([*rows, *deleted])
        return replace(batch, files=files_table([*rows, *deleted]), drop_files=drop_files, drop_frames=drop_frames)

    def _next_files(self, number: int) -> tuple[list[Row], list[Row]]:
        """The ledger rows of files to index, and of deleted files."""
        uris = [f"/corpus/{number:05d}-{k}.wav" for k in range(FILES_PER_BATCH)]
        there = [row for row in self._ledger.rows.values() if row["status"] == "indexed"]
        deleted: list[Row] = []
        if self._with_edits and number and number % REPLACE_EVERY == 0:
            uris += [there.pop(self._rng.integers(len(there)))["uri"] for _ in range(2)]
        if self._with_edits and number and number % DELETE_EVERY == 0:
            deleted = [deleted_row(there.pop(self._rng.integers(len(there)))) for _ in range(2)]
        return [indexed_row(uri, f"{uri} {number}", FRAMES_PER_FILE) for uri in uris], deleted


def _copy_index(source: str, into: str) -> int:
    """Commit the live rows of an index to a fresh one, in one batch; returns how many frame rows there are."""
    create_tables(into, _settings(), clip_dimension=DIMENSION, frame_dimension=DIMENSION)
    writer = Writer(into, uuid.uuid4().hex)
    files, clips, frames = (open_published(source, name).to_table() for name in journal.DATA_TABLES)
    fragments = write_frames(into, frames.to_batches(), frames.schema)
    batch_id = schema.make_batch_id("measure", 0)
    writer.commit([Batch(batch_id, files.drop(["batch_id"]), clips.drop(["batch_id"]), fragments)])
    refresh_indexes(writer)
    return int(frames.num_rows)


def _count_versions(path: str) -> int:
    return sum(
        len(list(Path(path, f"{name}.lance", "_versions").iterdir())) for name in (*journal.DATA_TABLES, "batches")
    )


def _measure_queries(fed: str, fresh: str) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds of each query of either index, in turns. Both must give the same answers."""
    rng = np.random.default_rng(4)
    rows = open_published(fed, "files").to_table(filter="status = 'indexed'").to_pylist()
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
        "find_events": lambda tables: find_events(tables["frames"], tables["files"], EventQuery(DIRECTION, levels, 10)),
        "rows of a file": find_rows,
        "frames of an audio": lambda tables: _read(tables["frames"], f"audio_id = '{row['audio_id']}'"),
    }


def _open(path: str) -> Tables:
    """The tables as ``pipeline.open`` finds them."""
    live = open_index(path).live
    return {name: open_table(live.path, name, live.versions[name]) for name in journal.DATA_TABLES}


def _read(table: Any, where: str) -> list[Row]:
    columns = [name for name in table.schema.names if name != "batch_id"]
    rows: list[Row] = read_rows(table, columns, where).to_pylist()
    return rows


def _settings() -> dict[str, Any]:
    return {"clip_model": None, "frame_model": None, "window": {}, "decode": {}, "frames": "all"}
