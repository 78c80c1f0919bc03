"""The first stage that workers run, as plain functions: a planned batch in, windows and ledger rows out.

Files with the same bytes are decoded once. A bad file is a row among the others. What the index has of a file may still
hold after a correction of decoding: such a file is examined first (``examine``), and gives no windows then.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.audio.decoder_versions import DECODER
from pipeline.audio.recording import Recording
from pipeline.audio.source import memory_boundary
from pipeline.audio.windows import cut_windows
from pipeline.config import DecodeConfig
from pipeline.corpus.corpus_file import identify_audio
from pipeline.corpus.raw_formats import raw_format_of
from pipeline.corpus.shards import is_sized
from pipeline.errors import FileFailure
from pipeline.grid import (
    BYTES_PER_SAMPLE,
    HOP_SAMPLES,
    WHOLE,
    Grid,
    Part,
    Span,
    Waveform,
    count_frames,
    first_frame_needed,
    frames_to_seconds,
    samples_to_seconds,
)
from pipeline.planning.file_rows import copied_row, empty_row, failed_row, indexed_row
from pipeline.run.examine import Examiner
from pipeline.run.planned_files import PlannedFile, files_of
from pipeline.schema import Row

_Done = dict[str, tuple[Row, FileFailure | None]]
"""By audio id, the row of a file with that content, and its failure if it failed."""

BLOCK_S = 320.0
"""Audio that travels together, in seconds: 61 MB of samples, 32 windows of 10 s."""


def windows_per_block(grid: Grid) -> int:
    """How many windows of full length travel together."""
    return max(1, int(BLOCK_S // frames_to_seconds(grid.length_frames)))


def decode_batch(
    planned: Row,
    config: DecodeConfig,
    grid: Grid,
    block_windows: int | None = None,
    max_hours: float | None = None,
) -> Iterator[pa.Table]:
    """Decode the files of one batch: yields DECODED tables with as much audio as ``block_windows`` windows have.

    A table holds windows of many short files, for each table costs a call of every later stage.

    The same files give the same tables, so that Ray can repeat a task that died half-way. ``decode_s`` is zero: the
    caller measures it (``note_seconds``).

    Args:
        planned: one PLANNED row.
        max_hours: longer recordings fail.
    """
    block_windows = block_windows or windows_per_block(grid)
    part = Part(**planned["part"]) if planned.get("part") else WHOLE
    decode = _decode_rows if part == WHOLE else partial(_decode_part, part=part)
    most_bytes = block_windows * grid.length_frames * HOP_SAMPLES * BYTES_PER_SAMPLE
    rows: list[Row] = []
    n_bytes = 0
    recording = Recording(whole=part == WHOLE, max_hours=max_hours)
    for seq, row in enumerate(decode(planned["audios"], config, grid, recording), start=part.first):
        rows.append({"batch_id": planned["batch_id"], "seq": seq, "last": False, "decode_s": 0.0, **row})
        n_bytes += (size := row["pcm"].nbytes if row["files"] is None else 0)
        # The newest row is kept back: it is the last one if none follows.
        if size and n_bytes > most_bytes and len(rows) > 1:
            yield _decoded_table(rows[:-1])
            rows, n_bytes = rows[-1:], size
    if rows:
        rows[-1]["last"] = rows[-1]["files"] is not None
        yield _decoded_table(rows)


def _decoded_table(rows: list[Row]) -> pa.Table:
    """DECODED. The samples are copied once; Arrow's builder would grow its buffer again and again."""
    windows = [row.pop("pcm", None) for row in rows]
    table = pa.Table.from_pylist(rows, schema=schema.DECODED)
    sizes = [0 if window is None else window.nbytes for window in windows]
    there = np.packbits([window is not None for window in windows], bitorder="little")
    samples = np.concatenate([window for window in windows if window is not None] or [np.empty(0, np.float32)])
    buffers = [pa.py_buffer(there), pa.py_buffer(np.cumsum([0, *sizes])), pa.py_buffer(samples)]
    pcm = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(rows), buffers)
    at = schema.DECODED.get_field_index("pcm")
    return table.set_column(at, schema.DECODED.field(at), pcm)


def _decode_rows(audios: list[Row], config: DecodeConfig, grid: Grid, recording: Recording) -> Iterator[Row]:
    done: _Done = {}

    def measure(row: Row, file: PlannedFile) -> None:
        recording.fetch(file.place)
        for _ in _decode_content(row, recording, file, config, grid, WHOLE):
            pass

    examiner = Examiner(config, measure)
    with recording:
        for audio in audios:
            files = files_of(audio)
            if audio.get("look") and (same := examiner.examine(audio, files)) is not None:
                yield _files_row([_placed(same, file) for file in files])
                continue
            while files:
                row = empty_row(files[0].uri, None)
                try:
                    yield from _decode_file(row, files[0], audio["content_hash"], config, grid, recording, done=done)
                except FileFailure as failure:
                    if failure.stage == "read" and len(files) > 1 and not row["n_clips"]:
                        # This file cannot be read, but others hold the same bytes.
                        yield _files_row([_failed(row, failure, files[0])])
                        files = files[1:]
                        continue
                    yield _files_row([_failed(row, failure, files[0]), *_failed_with(row, failure, files[1:])])
                else:
                    yield _files_row([_placed(row, file) for file in files])
                break


