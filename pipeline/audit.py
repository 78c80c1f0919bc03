"""The tables of an index in, what is wrong with them out. Nothing is changed here.

What is published is compared with what the time grid, the ledger and the journal demand. Frames are read as a
stream; what is held in memory is one entry for each file and each audio.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import journal, schema, store
from pipeline.claim import is_held
from pipeline.collect import clip_rows
from pipeline.config import WindowConfig
from pipeline.journal import Published
from pipeline.ranges import split_uri
from pipeline.window import count_frames, seconds_to_samples

Row = dict[str, Any]

ROWS_AT_ONCE = 65_536

MAX_DURATION_S = 1e9

MIN_COSINE = 0.999
"""Of a vector to the same one encoded again, stored in float16, maybe in another precision."""


@dataclass(frozen=True)
class Finding:
    """Something wrong: in which table, what, and whose rows must be made anew to mend it.

    ``file_id`` and ``audio_id`` name rows of a file or of an audio; both are None for what no file can mend.
    """

    table: str
    what: str
    file_id: str | None = None
    audio_id: str | None = None
    uri: str | None = None


def audit(path: str) -> list[Finding]:
    """Everything that is wrong with the index at ``path`` as it is published.

    A run extends the indexes when it ends: while one writes, it is not asked which rows they cover.

    Raises:
        IndexMissing: there is no index.
    """
    state = journal.read_state(path)
    is_written = is_held(path)
    path, settings, published = state.tables, state.settings, state.published
    grid = WindowConfig(**settings["window"]).grid
    files = store.open_published(path, "files", published).to_table().to_pylist()
    findings = list(_check_files(files, with_frames=settings["frames"] == "all"))
    findings += _check_journal(path, files, published)
    findings += _check_clips(path, files, published, grid)
    findings += _check_frames(path, files, published)
    findings += _check_batches(path, published)
    if not is_written:
        findings += _check_indexes(path, published)
    return findings


def _check_files(files: list[Row], *, with_frames: bool) -> Iterator[Finding]:
    uris: set[str] = set()
    for row in files:
        own = {"file_id": row["file_id"], "audio_id": row["audio_id"], "uri": row["uri"]}
        if row["uri"] in uris:
            yield Finding("files", "a second row for one uri", **own)
        uris.add(row["uri"])
        if row["file_id"] != schema.make_file_id(row["uri"], row["audio_id"]):
            yield Finding("files", "file_id is not that of uri and audio_id", **own)
        if row["status"] not in ("indexed", "failed", "deleted"):
            yield Finding("files", f"status {row['status']!r} is unknown", **own)
        elif row["status"] == "indexed":
            if row["audio_id"] not in _audio_ids(row):
                yield Finding("files", "audio_id is not that of the content hash", **own)
            if not _is_duration(row["duration_s"]):
                yield Finding("files", f"duration_s is {row['duration_s']}", **own)
                continue
            n_frames = count_frames(seconds_to_samples(row["duration_s"]))
            if with_frames and row["n_frames"] != n_frames:
                yield Finding("files", f"n_frames is {row['n_frames']}, its duration demands {n_frames}", **own)
        elif (row["n_clips"], row["n_frames"]) != (0, 0):
            yield Finding("files", f"{row['status']}, and counts clips or frames", **own)
        elif row["status"] == "failed" and not (row["stage"] and row["reason"]):
            yield Finding("files", "failed without a stage or a reason", **own)


def _audio_ids(row: Row) -> set[str]:
    """What the id of an indexed content may be: a file may have the name of a range."""
    parts = {"", str(split_uri(row["uri"])[1])}
    return {schema.make_audio_id(row["content_hash"], part) for part in parts} if row["content_hash"] else set()


def _is_duration(value: float | None) -> bool:
    return value is not None and 0 < value < MAX_DURATION_S


def _check_journal(path: str, files: list[Row], published: Published) -> Iterator[Finding]:
    rows = journal.read_journal(path)
    seqs = rows["seq"].to_pylist()
    if seqs != list(range(len(seqs))):
        yield Finding("batches", "seq does not count from 0 without a gap: only a copy of the index can mend that")
    known = set(rows["batch_id"].to_pylist())
    for row in files:
        if row["batch_id"] not in known:
            yield Finding("files", "its batch is not in the journal", row["file_id"], row["audio_id"], row["uri"])
    for name, version in published.versions.items():
        latest = store.latest_version(path, name)
        if latest < version:
            yield Finding(name, f"its newest version is {latest}, the journal names {version}")


def _check_batches(path: str, published: Published) -> Iterator[Finding]:
    """Whether the batches that wrote the clips and frames are in the journal."""
    known = pa.array(journal.read_journal(path)["batch_id"].unique())
    for name, owner in (("clips", "file_id"), ("frames", "audio_id")):
        strange: set[str] = set()
        table = store.open_published(path, name, published)
        for batch in table.to_batches(columns=[owner, "batch_id"], batch_size=ROWS_AT_ONCE):
            is_known = pc.is_in(batch["batch_id"], known)
            if not pc.all(is_known).as_py():
                strange |= set(batch[owner].filter(pc.invert(is_known)).to_pylist())
        for each in sorted(strange):
            yield Finding(name, "its batch is not in the journal", **{owner: each})


def _check_clips(path: str, files: list[Row], published: Published, grid: Any) -> Iterator[Finding]:
    clips = store.open_published(path, "clips", published)
    metadata = schema.metadata_columns(store.open_published(path, "files", published).schema)
    if not metadata.equals(schema.metadata_columns(clips.schema)):
        yield Finding("clips", "its metadata columns are not those of `files`: only a copy of the index can mend that")
        metadata = pa.schema([])
    found: dict[str, list[tuple[str, str, float, float, int]]] = defaultdict(list)
    broken: set[str] = set()
    ids, about = (
        ("clip_id", "audio_id", "start_s", "end_s"),
        ("uri", "duration_s", "sample_rate_hz", "channels", "codec", *metadata.names),
    )
    columns = ["file_id", *ids, *about, "vector"]
    for batch in clips.to_batches(columns=columns, batch_size=ROWS_AT_ONCE):
        file_ids = batch["file_id"].to_pylist()
        values = zip(*(batch[name].to_pylist() for name in ids), strict=True)
        others = zip(*(batch[name].to_pylist() for name in about), strict=True)
        for file_id, value, other in zip(file_ids, values, others, strict=True):
            found[file_id].append((*value, hash(other)))
        broken |= {file_ids[i] for i in np.flatnonzero(~_finite(batch["vector"]))}
    for row in files:
        rows = sorted(found.pop(row["file_id"], []), key=lambda clip: clip[2])
        own = (row["file_id"], row["audio_id"], row["uri"])
        if row["status"] == "indexed" and not _is_duration(row["duration_s"]):
            continue
        known = {name: row[name] for name in metadata.names}
        expected = [] if row["status"] != "indexed" else [clip | known for clip in clip_rows(row, grid)]
        wanted = [(*(clip[name] for name in ids), hash(tuple(clip[name] for name in about))) for clip in expected]
        if [clip[:-1] for clip in rows] == [clip[:-1] for clip in wanted] and rows != wanted:
            yield Finding("clips", f"{', '.join(about)}: not all are those of its ledger row", *own)
        elif rows != wanted:
            yield Finding("clips", f"{len(rows)} rows where its duration demands {len(wanted)} certain ones", *own)
        elif row["n_clips"] != len(rows):
            yield Finding("files", f"n_clips is {row['n_clips']}, there are {len(rows)}", *own)
        if row["file_id"] in broken:
            yield Finding("clips", "a vector is not finite", *own)
    for file_id, rows in found.items():
        yield Finding("clips", f"{len(rows)} rows of no file", file_id)


def _check_frames(path: str, files: list[Row], published: Published) -> Iterator[Finding]:
    wanted = {row["audio_id"]: row for row in files if row["status"] == "indexed" and row["n_frames"]}
    runs: dict[str, list[tuple[int, int]]] = defaultdict(list)
    broken: set[str] = set()
    frames = store.open_published(path, "frames", published)
    for batch in frames.to_batches(columns=["audio_id", "frame", "start_s", "vector"], batch_size=ROWS_AT_ONCE):
        for audio_id, first, stop in _runs(batch):
            spans = runs[audio_id]
            if spans and spans[-1][1] == first:
                spans[-1] = (spans[-1][0], stop)
            else:
                spans.append((first, stop))
        wrong = ~_finite(batch["vector"]) | (
            np.abs(_numbers(batch, "start_s") - _numbers(batch, "frame") * 0.04) > 1e-9
        )
        broken |= {batch["audio_id"][int(i)].as_py() for i in np.flatnonzero(wrong)}
    for audio_id, row in wanted.items():
        own = (row["file_id"], audio_id, row["uri"])
        if (spans := runs.pop(audio_id, [])) != [(0, row["n_frames"])]:
            yield Finding("frames", f"frames {_show(spans)} where 0 to {row['n_frames'] - 1} are due, once", *own)
        elif audio_id in broken:
            yield Finding("frames", "a vector is not finite, or a time is wrong", *own)
    for audio_id, spans in runs.items():
        yield Finding("frames", f"frames {_show(spans)} of no file", audio_id=audio_id)


def _runs(batch: pa.RecordBatch) -> Iterator[tuple[str, int, int]]:
    """(audio_id, first, stop) of consecutive rows that count on by one within an audio."""
    if batch.num_rows == 0:
        return
    audios, frame = batch["audio_id"], _numbers(batch, "frame").astype(np.int64)
    codes = pc.dictionary_encode(audios).indices.to_numpy()
    edges = np.flatnonzero((np.diff(codes) != 0) | (np.diff(frame) != 1)) + 1
    for first, stop in zip([0, *edges], [*edges, batch.num_rows], strict=True):
        yield audios[int(first)].as_py(), int(frame[first]), int(frame[stop - 1]) + 1


def _show(spans: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{first} to {stop - 1}" for first, stop in spans[:3])
    return (shown or "none") + (", ..." if len(spans) > 3 else "")


def _check_indexes(path: str, published: Published) -> Iterator[Finding]:
    for name, columns in store.SCALAR_INDEXES.items():
        table = store.open_published(path, name, published)
        if table.count_rows() == 0:
            continue
        existing = {index.name for index in table.describe_indices()}
        for index in sorted(existing | {f"{column}_idx" for column in columns}):
            if index not in existing:
                yield Finding(name, f"no index on {index.removesuffix('_idx')}")
            elif n_rows := table.stats.index_stats(index).get("num_unindexed_rows", 0):
                yield Finding(name, f"the index on {index.removesuffix('_idx')} leaves out {n_rows} rows")


def _finite(vectors: pa.Array) -> Any:
    """(n,) bool: whether all numbers of a vector are."""
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return np.isfinite(flat.reshape(-1, vectors.type.list_size)).all(axis=1)


def _numbers(batch: pa.RecordBatch, name: str) -> Any:
    return batch[name].to_numpy(zero_copy_only=False)


def compare(path: str, n_files: int, encoder: Any, seed: int = 0) -> list[Finding]:
    """Decode and encode a sample of files again, and compare with what is stored.

    Args:
        encoder: as ``encode.AudioEncoder``, of the models of the index.
    """
    from pipeline.config import DecodeConfig
    from pipeline.decode import hash_file, open_audio
    from pipeline.errors import FileFailure
    from pipeline.read import find
    from pipeline.window import cut_windows

    state = journal.read_state(path)
    path, settings, published = state.tables, state.settings, state.published
    indexed = store.open_published(path, "files", published).to_table(filter="status = 'indexed'").to_pylist()
    indexed.sort(key=lambda row: str(row["uri"]))
    chosen = np.random.default_rng(seed).permutation(len(indexed))[:n_files]
    findings = []
    for row in (indexed[i] for i in sorted(chosen)):
        own = (row["file_id"], row["audio_id"], row["uri"])
        clips = _vectors(path, "clips", published, f"file_id = '{row['file_id']}'", "start_s")
        frames = _vectors(path, "frames", published, f"audio_id = '{row['audio_id']}'", "frame")
        worst = 1.0
        try:
            place, part = find(row["uri"])
            if schema.make_audio_id(hash_file(place), str(part)) != row["audio_id"]:
                said = "the file has other bytes now, and its size and time are the same: reindex --check content"
                findings.append(Finding("files", said, uri=row["uri"]))
                continue
            with open_audio(place, DecodeConfig(**settings["decode"])) as audio:
                for n, (span, samples) in enumerate(
                    cut_windows(audio.blocks(*part.samples), WindowConfig(**settings["window"]).grid)
                ):
                    [clip], heard = encoder.encode([samples])
                    worst = min(worst, _cosine(clip, clips[n]))
                    if heard is not None and len(frames):
                        mine = heard[0][span.own_first - span.first : span.own_stop - span.first]
                        pairs = zip(mine, frames[span.own_first : span.own_stop], strict=True)
                        worst = min([worst, *(_cosine(one, other) for one, other in pairs)])
        except (FileFailure, IndexError, ValueError) as error:
            said = f"cannot be compared: {' '.join(str(error).split())}"
            findings.append(Finding("files", said, uri=row["uri"]))  # it says nothing of the rows: they stay
            continue
        if worst < MIN_COSINE:
            findings.append(
                Finding("clips", f"encoded again, a vector has a cosine of {worst:.4f} to the stored one", *own)
            )
    return findings


def _vectors(path: str, name: str, published: Published, where: str, order: str) -> Any:
    rows = store.open_published(path, name, published).to_table(columns=[order, "vector"], filter=where).sort_by(order)
    return np.array(rows["vector"].to_pylist(), np.float32)


def _cosine(one: Any, other: Any) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))
