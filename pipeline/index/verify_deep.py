"""Files of an index are encoded again and compared with their stored vectors. Nothing is changed.

This finds what no checksum can: vectors that were wrong when they were written, and audio that changed without a new
size or mtime. It takes as long as indexing these files did, so usually a sample is compared, another one each time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline import schema
from pipeline.audio.decode import open_audio
from pipeline.audio.decoder_versions import Look, find_look
from pipeline.audio.looks import decodes_as_before
from pipeline.audio.source import hash_file, resolve_uri
from pipeline.audio.windows import cut_windows
from pipeline.config import DecodeConfig, WindowConfig
from pipeline.errors import FileFailure
from pipeline.index import journal
from pipeline.index.findings import Finding, ids_of
from pipeline.index.handle import Generation
from pipeline.index.tables import to_matrix
from pipeline.schema import Row
from pipeline.words import count

MAX_DISTANCE = {"float32": 0.004, "bfloat16": 0.045}
"""How far a vector may be from the same one encoded again, as a fraction of its length. In float32 both times, rounding
to float16 is most of it: up to 0.0005 for each number. With bfloat16 on either side, a cosine of 0.999 passes."""


ROWS_HELD = 20_000
"""Vectors of a file in memory at a time: 40 MB of 1,024 numbers."""


@dataclass(frozen=True)
class Comparison:
    """The findings, how many files were compared, and how many are indexed.

    ``n_corrected`` were not compared: they may decode differently since a correction, which is no damage.
    """

    findings: list[Finding]
    n_compared: int
    n_indexed: int
    n_corrected: int = 0


def compare(live: Generation, encoder: Any, n_files: int | None = 10, seed: int | None = None) -> Comparison:
    """Decode and encode files again, and compare them with the stored vectors.

    Args:
        live: the published tables of an index.
        encoder: as ``encode.AudioEncoder``, of the models of the index.
        n_files: how many to compare, drawn at random; None: all.
        seed: of that draw; None: another one each time.
    """
    files = live.read_files()
    indexed = files.filter(pc.equal(files["status"], "indexed")).sort_by("uri")
    n_indexed = indexed.num_rows
    chosen = np.arange(n_indexed)
    if n_files is not None:
        chosen = np.sort(np.random.default_rng(seed).permutation(n_indexed)[:n_files])
    batches = journal.read_journal(live.path).select(["batch_id", "precision"]).to_pylist()
    precisions = {row["batch_id"]: row["precision"] for row in batches}
    findings: list[Finding] = []
    n_compared = n_corrected = 0
    for number in chosen.tolist():
        [row] = indexed.slice(number, 1).to_pylist()
        findings += _compare_pools(live, row)
        if not _decodes_as_before(live, row):
            n_corrected += 1
            continue
        try:
            findings += _compare_file(live, row, encoder, precisions)
            n_compared += 1
        except (FileFailure, IndexError, ValueError) as error:
            said = f"cannot be compared: {' '.join(str(error).split())}"
            findings.append(Finding("files", said, uri=row["uri"]))  # its rows may be right: they stay
    return Comparison(findings, n_compared, n_indexed, n_corrected)


def _decodes_as_before(live: Generation, row: Row) -> bool:
    """Whether the vectors of a file must be those of its sound: no correction since may concern it."""
    look = find_look(row)
    if look is None:
        return True
    try:
        place, time_range, raw = resolve_uri(row["uri"])
        if schema.make_audio_id(hash_file(place), str(time_range), str(raw or "")) != row["audio_id"]:
            return True  # comparing tells it
        if look >= Look.LENGTH:  # only a run decodes all of it to find out
            return False
        return decodes_as_before(place, DecodeConfig(**live.settings["decode"]), raw, look, row["note"])
    except FileFailure:  # comparing meets it again, and tells it
        return True


def _compare_file(live: Generation, row: Row, encoder: Any, precisions: dict[str, str | None]) -> list[Finding]:
    """What is wrong with the vectors of one file. Raises IndexError or ValueError if it has other windows now."""
    own, (place, time_range, raw) = ids_of(row), resolve_uri(row["uri"])
    if schema.make_audio_id(hash_file(place), str(time_range), str(raw or "")) != row["audio_id"]:
        said = "the file has other bytes now, and its size and time are the same: reindex --check content"
        return [Finding("files", said, uri=row["uri"])]
    clips = Stored(live, "clips", f"file_id = '{row['file_id']}'", "start_s")
    frames = Stored(live, "frames", f"audio_id = '{row['audio_id']}'", "frame")
    worst_clip = worst_frame = 0.0
    n_windows = n_frames = 0
    with open_audio(place, DecodeConfig(**live.settings["decode"]), raw) as audio:
        grid = WindowConfig(**live.settings["window"]).grid
        for number, (span, samples) in enumerate(cut_windows(audio.blocks(*time_range.samples), grid)):
            clip, heard = encoder.encode([samples])
            worst_clip = max(worst_clip, _distance(clip, clips.read(number, number + 1)))
            if heard is not None and row["n_frames"]:
                mine = heard[0][span.own_first - span.first : span.own_stop - span.first]
                worst_frame = max(worst_frame, _distance(mine, frames.read(span.own_first, span.own_stop)))
            n_windows, n_frames = number + 1, span.own_stop
    if n_windows != row["n_clips"] or (row["n_frames"] and n_frames != row["n_frames"]):
        found = f"{count(n_windows, 'clip')} and {count(n_frames, 'frame')}"
        said = f"decoded again, it has {found}, not {row['n_clips']} and {row['n_frames']}"
        return [Finding("files", said, **own)]
    return [
        Finding(name, f"encoded again, a vector is {worst:.2%} of its length away; {allowed:.2%} is allowed", **own)
        for name, worst, stored in (("clips", worst_clip, clips), ("frames", worst_frame, frames))
        if worst > (allowed := MAX_DISTANCE[stored.coarsest(precisions, encoder.precision)])
    ]


def _compare_pools(live: Generation, row: Row) -> list[Finding]:
    """What is wrong with the vectors of the pools of one file: each is the mean of its frames, as they are stored."""
    if "pools" not in live.versions or not row["n_frames"]:
        return []
    where = f"audio_id = '{row['audio_id']}'"
    pools = live.open("pools").to_table(["first_frame", "n_frames", "vector"], filter=where).sort_by("first_frame")
    frames = Stored(live, "frames", where, "frame")
    for first, n, vector in zip(
        pools["first_frame"].to_pylist(), pools["n_frames"].to_pylist(), to_matrix(pools["vector"]), strict=True
    ):
        own = frames.read(first, first + n).astype(np.float32)
        off = np.linalg.norm(own.mean(axis=0) - vector.astype(np.float32))
        if off > MAX_DISTANCE["float32"] * np.linalg.norm(own, axis=1).max():
            return [Finding("pools", f"the vector from frame {first} on is not the mean of its frames", **ids_of(row))]
    return []


class Stored:
    """The vectors of a file or of its audio, in order of time. About ``n_held`` of them are in memory at a time."""

    def __init__(self, live: Generation, name: str, where: str, order: str, n_held: int = ROWS_HELD) -> None:
        self._n_held = n_held
        self._table = live.open(name)
        self._where, self._order = where, order
        times = self._table.to_table(columns=[order, "batch_id"], filter=where).sort_by(order)
        self._times = times[order].combine_chunks()
        self._batch_ids = set(times["batch_id"].unique().to_pylist())
        self._first, self._held = 0, np.empty((0, 0), np.float16)

    def read(self, first: int, stop: int) -> npt.NDArray[np.float16]:
        """The vectors (n, D) from ``first`` to ``stop`` - 1; fewer where the table ends before."""
        if not self._first <= first <= stop <= self._first + len(self._held):
            times = self._times.slice(first, max(stop - first, self._n_held))
            if not len(times):
                return np.empty((0, 0), np.float16)
            span = f"{self._order} >= {times[0].as_py()} AND {self._order} <= {times[-1].as_py()}"
            rows = self._table.to_table(columns=[self._order, "vector"], filter=f"{self._where} AND {span}")
            self._first, self._held = first, to_matrix(rows.sort_by(self._order)["vector"])
        return self._held[first - self._first : stop - self._first]

    def coarsest(self, precisions: dict[str, str | None], now: str) -> str:
        """``float32`` if they were encoded in it and ``now`` is the same, else ``bfloat16``."""
        used = {now, *(precisions.get(batch_id) for batch_id in self._batch_ids)}
        return "float32" if used == {"float32"} else "bfloat16"


def _distance(vectors: Any, stored: npt.NDArray[np.float16]) -> float:
    """The largest distance between a vector and its stored one, as a fraction of the stored one's length."""
    if len(vectors) != len(stored):
        raise ValueError(f"it has {count(len(vectors), 'row')} where the index has {len(stored)}")
    then = stored.astype(np.float32)
    lengths = np.maximum(np.linalg.norm(then, axis=1), 1e-12)
    return float((np.linalg.norm(vectors.astype(np.float32) - then, axis=1) / lengths).max(initial=0.0))
