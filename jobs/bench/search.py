"""Measure questions to a large index: time, recall, memory and bytes, by an exact scan and through its vector indexes.

    python -m jobs.bench search                                # 250,000 frames: takes some minutes, and 1 GB of disk
    python -m jobs.bench search --rows 10000000 --keep FOLDER  # builds the index in FOLDER, and keeps it
    python -m jobs.bench search --index FOLDER                 # asks an index that was kept
    python -m jobs.bench search --clips 4000000                # 10,000 hours, without frames

The index is written by the project's own stages (``synthetic_index``) from made vectors (``synthetic``), or from those
of the bundled model. Questions are vectors too: embedding a text is not in any figure, ``python -m jobs.bench start``
measures that. Three kinds are asked: ``locate`` (events in frames), ``query`` (clips by dot product) and ``similar``
(clips by cosine, for sounds that are not in the index); without a filter, and with filters that keep 50, 10, 1 and
0.01 % of the files, at least one.

``recall`` is the share of the 20 best results of an exact scan that the index returns, in the mean over all questions;
the exact results of all questions come from one product of matrices. An event is found if a result overlaps it. The
exact results of ``similar`` are the best of all clips by cosine.

``p50_ms`` and ``p95_ms``: one process that has asked other questions before. ``cold_ms``: opening the index and the
first question, in a process whose modules are loaded, after the system was told to forget the files of the index
(``posix_fadvise``). ``shell_ms``: a process from its start to its end, with one question. Medians. ``peak_mb``: the
largest resident memory of the process that asks, from its start.

``reads`` and ``read_mb``: how often and how much a question reads from files, which are requests and bytes of an object
store, about; ``cold_reads`` and ``cold_read_mb`` include opening the index. What the engine keeps is not read again.

``build_s`` and ``build_cpu_s``: the maintenance at the end of a run, which merges fragments and builds all indexes; the
audit of their recall, which sets how they are searched (``tune_s``, ``tune_cpu_s``; its questions are others); and
cutting frames into pools (``pools_s``, ``pools_cpu_s``). A run does the last while it writes, so it is also a part of
``write_s`` and ``write_cpu_s``: writing and committing rows. ``audited`` is the recall that the audit found, and
``audited_low`` and ``audited_high`` are its interval of 95 %; a table has them in its title.
``bytes_per_row``: data and indexes of the newest version. ``extra_share``: what only serves the search by indexes,
relative to the vectors.
"""

import json as jsonlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from jobs.bench.asking import MODES, Job, ask, to_job
from jobs.bench.figures import call_fresh
from jobs.bench.index_bytes import count_bytes
from jobs.bench.synthetic import CLIPS_PER_FILE, FILE_FRAMES, Floats
from jobs.bench.synthetic_index import Built, Corpus, build, load
from jobs.bench.truth import Found, best_clips, best_events, measure_levels, recall
from jobs.bench.vector_source import Source, make_vectors
from jobs.shared.options import Json
from jobs.shared.output import print_error, print_json, print_table
from pipeline.errors import UsageError
from pipeline.schema import Row
from pipeline.search.events import Levels

K = 20
SHARES = (1.0, 0.5, 0.1, 0.01, 0.0001)


class Question(StrEnum):
    locate = "locate"
    query = "query"
    similar = "similar"


@dataclass(frozen=True)
class Asked:
    """Questions of one kind, and their exact answers for each filter."""

    question: str
    path: str
    vectors: Floats
    levels: list[Levels]
    exact: list[list[list[Found]]]


@dataclass(frozen=True)
class Effort:
    """How often to ask."""

    questions: int = 300
    exact_questions: int = 12
    cold: int = 5
    """Processes for each cold time and each time from the shell; at most two for exact scans."""


