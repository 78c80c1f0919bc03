"""Before the first stage: a planned batch of one long recording in, its parts out, to be decoded side by side."""

from pipeline.audio.recording import fetched
from pipeline.audio.source import hash_file
from pipeline.config import DecodeConfig
from pipeline.corpus.raw_formats import raw_format_of
from pipeline.errors import FileFailure
from pipeline.grid import Grid, frames_to_seconds, plan_parts, samples_to_seconds
from pipeline.run.planned_files import files_of
from pipeline.schema import Row

PART_S = 600.0
"""Audio in one part of a long recording, in seconds."""


def is_long(planned: Row, part_s: float = PART_S) -> bool:
    """Whether a planned batch is one recording that makes an estimated three parts or more."""
    return len(planned["audios"]) == 1 and estimate_batch(planned) >= 3 * part_s


def estimate_batch(planned: Row) -> float:
    """The estimated duration of a planned batch, in seconds."""
    return float(sum(audio["estimated_s"] for audio in planned["audios"]))


def split_batch(
    planned: Row, config: DecodeConfig, grid: Grid, part_s: float = PART_S, max_hours: float | None = None
) -> list[Row]:
    """Cut a batch of one long recording into parts, to be decoded side by side: PLANNED rows, or the one it was.

    The parts depend on the file alone, and give the same windows as the whole. A recording is only cut if it can be
    sought exactly and goes on to its promised end. If a part turns out to be broken, its batch never becomes complete:
    the recording is decoded once more, as a whole, to index what can be decoded of it. One that may decode as it did
    when it was indexed is examined as a whole.
    """
    if planned.get("part") or not is_long(planned, part_s):
        return [planned]
    from pipeline.audio.decode import open_audio

    [audio] = planned["audios"]
    [file, *_] = files_of(audio)
    try:
        with fetched(file.place) as source:
            with open_audio(source, config, raw_format_of(file.recording), max_hours) as stream:
                n_samples = stream.n_samples
                may_be_same = audio.get("look") and stream.note == audio["stored_note"]
                if n_samples is None or may_be_same or not stream.ends_as_promised():
                    return [planned]
                first, stop = file.range.samples
                n_samples = min(n_samples, stop or n_samples) - first
                stream.limit.check(samples_to_seconds(n_samples))
            content_hash = audio["content_hash"] or hash_file(source)
    except FileFailure:  # decoding will find it as well
        return [planned]
    n_windows = max(1, int(part_s // frames_to_seconds(grid.step_frames)))
    parts = plan_parts(n_samples, grid, n_windows)
    audios = [{**audio, "content_hash": content_hash, "look": None}]
    return [{**planned, "audios": audios, "part": {"first": part.first, "stop": part.stop}} for part in parts]
