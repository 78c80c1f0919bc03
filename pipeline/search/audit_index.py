"""The recall of an index, measured on itself, and the settings of search that reach a wanted one.

Texts are the bank of ``questions.txt``, embedded by the text models of the index. For ``similar``, clips of the index
are the questions, and mixtures of clips: sounds that are like no clip in particular. Exact answers come from a sample
of whole audios: see ``sample`` and ``audit``.

Cost: see ``pipeline/search/README.md``.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.index.handle import Generation
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tables import among, indexed_files
from pipeline.index.tuning import Measured, Tuning, read_trained
from pipeline.search.audit import Answer, ExactAnswer, Found
from pipeline.search.clip_sample import ClipSample, draw_clips, exact_clips
from pipeline.search.clips import Measure
from pipeline.search.events import EventFrames, Levels, Rules
from pipeline.search.query_vectors import QueryModels
from pipeline.search.questions import count_dimensions, read_questions
from pipeline.search.rungs import (
    find_least_candidates,
    find_least_refine,
    list_clip_rungs,
    list_pool_rungs,
    list_similar_rungs,
    list_wider,
)
from pipeline.search.sample import (
    Block,
    EventFinder,
    Matrix,
    Unit,
    count_audios,
    draw_units,
    find_events_in,
    read_blocks,
    score_blocks,
)
from pipeline.search.scores import to_direction
from pipeline.search.tune import ENOUGH_EVENTS, KS, Exam, Measurement, choose, choose_k, find_best_low, is_enough

MIN_FRAMES, MAX_FRAMES = 400_000, 2_000_000
"""Frames to sample, at least and at most."""

FRAMES_AN_EVENT = 100
"""Frames that a question reads for each event, about."""

KEEP = 100
"""Exact answers in the sample that are kept for a question: more answers are asked for only of an index of which the
sample is a small part."""

MAX_CLIPS = 100_000
"""Clips to sample, about: 200 MB of 1,024 numbers."""

N_QUESTIONS = 320
"""Texts of the bank that are asked, and sounds."""

MIXED = 3
"""Clips in each mixture. A clip's own neighbours lie close together, in one partition, and are found with settings that
lose most of the answers to a sound from elsewhere; mixtures of two clips are still easier than such a sound."""

SOUNDS_A_CLIP = 4
"""Of so many sounds one is a clip. Clips lose next to nothing, so with half of them, mixtures lost twice the share that
the settings were chosen for."""

THRESHOLDS = (0.3, 0.1, 0.03)
"""Probabilities at which events begin: the usual one, and lower ones where a sample holds too few events to show that
the wanted recall is reached."""


Audios = list[npt.NDArray[np.int64]]
"""For each question, the numbers of some audios of a sample."""


class Searches(Protocol):
    """Asks an index through its vector indexes, with settings that are on trial."""

    def events(
        self, vectors: Matrix, k: int, levels: Levels, settings: SearchSettings
    ) -> list[list[tuple[str, EventFrames]]]:
        """The ``k`` best events for each vector, best first, with the uri of the file."""
        ...

    def clips(self, vectors: Matrix, k: int, settings: SearchSettings, measure: Measure) -> list[Answer]:
        """The ``k`` best clips for each vector: of a text by dot product, of a sound by cosine."""
        ...


@dataclass(frozen=True)
class Audited:
    """The parts of an index that an audit needs. ``tick`` is called every few seconds."""

    tables: Generation
    searches: Searches
    models: QueryModels
    tick: Callable[[], None] = lambda: None


def audit_index(index: Audited, wanted: float, *, seed: int = 0) -> Tuning:
    """Measure the recall of an index, and find the settings that reach ``wanted``. Publishes nothing. Where the sample
    is too small to tell, the usual settings stay.

    Raises:
        EarshotError: a text model cannot be loaded.
    """
    began = time.monotonic()
    tables = index.tables
    audit = _Audit(index, wanted, np.random.default_rng([seed, tables.seq]))
    settings = SearchSettings()
    locate = query = similar = None
    trained = {name: found for name in ("pools", "clips") if (found := read_trained(tables, name)) is not None}
    if "pools" in trained:
        settings, locate = _audit_events(audit)
    if "clips" in trained:
        settings, query, similar = _audit_clips(audit, settings, trained["clips"].n_partitions)
    n_clips, n_frames = (tables.open(name).count_rows() for name in ("clips", "frames"))
    seconds = round(time.monotonic() - began, 1)
    return Tuning(wanted, settings, locate, query, similar, n_clips, n_frames, seconds, trained)


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


def _audit_events(audit: _Audit) -> tuple[SearchSettings, Measured]:
    frames, files = audit.open("frames"), audit.open("files")
    n_rows = frames.count_rows()
    questions = audit.embed("frame_model")
    units = draw_units(files, count_sampled(n_rows, len(questions)), audit.rng)
    share = sum(unit.stop - unit.first for unit in units) / max(1, n_rows)
    threshold, levels, exact = _find_exact_events(audit, units, questions, share)
    k = choose_k(exact, share)
    uris = _find_uris(files, units)

    def ask(vectors: Matrix, k: int, settings: SearchSettings) -> list[Answer]:
        audit.index.tick()
        answers = audit.index.searches.events(vectors, k, levels, settings)
        return [_to_answer(events, uris, k) for events in answers]

    exam = Exam(ask, questions, exact, count_audios(units), k, find_limit_s(n_rows))
    rungs = list_pool_rungs(k, audit.open("pools").count_rows())
    chosen = rungs[choose(exam, rungs, rungs.index(SearchSettings()), audit.wanted)]
    return chosen, _describe(exam.finish(chosen), k, questions, threshold)


def _find_exact_events(
    audit: _Audit, units: list[Unit], questions: Matrix, share: float
) -> tuple[float, Levels, list[ExactAnswer]]:
    """The exact events at the highest of ``THRESHOLDS`` at which there are enough of them to show the wanted recall."""
    identity = audit.identify("frame_model")
    tried = [Levels.from_rules(Rules(each), identity.logit_scale, identity.logit_bias) for each in THRESHOLDS]
    finders = [EventFinder(units, questions, levels, KEEP) for levels in tried]

    def find_low(finder: EventFinder) -> float:
        return find_best_low(finder.answers(), count_audios(units), share)

    scored = score_blocks(audit.ticking(read_blocks(audit.open("frames"), units)), questions)
    used = find_events_in(scored, finders, lambda finder: is_enough(find_low(finder), audit.wanted))
    lows = np.round([find_low(finder) for finder in used], 3)
    at = next((at for at, low in enumerate(lows) if is_enough(low, audit.wanted)), int(np.argmax(lows)))
    return THRESHOLDS[at], tried[at], used[at].answers()


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
        where = indexed_files(among("audio_id", ids[begin : begin + 500]))
        rows = files.to_table(columns=["uri", "audio_id"], filter=where)
        found |= dict(zip(rows["uri"].to_pylist(), rows["audio_id"].to_pylist(), strict=True))
    return found


def _to_answer(events: Iterable[tuple[str, EventFrames]], uris: dict[str, str], k: int) -> Answer:
    """Events of files as events of contents. Those outside the sample have no name: only their scores matter."""
    found = [Found(uris.get(uri, ""), event.first, event.stop, event.score) for uri, event in events]
    return Answer(found, len(found) >= k)


# --- clips ------------------------------------------------------------------------------------------------------------


def _audit_clips(
    audit: _Audit, settings: SearchSettings, n_partitions: int
) -> tuple[SearchSettings, Measured, Measured]:
    """Texts choose how many partitions and whole vectors are read. Sounds then choose their candidates; where no number
    of these is enough, also more partitions, which texts share."""
    clips = audit.open("clips")
    n_clips, dimension = clips.count_rows(), clips.schema.field("vector").type.list_size
    settings = replace(settings, clip_refine=find_least_refine(dimension))
    sample = draw_clips(audit.open("files"), clips, MAX_CLIPS, audit.rng)
    texts, (sounds, own) = audit.embed("clip_model"), draw_sounds(sample, audit.rng)
    share, limit_s = len(sample.clip_ids) / max(1, n_clips), find_limit_s(n_clips)

    def examine(questions: Matrix, measure: Measure, left_out: Audios | None = None) -> Exam[SearchSettings]:
        def ask(vectors: Matrix, k: int, settings: SearchSettings) -> list[Answer]:
            audit.index.tick()
            return audit.index.searches.clips(vectors, k, settings, measure)

        exact = exact_clips(sample, questions, KEEP, left_out=left_out, measure=measure)
        return Exam(ask, questions, exact, sample.n_audios, choose_k(exact, share), limit_s)

    by_text, by_sound = examine(texts, "dot"), examine(sounds, "cosine", own)
    rungs = list_clip_rungs(settings, n_partitions, by_text.k)
    chosen = rungs[choose(by_text, rungs, rungs.index(settings), audit.wanted)]
    chosen = _choose_for_sounds(
        by_sound,
        chosen,
        lambda settings: list_similar_rungs(settings, n_clips, by_sound.k, find_least_candidates(dimension)),
        n_partitions,
        audit.wanted,
    )
    # `query` is the same for any number of candidates of `similar`; so where it was asked already, that counts.
    query = by_text.finish(replace(chosen, similar_candidates=settings.similar_candidates))
    similar = by_sound.finish(chosen)
    return chosen, _describe(query, by_text.k, texts), _describe(similar, by_sound.k, sounds)


def _choose_for_sounds(
    exam: Exam[SearchSettings],
    settings: SearchSettings,
    list_rungs: Callable[[SearchSettings], list[SearchSettings]],
    n_partitions: int,
    wanted: float,
) -> SearchSettings:
    """Settings with the fewest candidates that reach the recall, in the partitions of ``settings`` if they can."""
    usual = SearchSettings().similar_candidates
    rungs = list_rungs(settings)
    start = next((at for at, each in enumerate(rungs) if each.similar_candidates >= usual), len(rungs) - 1)
    wider = list_wider(rungs[-1], n_partitions)
    at = choose(exam, [*rungs, *wider], start, wanted)
    if at >= len(rungs):  # then fewer candidates may do, in so many partitions
        rungs = list_rungs(wider[at - len(rungs)])
        at = choose(exam, rungs, start, wanted)
    return rungs[at]


def draw_sounds(sample: ClipSample, rng: np.random.Generator) -> tuple[Matrix, Audios]:
    """Directions (n, D) of drawn clips, each before some mixtures of clips, and the numbers of the audios that each was
    made of. Their clips are in the sample for certain, others by chance, so only others say how much is found."""
    n = len(sample.clip_ids)
    rows = rng.permutation(n)[:N_QUESTIONS]
    sounds, own = sample.vectors[rows].astype(np.float32), [sample.audios[[row]] for row in rows]
    is_mixture = np.arange(len(sounds)) % SOUNDS_A_CLIP != 0
    mixed = rng.integers(n, size=(int(is_mixture.sum()), MIXED))
    sounds[is_mixture] = to_direction(sample.vectors[mixed]).mean(axis=1)
    for number, of in zip(np.flatnonzero(is_mixture), mixed, strict=True):
        own[number] = sample.audios[of]
    return to_direction(sounds), own


def _describe(measurement: Measurement, k: int, questions: Matrix, threshold: float | None = None) -> Measured:
    recall = measurement.recall
    return Measured(
        recall=recall.share,
        low=recall.low,
        high=recall.high,
        n_answers=recall.n_events,
        n_units=recall.n_units,
        n_questions=measurement.n_questions,
        k=k,
        n_dimensions=round(count_dimensions(questions), 2),
        threshold=threshold,
        best_low=recall.best_low,
    )
