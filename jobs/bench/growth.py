"""Measure what vector indexes cost while an index grows.

    python -m jobs.bench growth                  # 2,600,000 frames, so 104,000 pools and 10,400 clips: some minutes
    python -m jobs.bench growth --rows 260000    # 10,400 pools; too few clips for a vector index: half a minute

It takes about 10 GB of disk for a million frames of 1,024 numbers.

Two indexes get the same made vectors (``synthetic``) through the project's own stages; one never has vector indexes.
After the maintenance of ``earshot optimize``, which makes the *full build*, both grow by 1 % in each round: a commit,
then maintenance. It extends the vector indexes by all new rows, merges segments, and merges fragments, which remaps
rows. The two take turns in going first.

The cost of vector indexes is that of their own steps, and what merging the fragments of their tables costs more than
without them. The start of a process for each step, about a CPU second, does not grow with the index: it is left out of
the ratios, and shown beside them. Limits: a round costs at most 5 % of the full build, in CPU seconds and in the mean
over all rounds; a commit takes at most 1.3 times as long as without vector indexes, as a median.
"""

import datetime as dt
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from jobs.bench.figures import Figure, measure_and_report
from jobs.bench.synthetic import DIMENSION, FILE_FRAMES, LATENT, MadeVectors
from jobs.bench.synthetic_index import FILES_PER_BATCH, RUN_ID, Clock, Corpus, Cost, create, encode, write_batch
from jobs.shared.options import Json
from pipeline import schema
from pipeline.index.changes import Changes
from pipeline.index.limited import Limits, call_limited
from pipeline.index.maintenance import optimize
from pipeline.index.search_settings import ALL_PARTITIONS
from pipeline.index.vector_build import FRUGAL, open_version
from pipeline.index.vector_index import INDEXED, MAX_SEGMENTS, VECTORS_TO_INDEX, read_index
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.index.writer import Batch, Writer

SHARE = 0.01
LARGEST_RATIO, SLOWEST_COMMIT = 0.05, 1.3


