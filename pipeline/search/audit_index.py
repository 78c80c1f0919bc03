"""The recall of an index, measured on itself, and the settings of search that reach a wanted one.

Texts are the bank of ``questions.txt``, embedded by the text models of the index. For ``similar``, clips of the index
are the questions. Exact answers come from a sample of whole audios: see ``sample`` and ``audit``.

Cost: at most ``MAX_FRAMES`` frames and ``MAX_CLIPS`` clips are read, and multiplied with all questions: about 16 CPU
seconds a million rows of 1,024 numbers. Up to four settings are tried with up to 128 questions, and those that are
chosen with all, for the seconds of ``find_limit_s`` each. At a million frames: 47 CPU seconds in all.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.index.handle import Generation
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tables import among
from pipeline.index.tuning import Measured, Tuning, has_vector_index
from pipeline.search.audit import Answer, ExactAnswer, Found
from pipeline.search.events import EventFrames, Levels, Rules
from pipeline.search.query_vectors import QueryModels
from pipeline.search.questions import count_dimensions, read_questions
from pipeline.search.sample import (
    Block,
    ClipSample,
    Matrix,
    Unit,
    draw_clips,
    draw_units,
    exact_clips,
    exact_events,
    read_blocks,
)
from pipeline.search.tune import ENOUGH_EVENTS, KS, Exam, Tuned, choose_k, tune

MIN_FRAMES, MAX_FRAMES = 400_000, 2_000_000
"""Frames to sample, at least and at most."""

FRAMES_AN_EVENT = 100
"""Frames that a question reads for each event, about."""

KEEP = 100
"""Exact answers in the sample that are kept for a question."""

MAX_CLIPS = 100_000
"""Clips to sample: 200 MB of 1,024 numbers."""

N_QUESTIONS = 320
"""Texts of the bank that are asked, and clips that are questions themselves."""

THRESHOLDS = (0.3, 0.1, 0.03)
"""Probabilities at which events begin: the usual one, and lower ones where a sample holds too few events."""

TOO_FEW = 100
"""Exact events in the sample that are too few to say anything."""

POOLS_PER_EVENT = (1, 2, 5, 10, 20, 40)
CLIP_PROBES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
CLIP_REFINE = (4, 8, 16, 32, 64)
"""The settings to choose from, in order; probes as shares of the partitions, of which a default may take all."""


class Searches(Protocol):
    """How an index is asked through its vector indexes, with the settings that are on trial."""

    def events(
        self, vectors: Matrix, k: int, levels: Levels, settings: SearchSettings
    ) -> list[list[tuple[str, EventFrames]]]:
        """The ``k`` best events for each vector, best first, with the uri of the file."""
        ...

    def clips(self, vectors: Matrix, k: int, settings: SearchSettings) -> list[list[tuple[str, float]]]:
        """The ``k`` best clips for each vector by dot product, best first: ids and scores."""
        ...


@dataclass(frozen=True)
class Audited:
    """The parts of an index that an audit needs.

    ``n_partitions``: of the vector index of ``clips``. ``tick`` is called every few seconds.
    """

    tables: Generation
    searches: Searches
    models: QueryModels
    n_partitions: int = 1
    tick: Callable[[], None] = lambda: None


def audit_index(index: Audited, wanted: float, *, default: SearchSettings = SearchSettings(), seed: int = 0) -> Tuning:
    """Measure the recall of an index, and find the settings that reach ``wanted``. Publishes nothing.

    Args:
        default: the settings to begin with, and to keep where the sample is too small.

    Raises:
        EarshotError: a text model cannot be loaded.
    """
    began = time.monotonic()
    tables = index.tables
    audit = _Audit(index, wanted, np.random.default_rng([seed, tables.seq]))
    settings = default
    locate = query = similar = None
    if has_vector_index(tables, "pools"):
        settings, locate = _audit_events(audit, settings)
    if has_vector_index(tables, "clips"):
        settings, query, similar = _audit_clips(audit, settings)
    n_clips, n_frames = (tables.open(name).count_rows() for name in ("clips", "frames"))
    return Tuning(wanted, settings, locate, query, similar, n_clips, n_frames, round(time.monotonic() - began, 1))


@dataclass(frozen=True)
class _Audit:
    index: Audited
    wanted: float
    rng: np.random.Generator

    def open(self, name: str) -> Any:
        return self.index.tables.open(name)

    def identify(self, which: str) -> ModelIdentity:
        return ModelIdentity(**self.index.tables.settings[which])

    def ticking(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks, with a tick before each."""
        for block in blocks:
            self.index.tick()
            yield block

    def embed(self, which: str) -> Matrix:
        """Questions of the bank, in random order: where time is short, the first are as good as any."""
        questions = read_questions()
        order = self.rng.permutation(len(questions))[:N_QUESTIONS]
        embedded = self.index.models.for_texts(self.identify(which)).embed([questions[number] for number in order])
        return np.asarray(embedded, np.float32)


def find_limit_s(n_rows: int) -> float:
    """Seconds that each of the settings is tried for."""
    return min(240.0, max(60.0, n_rows / 50_000))


# --- events -----------------------------------------------------------------------------------------------------------


