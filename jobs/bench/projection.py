"""The figures of ``earshot bench``: the stages by themselves, a whole run, and a corpus projected from them.

Sources and models enter; figures leave as they become known, each with its ``part``: decode, encode, write, run, corpus
and profile. Speeds are in seconds of audio per second. The best batch of the encoder is measured before the run and
after it; the run is compared with the mean of both.
"""

import csv
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

import pipeline
from jobs.bench.baselines import save_random
from jobs.bench.parts import (
    Decoded,
    by_format,
    count_gpus,
    decode_files,
    encode_speed,
    machine_resources,
    shorten,
    write_speed,
)
from jobs.bench.profile import attempt, profile
from jobs.bench.sounds import write_sounds
from pipeline.config import Config, make_config
from pipeline.corpus.corpus_file import CorpusFile
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.shards import extension_of
from pipeline.corpus.time_ranges import recording_of
from pipeline.encoder.checkpoint import read_identity
from pipeline.encoder.encoder import check_models, load_audio_model, resolve_device, resolve_precision
from pipeline.errors import CorpusError
from pipeline.grid import Waveform
from pipeline.run.driver import index_corpus
from pipeline.run.progress import Progress
from pipeline.run.record import make_record
from pipeline.run.resources import CALL_S, Encoders, share_machine
from pipeline.schema import Row

FILES_PER_FORMAT = 4
BATCHES = {"cpu": (1, 2, 4), "cuda": (8, 32)}
RUN_S = 60.0
"""The whole run encodes for about this long."""

CALLS = 4
"""A run is measured if there is audio for so many calls of each encoder: the first and the last are not like others."""


def project(
    sources: list[str],
    model: str,
    frame_model: str | None,
    hours: float,
    *,
    profile: bool = False,
    run_s: float = RUN_S,
    measure: Callable[[Config, Path, float], Iterator[Row]] | None = None,
    save_random: Callable[[Path], str] = save_random,
) -> Iterator[Row]:
    """Every figure, for a corpus of ``hours``, with a run that encodes for about ``run_s`` seconds.

    A test may replace ``measure`` and ``save_random``.
    """
    with tempfile.TemporaryDirectory(prefix="earshot-bench-") as folder:
        scratch = Path(folder)
        name = save_random(scratch / "random") if model == "random" else model
        encode = {"clip_model": name, "frame_model": frame_model}
        given = sources or [str(write_sounds(scratch / "sounds", _make_sounds(), ("wav", "flac", "mp3", "ogg")))]
        config = make_config({"sources": given, "into": str(scratch / "index"), "encode": encode})
        yield from (measure or partial(measure_stages_and_run, run_s=run_s))(config, scratch, hours)
        if profile:
            yield from profile_models(config)


def profile_models(config: Config) -> list[Row]:
    """Where an encoder process of a run spends its time, with the models of the configuration."""
    encode, device = config.encode, resolve_device("auto")
    clip = load_audio_model(encode.clip_model)
    frame = load_audio_model(encode.frame_model) if encode.frame_model else clip
    return profile(clip, frame, device, resolve_precision("auto", device), config.window.length_s)


def measure_stages_and_run(config: Config, scratch: Path, hours: float, run_s: float = RUN_S) -> Iterator[Row]:
    """Each stage by itself, a whole run of about ``run_s`` seconds against the ceiling that they predict, and a corpus
    of ``hours``."""
    check_models(config.encode, config.store.frames == "all")
    rows = draw_rows(config)
    decoded = _decode_some(config, pick_of_each_format(rows))
    for codec, (n_files, speed) in by_format(decoded).items():
        yield {"part": "decode", "format": codec, "files": n_files, "x_per_core": speed}
    cores = len(os.sched_getaffinity(0))
    decode_x = cores * sum(each.audio_s for each in decoded) / sum(each.cpu_s for each in decoded)

    device = resolve_device("auto")
    native = resolve_precision("auto", device)
    encoders = share_machine(machine_resources(device), config.encode)
    windows = _full_windows(decoded)
    encode_x, best_batch = 0.0, BATCHES[device][0]
    for precision in dict.fromkeys(("float32", native)):
        for batch in BATCHES[device]:
            yield (figure := _measure_encoding(config, windows, encoders, precision, batch))
            if precision == native and figure["x"] > encode_x:
                encode_x, best_batch = figure["x"], batch

    identity = read_identity(config.encode.frame_model or config.encode.clip_model)
    write_x = write_speed(str(scratch / "written"), identity.dimension, config.window.grid)
    yield {"part": "write", "dimension": identity.dimension, "x": write_x}

    manifest = write_sample(rows, scratch / "sample.csv", run_s * _predict(encode_x, decode_x, device))
    # On a CPU, little audio is cut into blocks of two windows.
    least_s = CALLS * 2 * config.window.length_s if device == "cpu" else CALL_S
    run = measure_run(config, manifest, least_s * encoders.most)
    # Meanwhile a shared machine may have become faster or slower.
    yield (again := _measure_encoding(config, windows, encoders, native, best_batch))
    encode_x = statistics.fmean([encode_x, again["x"]]) if again["x"] else encode_x
    # Windows overlap: that audio is encoded twice.
    ceiling = max(1e-9, _predict(encode_x * run["audio_s"] / max(run["windows_s"], 1e-9), decode_x, device))
    run["of_what_parts_allow"] = run["x"] and run["x"] / ceiling
    run["encoded_per_audio"] = run["windows_s"] / max(run["audio_s"], 1e-9)
    wall_h, gb = hours / (run["x"] or ceiling), run.pop("index_bytes") / run["audio_s"] * 3600 * hours / 1e9
    yield {"part": "run", **run}
    gpus = {"gpu_h": wall_h * count_gpus(encoders)} if device == "cuda" else {}
    yield {"part": "corpus", "hours": hours, "wall_h": wall_h, "core_h": wall_h * cores, "index_gb": gb} | gpus


