"""Exact answers within a sample of the clips of an index: files are drawn, or parts of long ones, and all questions are
answered from their clips. The counterpart of ``sample``, which is about frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.index.tables import among, indexed_files, to_matrix
from pipeline.search.audit import ExactAnswer, Found
from pipeline.search.clips import Measure
from pipeline.search.sample import BLOCK_UNITS, BestAnswers, Integers, Matrix, draw_parts
from pipeline.search.scores import cosines, dot_products, to_direction

PART_CLIPS = 1_000
"""Longer files are drawn in parts of about so many clips, three hours."""

BLOCK_CLIPS = 16_384


@dataclass(frozen=True)
class ClipSample:
    """Clips of the drawn files: ids, the number of the audio of each, and vectors (n, D)."""

    clip_ids: list[str]
    audios: Integers
    vectors: npt.NDArray[np.float16]
    n_audios: int


def draw_clips(files: Any, clips: Any, max_clips: int, rng: np.random.Generator) -> ClipSample:
    """All clips of drawn files, and of drawn parts of long ones, about ``max_clips``; each has the same probability.

    Args:
        files, clips: tables, ``lance.LanceDataset``.
    """
    columns = ["file_id", "audio_id", "n_clips", "duration_s"]
    rows = files.to_table(columns=columns, filter=indexed_files("n_clips > 0"))
    n_clips = rows["n_clips"].to_numpy().astype(np.int64)
    numbers, parts = draw_parts(n_clips, PART_CLIPS, max_clips, rng)
    drawn, n_parts = rows.take(pa.array(numbers)), -(-n_clips[numbers] // PART_CLIPS)
    is_all = len(numbers) == (-(-n_clips // PART_CLIPS)).sum()
    filters = [None] if is_all else _filter_clips(drawn, parts.tolist(), n_parts.tolist())
    tables = [clips.to_table(columns=["clip_id", "audio_id", "vector"], filter=each) for each in filters]
    found = pa.concat_tables(tables)
    audio_ids = drawn["audio_id"].unique()
    audios = pc.index_in(found["audio_id"], audio_ids).to_numpy().astype(np.int64)
    return ClipSample(found["clip_id"].to_pylist(), audios, to_matrix(found["vector"]), len(audio_ids))


def _filter_clips(files: pa.Table, parts: list[int], n_parts: list[int]) -> list[str]:
    """Filters of clips: whole files, many together, and then the parts of files that are drawn in several."""
    ids, durations = files["file_id"].to_pylist(), files["duration_s"].to_pylist()
    whole = [file_id for file_id, n in zip(ids, n_parts, strict=True) if n == 1]
    filters = [among("file_id", whole[at : at + BLOCK_UNITS]) for at in range(0, len(whole), BLOCK_UNITS)]
    for file_id, duration_s, part, n in zip(ids, durations, parts, n_parts, strict=True):
        if n > 1:
            first_s, stop_s = (duration_s * number / n for number in (part, part + 1))
            before_stop = f" AND start_s < {stop_s!r}" if part < n - 1 else ""
            filters.append(f"file_id = '{file_id}' AND start_s >= {first_s!r}{before_stop}")
    return filters


def exact_clips(
    sample: ClipSample,
    questions: Matrix,
    keep: int,
    *,
    left_out: Sequence[npt.NDArray[np.int64]] | None = None,
    measure: Measure = "dot",
) -> list[ExactAnswer]:
    """The best clips of each question (Q, D) in the sample by the measure; overlapping windows are not folded.

    Args:
        left_out: for each question, the numbers of the audios whose clips do not count: those that it was made of.
    """
    best = [BestAnswers(keep) for _ in questions]
    score = dot_products if measure == "dot" else cosines
    turned = np.ascontiguousarray((questions if measure == "dot" else to_direction(questions)).T)
    for begin in range(0, len(sample.clip_ids), BLOCK_CLIPS):
        vectors = sample.vectors[begin : begin + BLOCK_CLIPS]
        scores = (vectors.astype(np.float32) if measure == "dot" else to_direction(vectors)) @ turned
        n_best = min(keep + 1, len(scores))
        for number, (question, each) in enumerate(zip(questions, best, strict=True)):
            column = scores[:, number]
            if left_out is not None:
                column[np.isin(sample.audios[begin : begin + len(column)], left_out[number])] = -np.inf
            rows = np.argpartition(-column, n_best - 1)[:n_best]
            rows = rows[(column[rows] >= each.floor) & np.isfinite(column[rows])]
            for row, exact in zip((begin + rows).tolist(), score(vectors[rows], question).tolist(), strict=True):
                each.add(Found(sample.clip_ids[row], 0, 1, exact), int(sample.audios[row]))
    return [each.answer() for each in best]
