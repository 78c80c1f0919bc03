"""The Python front: an index opened as it was last published, to be searched with words or sounds.

    >>> ix = pipeline.open("my-index")
    >>> ix.search("dog barking", k=5)[0].uri
    >>> ix.locate("siren")[0].start_s
    >>> ix.similar(waveform, sample_rate_hz=44_100)
    >>> ix.to_arrow("clips", columns=["uri", "start_s"])

Models are loaded at the first question that needs them, and kept.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.audio.windows import cut_windows
from pipeline.config import DecodeConfig, EncodeConfig, WindowConfig
from pipeline.encoder.checkpoint import ModelIdentity, read_identity
from pipeline.encoder.encoder import NonFiniteError, load_encoder, probability
from pipeline.encoder.text import load_text_encoder
from pipeline.errors import IndexMismatch, UsageError
from pipeline.grid import HOP_SAMPLES, Waveform
from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.search.clips import Hit, find_clips, open_table, read_rows
from pipeline.search.events import Event, Levels, Rules, find_events, to_event

if TYPE_CHECKING:
    from pipeline.encoder.encoder import AudioEncoder
    from pipeline.encoder.text import TextEncoder

STATUSES = ("indexed", "failed", "deleted")

WINDOWS_AT_ONCE = 16
"""Windows of a sound that are encoded together: at most what one pass of the model takes on a GPU."""


class Index:
    """An index at the state it had when it was opened; open it again to see later batches.

    Raises:
        IndexMissing: there is no index at ``path``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._handle = open_index(path)
        self._live = self._handle.live
        self.tables = self._live.path
        """Where its LanceDB database lies: ``path`` itself, until the index was rebuilt."""
        self.settings = self._live.settings

    def search(self, text: str, k: int = 10, *, where: str | None = None, all_windows: bool = False) -> list[Hit]:
        """The ``k`` clips that fit ``text`` best. Score: dot product; probability: the model's own.

        Args:
            where: SQL over the columns of ``clips``, applied before the search.
            all_windows: list overlapping windows of one file each by itself.

        Raises:
            UsageError: an empty text or index, or a wrong ``where``.
        """
        clips = self._table("clips")
        query = self._embed_text(text, "clip_model")
        hits = find_clips(clips, query, k=_check_k(k), where=where, all_windows=all_windows)
        chances = probability([hit.score for hit in hits], self._identity("clip_model"))
        return [_with_probability(hit, float(chance)) for hit, chance in zip(hits, chances, strict=True)]

    def similar(
        self,
        waveform: npt.NDArray[Any],
        sample_rate_hz: int,
        k: int = 10,
        *,
        where: str | None = None,
        all_windows: bool = False,
    ) -> list[Hit]:
        """The ``k`` clips that sound most like ``waveform``, by cosine.

        A sound longer than a window is cut like a file, and stands for the mean direction of its windows.

        Of a long recording, ``similar_to_file`` holds less in memory.

        Args:
            waveform: samples of shape (n,) or (n, channels), floats about -1 to 1, or integers of full scale.

        Raises:
            UsageError: less than 40 ms of sound, NaN or infinite samples, another shape or rate, an empty index, or a
                wrong ``where``.
        """
        from pipeline.audio.decode import to_model_rate

        self._table("clips")
        mono = to_model_rate(_check_waveform(waveform, sample_rate_hz), sample_rate_hz, self._decode_config)
        return self.similar_to([mono], k, where=where, all_windows=all_windows)

    def similar_to_file(
        self,
        sound: str,
        k: int = 10,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        where: str | None = None,
        all_windows: bool = False,
    ) -> list[Hit]:
        """As ``similar``, for an audio file from ``start_s`` to ``end_s``; however long, it is never held as a whole.

        Args:
            sound: a path, a URL, or the uri of a member of a shard; or a range of one, within which times are counted.

        Raises:
            FileFailure: the file cannot be decoded; ``out_of_range`` where it ends before ``start_s``.
        """
        from pipeline.audio.decode import open_audio
        from pipeline.audio.source import find

        self._table("clips")
        place, part, raw = find(sound)
        first, stop = part.narrow(start_s, end_s).samples
        with open_audio(place, self._decode_config, raw) as audio:
            return self.similar_to(audio.blocks(first, stop), k, where=where, all_windows=all_windows)

    def similar_to(
        self, blocks: Iterable[Waveform], k: int = 10, *, where: str | None = None, all_windows: bool = False
    ) -> list[Hit]:
        """As ``similar``, for samples that are 48 kHz mono float32 already, in blocks (n,) of any size."""
        clips = self._table("clips")
        query = self._embed_sound(blocks)
        return find_clips(clips, query, k=_check_k(k), where=where, all_windows=all_windows, measure="cosine")

    def locate(
        self,
        text: str,
        k: int = 10,
        *,
        threshold: float = 0.3,
        min_duration_s: float = 0.0,
        merge_gap_s: float = 0.2,
        where: str | None = None,
    ) -> list[Event]:
        """The ``k`` best events that fit ``text``, from and to in seconds, on a grid of 40 ms.

        Args:
            threshold: probability at which an event begins. min_duration_s: shorter ones are left out.
            merge_gap_s: events of one file that are at most this far apart are one.
            where: SQL over the columns of ``files``: only events in these files.

        Raises:
            UsageError: an empty text or index, an index without frames, an argument out of range, or a wrong ``where``.
        """
        rules = Rules(threshold, min_duration_s, merge_gap_s)
        if self.settings["frames"] == "none":
            raise UsageError(f"{self.path}: was built without frames, so nothing can be located; use `query`")
        frames = self._table("frames")
        query = self._embed_text(text, "frame_model")
        identity = self._identity("frame_model")
        levels = Levels.from_rules(rules, identity.logit_scale, identity.logit_bias)
        found = find_events(frames, self._open("files"), query, levels, _check_k(k), where)
        return [
            to_event(rank, holder, run, float(probability(run.score, identity)))
            for rank, (holder, run) in enumerate(found, start=1)
        ]

    def describe(self) -> dict[str, Any]:
        """Counts by status, rows, hours of indexed audio, models and their dimension."""
        files = self.to_arrow("files", columns=["status", "duration_s"])
        n_with = {status: pc.sum(pc.equal(files["status"], status)).as_py() or 0 for status in STATUSES}
        indexed = files.filter(pc.equal(files["status"], "indexed"))
        frame_model = self.settings["frame_model"]
        return {
            "files": files.num_rows - n_with["deleted"],
            **n_with,
            "clips": self._open("clips").count_rows(),
            "frames": self._open("frames").count_rows(),
            "with_note": self.notes().num_rows,
            "hours": (pc.sum(indexed["duration_s"]).as_py() or 0.0) / 3600,
            "clip_model": self.settings["clip_model"]["name"],
            "frame_model": frame_model and frame_model["name"],
            "dimension": self.settings["clip_model"]["dimension"],
            "metadata": {column.name: str(column.type) for column in self.metadata},
            "unfinished_rebuild": self._describe_rebuild(),
        }

    def notes(self) -> pa.Table:
        """What a person should know of indexed files: ``uri`` and ``note`` of those that have one."""
        if "note" not in self._open("files").schema.names:  # format 2 had no notes
            return schema.FILES.empty_table().select(["uri", "note"])
        return self.to_arrow("files", ["uri", "note"], "status = 'indexed' AND note IS NOT NULL")

    @property
    def metadata(self) -> pa.Schema:
        """The user's columns of ``files`` and ``clips``, and their types."""
        return schema.metadata_columns(self._open("files").schema)

    def _describe_rebuild(self) -> str | None:
        """How far a generation has come that is being made, or was begun and stopped."""
        begun = self._handle.refresh().find_next()
        if not begun.exists:
            return None
        n_files = begun.open("files").count_rows()
        return f"{n_files} files done; `--rebuild` goes on with it, deleting {begun.path} gives it up"

    def history(self) -> list[dict[str, Any]]:
        """What was published, oldest first; ``speed`` is seconds of audio per second, where audio was encoded."""
        rows = []
        for row in journal.read_journal(self.tables).to_pylist():
            if row["seq"] > self._live.seq:
                continue
            seconds = row["seconds"]
            rows.append(
                {
                    "batch": row["seq"],
                    "committed_at": row["committed_at"].isoformat(),
                    "kind": row["kind"],
                    "files": row["n_files"],
                    "failed": row["n_failed"],
                    "clips": row["n_clips"],
                    "frames": row["n_frames"],
                    "hours": row["audio_s"] / 3600,
                    "speed": journal.encoded_s(row) / seconds if seconds and row["audio_s"] else None,
                }
            )
        return rows

    def embed(self, text: str) -> npt.NDArray[np.float32]:
        """The embedding (D,) of ``text`` that clips are compared with."""
        return self._embed_text(text, "clip_model")

    def to_arrow(self, table: str = "clips", columns: list[str] | None = None, where: str | None = None) -> pa.Table:
        """Rows of ``files``, ``clips``, ``frames`` or ``batches`` as they were when the index was opened.

        Args:
            where: SQL over its columns.

        Raises:
            UsageError: there is no such table or column, or ``where`` is not valid.
        """
        if table == "batches":
            # The journal only grows, one ``seq`` after the other: what was published later is left out.
            rows = open_table(self.tables, table)
            where = f"seq <= {self._live.seq}" + (f" AND ({where})" if where else "")
        elif table in journal.DATA_TABLES:
            rows = self._open(table)
        else:
            raise UsageError(f"table {table!r}: expected {', '.join(journal.DATA_TABLES)} or batches")
        return read_rows(rows, columns, where)

    def _open(self, name: str) -> Any:
        return open_table(self.tables, name, self._live.versions[name])

    def _table(self, name: str) -> Any:
        """A table to search, which must have rows."""
        table = self._open(name)
        if table.count_rows() == 0:
            raise UsageError(
                f"{self.path}: nothing is indexed yet, so there is nothing to search; add files with `earshot index`,"
                f" or see `earshot failures {self.path}`"
            )
        return table

    @property
    def _decode_config(self) -> DecodeConfig:
        return DecodeConfig(**self.settings["decode"])

    def _embed_sound(self, blocks: Iterable[Waveform]) -> npt.NDArray[np.float32]:
        """The mean direction (D,) of the windows of a sound, of which a few at a time are held."""
        grid = WindowConfig(**self.settings["window"]).grid
        windows = (_check_finite(samples) for _, samples in cut_windows(blocks, grid))
        total, n_windows = np.zeros(self.settings["clip_model"]["dimension"]), 0
        while group := list(islice(windows, WINDOWS_AT_ONCE)):
            try:
                vectors, _ = self._audio_encoder.encode(group)
            except NonFiniteError:
                raise UsageError("the model gives no finite embedding for this sound") from None
            total += (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).sum(axis=0)
            n_windows += len(group)
            group.clear()  # before the next ones are cut
        if n_windows == 0:
            raise UsageError(f"the sound is shorter than one frame of {HOP_SAMPLES} samples at 48 kHz")
        return (total / n_windows).astype(np.float32)

    def _identity(self, which: str) -> ModelIdentity:
        return ModelIdentity.from_dict(self.settings[which])

    def _embed_text(self, text: str, which: str) -> npt.NDArray[np.float32]:
        if not text.strip():
            raise UsageError("the query is empty: say what to look for")
        vector: npt.NDArray[np.float32] = self._text_encoder(which).embed([text])[0]
        return vector

    @cached_property
    def _text_encoders(self) -> dict[ModelIdentity, "TextEncoder"]:
        return {}

    def _text_encoder(self, which: str) -> "TextEncoder":
        identity = self._identity(which)
        if identity not in self._text_encoders:
            self._check_model(identity, for_texts=True)
            self._text_encoders[identity] = load_text_encoder(identity.name, identity.revision)
        return self._text_encoders[identity]

    @cached_property
    def _audio_encoder(self) -> "AudioEncoder":
        identity = self._identity("clip_model")
        self._check_model(identity)
        config = EncodeConfig(clip_model=identity.name, clip_revision=identity.revision)
        return load_encoder(config, frames=False)

    def _check_model(self, identity: ModelIdentity, *, for_texts: bool = False) -> None:
        """The model must still be the one that made the vectors. Sounds do not need its tokenizer."""
        now = read_identity(identity.name, identity.revision)
        if now.checksum != identity.checksum:
            raise IndexMismatch(
                f"{self.path}: built with other weights than {identity.name} now has; restore the model"
            )
        if for_texts and identity.tokenizer and now.tokenizer != identity.tokenizer:
            raise IndexMismatch(
                f"{self.path}: built with another tokenizer than {identity.name} now has, so words would be read"
                " otherwise; its weights are the same; restore its tokenizer's files"
            )


MAX_CHANNELS = 256


def _check_k(k: int) -> int:
    if k < 1:
        raise UsageError(f"-k: {k} is less than 1")
    return k


def _check_waveform(waveform: Any, sample_rate_hz: int) -> npt.NDArray[Any]:
    samples = np.asarray(waveform)
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.number):
        raise UsageError(
            f"the waveform has shape {samples.shape} of {samples.dtype}: give numbers (n,) or (n, channels)"
        )
    if samples.ndim == 2 and samples.shape[1] > max(samples.shape[0], MAX_CHANNELS):
        raise UsageError(f"the waveform is {samples.shape}: give (n, channels), its transpose")
    if not sample_rate_hz > 0:
        raise UsageError(f"sample_rate_hz: {sample_rate_hz} is not a rate")
    return samples


def _check_finite(samples: Waveform) -> Waveform:
    if not np.isfinite(samples).all():
        raise UsageError("the sound has NaN or infinite samples")
    return samples


def _with_probability(hit: Hit, chance: float) -> Hit:
    return replace(hit, probability=chance)
