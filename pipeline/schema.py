"""The Arrow schema of every edge and table, and the rules by which ids are made.

Two kinds of schemas live here: the four tables of an index (what is stored), and the edges
between stages (what travels). Every table that crosses a stage boundary has one of them.
"""

import hashlib
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
"""A row of any of the tables, by column."""

ID = pa.string()
"""Ids are 32 lower-case hexadecimal digits, 128 bits of SHA-256."""


def without(table: pa.Schema, *names: str) -> pa.Schema:
    """A schema without some of its columns."""
    return pa.schema([column for column in table if column.name not in names])


# --- ids --------------------------------------------------------------------------------------------------------------


def digest(*parts: str) -> str:
    """128 bits of SHA-256 over ``parts``, unambiguous in where one ends and the next begins."""
    text = "\0".join(f"{len(part.encode())}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_audio_id(content_hash: str, part: str = "", raw: str = "") -> str:
    """Identity of an audio content: the same bytes have the same id wherever they lie (``corpus_file.identify_audio``).

    Args:
        part: the range of them, as it is written (``str`` of a ``time_ranges.TimeRange``).
        raw: how they are read where they have no header (``str`` of a ``raw_formats.RawFormat``).
    """
    return digest("audio", content_hash, *(text for text in (part, raw) if text))


def make_file_id(uri: str, audio_id: str | None) -> str:
    """Identity of a file: a content at a place. ``audio_id`` is None where the bytes were never read."""
    return digest("file", uri, audio_id or "")


def make_batch_id(run_id: str, number: int) -> str:
    """Identity of a batch: the run that writes it, and its number there."""
    return digest("batch", run_id, str(number))


def make_clip_id(file_id: str, first_frame: int) -> str:
    """Identity of a clip: a window of a file, by its first frame."""
    return digest("clip", file_id, str(first_frame))


# --- what is stored ---------------------------------------------------------------------------------------------------

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
        pa.field("decoder", pa.int32()),  # the version of decoding (``mends``) that it was decoded with; null: 1
        pa.field("note", pa.string()),  # what a person should know of a file that is indexed well
        pa.field("clips_checksum", pa.int64()),  # of its clips, see ``checksum``
        pa.field("frames_checksum", pa.int64()),  # of the frames of its audio
    ]
)


SINCE_FORMAT_3 = ("decoder", "note", "clips_checksum", "frames_checksum")
"""Columns that ``files`` of format 2 lacks."""


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


def frames_schema(dimension: int) -> pa.Schema:
    """``frames``: one row per 40 ms of audio content, in order; ``vector`` is float16 [dimension]."""
    return pa.schema(
        [
            pa.field("audio_id", ID, nullable=False),
            pa.field("frame", pa.int32(), nullable=False),
            pa.field("start_s", pa.float64(), nullable=False),
            pa.field("batch_id", ID, nullable=False),
            pa.field("vector", pa.list_(pa.float16(), dimension), nullable=False),
        ]
    )


RESERVED = frozenset(FILES.names) | frozenset(clips_schema(1).names)
"""Columns of ``files`` and ``clips`` that are Earshot's own; whatever else these tables have is the user's metadata."""


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
        pa.field("seconds", pa.float64()),  # that the run spent on it, where it was decoded and encoded
        pa.field("precision", pa.string()),
        pa.field("detail", pa.string(), nullable=False),  # JSON: of `create`, the settings of the index
    ]
)

# --- what travels -----------------------------------------------------------------------------------------------------

LISTED = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("start_s", pa.float64()),  # within the recording that the uri names; null: its start
        pa.field("end_s", pa.float64()),  # null: its end
        pa.field("size_bytes", pa.int64(), nullable=False),  # of a row of a Parquet file: about that
        pa.field("modified_ns", pa.int64(), nullable=False),  # of a member: that of its shard
        pa.field("offset", pa.int64()),  # where it begins in its shard, or its row there; null: it is no member of one
        # Null, or why the file cannot even be listed properly.
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
        pa.field("size_bytes", pa.int64()),  # or about that, as in LISTED
        pa.field("estimated_s", pa.float64()),  # its duration, estimated from size and extension
        pa.field("uris", pa.list_(pa.string())),  # every file with these bytes; the first one is read
        pa.field("modified_ns", pa.list_(pa.int64())),
        pa.field("offsets", pa.list_(pa.int64())),  # in their shards; null: a file of its own
    ]
)
"""One audio content to index, and the files that hold it."""

PLANNED = pa.schema(
    [
        pa.field("batch_id", ID, nullable=False),
        pa.field("audios", pa.list_(AUDIO), nullable=False),
        # Null: whole, but for long recordings, which are cut into parts. Their windows from ``first`` to ``stop`` - 1,
        # or, without ``stop``, to the end; from 0 to the end is the whole, decoded by one task.
        pa.field("part", pa.struct([pa.field("first", pa.int32()), pa.field("stop", pa.int32())])),
    ]
)
"""plan -> decode: one row per batch, the files that one commit publishes, all or none, and one task decodes; of a long
recording there are several rows in the end, one per part."""

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
        # ... or what became of a content: the rows of its files, after its last window ...
        pa.field("files", _FILE_ROWS),
        # ... or what ends the run: an error that is no file's.
        pa.field("error", pa.string()),
        pa.field("decode_s", pa.float64(), nullable=False),  # of work, noted in the first row of what it made
    ]
)
"""decode -> encode: windows in order, each content followed by one row with its files."""

ENCODED = pa.schema(
    [
        *(field for field in DECODED if field.name != "pcm"),
        pa.field("clip_vector", pa.large_binary()),  # float16 [dimension]
        pa.field("frame_vectors", pa.large_binary()),  # float16 [own_stop - own_first, dimension]
        pa.field("precision", pa.string(), nullable=False),  # that the encoder ran in
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
        pa.field("windows", pa.list_(_WINDOW), nullable=False),
        pa.field("files", _FILE_ROWS, nullable=False),
        pa.field("error", pa.string()),  # or what ends the run
        pa.field("decode_s", pa.float64(), nullable=False),  # that workers spent on these rows, in each stage
        pa.field("encode_s", pa.float64(), nullable=False),
        pa.field("write_s", pa.float64(), nullable=False),
    ]
)
"""write -> driver: what a worker has written, to be committed.

Frames are nearly all of the bytes: workers write them and send home the metadata of the fragments. A clip is 2 kB
for ten seconds of audio: it travels in the receipt, and the driver writes the clips of a commit as one fragment, with
what is known of a file only at its end (its duration) and without the rows of files that failed half-way.
"""
