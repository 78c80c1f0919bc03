"""Indexes of made vectors, written by the project's own stages: what ``python -m jobs.bench search`` asks.

Vectors enter as ENCODED rows, as an encoder would send them. ``write_windows`` writes the frames, ``Collector`` makes
the batches, ``Writer`` commits them, and ``optimize`` merges fragments and builds the indexes. So files on disk, scalar
indexes and vector indexes are those of a real run. The settings name a model that does not exist: questions must be
vectors.

Each file has a metadata column ``lot``: the files in random order, numbered from 0. So ``lot < n`` keeps n files.
"""

import datetime as dt
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.bench.synthetic import CLIP_FRAMES, CLIPS_PER_FILE, FILE_FRAMES, N_DIRECTIONS, Floats, Vectors, to_clips
from pipeline import schema
from pipeline.config import DecodeConfig, RunConfig, StoreConfig, WindowConfig
from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.errors import UsageError
from pipeline.grid import frames_to_seconds
from pipeline.index.handle import Generation
from pipeline.index.journal import Failpoint
from pipeline.index.maintenance import optimize
from pipeline.index.pools import pool_frames
from pipeline.index.tables import ROWS_PER_FRAGMENT, create_tables, write_rows
from pipeline.index.tuning import Tuning
from pipeline.index.writer import Batch, Writer
from pipeline.planning.file_rows import empty_row, indexed_row
from pipeline.run.collector import Collector
from pipeline.run.write_stage import write_windows
from pipeline.schema import Row
from pipeline.search.audit_index import Audited, audit_index
from pipeline.search.keep_recall import keep_recall
from pipeline.search.query_vectors import QueryModels
from pipeline.search.searches import IndexSearches

WINDOW = WindowConfig(length_s=frames_to_seconds(CLIP_FRAMES), overlap_s=0.0, tail="back")
"""Windows side by side, which fill a file: no result is folded into another."""

RUN_ID = schema.digest("python -m jobs.bench search")

FILES_PER_BATCH = 5
"""A batch of a run: 300 s of audio."""

MANY_ROWS, FILES_PER_LARGE_BATCH, CLIPS_PER_LARGE_BATCH = 1_000_000, 167, 50_000
"""Larger indexes are written in fragments that no maintenance merges: for a day, merging takes the disk twice."""

LOT = pa.schema([("lot", pa.int64())])


@dataclass(frozen=True)
class Cost:
    """Seconds, and CPU seconds of this process and of those that it waited for."""

    seconds: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu_s + other.cpu_s)

    def times(self, factor: float) -> "Cost":
        return Cost(factor * self.seconds, factor * self.cpu_s)


class Clock:
    """Measures what passes since it was made."""

    def __init__(self) -> None:
        self._begin = _now()

    @property
    def cost(self) -> Cost:
        (seconds, cpu_s), (began, cpu_began) = _now(), self._begin
        return Cost(seconds - began, cpu_s - cpu_began)


def _now() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used)