def _decode_part(
    audios: list[Row], config: DecodeConfig, grid: Grid, recording: Recording, part: Part
) -> Iterator[Row]:
    """The rows of a part of a recording. They end where it is broken or has changed."""
    [audio] = audios
    files = files_of(audio)
    row = empty_row(files[0].uri, None)
    try:
        with recording:
            yield from _decode_file(row, files[0], audio["content_hash"], config, grid, recording, part=part)
    except FileFailure:
        return
    if part.stop is None:
        yield _files_row([_placed(row, file) for file in files])


def _decode_file(
    row: Row,
    file: PlannedFile,
    content_hash: str | None,
    config: DecodeConfig,
    grid: Grid,
    recording: Recording,
    *,
    part: Part = WHOLE,
    done: _Done | None = None,
) -> Iterator[Row]:
    """Yield the windows of a file, or of a part of it, and fill ``row`` with facts about the file.

    A file that fails and has changed fails because it changed: the change may explain everything else.

    Args:
        done: the contents of this batch so far. For one of them, no windows are yielded again.
    """
    done = {} if done is None else done
    try:
        row["size_bytes"] = file.size_bytes if is_sized(file.uri) else None
        recording.fetch(file.place)
        if row["size_bytes"] is None:
            row["size_bytes"] = recording.measure()
        row["content_hash"] = content_hash or recording.hash()
        row["audio_id"] = identify_audio(file.recording, file.range, row["content_hash"])
        if row["audio_id"] in done:
            _do_as(row, *done[row["audio_id"]])
        else:
            with memory_boundary():
                yield from _decode_content(row, recording, file, config, grid, part)
        file.check_unchanged()
        done[row["audio_id"]] = row, None
    except FileFailure as failure:
        if failure.stage == "read":
            recording.close()
        else:
            file.check_unchanged()
        if row["audio_id"] and (row["n_clips"] or failure.stage != "read"):
            done[row["audio_id"]] = row, failure
        raise


def _do_as(row: Row, other: Row, failure: FileFailure | None) -> None:
    """Fill ``row`` from the row of another file with the same content, and fail if that one failed."""
    row.update(copied_row(other, row["uri"], row["modified_ns"]))
    if failure is not None:
        raise _same_bytes(other, failure)


def _decode_content(
    row: Row, recording: Recording, file: PlannedFile, config: DecodeConfig, grid: Grid, part: Part
) -> Iterator[Row]:
    first, stop = file.range.samples
    n_samples = first_frame_needed(part.first, grid) * HOP_SAMPLES

    def count(blocks: Iterator[Waveform]) -> Iterator[Waveform]:
        nonlocal n_samples
        for block in blocks:
            n_samples += len(block)
            yield block

    row["decoder"] = DECODER
    try:
        stream = recording.stream(first + n_samples, config, raw_format_of(file.recording))
        # If it has changed, its windows are those of another content.
        file.check_unchanged()
        info = stream.info
        row.update(sample_rate_hz=info.sample_rate_hz, channels=info.channels, codec=info.codec)
        row["note"] = stream.note
        row["expected_duration_s"] = file.range.within(info.expected_duration_s)
        blocks = stream.blocks(first + n_samples, stop, exactly=part != WHOLE)
        for span, samples in cut_windows(count(blocks), grid, part):
            row["n_clips"] += 1
            yield _window_row(row["audio_id"], span, samples)
        truncated, row["note"] = stream.truncated, stream.note
    finally:
        row["duration_s"] = samples_to_seconds(n_samples)
    if n_samples < HOP_SAMPLES:
        message = f"{row['duration_s']:.4f} s is less than one frame of {frames_to_seconds(1)} s"
        raise FileFailure("decode", "too_short", message)
    row["n_clips"] += part.first
    row.update(indexed_row(row, count_frames(n_samples), truncated))


def _window_row(audio_id: str, span: Span, samples: Waveform) -> Row:
    return {
        "audio_id": audio_id,
        "first_frame": span.first,
        "own_first": span.own_first,
        "own_stop": span.own_stop,
        "pcm": samples,
        "files": None,
    }


def _files_row(files: list[Row]) -> Row:
    return {"audio_id": files[0]["audio_id"], "files": files}


def _placed(row: Row, file: PlannedFile) -> Row:
    """The row of one of the files that hold the content of ``row``."""
    return copied_row(row, file.uri, file.modified_ns)


def _failed(row: Row, failure: FileFailure, file: PlannedFile) -> Row:
    return failed_row(_placed(row, file), failure)


def _failed_with(row: Row, failure: FileFailure, others: list[PlannedFile]) -> list[Row]:
    """The rows of the other files that have the bytes of ``row``, which was read for all of them."""
    return [_failed(row, _same_bytes(row, failure), file) for file in others]


def _same_bytes(read: Row, failure: FileFailure) -> FileFailure:
    """The failure of a file with the same bytes as the file that was read."""
    if failure.stage != "read":
        return failure
    message = f"{read['uri']} has the same bytes and was read for both: {failure.message}"
    return FileFailure(failure.stage, failure.reason, message)
