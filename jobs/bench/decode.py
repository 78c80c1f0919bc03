"""Measure decoding: speed per core, and whether memory grows with the length of a file.

    python -m jobs.bench.decode                      # 10 minutes against 3 hours, every format below: takes minutes
    python -m jobs.bench.decode --minutes 2 20 mp3 flac

Each file is written to a temporary folder and decoded in a process of its own, whose peak memory is taken from the
kernel. Runs from a checkout, since it writes its files with the tests' encoders. Prints one row per format:

    xRT         seconds of audio decoded per CPU second, of the longer file
    MB          peak memory of the process, shorter and longer file

Measured on one of two shared cores, white noise (the hardest sound for most codecs) in stereo at 48 kHz, soundfile
0.14, PyAV 18.1:

    format      xRT    MB 10 min   MB 180 min
    wav_s16    1584         67.8         67.5
    aiff        994         67.7         67.6
    flac        494         68.2         68.1
    ogg_flac    578         70.3         71.0
    mp3         417         72.5         72.9
    ogg_vorbis  432         72.5         73.0
    ogg_opus    276         72.3         72.7
    webm_opus   272         72.4         73.0
    aac_adts    394         74.4         74.8
    m4a         449         74.3        105.4   its table of packets: 10 MB an hour

At 44.1 kHz resampling takes its share: wav 695, flac 453, mp3 363, ogg vorbis 332, m4a 370.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.shared.output import print_json, print_line

FORMATS = ("wav_s16", "flac", "aiff", "mp3", "ogg_vorbis", "ogg_opus", "webm_opus", "m4a", "aac_adts", "ogg_flac")


@dataclass(frozen=True)
class Measure:
    """What decoding one file took: ``decoded_s`` seconds of audio in ``cpu_s``, at most ``peak_bytes`` of memory."""

    decoded_s: float
    cpu_s: float
    peak_bytes: int
    truncated: str | None


def measure_here(path: str) -> Measure:
    """Decode ``path`` in this process, which should have done nothing else."""
    from pipeline.audio.decode import open_audio
    from pipeline.corpus.raw_formats import raw_format_of
    from pipeline.grid import samples_to_seconds

    begin_s = time.process_time()
    with open_audio(path, raw=raw_format_of(path)) as audio:
        n_samples = sum(len(block) for block in audio.blocks())
        truncated = audio.truncated
    return Measure(samples_to_seconds(n_samples), time.process_time() - begin_s, _peak_bytes(), truncated)


def measure(path: Path) -> Measure:
    """Decode ``path`` in a fresh process."""
    command = [sys.executable, "-m", "jobs.bench.decode", "--decode", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return Measure(**json.loads(done.stdout))


def measure_format(
    name: str, durations_s: list[float], sample_rate_hz: int = 48_000, channels: int = 2
) -> list[Measure]:
    """Write and decode one file of each length, shortest first."""
    from tests.helpers.sounds import write_long

    measures = []
    with tempfile.TemporaryDirectory() as folder:
        for duration_s in sorted(durations_s):
            path = Path(folder) / "long"
            write_long(path, name, duration_s, sample_rate_hz, channels)
            measures.append(measure(path))
            path.unlink()
    return measures


def _peak_bytes() -> int:
    """The kernel's high-water mark. (Not ``ru_maxrss``: that begins with the memory of the parent at the fork.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.decode", description="Measure decoding.")
    parser.add_argument("formats", nargs="*", default=FORMATS, help="names of tests/helpers/sounds.py's FORMATS")
    parser.add_argument("--minutes", nargs=2, type=float, default=[10, 180], help="lengths to compare")
    parser.add_argument("--rate", type=int, default=48_000, help="sample rate in hertz")
    parser.add_argument("--decode", help=argparse.SUPPRESS)  # the fresh process: one file, JSON out
    arguments = parser.parse_args()
    if arguments.decode:
        print_json([measure_here(arguments.decode)])
        return
    short, long = sorted(arguments.minutes)
    print_line(f"{'format':<12}{'xRT':>7}{f'MB {short:g} min':>13}{f'MB {long:g} min':>13}{'decoded s':>12}")
    for name in arguments.formats:
        first, last = measure_format(name, [60 * short, 60 * long], arguments.rate)
        speed, peaks = last.decoded_s / last.cpu_s, [m.peak_bytes / 1e6 for m in (first, last)]
        note = f"  {last.truncated}" if last.truncated else ""
        print_line(f"{name:<12}{speed:>7.0f}{peaks[0]:>13.1f}{peaks[1]:>13.1f}{last.decoded_s:>12.2f}{note}")


if __name__ == "__main__":
    main()