def measure(
    built: Built, kinds: Sequence[Question], effort: Effort, call: Callable[..., Any] = call_fresh
) -> Iterator[Row]:
    """A row of figures for each kind of question, filter and mode; ``call`` calls a function in a new process."""
    limits = [max(1, round(share * built.corpus.n_files)) for share in SHARES]
    sizes = count_bytes(built.index)
    for kind in kinds:
        asked = _prepare(built, kind, effort.questions, limits)
        table = "frames" if kind == Question.locate else "clips"
        for number, (share, limit) in enumerate(zip(SHARES, limits, strict=True)):
            where = None if share == 1.0 else f"lot < {limit}"
            for mode in MODES:
                n = effort.questions if mode == "indexed" else effort.exact_questions
                cold = 0 if where else effort.cold if mode == "indexed" else min(effort.cold, 2)
                job = Job(built.index, kind, mode, where, K, asked.path, [list(astuple(x)) for x in asked.levels], n)
                yield {
                    "rows": sizes[table].n_rows,
                    "dimension": built.corpus.dimension,
                    "vectors": built.corpus.source,
                    "seed": built.corpus.seed,
                    "question": str(kind),
                    "mode": mode,
                    "where": where,
                    "share": share,
                    "k": K,
                    **_ask(job, asked.exact[number], cold, call),
                    **sizes[table].describe(mode == "indexed", built.corpus.dimension),
                    **_describe_audit(built, kind if mode == "indexed" else None),
                    **_describe_build(built),
                }


def _describe_audit(built: Built, kind: Question | None) -> Row:
    """The recall of a kind of question and its interval, as the audit found them; without a kind, None."""
    found = (kind and built.audited.get(kind)) or {}
    return {"audited": found.get("recall"), "audited_low": found.get("low"), "audited_high": found.get("high")}


def _describe_build(built: Built) -> Row:
    """What building took; cutting frames into pools counts in both, since a run does it while it writes."""
    build = built.maintained + built.pooled + built.tuned
    figures = {"build": build, "pools": built.pooled, "tune": built.tuned, "write": built.written}
    seconds = {f"{name}_s": round(cost.seconds, 1) for name, cost in figures.items()}
    return seconds | {f"{name}_cpu_s": round(cost.cpu_s, 1) for name, cost in figures.items()}


def _prepare(built: Built, kind: Question, n: int, limits: list[int]) -> Asked:
    """Questions and their exact answers, which are kept beside the index: they take a while."""
    corpus = built.corpus
    vectors = make_vectors(corpus.source, corpus.seed, corpus.dimension)
    questions = vectors.sounds(n) if kind == Question.similar else vectors.texts(n)
    path = built.folder / f"{kind}-{n}.npy"
    # An older version kept the best by cosine of 200 candidates under the plain name.
    kept = path.with_suffix(".cosine.json" if kind == Question.similar else ".json")
    np.save(path, questions)
    levels = measure_levels(built.index, questions) if kind == Question.locate else []
    if not kept.exists():
        if kind == Question.locate:
            exact = best_events(built.index, questions, levels, limits, K)
        else:
            exact = best_clips(built.index, questions, limits, K, by_cosine=kind == Question.similar)
        kept.write_text(jsonlib.dumps(exact))
    found = jsonlib.loads(kept.read_text())
    return Asked(kind, str(path), questions, levels, [[[Found(*each) for each in of] for of in one] for one in found])


def _ask(job: Job, exact: list[list[Found]], cold: int, call: Callable[..., Any]) -> Row:
    """Latencies, recall and memory of a job; cold and from the shell, if asked ``cold`` times."""
    warm = call(ask, to_job(job))
    found = [[Found(*each) for each in of] for of in warm["found"]]
    recalls = [share for best, of in zip(exact, found, strict=False) if (share := recall(best, of, K)) is not None]
    times_ms = warm["times_ms"]
    figures = {
        "questions": len(times_ms),
        "p50_ms": round(statistics.median(times_ms), 2),
        "p95_ms": round(float(np.quantile(times_ms, 0.95)), 2),
        "open_ms": round(warm["open_ms"], 1),
        "recall": round(statistics.fmean(recalls), 4) if recalls else None,
        "results": sum(map(len, found)),
        "reads": round(warm["reads"], 1),
        "read_mb": round(warm["read_mb"], 2),
        "peak_mb": round(warm["peak_mb"]),
        "cold_ms": None,
        "cold_reads": None,
        "cold_read_mb": None,
        "shell_ms": None,
    }
    if cold:
        colds = [call(ask, to_job(replace(job, n=1, n_warming=0, is_cold=True))) for _ in range(cold)]
        figures["cold_ms"] = round(statistics.median(each["open_ms"] + each["times_ms"][0] for each in colds), 1)
        figures["cold_reads"] = round(statistics.median(each["reads"] for each in colds), 1)
        figures["cold_read_mb"] = round(statistics.median(each["read_mb"] for each in colds), 2)
        figures["shell_ms"] = round(1000 * statistics.median(_time_process(job, call) for _ in range(cold)), 1)
    return figures


