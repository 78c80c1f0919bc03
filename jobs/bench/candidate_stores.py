"""Rows that a design searches for candidates, stored as a Lance table, and the ways to search them."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from jobs.bench.candidate_units import Integers, Units
from jobs.bench.synthetic import Floats, Halves, to_unit
from jobs.bench.synthetic_index import Clock
from pipeline.index.tables import FILE_FORMAT, to_matrix

ROWS_PER_PARTITION = 4_000
ROWS_PER_CENTROID, ROUNDS = 64, 10


@dataclass(frozen=True)
class Search:
    """A way to search units that are stored as a Lance table: by an exact scan, or by IVF_RQ."""

    bits: int | None = None
    partition: str = "dot"
    """How partitions are made; see ``candidates``."""
    probed: float = 1.0
    """The share of the partitions that are probed."""
    refine: int | None = None

    def __str__(self) -> str:
        if self.bits is None:
            return "exact scan"
        text = f"{self.bits} bit, {self.partition}, {100 * self.probed:.0f} % probed"
        return text + (", refined" if self.refine else "")

    @property
    def metric(self) -> str:
        return {"cosine": "cosine", "norm": "l2"}.get(self.partition, "dot")


@dataclass
class Store:
    """Units as a Lance table, with one index at a time."""

    folder: Path
    units: Units
    _index: tuple[int, str] | None = None
    _bytes: int = 0
    cpu_s: float = 0.0
    """What the index took."""
    n_partitions: int = 1

    def __post_init__(self) -> None:
        self._write("dot")

    def _write(self, metric: str) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        vectors = self.units.vectors
        if metric == "l2":
            vectors = append_norm(vectors)
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        rows = pa.table({"unit": pa.array(np.arange(len(vectors), dtype=np.int32)), "vector": values})
        self._table = lance.write_dataset(
            rows, str(self.folder), data_storage_version=FILE_FORMAT, max_rows_per_file=250_000
        )

    def prepare(self, search: Search) -> None:
        """Build the index that a search needs, unless it is there."""
        wanted = None if search.bits is None else (search.bits, search.partition)
        if wanted == self._index or wanted is None:
            return
        self._write(search.metric)
        before, clock = _size(self.folder), Clock()
        n = self.n_partitions = max(1, len(self.units.starts) // ROWS_PER_PARTITION)
        own = {}
        if search.partition != "dot":
            own["ivf_centroids"] = find_centroids(self._sample(n), n, by_direction=search.partition != "norm")
        self._table.create_index(
            "vector", "IVF_RQ", metric=search.metric, num_partitions=n, num_bits=search.bits, **own
        )
        self._table = lance.dataset(str(self.folder))
        self.cpu_s, self._bytes, self._index = clock.cost.cpu_s, _size(self.folder) - before, wanted

    def _sample(self, n_partitions: int) -> Halves:
        order = np.random.default_rng(0).permutation(len(self.units.starts))
        rows = order[: ROWS_PER_CENTROID * n_partitions].tolist()
        return to_matrix(self._table.take(rows, columns=["vector"])["vector"])

    def bytes_per_frame(self, search: Search, n_frames: int) -> float:
        rows = 0 if self.units.name == "frames" else 2 * self.units.vectors.size
        return (rows + self.index_bytes(search)) / n_frames

    def index_bytes(self, search: Search) -> int:
        return self._bytes if search.bits else 0

    def nearest(self, question: Floats, n: int, search: Search) -> Integers:
        """The ``n`` best units, best first."""
        near: dict[str, Any] = {"column": "vector", "q": question, "k": n, "metric": search.metric}
        if search.metric == "l2":
            near["q"] = np.pad(question, (0, APPENDED))
        if search.bits is None:
            near["use_index"] = False
        else:
            near["nprobes"] = max(1, round(search.probed * self.n_partitions))
            near |= {"refine_factor": search.refine} if search.refine else {}
        rows = self._table.to_table(columns=["unit", "_distance"], nearest=near)
        units: Integers = rows["unit"].to_numpy().astype(np.int64)
        return units


APPENDED = 8
"""Numbers that are appended to a vector, of which one is not 0: codes need a multiple of eight."""


def append_norm(vectors: Halves) -> Halves:
    """Vectors (n, D + APPENDED) that are all as long as the longest; dot products with (q, 0, ...) stay."""
    squares = np.concatenate([(some.astype(np.float32) ** 2).sum(axis=1) for some in np.array_split(vectors, 100)])
    extra = np.zeros((len(vectors), APPENDED), np.float16)
    extra[:, 0] = np.sqrt(np.maximum(0, squares.max() - squares))
    return np.concatenate([vectors, extra], axis=1)


def find_centroids(vectors: Halves, n: int, *, by_direction: bool) -> Halves:
    """``n`` centroids of a sample in random order, by k-means in float32: Lance's own by cosine took four times as long
    as by dot product, and by Euclidean distance many minutes."""
    sample: Any = vectors.astype(np.float32)
    sample = to_unit(sample) if by_direction else sample
    centroids = sample[:n].copy()
    for _ in range(ROUNDS):
        nearest = (sample @ centroids.T - (centroids**2).sum(axis=1) / 2).argmax(axis=1)
        counts = np.bincount(nearest, minlength=n)[:, None]
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, sample)
        centroids = np.where(counts > 0, sums / np.maximum(counts, 1), centroids)
        centroids = to_unit(centroids) if by_direction else centroids
    found: Halves = centroids.astype(np.float16)
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
