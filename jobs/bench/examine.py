"""Measure what it costs to examine files after a correction of decoding, beside decoding them and encoding them anew.

    python -m jobs.bench examine                       # takes three minutes of processor time
    python -m jobs.bench examine --model random        # encoding by a model of the default size: longer

Stereo sounds at 44.1 kHz, all different, in several formats and lengths, eight minutes of each. ``channels`` and
``streams`` are looks at a file that may be mixed in another way or have other streams; ``length`` decodes all of it.
``decode`` reads the same files without a question, ``encode`` embeds the windows of those of the first format. All are
processor seconds for an hour of audio, by the functions that workers call, in this process: what reading the disk and
waiting cost is left out. The bytes are not hashed: a run knows them already.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from jobs.bench.figures import Figure, measure_and_report
from jobs.shared.options import Json
from pipeline.audio.decoder_versions import Look
from pipeline.audio.source import hash_file
from pipeline.config import DecodeConfig, EncodeConfig
from pipeline.corpus.corpus_file import CorpusFile, ExaminedFile, Stored
from pipeline.grid import Grid
from pipeline.planning.batches import pack
from pipeline.planning.file_rows import CONFIRMED
from pipeline.run.decode_stage import decode_batch
from pipeline.schema import Row

FORMATS = ("wav", "flac", "mp3", "ogg")
LENGTHS_S = (5.0, 60.0, 600.0)
RATE_HZ = 44_100
LOOKS = (Look.CHANNELS, Look.STREAMS, Look.LENGTH)
GRID = Grid(250, 10)
BATCH_S = 300.0


def measure_kinds(folder: Path, minutes: float, rounds: int, model: str) -> Iterator[Figure]:
    """The figures of each format and length; encoding once, of the first format in files of a minute."""
    for suffix in FORMATS:
        for length_s in LENGTHS_S:
            n_files = max(1, round(minutes * 60 / length_s))
            files = _write(folder / f"{suffix}-{length_s:.0f}", suffix, length_s, n_files)
            rows = {row["uri"]: row for row in _read(_plan(files))}
            hours = sum(row["duration_s"] for row in rows.values()) / 3600
            what = f"{suffix}, {n_files:,} of {length_s:,.0f} s"
            plans = {"decode": _plan(files)}
            for look in LOOKS:
                plans[look.name.lower()] = _plan([_stored(file, rows[file.uri], look) for file in files])
            for name, plan in plans.items():
                took = [_time(plan, is_examined=name != "decode") / hours for _ in range(rounds)]
                yield Figure(name, what, statistics.median(took), "s/h")
            if (suffix, length_s) == (FORMATS[0], LENGTHS_S[1]):
                yield Figure("encode", f"{what}, {model}", _time_encoding(_plan(files), model) / hours, "s/h")


def _write(folder: Path, suffix: str, length_s: float, n_files: int) -> list[CorpusFile]:
    """Files of gliding tones over noise, each with another seed."""
    import soundfile

    folder.mkdir()
    times_s = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    files = []
    for number in range(n_files):
        rng = np.random.default_rng(number)
        tones = [0.3 * np.sin(2 * np.pi * (rng.uniform(150, 900) + 30 * times_s) * times_s) for _ in range(2)]
        sound = np.stack(tones, axis=1) + rng.normal(0, 0.05, (len(times_s), 2))
        path = folder / f"{number:05d}.{suffix}"
        with soundfile.SoundFile(path, "w", RATE_HZ, 2) as target:
            for first in range(0, len(sound), RATE_HZ):  # libsndfile crashes where much is written as vorbis at once
                target.write(sound[first : first + RATE_HZ].astype(np.float32))
        stat = path.stat()
        file = CorpusFile(str(path), None, None, stat.st_size, stat.st_mtime_ns, None, hash_file(path))
        file.estimated_s = length_s
        files.append(file)
    return files


def _plan(files: Sequence[CorpusFile]) -> list[Row]:
    """PLANNED rows."""
    planned: pa.Table = pack([[file] for file in files], BATCH_S, "0" * 32)
    return list(planned.to_pylist())


def _stored(file: CorpusFile, row: Row, look: Look) -> CorpusFile:
    """The file, as one of an index that a correction may concern."""
    stored = Stored(look, row["duration_s"], row["note"])
    return ExaminedFile(
        file.uri, None, None, file.size_bytes, file.modified_ns, None, file.content_hash, file.estimated_s, stored
    )


def _read(plan: list[Row]) -> Iterator[Row]:
    """The ledger rows of files that are decoded, or examined first."""
    for planned in plan:
        for block in decode_batch(planned, DecodeConfig(), GRID):
            for files in block["files"].to_pylist():
                yield from files or []


def _time(plan: list[Row], *, is_examined: bool) -> float:
    """Processor seconds."""
    began_s = time.process_time()
    found = {row["status"] for row in _read(plan)}
    took_s = time.process_time() - began_s
    if found != {CONFIRMED if is_examined else "indexed"}:
        raise SystemExit(f"files should decode as before: {found}")
    return took_s


def _time_encoding(plan: list[Row], model: str) -> float:
    """Processor seconds for the windows of all files; a first window is not counted."""
    from jobs.bench.baselines import save_random
    from pipeline.encoder.encoder import load_for_run
    from pipeline.run.encode_stage import encode_windows

    with tempfile.TemporaryDirectory(prefix="earshot-") as scratch:
        name = save_random(Path(scratch) / "model") if model == "random" else model
        encoder: Any = load_for_run(EncodeConfig(clip_model=name, device="cpu"), True, len(os.sched_getaffinity(0)))
        blocks = [block for planned in plan for block in decode_batch(planned, DecodeConfig(), GRID)]
        encode_windows(blocks[0].slice(0, 1), encoder)
        began_s = time.process_time()
        for block in blocks:
            encode_windows(block, encoder)
        return time.process_time() - began_s


def examine(
    minutes: Annotated[float, typer.Option(min=0.01, help="Audio of each format and length.")] = 8.0,
    rounds: Annotated[int, typer.Option(min=1, help="Each figure is the median of so many.")] = 3,
    model: Annotated[str, typer.Option(help="The model that encodes, or `random`: the default size.")] = "earshot-tiny",
    json: Json = False,
) -> None:
    """Measure examining files after a correction of decoding, beside decoding and encoding them: three minutes."""
    measure = partial(measure_kinds, minutes=minutes, rounds=rounds, model=model)
    measure_and_report("processor seconds for an hour of audio", [measure], json=json)