def _time_process(job: Job, call: Callable[..., Any]) -> float:
    """Seconds from the start of a process to its end, with one question."""
    began = time.perf_counter()
    call(ask, to_job(replace(job, n=1, n_warming=0)))
    return time.perf_counter() - began


COLUMNS = ("mode", "where", "p50_ms", "p95_ms", "cold_ms", "shell_ms", "recall", "peak_mb")


def show(rows: Iterator[Row]) -> None:
    """Print the figures of each kind of question as soon as it is measured."""
    for kind, some in groupby(rows, key=lambda row: row["question"]):
        lines = list(some)
        last = lines[-1]
        title = f"{kind}: {last['rows']:,} rows of {last['dimension']} numbers, {last['bytes_per_row']} bytes a row,"
        title += f" {100 * last['extra_share']:.1f} % extra; building {last['build_s']} s, {last['build_cpu_s']}"
        title += f" CPU s; writing {last['write_s']} s, {last['write_cpu_s']} CPU s"
        if last["audited"] is not None:
            interval = f"{last['audited_low']:.2%} to {last['audited_high']:.2%}"
            title += f"; the audit found {last['audited']:.2%} ({interval})"
        print_table(title, COLUMNS, [[row[name] for name in COLUMNS] for row in lines], COLUMNS[2:])


def search(
    kinds: Annotated[list[Question] | None, typer.Argument(help="Kinds of question; by default all.")] = None,
    rows: Annotated[int, typer.Option(help="Frames to build an index of, 1,500 to a file.", min=1)] = 250_000,
    clips: Annotated[int | None, typer.Option(help="Instead, clips of an index without frames.", min=1)] = None,
    vectors: Annotated[Source, typer.Option(help="Drawn, or of the bundled model.")] = Source.made,
    seed: Annotated[int, typer.Option(help="Of vectors and questions.", min=0)] = 0,
    questions: Annotated[int, typer.Option(help="Questions of each kind.", min=1)] = 300,
    exact_questions: Annotated[int, typer.Option(help="As many of them by exact scans, which are slow.", min=1)] = 12,
    cold: Annotated[
        int, typer.Option(help="Processes for each time from the shell and each cold one; for exact scans, two.", min=0)
    ] = 5,
    keep: Annotated[Path | None, typer.Option(help="Build the index in this new folder, and keep it.")] = None,
    index: Annotated[Path | None, typer.Option(help="Ask the index that was kept in this folder.")] = None,
    json: Json = False,
) -> None:
    """Measure questions to a large index, exact and through its vector indexes: some minutes for 250,000 frames."""
    if keep is not None and (index is not None or (keep.exists() and any(keep.iterdir()))):
        raise typer.BadParameter(f"{keep}: give a new folder, and no --index")
    with tempfile.TemporaryDirectory(prefix="earshot-") as scratch:
        built = _load(index) if index else make_index(keep or Path(scratch), rows, clips, vectors, seed)
        asked = kinds or [kind for kind in Question if built.corpus.with_frames or kind != Question.locate]
        if Question.locate in asked and not built.corpus.with_frames:
            raise typer.BadParameter("an index without frames has no events to locate")
        for problem in built.problems:
            print_error(problem)
        found = measure(built, asked, Effort(questions, exact_questions, cold))
        if json:
            print_json(found)
        else:
            show(found)


def _load(folder: Path) -> Built:
    try:
        return load(folder)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from None


def make_index(folder: Path, rows: int, clips: int | None, source: Source, seed: int) -> Built:
    """Build an index in ``folder``, of whole files."""
    made = make_vectors(source, seed)
    n_files = -(-rows // FILE_FRAMES) if clips is None else -(-clips // CLIPS_PER_FILE)
    return build(folder, Corpus(n_files, clips is None, made.dimension, str(source), seed), made)
