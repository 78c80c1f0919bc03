"""The Python client: an index opened as it was last published, to be searched with words or sounds.

    >>> ix = pipeline.open("my-index")
    >>> ix.search("dog barking", k=5)[0].uri
    >>> ix.locate("siren")[0].start_s
    >>> ix.similar(waveform, sample_rate_hz=44_100)
    >>> ix.mark("/sounds/yard.wav", "dog barking", "right", start_s=3.8, end_s=4.44)
    >>> ix.to_arrow("clips", columns=["uri", "start_s"])

Models are loaded at the first question that needs them, and kept.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from pipeline.config import DecodeConfig, WindowConfig
from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.encoder.encoder import probability
from pipeline.errors import UsageError
from pipeline.grid import Waveform, span_to_frames
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import find_settings
from pipeline.marks.add import add_marks
from pipeline.marks.mark import Judgement, Mark, Marked
from pipeline.marks.read import list_marks
from pipeline.search.clips import Hit, find_clips
from pipeline.search.curves import Curve, read_scores
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import Events, Levels, Rules, to_event
from pipeline.search.find_events import find_all_events
from pipeline.search.opened import OpenedIndex
from pipeline.search.query_vectors import QueryModels, check_waveform, embed_sound
from pipeline.search.rungs import raise_to_least
from pipeline.search.scores import MAX_COMPARED, Vector
from pipeline.search.stopping import check_stopped
from pipeline.search.tune import KS


class Index(OpenedIndex):
    """An index in the state that it had when it was opened. Open it again to see later batches. Marks are always those
    of now.

    Args:
        path: its folder or URL.
        models: the encoders of questions; by default the models that made the vectors.

    Raises:
        IndexMissing: there is no index at ``path``.
    """

    def __init__(self, path: str, models: QueryModels | None = None) -> None:
        super().__init__(path)
        self._models = models or QueryModels(path)
        self._search_settings: dict[str, SearchSettings | None] = {}
        self._event_tables_by_exact: dict[bool, EventTables] = {}

    def search(
        self, text: str, k: int = 10, *, where: str | None = None, all_windows: bool = False, exact: bool = False
    ) -> list[Hit]:
        """The ``k`` clips that fit ``text`` best. Score: dot product; probability: the model's own.

        Args:
            where: SQL over the columns of ``clips``, applied before the search.
            all_windows: list overlapping windows of one file separately.
            exact: compare every clip. A search through the vector index may miss some: `describe` tells how many.

        Raises:
            UsageError: the text or index is empty, or ``where`` is wrong.
        """
        _check_k(k)
        clips = self._table("clips", where)
        query = self._embed_text(text, "clip_model")
        settings = self._clip_settings("query", k, exact)
        hits = find_clips(clips, query, k=k, where=where, all_windows=all_windows, settings=settings)
        chances = probability([hit.score for hit in hits], self._identity("clip_model"))
        return [replace(hit, probability=float(chance)) for hit, chance in zip(hits, chances, strict=True)]

    def similar(
        self,
        waveform: npt.NDArray[Any],
        sample_rate_hz: int,
        k: int = 10,
        *,
        where: str | None = None,
        all_windows: bool = False,
        exact: bool = False,
    ) -> list[Hit]:
        """The ``k`` clips that sound most like ``waveform``, by cosine.

        A sound is cut like a file of the index, with the rule ``fit`` once it is longer than one and a half windows;
        the query is the mean direction of its windows. For a long recording, ``similar_to_file`` needs less memory.

        Args:
            waveform: samples of shape (n,) or (n, channels): floats from about -1 to 1, or integers of full scale.
            exact: compare every clip by cosine. A search through the vector index ranks the best by dot product, and
                may miss some: `describe` tells how many.

        Raises:
            UsageError: less than 40 ms of sound, NaN or infinite samples, another shape or rate, an empty index, or a
                wrong ``where``.
        """
        from pipeline.audio.decode import to_model_rate

        _check_k(k)
        self._table("clips", where)
        mono = to_model_rate(check_waveform(waveform, sample_rate_hz), sample_rate_hz, self._decode_config)
        return self.similar_to([mono], k, where=where, all_windows=all_windows, exact=exact)

    def similar_to_file(
        self,
        sound: str,
        k: int = 10,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        where: str | None = None,
        all_windows: bool = False,
        exact: bool = False,
    ) -> list[Hit]:
        """Like ``similar``, for an audio file, which is never held in memory as a whole.

        Args:
            sound: a path, a URL, or the uri of a member of a shard; or a time range of one.
            start_s, end_s: what to use of the sound, in seconds from its start, or from that of its time range.

        Raises:
            UsageError: nothing is indexed yet, or ``where`` is not valid.
            FileFailure: the file cannot be decoded; ``out_of_range`` where it ends before ``start_s``.
        """
        from pipeline.audio.part import open_part

        _check_k(k)
        self._table("clips", where)
        with open_part(sound, start_s, end_s, self._decode_config) as part:
            blocks = part.blocks(check_stopped)
            return self.similar_to(blocks, k, where=where, all_windows=all_windows, exact=exact)

    def similar_to(
        self,
        blocks: Iterable[Waveform],
        k: int = 10,
        *,
        where: str | None = None,
        all_windows: bool = False,
        exact: bool = False,
    ) -> list[Hit]:
        """Like ``similar``, for samples that are already 48 kHz mono float32, in blocks (n,) of any size.

        Raises:
            UsageError: as ``similar``.
        """
        _check_k(k)
        clips = self._table("clips", where)
        grid = WindowConfig(**self.settings["window"]).grid
        query = embed_sound(blocks, grid, self._models.for_sounds(self._identity("clip_model")))
        settings = self._clip_settings("similar", k, exact)
        return find_clips(clips, query, k=k, where=where, all_windows=all_windows, measure="cosine", settings=settings)

    @overload
    def locate(
        self,
        text: str,
        k: int = 10,
        *,
        threshold: float = 0.3,
        min_duration_s: float = 0.0,
        merge_gap_s: float = 0.2,
        where: str | None = None,
        exact: bool = False,
    ) -> Events: ...

    @overload
    def locate(
        self,
        text: list[str],
        k: int = 10,
        *,
        threshold: float = 0.3,
        min_duration_s: float = 0.0,
        merge_gap_s: float = 0.2,
        where: str | None = None,
        exact: bool = False,
    ) -> list[Events]: ...

    def locate(
        self,
        text: str | list[str],
        k: int = 10,
        *,
        threshold: float = 0.3,
        min_duration_s: float = 0.0,
        merge_gap_s: float = 0.2,
        where: str | None = None,
        exact: bool = False,
    ) -> Events | list[Events]:
        """The ``k`` events that fit ``text`` best; for several texts, a list for each. They are embedded together, and
        up to four are searched at the same time. Times are in seconds, on a grid of 40 ms. ``is_cut`` of a result tells
        that there may be better events, which ``exact`` would find.

        Args:
            threshold: the probability at which an event begins. min_duration_s: drop shorter events.
            merge_gap_s: join events of one file that are at most this far apart.
            where: SQL over the columns of ``files``: only events in these files.
            exact: compare every frame. A search through the vector index may miss events: `describe` tells how many.

        Raises:
            UsageError: an empty text or index, an index without frames, an argument out of range, or a wrong ``where``.
        """
        _check_k(k)
        rules = Rules(threshold, min_duration_s, merge_gap_s)
        if self.settings["frames"] == "none":
            raise UsageError(f"{self.path}: was built without frames, so nothing can be located; use `query`")
        self._table("frames", where)
        texts = [text] if isinstance(text, str) else text
        vectors = self._embed_texts(texts, "frame_model")
        identity = self._identity("frame_model")
        levels = Levels.from_rules(rules, identity.logit_scale, identity.logit_bias)
        queries = [EventQuery(vector, levels, k, where) for vector in vectors]
        results = [
            Events(
                (
                    to_event(rank, holder, event, float(probability(event.score, identity)))
                    for rank, (holder, event) in enumerate(found, start=1)
                ),
                is_cut=is_cut,
            )
            for found, is_cut in find_all_events(self._event_tables(exact), queries)
        ]
        return results[0] if isinstance(text, str) else results

    def curve(self, text: str, uri: str, start_s: float = 0.0, end_s: float | None = None) -> Curve:
        """The score of each frame of a file for ``text``: of those that lie in the span, at least in part.

        The scores are those that ``locate`` finds events by. They come from the index, so the file itself may be gone.

        Args:
            uri: as hits have it.
            start_s, end_s: the span in seconds; by default, from the beginning and to the end.

        Raises:
            UsageError: the index has no such file, or no frames; the text is empty, or the span ends before it begins.
        """
        if not 0.0 <= start_s < (math.inf if end_s is None else end_s):
            raise UsageError(f"from {start_s} to {end_s} s: not a span")
        file = self.find_file(uri)
        if self.settings["frames"] == "none":
            raise UsageError(f"{self.path}: was built without frames, so there is no curve; use `query`")
        [query] = self._embed_texts([text], "frame_model")
        duration_s = file.holder.duration_s
        first, stop = span_to_frames(start_s, duration_s if end_s is None else min(end_s, duration_s))
        scores = read_scores(self._event_tables(exact=True), file, query, first, stop)
        return Curve(file.holder.uri, file.audio_id, text, first, scores, self._identity("frame_model"), file.holder)

    def mark(
        self,
        uri: str,
        text: str,
        verdict: str,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        score: float | None = None,
        who: str | None = None,
    ) -> Mark:
        """Say whether ``text`` describes a file, or a part of it. The newest mark of the same part and text counts.

        Args:
            verdict: ``right``, ``wrong`` or ``unsure``; ``none`` takes the mark back.
            start_s, end_s: in seconds of the file, as hits have them; by default the whole file.
            score: that of the hit. who: by default the user of this process.

        Raises:
            UsageError: an empty text, an unknown verdict, times outside of the file, a file that is not indexed, or no
                mark to take back.
        """
        return self.mark_all([Judgement(uri, text, verdict, start_s, end_s, score, who)])[0]

    def mark_all(self, judgements: Sequence[Judgement]) -> Marked:
        """Like ``mark``, for several judgements: all are stored, or none if one is wrong."""
        return add_marks(self.live, judgements)

    def marks(self, uri: str | None = None, *, history: bool = False) -> list[Mark]:
        """All marks that were made until now, also since the index was opened, and where their contents are.

        Args:
            uri: only the marks of this file. history: also those that were replaced or taken back, oldest first.

        Raises:
            UsageError: there is no file ``uri``, nor a mark of one.
        """
        return list_marks(self.live, uri, history=history)

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        """The embedding (D,) of ``text`` with which clips are compared: float32, not normalised.

        Raises:
            UsageError: the text is empty.
        """
        return self._embed_text(text, "clip_model")

    def _event_tables(self, exact: bool) -> EventTables:
        """The tables that events are found in. They are kept: the next question need not open them again."""
        if exact not in self._event_tables_by_exact:
            settings = self._settings("pools", exact)
            pools = None if settings is None else self._open("pools")
            self._event_tables_by_exact[exact] = EventTables(
                self._open("frames"), self._open("files"), pools, settings or SearchSettings()
            )
        return self._event_tables_by_exact[exact]

    def _settings(self, name: str, exact: bool) -> SearchSettings | None:
        """How the vector index of a table is searched; None for an exact scan: as asked, or where there is none."""
        if name not in self._search_settings:
            self._search_settings[name] = find_settings(self.live, name)
        return None if exact else self._search_settings[name]

    def _clip_settings(self, command: str, k: int, exact: bool) -> SearchSettings | None:
        """How clips are searched. For more hits than the recall was measured with, or than are usual where it was not,
        all partitions are read, and ``similar`` has more candidates in proportion."""
        settings, tuning = self._settings("clips", exact), self.live.tuning
        measured = tuning.measured.get(command) if tuning else None
        if settings is None or (measured and k <= measured.k):
            return settings
        if not measured:
            settings = raise_to_least(settings, self._open("clips").schema.field("vector").type.list_size)
        n_candidates = math.ceil(settings.similar_candidates * max(1.0, k / (measured.k if measured else KS[0])))
        return replace(settings, similar_candidates=min(MAX_COMPARED, n_candidates)).for_partitions(None)

    @property
    def _decode_config(self) -> DecodeConfig:
        return DecodeConfig(**self.settings["decode"])

    def _identity(self, which: str) -> ModelIdentity:
        return ModelIdentity(**self.settings[which])

    def _embed_text(self, text: str, which: str) -> Vector:
        return self._embed_texts([text], which)[0]

    def _embed_texts(self, texts: list[str], which: str) -> list[Vector]:
        """The embedding of each text, all embedded together."""
        if not all(text.strip() for text in texts):
            raise UsageError("the query is empty: say what to look for")
        return list(np.asarray(self._models.for_texts(self._identity(which)).embed(texts))) if texts else []


def _check_k(k: int) -> None:
    if k < 1:
        raise UsageError(f"-k: {k} is less than 1")
