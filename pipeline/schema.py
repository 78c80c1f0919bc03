"""The Arrow schemas of all tables, and the rules that make ids.

Some tables are stored: the five tables of an index, and the marks beside them. The others travel between the stages of
a run.
"""

import hashlib
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
"""A row of one of the tables: column -> value."""

ID = pa.string()
"""Ids are 32 lower-case hexadecimal digits, 128 bits of SHA-256."""


def without(table: pa.Schema, *names: str) -> pa.Schema:
    """A schema without these columns."""
    return pa.schema([column for column in table if column.name not in names])


# --- ids --------------------------------------------------------------------------------------------------------------


def digest(*parts: str) -> str:
    """128 bits of SHA-256 over ``parts``. Their boundaries count: ("ab", "c") differs from ("a", "bc")."""
    text = "\0".join(f"{len(part.encode())}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_audio_id(content_hash: str, time_range: str = "", raw: str = "") -> str:
    """Identity of an audio content: equal bytes have the same id wherever they lie (``corpus_file.identify_audio``).

    Args:
        time_range: ``str`` of their ``TimeRange``; empty for all of the bytes.
        raw: ``str`` of their ``RawFormat``; empty if they have a header.
    """
    return digest("audio", content_hash, *(text for text in (time_range, raw) if text))


def make_file_id(uri: str, audio_id: str | None) -> str:
    """Identity of a file: a content at a place. ``audio_id`` is None if the bytes were never read."""
    return digest("file", uri, audio_id or "")


def make_batch_id(run_id: str, number: int) -> str:
    """Identity of a batch: the run that writes it, and its number in that run."""
    return digest("batch", run_id, str(number))


def make_clip_id(file_id: str, first_frame: int) -> str:
    """Identity of a clip: the window of a file that begins with ``first_frame``."""
    return digest("clip", file_id, str(first_frame))


def make_mark_id(row: Row) -> str:
    """Identity of a row of MARKS: everything that it says. What is said twice has one id."""
    said = (row[name] for name in MARKS.names if name not in ("mark_id", "marked_at", "uri"))
    return digest("mark", row["marked_at"].isoformat(), *("" if value is None else str(value) for value in said))


# --- stored tables ----------------------------------------------------------------------------------------------------

FILES = pa.schema(
    [
        pa.field("file_id", ID, nullable=False),
        pa.field("audio_id", ID),  # null where the bytes could not be read
        pa.field("uri", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # indexed, failed, deleted
        pa.field("stage", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("duration_s", pa.float64()),  # what was decoded
        pa.field("expected_duration_s", pa.float64()),  # what the header promises
        pa.field("sample_rate_hz", pa.int32()),
        pa.field("channels", pa.int32()),
        pa.field("codec", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("modified_ns", pa.int64()),
        pa.field("content_hash", pa.string()),  # SHA-256 of the bytes, hexadecimal
        pa.field("n_clips", pa.int32(), nullable=False),
        pa.field("n_frames", pa.int32(), nullable=False),
        pa.field("batch_id", ID, nullable=False),
        # Since format 3; null in rows that an older version wrote.
        pa.field("decoder", pa.int32()),  # version of the decoder (``decoder_versions``); null: 1
        pa.field("note", pa.string()),  # a remark about an indexed file, for a person
        pa.field("clips_checksum", pa.int64()),  # of its clips (``index.checksum``)
        pa.field("frames_checksum", pa.int64()),  # of the frames of its audio
    ]
)


FILES_SINCE = {3: ("decoder", "note", "clips_checksum", "frames_checksum")}
"""The columns that each format of an index has added to ``files``. They are nullable, and at least two: a single one
could not be told from a user's column of its name and type."""


def clips_schema(dimension: int) -> pa.Schema:
    """``clips``: one row per window of a file; ``vector`` is float16 [dimension]."""
    return pa.schema(
        [
            pa.field("clip_id", ID, nullable=False),
            pa.field("file_id", ID, nullable=False),
            pa.field("audio_id", ID, nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("start_s", pa.float64(), nullable=False),
            pa.field("end_s", pa.float64(), nullable=False),
            pa.field("duration_s", pa.float64(), nullable=False),  # of the whole file
            pa.field("sample_rate_hz", pa.int32(), nullable=False),
            pa.field("channels", pa.int32(), nullable=False),
            pa.field("codec", pa.string(), nullable=False),
            pa.field("batch_id", ID, nullable=False),
            pa.field("vector", pa.list_(pa.float16(), dimension), nullable=False),
        ]
    )


BEGINS = "begins"


def frames_schema(dimension: int) -> pa.Schema:
    """``frames``: one row per 40 ms of audio content, in order; ``vector`` is float16 [dimension]."""
    return pa.schema(
        [
            pa.field("audio_id", ID, nullable=False),
            pa.field("frame", pa.int32(), nullable=False),
            pa.field("start_s", pa.float64(), nullable=False),
            pa.field("batch_id", ID, nullable=False),
            pa.field("vector", pa.list_(pa.float16(), dimension), nullable=False),
            # ``audio_id`` in the row of frame 0, else null: its index finds where an audio begins. It comes with the
            # table ``pools``, which tables from before format 4 get later (``index.backfill``).
            pa.field(BEGINS, ID),
        ]
    )


def has_pools(frames: pa.Schema) -> bool:
    """Whether an index with this table of frames has a table of pools."""
    return BEGINS in frames.names


def pools_schema(dimension: int) -> pa.Schema:
    """``pools``: one row per run of like frames of an audio; ``vector`` is their mean, float16 [dimension]."""
    return pa.schema(
        [
            pa.field("audio_id", ID, nullable=False),
            pa.field("first_frame", pa.int32(), nullable=False),
            pa.field("n_frames", pa.int32(), nullable=False),
            pa.field("batch_id", ID, nullable=False),
            pa.field("vector", pa.list_(pa.float16(), dimension), nullable=False),
        ]
    )


RESERVED = frozenset(FILES.names) | frozenset(clips_schema(1).names)
"""Earshot's own columns of ``files`` and ``clips``. All other columns of these tables are users' metadata."""


def metadata_columns(table: pa.Schema) -> pa.Schema:
    """The metadata columns of ``files`` or ``clips``."""
    return pa.schema([pa.field(column.name, column.type) for column in table if column.name not in RESERVED])


PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
"""Field metadata that makes two concurrent inserts of one key conflict in Lance."""

BATCHES = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False, metadata=PRIMARY_KEY),
        pa.field("batch_id", ID, nullable=False),
        pa.field("run_id", ID, nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # create, configure, index, maintain, ...
        pa.field("committed_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("files_version", pa.int64(), nullable=False),
        pa.field("clips_version", pa.int64(), nullable=False),
        pa.field("frames_version", pa.int64(), nullable=False),
        pa.field("n_files", pa.int64(), nullable=False),
        pa.field("n_failed", pa.int64(), nullable=False),
        pa.field("n_clips", pa.int64(), nullable=False),
        pa.field("n_frames", pa.int64(), nullable=False),
        pa.field("audio_s", pa.float64(), nullable=False),
        pa.field("seconds", pa.float64()),  # time that the run spent on decoding and encoding it
        pa.field("precision", pa.string()),
        pa.field("detail", pa.string(), nullable=False),  # JSON: of `create`, the settings of the index
        # Since format 4; null where there are no pools: of an index without frames, or an older one.
        pa.field("pools_version", pa.int64()),
    ]
)

MARKS = pa.schema(
    [
        pa.field("mark_id", ID, nullable=False, metadata=PRIMARY_KEY),
        pa.field("audio_id", ID, nullable=False),
        pa.field("first_frame", pa.int32(), nullable=False),
        pa.field("stop_frame", pa.int32(), nullable=False),  # the one behind the last
        pa.field("text", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),  # right, wrong, unsure; none: taken back
        pa.field("who", pa.string(), nullable=False),
        pa.field("marked_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("score", pa.float64()),  # that the search gave at that time
        pa.field("uri", pa.string(), nullable=False),  # the file that was marked then, for display
    ]
)
"""``marks``: one row per judgement of a person, which no run writes or deletes. Of the rows with the same audio, frames
and text, the newest one counts."""

# --- tables that travel between stages --------------------------------------------------------------------------------

LISTED = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("start_s", pa.float64()),  # within the recording that the uri names; null: its start
        pa.field("end_s", pa.float64()),  # null: its end
        pa.field("size_bytes", pa.int64(), nullable=False),  # of rows of Parquet files: an estimate
        pa.field("modified_ns", pa.int64(), nullable=False),  # of a member: that of its shard
        pa.field("offset", pa.int64()),  # in its shard: first byte, or number of the row; null: not in a shard
        # Why the file cannot be listed properly; null: it can.
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("hides_files", pa.bool_()),  # true: a folder or shard whose files could not be listed
    ]
)
"""corpus -> plan: the files of a corpus, no audio opened."""

AUDIO = pa.struct(
    [
        pa.field("content_hash", pa.string()),  # null: hash it while reading
        pa.field("start_s", pa.float64()),  # as in LISTED
        pa.field("end_s", pa.float64()),
        pa.field("size_bytes", pa.int64()),  # as in LISTED
        pa.field("estimated_s", pa.float64()),  # its duration, estimated from size and extension
        pa.field("uris", pa.list_(pa.string())),  # every file with these bytes; the first one is read
        pa.field("modified_ns", pa.list_(pa.int64())),
        pa.field("offsets", pa.list_(pa.int64())),  # as in LISTED
        # Null: it is decoded and encoded. Else what to look at first (``decoder_versions.Look``): if it decodes as it
        # did, with the duration and the note that the index has of it, the rows there stay.
        pa.field("look", pa.int8()),
        pa.field("stored_s", pa.float64()),
        pa.field("stored_note", pa.string()),
    ]
)
"""One audio content to index, and the files that hold it."""

PLANNED = pa.schema(
    [
        pa.field("batch_id", ID, nullable=False),
        pa.field("audios", pa.list_(AUDIO), nullable=False),
        # Null: all files of the batch, whole. Else the windows ``first`` to ``stop`` - 1 of one long recording; without
        # ``stop``, those up to its end.
        pa.field("part", pa.struct([pa.field("first", pa.int32()), pa.field("stop", pa.int32())])),
    ]
)
"""plan -> decode: one row per batch: files that one task decodes, and that are published together or not at all. A long
recording is one row of the plan; the first task splits it into one row per part."""

_FILE_ROWS = pa.list_(pa.struct([field for field in FILES if field.name != "batch_id"]))

DECODED = pa.schema(
    [
        pa.field("batch_id", ID, nullable=False),
        pa.field("seq", pa.int32(), nullable=False),  # counts the rows of a batch
        pa.field("last", pa.bool_(), nullable=False),  # true on the last row of a batch
        # A window ...
        pa.field("audio_id", ID),
        pa.field("first_frame", pa.int32()),
        pa.field("own_first", pa.int32()),
        pa.field("own_stop", pa.int32()),
        pa.field("pcm", pa.large_binary()),  # float32 samples at 48 kHz
        # ... or the outcome of a content, after its last window: the rows of its files ...
        pa.field("files", _FILE_ROWS),
        # ... or an error that ends the run, since no file is to blame.
        pa.field("error", pa.string()),
        pa.field("decode_s", pa.float64(), nullable=False),  # time spent, noted in the first row that it led to
    ]
)
"""decode -> encode: windows in order, each content followed by one row with its files."""

ENCODED = pa.schema(
    [
        *(field for field in DECODED if field.name != "pcm"),
        pa.field("clip_vector", pa.large_binary()),  # float16 [dimension]
        pa.field("frame_vectors", pa.large_binary()),  # float16 [own_stop - own_first, dimension]
        pa.field("precision", pa.string(), nullable=False),  # of the encoder
        pa.field("encode_s", pa.float64(), nullable=False),  # likewise
    ]
)
"""encode -> write: the same rows, samples replaced by embeddings."""

_WINDOW = pa.struct(
    [
        pa.field("audio_id", ID, nullable=False),
        pa.field("first_frame", pa.int32(), nullable=False),
        pa.field("clip_vector", pa.large_binary()),  # float16 [dimension]; null: not finite
        pa.field("frames_checksum", pa.int64(), nullable=False),  # of the frames that it owns
    ]
)

RECEIPTS = pa.schema(
    [
        pa.field("batch_id", ID, nullable=False),
        pa.field("first_seq", pa.int32(), nullable=False),
        pa.field("stop_seq", pa.int32(), nullable=False),
        pa.field("last", pa.bool_(), nullable=False),
        pa.field("precision", pa.string(), nullable=False),
        pa.field("audio_s", pa.float64(), nullable=False),  # encoded, each frame counted once
        pa.field("frame_fragments", pa.list_(pa.string()), nullable=False),  # Lance fragment metadata, JSON
        pa.field("pool_fragments", pa.list_(pa.string()), nullable=False),
        pa.field("windows", pa.list_(_WINDOW), nullable=False),
        pa.field("files", _FILE_ROWS, nullable=False),
        pa.field("error", pa.string()),  # or an error that ends the run
        pa.field("decode_s", pa.float64(), nullable=False),  # time that workers spent on these rows, by stage
        pa.field("encode_s", pa.float64(), nullable=False),
        pa.field("write_s", pa.float64(), nullable=False),
    ]
)
"""write -> driver: what a worker has written, for the driver to commit.

Frames are nearly all of the bytes: workers write them and their pools, and send the metadata of the fragments. A clip
is 2 kB for ten seconds of audio: it travels in the receipt. The driver writes the clips of a commit as one fragment,
because only then is the duration of each file known, and whether it failed half-way.
"""
