"""Designs of a vector index of clips, compared on one table: for ``query``, by dot product, and ``similar``, by cosine.

A design returns candidates, whose whole vectors are then compared. So its recall is the share of the 20 best clips of
an exact scan that are among them.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from jobs.bench.candidate_stores import Search, Store
from jobs.bench.candidate_units import Integers, K, Units
from jobs.bench.synthetic import CLIPS_PER_FILE, Floats, Halves, Vectors, to_unit
from pipeline.schema import Row

CANDIDATES = (200, 800, 1_600, 3_200)
PARTITIONS, PROBED, REFINE = ("dot", "direction", "norm", "cosine"), (1 / 4, 1 / 2, 1.0), 4
TIMED = 20
"""Questions that are timed, of those asked."""

FILES_AT_ONCE = 2_000
COLUMNS = ("search", "candidates", "query", "similar", "ms", "bytes", "cpu_s")


@dataclass(frozen=True)
class Clips:
    """Clips (n, D), and for ``query`` and ``similar`` the questions (Q, D) and the rows (Q, K) of the best clips."""

    vectors: Halves
    questions: dict[str, Floats]
    best: dict[str, Integers]


def make_clips(n_rows: int, n_questions: int, made: Vectors) -> Clips:
    """At least ``n_rows`` clips, with the exact answers to ``n_questions`` of each kind."""
    n_files = -(-n_rows // CLIPS_PER_FILE)
    blocks = [made.clips(at, min(n_files, at + FILES_AT_ONCE)) for at in range(0, n_files, FILES_AT_ONCE)]
    vectors = np.concatenate(blocks)
    questions = {"query": made.texts(n_questions), "similar": made.sounds(n_questions)}
    best = {kind: _find_best(blocks, of, by_cosine=kind == "similar") for kind, of in questions.items()}
    return Clips(vectors, questions, best)


def _find_best(blocks: Sequence[Halves], questions: Floats, *, by_cosine: bool) -> Integers:
    """The rows (Q, K) of the best clips of each question."""
    rows, scores, n_before = np.empty((len(questions), 0), np.int64), np.empty((len(questions), 0), np.float32), 0
    for block in blocks:
        vectors = block.astype(np.float32)
        of_block = questions @ (to_unit(vectors) if by_cosine else vectors).T
        numbers = np.broadcast_to(n_before + np.arange(len(block)), of_block.shape)
        rows, scores = np.concatenate([rows, numbers], axis=1), np.concatenate([scores, of_block], axis=1)
        keep = np.argsort(-scores, axis=1)[:, :K]
        rows, scores = np.take_along_axis(rows, keep, axis=1), np.take_along_axis(scores, keep, axis=1)
        n_before += len(block)
    return rows


def compare_clips(clips: Clips, folder: Path, bits: Sequence[int]) -> Iterator[Row]:
    """Figures of each design, for each number of candidates: IVF_RQ with codes of ``bits``, and its partitions."""
    n = len(clips.vectors)
    store = Store(folder / "clips", Units("clips", np.arange(n), np.ones(n, np.int64), clips.vectors, 0.0))
    for n_bits, partition in product(bits, PARTITIONS):
        for probed in PROBED:
            yield from measure(clips, store, Search(n_bits, partition, probed))
        yield from measure(clips, store, Search(n_bits, partition, 1.0, REFINE))


def measure(clips: Clips, store: Store, search: Search) -> Iterator[Row]:
    """The recall of a search for both kinds of questions, for each number of candidates; milliseconds of ``query``."""
    store.prepare(search)
    sizes = list(dict.fromkeys(min(n, len(clips.vectors)) for n in CANDIDATES))
    asked = sizes if search.refine else [max(sizes)]  # what is refined are the candidates of a search for so many
    tops = {
        (kind, n): [store.nearest(question, n, search) for question in questions]
        for kind, questions in clips.questions.items()
        for n in asked
    }
    for n in sizes:
        recalls = {
            kind: statistics.fmean(
                float(np.isin(best, top[:n]).mean())
                for best, top in zip(clips.best[kind], tops[kind, n if search.refine else max(sizes)], strict=True)
            )
            for kind in clips.questions
        }
        yield {
            "search": str(search),
            "rows": len(clips.vectors),
            "candidates": n,
            **{kind: round(share, 4) for kind, share in recalls.items()},
            "ms": _time(store, search, n, clips.questions["query"][:TIMED]),
            "bytes": round(store.index_bytes(search) / len(clips.vectors), 1),
            "cpu_s": round(store.cpu_s * 1e6 / len(clips.vectors), 1),
        }


def _time(store: Store, search: Search, n: int, questions: Floats) -> float:
    """The median of milliseconds."""
    times_ms = []
    for question in questions:
        began = time.perf_counter()
        store.nearest(question, n, search)
        times_ms.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(times_ms), 1)