def _audit_events(audit: _Audit, settings: SearchSettings) -> tuple[SearchSettings, Measured]:
    frames, files = audit.open("frames"), audit.open("files")
    n_rows = frames.count_rows()
    questions = audit.embed("frame_model")
    units = draw_units(files, count_sampled(n_rows, len(questions)), audit.rng)
    share = sum(unit.stop - unit.first for unit in units) / max(1, n_rows)
    identity = audit.identify("frame_model")
    for threshold in THRESHOLDS:
        levels = Levels.from_rules(Rules(threshold), identity.logit_scale, identity.logit_bias)
        exact = exact_events(audit.ticking(read_blocks(frames, units)), units, questions, levels, KEEP)
        if sum(len(answer.found) for answer in exact) >= TOO_FEW:
            break
    k = choose_k(exact, share)
    uris = _find_uris(files, units)

    def ask(vectors: Matrix, k: int, settings: SearchSettings) -> list[Answer]:
        audit.index.tick()
        answers = audit.index.searches.events(vectors, k, levels, settings)
        return [_to_answer(events, uris, k) for events in answers]

    exam = Exam(ask, questions, exact, len(units), k, find_limit_s(n_rows))
    numbers = sorted({*POOLS_PER_EVENT, settings.pools_per_event})
    rungs = [replace(settings, pools_per_event=n) for n in numbers]
    tuned = tune(exam, rungs, settings, audit.wanted)
    return tuned.settings, _describe(tuned, k, questions, threshold)


def count_sampled(n_rows: int, n_questions: int) -> int:
    """Frames to sample in a table of ``n_rows``.

    A small table: so many that the fewest answers are enough events. A large one: so many that reading them takes about
    as long as asking for more answers does.
    """
    enough = n_rows * ENOUGH_EVENTS / (n_questions * KS[0])
    balanced = math.sqrt(FRAMES_AN_EVENT * ENOUGH_EVENTS * n_rows)
    return int(min(MAX_FRAMES, max(MIN_FRAMES, min(enough, balanced))))


def _find_uris(files: Any, units: list[Unit]) -> dict[str, str]:
    """By uri, the audio of each file that holds a sampled one."""
    ids = sorted({unit.audio_id for unit in units})
    found: dict[str, str] = {}
    for begin in range(0, len(ids), 500):
        where = f"status = 'indexed' AND {among('audio_id', ids[begin : begin + 500])}"
        rows = files.to_table(columns=["uri", "audio_id"], filter=where)
        found |= dict(zip(rows["uri"].to_pylist(), rows["audio_id"].to_pylist(), strict=True))
    return found


def _to_answer(events: Iterable[tuple[str, EventFrames]], uris: dict[str, str], k: int) -> Answer:
    """Events of files as events of contents. Those outside the sample have no name: only their scores matter."""
    found = [Found(uris.get(uri, ""), event.first, event.stop, event.score) for uri, event in events]
    return Answer(found, len(found) >= k)


# --- clips ------------------------------------------------------------------------------------------------------------


def _audit_clips(audit: _Audit, settings: SearchSettings) -> tuple[SearchSettings, Measured, Measured]:
    """Both kinds of questions get the settings that the harder one needs."""
    clips = audit.open("clips")
    sample = draw_clips(audit.open("files"), clips, MAX_CLIPS, audit.rng)
    texts, (sounds, own) = audit.embed("clip_model"), _draw_sounds(sample, audit.rng)
    share = len(sample.clip_ids) / max(1, clips.count_rows())
    rungs = list_clip_rungs(settings, audit.index.n_partitions)

    def ask(vectors: Matrix, k: int, settings: SearchSettings) -> list[Answer]:
        audit.index.tick()
        answers = audit.index.searches.clips(vectors, k, settings)
        return [Answer([Found(clip_id, 0, 1, score) for clip_id, score in hits], len(hits) >= k) for hits in answers]

    def examine(questions: Matrix, left_out: list[int] | None) -> Exam[SearchSettings]:
        exact: list[ExactAnswer] = exact_clips(sample, questions, keep=KEEP, left_out=left_out)
        k = choose_k(exact, share)
        return Exam(ask, questions, exact, sample.n_files, k, find_limit_s(clips.count_rows()))

    exams = examine(texts, None), examine(sounds, own)
    tuned = [tune(exam, rungs, settings, audit.wanted) for exam in exams]
    harder = max((each.settings for each in tuned), key=rungs.index)
    final = [exam.finish(harder) for exam in exams]
    query, similar = (
        _describe(each, exam.k, questions) for each, exam, questions in zip(final, exams, (texts, sounds), strict=True)
    )
    return harder, query, similar


def list_clip_rungs(default: SearchSettings, n_partitions: int) -> list[SearchSettings]:
    """The settings to try for clips, in order: ever more partitions, then ever more whole vectors. ``default`` is one.

    Args:
        n_partitions: of the vector index.
    """
    probes = [n for share in CLIP_PROBES if 0 < (n := round(share * n_partitions)) < n_partitions]
    rungs = [replace(default, clip_probes=n) for n in sorted({*probes, *filter(None, [default.clip_probes])})]
    refine = sorted({*CLIP_REFINE, default.clip_refine})
    if default.clip_probes is None:
        rungs = [replace(rung, clip_refine=refine[0]) for rung in rungs]
        return rungs + [replace(default, clip_refine=n) for n in refine]
    return rungs + [replace(default, clip_probes=None, clip_refine=n) for n in refine if n >= default.clip_refine]


def _draw_sounds(sample: ClipSample, rng: np.random.Generator) -> tuple[Matrix, list[int]]:
    """Directions of drawn clips (n, D), and the number of the file of each."""
    rows = rng.permutation(len(sample.clip_ids))[:N_QUESTIONS]
    vectors = sample.vectors[rows].astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12), sample.files[rows].tolist()


def _describe(tuned: Tuned[SearchSettings], k: int, questions: Matrix, threshold: float | None = None) -> Measured:
    recall = tuned.recall
    return Measured(
        recall.share,
        recall.low,
        recall.high,
        recall.n_events,
        recall.n_units,
        tuned.n_questions,
        k,
        round(count_dimensions(questions), 2),
        threshold,
    )