class Steps:
    """What each step of a writer costs, by its name. A failpoint begins each step, and ends the one before."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}
        self._name, self._clock = "", Clock()

    def __call__(self, name: str) -> None:
        cost = self._clock.cost
        self.costs[self._name] = self.costs.get(self._name, Cost()) + cost
        self._name, self._clock = name, Clock()

    def take(self) -> dict[str, Cost]:
        """The costs since the last call."""
        self("")
        taken, self.costs = self.costs, {}
        return taken


class NoVectors(VectorUpkeep):
    """Makes no vector index."""

    def update(self, changes: Changes, *, all_rows: bool = False) -> None:
        pass


@dataclass
class Grown:
    """An index that grows: its writer, and what commits and maintenance cost in each round, the first one aside."""

    writer: Writer
    steps: Steps
    upkeep: VectorUpkeep
    commits: list[Cost] = field(default_factory=list)
    maintained: list[dict[str, Cost]] = field(default_factory=list)
    n_steps: list[int] = field(default_factory=list)
    """The number of processes that each maintenance started."""

    def commit(self, encoded: Sequence[pa.Table], corpus: Corpus) -> None:
        batches: list[Batch] = [write_batch(Path(self.writer.path), each, corpus) for each in encoded]
        clock = Clock()
        self.writer.commit(batches)
        self.commits.append(clock.cost)

    def maintain(self) -> None:
        n_before = len(self.upkeep.done)
        self.steps.take()
        optimize(self.writer, older_than=dt.timedelta(0), vectors=self.upkeep)
        self.maintained.append(self.steps.take())
        self.n_steps.append(len(self.upkeep.done) - n_before)


def measure_growth(folder: Path, n_rows: int, dimension: int = DIMENSION, n_rounds: int = 10) -> Iterator[Figure]:
    """Two indexes of ``n_rows`` frames, which grow by 1 % ``n_rounds`` times."""
    made = MadeVectors(0, dimension, min(LATENT, dimension))
    n_files = -(-n_rows // FILE_FRAMES)
    n_added = max(1, round(SHARE * n_files))
    corpus = Corpus(n_files + n_rounds * n_added, True, dimension, "made", 0)
    both = [
        _begin(folder / name, corpus, vectors) for name, vectors in (("with", VectorUpkeep()), ("without", NoVectors()))
    ]
    numbers = range(n_files)
    for number in range(n_rounds + 1):
        for chunk in _chunks(numbers, FILES_PER_BATCH * 20):
            encoded = [
                encode(schema.make_batch_id(RUN_ID, some.start), some, corpus, made)
                for some in _chunks(chunk, FILES_PER_BATCH)
            ]
            for index in both if number % 2 else both[::-1]:
                index.commit(encoded, corpus)
        for index in both if number % 2 else both[::-1]:
            if number == 0:
                index.commits.clear()
            index.maintain()
        numbers = range(numbers.stop, numbers.stop + n_added)
    for problem in both[0].upkeep.problems.values():
        raise SystemExit(problem)
    if not both[0].upkeep.done:
        raise SystemExit(f"no table has {VECTORS_TO_INDEX:,} rows, so there is no vector index: take more --rows")
    indexed, plain = both
    yield from _describe(indexed, plain, n_files * FILE_FRAMES)


def _begin(path: Path, corpus: Corpus, upkeep: VectorUpkeep) -> Grown:
    steps = Steps()
    return Grown(create(path, corpus, steps), steps, upkeep)


def _chunks(numbers: range, n: int) -> Iterator[range]:
    return (numbers[at : at + n] for at in range(0, len(numbers), n))


def _describe(indexed: Grown, plain: Grown, n_rows: int) -> Iterator[Figure]:
    start = _measure_start(indexed)
    costs = [_cost_of_vectors(*each) for each in zip(indexed.maintained, plain.maintained, strict=True)]
    bare = [cost.cpu_s - n * start.cpu_s for cost, n in zip(costs, indexed.n_steps, strict=True)]
    build, rounds = bare[0], bare[1:]
    say = partial(Figure, "growth")
    remapped = _sum(indexed.maintained[0], "compact").cpu_s - _sum(plain.maintained[0], "compact").cpu_s
    detail = f"{costs[0].seconds:.1f} s, of it {remapped:.1f} CPU s to remap; a start takes {start.cpu_s:.1f} CPU s"
    yield say(f"full build, {n_rows:,} frames", build, "CPU s", None, detail)
    whole = statistics.fmean(cost.cpu_s for cost in costs[1:])
    detail = f"{statistics.fmean(rounds):.2f} CPU s, {whole:.2f} with the start; largest {max(rounds):.2f}"
    yield say(f"1 % more, mean of {len(rounds)}", statistics.fmean(rounds) / build, "of it", LARGEST_RATIO, detail)
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(indexed.commits, plain.commits, strict=True))
    ms = [1000 * statistics.median(cost.seconds for cost in index.commits) for index in (indexed, plain)]
    yield say("commit", ratio, "x", SLOWEST_COMMIT, f"{ms[0]:.0f} ms, without {ms[1]:.0f} ms")
    with indexed.writer.changes() as changes:
        tables = {name: changes.open(name) for name in INDEXED}
    for name, table in tables.items():
        index = read_index(table)
        if index is not None:
            detail = f"{index.n_rows:,} rows, {index.n_bytes / max(1, index.n_rows):.0f} bytes each"
            yield say(f"segments of {name}", len(index.segments), "", MAX_SEGMENTS + 1, detail)
            yield say(f"rows of {name} that its index leaves out or has twice", _count_wrong(table), "", 1)


def _count_wrong(table: Any) -> int:
    """Rows of a table that its vector index does not find, and those that it finds again."""
    n_rows, query = table.count_rows(), np.ones(table.schema.field("vector").type.list_size, np.float32)
    near = {"column": "vector", "q": query, "k": 2 * n_rows, "nprobes": ALL_PARTITIONS, "metric": "dot"}
    found = table.to_table(columns=["_distance"], nearest=near, with_row_id=True, fast_search=True)["_rowid"]
    n_different = pc.count_distinct(found).as_py()
    return int(n_rows - n_different + len(found) - n_different)


def _cost_of_vectors(indexed: Mapping[str, Cost], plain: Mapping[str, Cost]) -> Cost:
    """The steps of the vector indexes, and what merging fragments costs more with them."""
    return _sum(indexed, "vectors") + _sum(indexed, "compact") + _sum(plain, "compact").times(-1.0)


def _sum(costs: Mapping[str, Cost], verb: str) -> Cost:
    return sum((costs.get(f"{verb} {name}", Cost()) for name in INDEXED), Cost())


def _measure_start(index: Grown) -> Cost:
    """A process that opens a table, and does nothing else."""
    with index.writer.changes() as changes:
        values = {"uri": changes.open("clips").uri}
    clock = Clock()
    call_limited(open_version, values, Limits(60.0, 10**9), variables=FRUGAL)
    return clock.cost


def growth(
    rows: Annotated[int, typer.Option(help="Frames to begin with, 1,500 to a file.", min=1)] = 2_600_000,
    dimension: Annotated[int, typer.Option(help="Numbers of a vector: a multiple of 8.", min=8)] = DIMENSION,
    rounds: Annotated[int, typer.Option(help="How often 1 % is added.", min=1)] = 10,
    json: Json = False,
) -> None:
    """Measure what vector indexes cost an index that grows, beside one without: some minutes for 2,600,000 frames."""
    measure = partial(measure_growth, n_rows=rows, dimension=dimension, n_rounds=rounds)
    measure_and_report("what vector indexes cost an index that grows", [measure], json=json)
