"""Compare designs that find candidates for ``locate``: which part of a large table of frames to look at more closely.

    python -m jobs.bench candidates                                # 200,000 frames: takes some minutes
    python -m jobs.bench candidates pools --rows 1000000
    python -m jobs.bench candidates clips                          # 200,000 clips: for `query` and `similar`

All designs are built from one table of made vectors (``synthetic``), or the bundled model's (``--vectors model``), and
asked the same questions. The exact scores of the frames around candidates come from the stored rows anyway, so what
counts is whether a candidate touches each of the 20 best events of an exact scan: the recall. In JSON,
``recall_by_cosine`` has it for made questions at each of the cosines 0.3, 0.5 and 0.8 to an event's direction.

``frames``: IVF_RQ on the frames, with codes of 1, 4 or 5 bits a number. Its partitions are made by dot product, as
Lance does (``dot``); by cosine, which k-means by cosine finds, ranked by dot product (``direction``) or by cosine too
(``cosine``); or by Euclidean distance with a number appended that gives all vectors the same length, so that the
nearest is the one with the largest dot product (``norm``). Some or all partitions are probed. ``refined``: exact scores
for four times as many. Codes of 4 and 5 bits are compared with partitions by dot product only. The other kinds are
there to find more in a part of the partitions, and no code finds what lies in the rest. Where all are probed, codes of
1 bit show whether a kind ranks better.

``pools``: one row for several frames. Their mean or their largest values, of frames side by side; or adaptive runs of
like frames (``pipeline.index.pools``), as their mean, as the mean with half of the radius added to the score, or as the
frame that is nearest to the mean. An exact scan of the rows, and IVF_RQ on them.

``groups``: how much must be read for an exact answer, if a group of frames with mean m and radius r is left out only
where q.m + abs(q) r, which no frame of it exceeds, is less than the score of the k-th event.

``clips``: such indexes on a table of clips. The recall is the share of the 20 best clips that are among the candidates:
the best by dot product for texts (``query``), and by cosine for sounds (``similar``).

``ms`` is the median time of the search for candidates, in this process, with the table in the page cache. ``bytes`` are
stored for each frame, without the frames' own. ``ranges`` and ``frames`` are to be read for the exact scores. ``cpu_s``
is what building takes for a million frames.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from jobs.bench.candidate_clips import COLUMNS as CLIP_COLUMNS
from jobs.bench.candidate_clips import compare_clips, make_clips
from jobs.bench.candidate_stores import Search, Store
from jobs.bench.candidate_units import Integers, Table, Units, adaptive_pools, each_frame, fixed_pools, make_table
from jobs.bench.synthetic import FILE_FRAMES
from jobs.bench.vector_source import Source, make_vectors
from jobs.shared.options import Json
from jobs.shared.output import print_json, print_table
from pipeline.schema import Row

TIMED, TIMED_SCANS = 20, 5
"""Questions that are timed, of those asked. A scan takes as long for any number of candidates."""

FRAME_CANDIDATES, POOL_CANDIDATES = (500, 2_000, 8_000), (100, 300, 1_000, 3_000)
REFINE = 4
BITS, PARTITIONS, PROBED = (1, 4, 5), ("dot", "direction", "norm", "cosine"), (1 / 16, 1 / 4, 1.0)
FIXED, ADAPTIVE = (5, 12, 25, 50), (25, 50)
POOLING = {"mean": lambda frames: frames.mean(axis=0), "max": lambda frames: frames.max(axis=0)}
COLUMNS = ("design", "search", "candidates", "recall", "ms", "bytes", "ranges", "frames", "cpu_s")


class Part(StrEnum):
    frames = "frames"
    pools = "pools"
    groups = "groups"
    clips = "clips"


# --- figures ---------------------------------------------------------------------------------------------------------


def measure(table: Table, store: Store, search: Search, sizes: Sequence[int]) -> Iterator[Row]:
    """Figures of a search, for each number of candidates."""
    store.prepare(search)
    units, n_frames = store.units, len(table.vectors)
    sizes = list(dict.fromkeys(min(n, len(units.starts)) for n in sizes))
    tops = list(_rank(table, store, search, max(sizes)))
    scan_ms = None if search.bits else _time(table, store, search, max(sizes), TIMED_SCANS)
    for n in sizes:
        recalls = [_recall(units, top[:n], events) for top, events in zip(tops, table.events, strict=True)]
        yield {
            "design": units.name,
            "search": str(search),
            "rows": len(units.starts),
            "candidates": n,
            "recall": _mean(table, recalls),
            **_by_cosine(table, recalls),
            "ms": scan_ms or _time(table, store, search, n, TIMED),
            "bytes": round(store.bytes_per_frame(search, n_frames), 1),
            "ranges": round(statistics.fmean(_count_ranges(top[:n]) for top in tops)),
            "frames": round(statistics.fmean(int(units.counts[top[:n]].sum()) for top in tops)),
            "cpu_s": round((units.cpu_s + (store.cpu_s if search.bits else 0)) * 1e6 / n_frames, 1),
        }


def _rank(table: Table, store: Store, search: Search, n: int) -> Iterator[Integers]:
    """The ``n`` best units for each question, best first."""
    if search.bits is not None:
        for question in table.questions:
            yield store.nearest(question, n, search)
        return
    units = store.units  # what an exact scan finds, in one product
    scores = units.vectors.astype(np.float32) @ table.questions.T
    if units.radii is not None:
        scores += units.radii[:, None] * np.linalg.norm(table.questions, axis=1)
    for of_question in scores.T:
        best = np.argpartition(-of_question, n - 1)[:n]
        yield best[np.argsort(-of_question[best])]


def _recall(units: Units, top: Integers, events: list[tuple[int, int]]) -> float:
    is_candidate = np.zeros(len(units.starts), bool)
    is_candidate[top] = True
    found = [is_candidate[units.owners[first] : units.owners[stop - 1] + 1].any() for first, stop in events]
    return float(np.mean(found)) if found else 0.0


def _by_cosine(table: Table, recalls: list[float]) -> Row:
    """The recall of made questions at each of their cosines; nothing for other questions."""
    n = len(table.cosines)
    return {"recall_by_cosine": [_mean(table, recalls, first, n) for first in range(n)]} if n else {}


def _mean(table: Table, recalls: list[float], first: int = 0, step: int = 1) -> float | None:
    """The mean recall of every ``step``-th question from ``first`` on, by event; None without an event."""
    n_events = [len(events) for events in table.events[first::step]]
    return round(float(np.average(recalls[first::step], weights=n_events)), 4) if sum(n_events) else None


def _count_ranges(top: Integers) -> int:
    """How many ranges of rows the candidates are: neighbours are read together."""
    return int((np.diff(np.sort(top)) > 1).sum()) + 1


def _time(table: Table, store: Store, search: Search, n: int, n_questions: int) -> float:
    """The median of milliseconds."""
    times_ms = []
    for question in table.questions[:n_questions]:
        began = time.perf_counter()
        store.nearest(question, n, search)
        times_ms.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(times_ms), 1)


# --- what is compared -------------------------------------------------------------------------------------------------


def compare_frames(table: Table, folder: Path, bits: Sequence[int]) -> Iterator[Row]:
    """IVF_RQ on the frames."""
    store = Store(folder / "frames", each_frame(table))
    for n_bits, partition in product(bits, PARTITIONS):
        if partition != "dot" and n_bits > 1:  # more bits find nothing in a partition that is not probed
            continue
        for probed in PROBED:
            yield from measure(table, store, Search(n_bits, partition, probed), FRAME_CANDIDATES)
        yield from measure(table, store, Search(n_bits, partition, 1.0, REFINE), FRAME_CANDIDATES[:1])


def compare_pools(table: Table, folder: Path, bits: Sequence[int]) -> Iterator[Row]:
    """Pools of several sizes, by exact scans; IVF_RQ on some of them."""
    for n in FIXED:
        for name, pool in POOLING.items():
            yield from measure(
                table, Store(folder / "pools", fixed_pools(table, n, pool, name)), Search(), POOL_CANDIDATES
            )
    for n in ADAPTIVE:
        for number, units in enumerate(adaptive_pools(table, n)):
            store = Store(folder / "pools", units)
            yield from measure(table, store, Search(), POOL_CANDIDATES)
            if number == 0 and n == ADAPTIVE[0]:
                yield from _compare_codes(table, store, bits)


def _compare_codes(table: Table, store: Store, bits: Sequence[int]) -> Iterator[Row]:
    for n_bits in bits:
        yield from measure(table, store, Search(n_bits), POOL_CANDIDATES)
        yield from measure(table, store, Search(n_bits, refine=REFINE), POOL_CANDIDATES[:1])
    yield from measure(table, store, Search(1, "dot", PROBED[-2]), POOL_CANDIDATES)
    yield from measure(table, store, Search(1, "cosine"), POOL_CANDIDATES)


def compare_groups(table: Table) -> Iterator[Row]:
    """The share of the groups that an exact answer must read."""
    for units in (
        *(fixed_pools(table, n, POOLING["mean"], "mean") for n in FIXED[::2]),
        next(adaptive_pools(table, 25)),
    ):
        longest = np.maximum.reduceat(units.distances(table), units.starts)
        bounds = units.vectors.astype(np.float32) @ table.questions.T
        bounds += longest[:, None] * np.linalg.norm(table.questions, axis=1)
        is_read = bounds >= np.array(table.worst)
        yield {
            "design": f"group: {units.name}",
            "search": "exact, by bound",
            "rows": len(units.starts),
            "candidates": round(float(is_read.sum(axis=0).mean())),
            "recall": 1.0,
            "ms": None,
            "bytes": round(2 * units.vectors.size / len(table.vectors), 1),
            "ranges": round(statistics.fmean(_count_ranges(np.flatnonzero(of)) for of in is_read.T)),
            "frames": round(float((is_read * units.counts[:, None]).sum(axis=0).mean())),
            "cpu_s": round(units.cpu_s * 1e6 / len(table.vectors), 1),
        }


def candidates(
    parts: Annotated[list[Part] | None, typer.Argument(help="What to compare; by default all but clips.")] = None,
    rows: Annotated[int, typer.Option(help="Frames, 1,500 to a file; or clips.", min=FILE_FRAMES)] = 200_000,
    questions: Annotated[int, typer.Option(help="Questions.", min=1)] = 300,
    bits: Annotated[list[int] | None, typer.Option(help="Bits a number of codes; by default 1, 4 and 5.")] = None,
    vectors: Annotated[Source, typer.Option(help="Drawn, or of the bundled model.")] = Source.made,
    seed: Annotated[int, typer.Option(help="Of vectors and questions.", min=0)] = 0,
    json: Json = False,
) -> None:
    """Compare designs that find candidates for `locate`, or clips: some minutes for 200,000 frames."""
    made, asked = make_vectors(vectors, seed), parts or [part for part in Part if part != Part.clips]
    frames = cache(lambda: make_table(rows, questions, made))
    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        comparisons = {
            Part.frames: lambda: compare_frames(frames(), Path(folder), bits or BITS),
            Part.pools: lambda: compare_pools(frames(), Path(folder), bits or BITS),
            Part.groups: lambda: compare_groups(frames()),
            Part.clips: lambda: compare_clips(make_clips(rows, questions, made), Path(folder), bits or BITS),
        }
        for part in asked:
            found = comparisons[part]()
            if json:
                print_json(found)
            else:
                names = CLIP_COLUMNS if part == Part.clips else COLUMNS
                title = "clips" if part == Part.clips else f"{len(frames().vectors):,} frames: {part}"
                left = names.index("candidates")
                print_table(title, names, [[row[name] for name in names] for row in found], names[left:])