@dataclass(frozen=True)
class Corpus:
    """What an index of made vectors holds."""

    n_files: int
    with_frames: bool
    dimension: int
    source: str
    """``made`` or ``model``."""
    seed: int

    @property
    def n_rows(self) -> int:
        """Rows of the table that questions are about: frames, or clips where there are no frames."""
        return self.n_files * (FILE_FRAMES if self.with_frames else CLIPS_PER_FILE)

    @cached_property
    def lots(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ``lot`` of each file."""
        return np.random.default_rng([self.seed, self.n_files]).permutation(self.n_files)


@dataclass(frozen=True)
class Built:
    """An index of made vectors in ``folder``, and what it took."""

    folder: Path
    corpus: Corpus
    written: Cost
    """Writing and committing rows, pools included."""
    pooled: Cost
    """The part of it that cuts frames into pools, measured with a few files."""
    maintained: Cost
    """The maintenance at the end: fragments are merged, and indexes built."""
    tuned: Cost
    """The audit of the recall, which sets how the vector indexes are searched."""
    audited: dict[str, Any]
    """What the audit found, by kind of question, and the settings."""
    problems: tuple[str, ...] = ()
    """What the maintenance could not do, and what the audit could not reach."""

    @property
    def index(self) -> str:
        return str(self.folder / "index")

    def save(self) -> None:
        (self.folder / "corpus.json").write_text(json.dumps({**asdict(self), "folder": None}, indent=1))


def load(folder: Path) -> Built:
    """The index that an earlier measurement kept in ``folder``.

    Raises:
        UsageError: there is none, or another version of this measurement kept it.
    """
    path = folder / "corpus.json"
    if not path.exists():
        raise UsageError(f"{folder}: no index was kept here; build one with --keep")
    try:
        values = json.loads(path.read_text())
        costs = {name: Cost(**values[name]) for name in ("written", "pooled", "maintained", "tuned")}
        corpus, problems = Corpus(**values["corpus"]), tuple(values["problems"])
        return Built(folder, corpus, **costs, audited=values["audited"], problems=problems)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: another version of this measurement wrote it ({error!r}); give --keep and a new folder"
        ) from error


def content_hash(number: int) -> str:
    """Of a file; SHA-256 has as many digits."""
    return schema.digest("made", str(number)) * 2


def audio_id(number: int) -> str:
    return schema.make_audio_id(content_hash(number))


def uri(number: int) -> str:
    return f"/made/{number:07d}.wav"


def number_of(uri: str) -> int:
    """The number of the file of a uri."""
    return int(uri.removeprefix("/made/").removesuffix(".wav"))


def build(folder: Path, corpus: Corpus, vectors: Vectors) -> Built:
    """Write an index of made vectors, and maintain it as a run does."""
    path = folder / "index"
    writer = create(path, corpus)
    written, waiting = Cost(), list[Batch]()
    for batch_id, numbers in _plan(corpus):
        encoded = encode(batch_id, numbers, corpus, vectors)
        clock = Clock()
        waiting.append(write_batch(path, encoded, corpus))
        if sum(batch.n_rows for batch in waiting) >= _rows_per_commit(corpus):
            writer.commit(waiting)
            waiting.clear()
        written += clock.cost
    if waiting:
        writer.commit(waiting)
    clock = Clock()
    problems = list(optimize(writer, older_than=dt.timedelta(0)).problems)
    maintained, clock = clock.cost, Clock()
    tuning = keep_recall(writer, RunConfig().recall, audit=partial(_audit, vectors=vectors), note=problems.append)
    tuned, audited = clock.cost, tuning.to_detail() if tuning else {}
    pooled = _cost_of_pools(corpus, vectors)
    built = Built(folder, corpus, written, pooled, maintained, tuned, audited, tuple(problems))
    built.save()
    return built


def create(path: Path, corpus: Corpus, failpoint: Failpoint = lambda step: None) -> Writer:
    """An index without rows."""
    create_tables(path, _settings(corpus), clip_dimension=corpus.dimension, frame_dimension=corpus.dimension)
    writer = Writer(path, RUN_ID, failpoint=failpoint)
    writer.add_columns(LOT)
    return writer


class _Bank(QueryModels):
    """Answers any text with a question as a vector; those that are measured later come from the other end of them."""

    def __init__(self, vectors: Vectors) -> None:
        super().__init__("made")
        self._vectors = vectors

    def for_texts(self, identity: ModelIdentity) -> "_Bank":
        return self

    def embed(self, texts: Sequence[str]) -> Floats:
        return self._vectors.texts(N_DIRECTIONS)[-len(texts) :]


def _audit(tables: Generation, wanted: float, tick: Callable[[], None], vectors: Vectors) -> Tuning:
    return audit_index(Audited(tables, IndexSearches(tables), _Bank(vectors), tick), wanted)


def _cost_of_pools(corpus: Corpus, vectors: Vectors) -> Cost:
    if not corpus.with_frames:
        return Cost()
    files = [vectors.frames(number) for number in range(min(corpus.n_files, FILES_PER_BATCH))]
    clock = Clock()
    for frames in files:
        for window in np.split(frames, CLIPS_PER_FILE):
            pool_frames(window)
    return clock.cost.times(corpus.n_files / len(files))


def _settings(corpus: Corpus) -> dict[str, Any]:
    """A model of which 0.5 % of the frames reach the usual threshold, about."""
    model = asdict(
        ModelIdentity("made", None, schema.digest("made"), corpus.dimension, logit_scale=10.0, logit_bias=-3.45)
    )
    return {
        "clip_model": model,
        "frame_model": model if corpus.with_frames else None,
        "window": WINDOW.model_dump(),
        "decode": DecodeConfig().model_dump(),
        "frames": "all" if corpus.with_frames else "none",
    }


def _rows_per_commit(corpus: Corpus) -> int:
    return StoreConfig().checkpoint_rows if corpus.n_rows <= MANY_ROWS else ROWS_PER_FRAGMENT


def _plan(corpus: Corpus) -> Iterator[tuple[str, range]]:
    """The id and the files of each batch."""
    n_files = FILES_PER_BATCH
    if corpus.n_rows > MANY_ROWS:
        n_files = FILES_PER_LARGE_BATCH if corpus.with_frames else CLIPS_PER_LARGE_BATCH // CLIPS_PER_FILE
    for number, first in enumerate(range(0, corpus.n_files, n_files)):
        yield schema.make_batch_id(RUN_ID, number), range(first, min(corpus.n_files, first + n_files))


def encode(batch_id: str, numbers: range, corpus: Corpus, vectors: Vectors) -> pa.Table:
    """ENCODED rows of a batch: the windows of each file, then its outcome."""
    rows = list[Row]()
    if corpus.with_frames:
        frames = [vectors.frames(number) for number in numbers]
        clips = np.concatenate([to_clips(each) for each in frames]).astype(np.float16)
    else:
        clips = vectors.clips(numbers.start, numbers.stop)
    for k, number in enumerate(numbers):
        for window in range(CLIPS_PER_FILE):
            first, stop = CLIP_FRAMES * window, CLIP_FRAMES * (window + 1)
            span = {"first_frame": first, "own_first": first, "own_stop": stop}
            values = {"clip_vector": clips[CLIPS_PER_FILE * k + window].tobytes()}
            if corpus.with_frames:
                values["frame_vectors"] = frames[k][first:stop].tobytes()
            rows.append({"audio_id": audio_id(number)} | span | values)
        rows.append({"files": [_file_row(number)]})
    shared = {"batch_id": batch_id, "precision": "float32", "decode_s": 0.0, "encode_s": 0.0}
    rows = [row | shared | {"seq": seq, "last": seq == len(rows) - 1} for seq, row in enumerate(rows)]
    return pa.Table.from_pylist(rows, schema=schema.ENCODED)


def _file_row(number: int) -> Row:
    row = empty_row(uri(number), audio_id(number)) | {"content_hash": content_hash(number)}
    row |= {"size_bytes": 1, "modified_ns": 1, "duration_s": frames_to_seconds(FILE_FRAMES), "n_clips": CLIPS_PER_FILE}
    return indexed_row(row | {"sample_rate_hz": 48_000, "channels": 1, "codec": "pcm_s16"}, FILE_FRAMES, None)


def write_batch(path: Path, encoded: pa.Table, corpus: Corpus) -> Batch:
    """Write a batch as a worker and the driver do, with the column ``lot``."""
    frames_schema = schema.frames_schema(corpus.dimension)
    collector = Collector(WINDOW.grid, corpus.dimension, with_frames=corpus.with_frames)
    receipts = write_windows(encoded, frames_schema, partial(write_rows, path)).to_pylist()
    [batch] = [made for receipt in receipts if (made := collector.add(receipt)) is not None]
    return replace(batch, files=_with_lots(batch.files, corpus), clips=_with_lots(batch.clips, corpus))


def _with_lots(rows: pa.Table, corpus: Corpus) -> pa.Table:
    lots = corpus.lots[[number_of(each) for each in rows["uri"].to_pylist()]]
    return rows.append_column(LOT.field("lot"), pa.array(lots, pa.int64()))
