"""Progress of runs, made by hand, and their records."""

from pathlib import Path

from pipeline.run.progress import STAGES, Progress
from pipeline.run.record import Record, read_record

ONE_EACH = dict.fromkeys(STAGES, 1.0)
"""One worker in each stage."""


def receipt(audio_s: float, decode_s: float = 0.0, encode_s: float = 0.0, write_s: float = 0.0) -> dict[str, float]:
    return {"audio_s": audio_s, "decode_s": decode_s, "encode_s": encode_s, "write_s": write_s}


def halfway() -> Progress:
    """100 s of 400 s are encoded, by one decoder and two encoders, at ten times real time."""
    progress = Progress(index="/ix", run_id="a" * 32, n_files=40, n_indexed=8, n_unchanged=1, n_failed=1)
    progress.reasons["not_audio"] += 1
    progress.planned_s = 400.0
    workers = {"decode": 1.0, "encode": 2.0, "write": 10.0}
    for k, now in enumerate((5.0, 7.5, 10.0, 12.5, 15.0)):
        progress.throughput.add(receipt(20.0 if k else 100.0, 1.0, 4.5, 0.1), now, workers)
    progress.throughput.add(receipt(20.0), 15.0, workers)
    progress.audio_s = 100.0
    return progress


def record_of(index: str | Path) -> Record:
    """The record that the last run of an index has left."""
    record = read_record(str(index))
    assert record is not None
    return record