def _decode_some(config: Config, rows: list[Row]) -> list[Decoded]:
    """Decode the files; the first file of a format also loads its decoder, so some are decoded before."""
    for _ in decode_files(rows[:: FILES_PER_FORMAT // 2], config):
        pass
    decoded = list(decode_files(rows, config))
    if not decoded:
        raise CorpusError(f"{config.sources[0]}: none of the sampled files can be decoded")
    return decoded


def _measure_encoding(config: Config, windows: list[Waveform], encoders: Encoders, precision: str, batch: int) -> Row:
    """Encoding by all processes of a run in batches of one size; ``x`` is 0 where that cannot be done."""
    measured = attempt(encode_speed, config, windows, precision, batch, encoders)
    speed, held = (0.0, 0) if isinstance(measured, str) else measured
    figure = {"part": "encode", "precision": precision, "batch": batch, "processes": encoders.most}
    return {**figure, "batch_held": held, "x": speed}


def _predict(encode_x: float, decode_x: float, device: str) -> float:
    """The speed that the stages allow a run: on a CPU, decoding and encoding share the cores."""
    return 1 / (1 / encode_x + 1 / decode_x) if device == "cpu" else min(encode_x, decode_x)


def draw_rows(config: Config) -> list[Row]:
    """The files of the corpus in an order that is random but always the same; of long ones, the first minute."""
    listed = list_corpus(config.sources, config.corpus)
    order = np.random.default_rng(0).permutation(listed.num_rows)[:20_000]
    return [shorten(row) for row in listed.take(order).to_pylist() if row["reason"] is None]


def pick_of_each_format(rows: list[Row]) -> list[Row]:
    """A few files of each extension."""
    picked: dict[str, list[Row]] = {}
    for row in rows:
        same = picked.setdefault(extension_of(recording_of(row)), [])
        if len(same) < FILES_PER_FORMAT:
            same.append(row)
    return [row for same in picked.values() for row in same]


def _full_windows(decoded: list[Decoded]) -> list[Waveform]:
    """Windows of one length to encode: the most common one, by the audio that they hold."""
    windows = [window for each in decoded for window in each.windows]
    counts = Counter(map(len, windows))
    length = max(counts, key=lambda length: (length * counts[length], length))
    return [window for window in windows if len(window) == length][:32]


def write_sample(rows: list[Row], manifest: Path, audio_s: float) -> Path:
    """Write a manifest of files with about ``audio_s`` seconds of audio."""
    planned_s = 0.0
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "start_s", "end_s"])
        for row in rows:
            if planned_s >= audio_s:
                break
            writer.writerow([recording_of(row), row["start_s"], row["end_s"]])
            planned_s += CorpusFile.of_listed(row).estimated_s
    return manifest


def measure_run(
    config: Config, manifest: Path, least_s: float, index: Callable[[Config], Progress] = index_corpus
) -> Row:
    """Index the files of a manifest, and measure the speed from when the workers have started.

    ``x`` and ``start_s`` are None where that is less than ``least_s`` of audio: a few calls would hold everything.
    """
    values = config.model_dump(mode="json") | {"sources": [str(manifest)]}
    values["run"] = {**values["run"], "max_failed_fraction": 1.0}
    began = time.monotonic()
    progress = index(type(config).model_validate(values))
    took = time.monotonic() - began
    busy_s = progress.throughput.busy_s
    clips = pipeline.open(config.into).to_arrow("clips", ["start_s", "end_s"])
    windows_s = pc.sum(pc.subtract(clips["end_s"], clips["start_s"])).as_py() or 0.0
    speed = progress.throughput.speed if windows_s >= least_s else None
    return {
        "files": progress.n_files,
        "failed": progress.n_failed,
        "audio_s": progress.audio_s,
        "windows_s": windows_s,
        "x": speed or None,
        "start_s": max(0.0, took - progress.audio_s / speed) if speed else None,
        "write_share": busy_s["write"] / max(1e-9, sum(busy_s.values())),
        "bottleneck": make_record(progress).bottleneck,
        "index_bytes": sum(file.stat().st_size for file in Path(config.into).rglob("*") if file.is_file()),
    }


def _make_sounds() -> Iterator[Waveform]:
    """An hour of swelling noise, in sounds of 30 s."""
    rng = np.random.default_rng(3)
    swell = np.sin(np.linspace(0, 60 * np.pi, 30 * 48_000)) ** 2
    return (rng.normal(0, 0.1, len(swell)) * swell for _ in range(120))
