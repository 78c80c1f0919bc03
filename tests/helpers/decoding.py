"""Decodes short sounds whole, and measures how much memory decoding takes, in a process for each file."""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.audio.decode import open_audio
from pipeline.audio.pieces import AudioInfo
from pipeline.audio.source import Source
from pipeline.config import DecodeConfig
from pipeline.corpus.raw_formats import RawFormat
from pipeline.corpus.time_ranges import TimeRange
from pipeline.grid import Waveform, samples_to_seconds
from tests.helpers.processes import print_of
from tests.helpers.sounds import write_long


def decode_all(
    source: Source,
    config: DecodeConfig | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    raw: RawFormat | None = None,
) -> tuple[Waveform, AudioInfo]:
    """The samples (n,) of a short sound from ``start_s`` to ``end_s``, at 48 kHz."""
    first, stop = TimeRange(start_s, end_s).samples
    with open_audio(source, config, raw) as audio:
        kept = list(audio.blocks(first, stop))
        return np.concatenate(kept) if kept else np.empty(0, np.float32), audio.info


@dataclass(frozen=True)
class Measure:
    """Decoding one file gave ``decoded_s`` seconds of audio and took at most ``peak_bytes`` of memory."""

    decoded_s: float
    peak_bytes: int
    truncated: str | None


def measure_format(name: str, durations_s: list[float], channels: int) -> list[Measure]:
    """Write and decode one file of each length."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long"
        measures = []
        for duration_s in durations_s:
            write_long(path, name, duration_s, channels=channels)
            measures.append(measure_fresh(path))
        return measures


def measure_fresh(path: Path) -> Measure:
    """Decode a file in a process of its own."""
    program = "import sys; from tests.helpers.decoding import print_measure; print_measure(sys.argv[1])"
    return Measure(**json.loads(print_of(program, path)))


def print_measure(path: str) -> None:
    """Decode ``path`` in this process, which should have done nothing else."""
    with open_audio(path) as audio:
        n_samples = sum(len(block) for block in audio.blocks())
        truncated = audio.truncated
    # Not ``ru_maxrss``: it begins with the memory of the parent at the fork.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_bytes = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps(asdict(Measure(samples_to_seconds(n_samples), peak_bytes, truncated))))
