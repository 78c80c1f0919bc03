"""``earshot bench``: how fast this machine makes an index of your files, and how long a corpus will take."""

import csv
import math
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.shared.options import Json
from jobs.shared.output import print_json, print_line, print_table, show_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobs.bench.parts import Decoded
    from pipeline.config import Config
    from pipeline.run.progress import Progress
    from pipeline.schema import Row

FILES_PER_FORMAT = 4
BATCHES = {"cpu": (1, 2, 4), "cuda": (8, 32)}
RUN_S = 60.0
"""How long the run from end to end encodes, about."""


def bench(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]...", help="As in `earshot index`; synthetic sounds if none.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Model for clips, as in `earshot index`; `random`: weights of PE-Audio's default size, not downloaded."
        ),
    ] = "earshot-tiny",
    frame_model: Annotated[str | None, typer.Option(help="Model for frames; the clip model if left out.")] = None,
    hours: Annotated[float, typer.Option(help="Size of the corpus that is projected, in hours of audio.", min=0)] = 1e4,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the encoder's time goes.")] = False,
    json: Json = False,
) -> None:
    """Measure decoding, encoding, writing and a whole run on this machine, and project what a corpus will take.

    Some of the files are taken, of long ones the first minute. Nothing is left behind.

    Example: earshot bench ~/sounds --model facebook/pe-av-small --hours 20000
    """
    from pipeline.config import make_config
    from pipeline.encoder.encoder import resolve_device
    from pipeline.encoder.parity import describe_machine

    machine = f"{len(os.sched_getaffinity(0))} cores; {describe_machine(resolve_device('auto'))}"
    if not json:
        print_line(machine)
    with tempfile.TemporaryDirectory(prefix="earshot-bench-") as scratch:
        if model == "random":
            from jobs.bench.baselines import save_random

            model = save_random(Path(scratch) / "random")
        encode = {"clip_model": model, "frame_model": frame_model}
        given = sources or [str(_write_sounds(Path(scratch) / "sounds"))]
        config = make_config({"sources": given, "into": str(Path(scratch) / "index"), "encode": encode})
        for figure in measure(config, Path(scratch), hours):
            if json:
                print_json([{"machine": machine, **figure}])
            else:
                _show(figure)
        if profile:
            from jobs.bench.encoder import print_profile

            rows = _profile(config)
            print_json({"machine": machine, **row} for row in rows) if json else print_profile(rows)


def _profile(config: "Config") -> "list[Row]":
    """Of the configuration's models, as an encoder process of a run has them."""
    from jobs.bench.encoder import profile
    from pipeline.encoder.encoder import load_audio_model, resolve_device, resolve_precision

    encode, device = config.encode, resolve_device("auto")
    clip = load_audio_model(encode.clip_model)
    frame = load_audio_model(encode.frame_model) if encode.frame_model else clip
    return profile(clip, frame, device, resolve_precision("auto", device), config.window.length_s)


def measure(config: "Config", scratch: Path, hours: float) -> "Iterator[Row]":
    """Figures as they become known, each with its ``part``: decode, encode, write, run, corpus."""
    from jobs.bench.parts import by_format, count_gpus, decode_files, encode_speed, machine_resources, write_speed
    from pipeline.encoder.batching import is_out_of_memory
    from pipeline.encoder.checkpoint import read_identity
    from pipeline.encoder.encoder import check_models, resolve_device, resolve_precision
    from pipeline.errors import CorpusError
    from pipeline.run.driver import index_corpus
    from pipeline.run.resources import share_machine
    from pipeline.run.stages import BLOCK_S

    check_models(config.encode, config.store.frames == "all")
    rows = _draw(config)
    some = _some_of_each(rows)
    for _ in decode_files(some[:: FILES_PER_FORMAT // 2], config):  # what is loaded at the first file of a format
        pass
    decoded = list(decode_files(some, config))
    if not decoded:
        raise CorpusError(f"{config.sources[0]}: none of the files that were tried can be decoded")
    for codec, (n_files, speed) in by_format(decoded).items():
        yield {"part": "decode", "format": codec, "files": n_files, "x_per_core": speed}
    decode_x = sum(each.audio_s for each in decoded) / sum(each.cpu_s for each in decoded)

    cores = len(os.sched_getaffinity(0))
    device = resolve_device("auto")
    native, windows = resolve_precision("auto", device), _full_windows(decoded)
    encoders = share_machine(machine_resources(device), config.encode)
    best = 0.0
    for precision in dict.fromkeys(("float32", native)):
        for batch in BATCHES[device]:
            asked = {"part": "encode", "precision": precision, "batch": batch, "processes": encoders.most}
            try:
                speed, held = encode_speed(config, windows, precision, batch, encoders)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                yield {**asked, "batch_held": 0, "x": 0.0}
                continue
            yield {**asked, "batch_held": held, "x": speed}
            best = max(best, speed if precision == native else 0.0)

    identity = read_identity(config.encode.frame_model or config.encode.clip_model)
    write_x = write_speed(str(scratch / "written"), identity.dimension, config.window.grid)
    yield {"part": "write", "dimension": identity.dimension, "x": write_x}

    decode_all = decode_x * cores
    held_s = BLOCK_S * encoders.most
    run = _run(config, rows, scratch, RUN_S * _allow(best, decode_all, device), held_s, index_corpus)
    # What windows share is encoded twice, and the last one of a file begins early rather than late.
    encoding = min(run.pop("encoders"), encoders.most) / encoders.most * best * run["audio_s"]
    allowed = _allow(encoding / max(run["windows_s"], 1e-9), decode_all, device)
    run["of_what_parts_allow"] = run["x"] and run["x"] / max(allowed, 1e-9)
    run["encoded_per_audio"] = run["windows_s"] / max(run["audio_s"], 1e-9)
    wall_h, gb = hours / (run["x"] or max(allowed, 1e-9)), run.pop("index_bytes") / run["audio_s"] * 3600 * hours / 1e9
    yield {"part": "run", **run}
    gpus = {"gpu_h": wall_h * count_gpus(encoders)} if device == "cuda" else {}
    yield {"part": "corpus", "hours": hours, "wall_h": wall_h, "core_h": wall_h * cores, "index_gb": gb} | gpus


def _allow(encode_x: float, decode_x: float, device: str) -> float:
    """The speed that a run may have: on a CPU both parts share the cores."""
    return 1 / (1 / encode_x + 1 / decode_x) if device == "cpu" else min(encode_x, decode_x)


def _draw(config: "Config") -> "list[Row]":
    """The files of the corpus in random order, always the same, the first minute of long ones."""
    import numpy as np

    from jobs.bench.parts import shorten
    from pipeline.corpus.discover import list_corpus

    listed = list_corpus(config.sources, config.corpus)
    order = np.random.default_rng(0).permutation(listed.num_rows)[:20_000]
    return [shorten(row) for row in listed.take(order).to_pylist() if row["reason"] is None]


def _some_of_each(rows: "list[Row]") -> "list[Row]":
    """A few files of each extension."""
    from pipeline.corpus.shards import extension_of
    from pipeline.corpus.time_ranges import recording_of

    found: dict[str, list[Row]] = {}
    for row in rows:
        some = found.setdefault(extension_of(recording_of(row)), [])
        if len(some) < FILES_PER_FORMAT:
            some.append(row)
    return [row for some in found.values() for row in some]


def _full_windows(decoded: "list[Decoded]") -> list[Any]:
    """Windows to encode: the full ones, or the longest where all files are short."""
    windows = [window for each in decoded for window in each.windows]
    longest = max(map(len, windows))
    return [window for window in windows if len(window) == longest][:32]


def _run(
    config: "Config",
    rows: "list[Row]",
    scratch: Path,
    audio_s: float,
    held_s: float,
    index: "Callable[[Config], Progress]",
) -> "Row":
    """Index about ``audio_s`` seconds of the files, and say how fast that went once workers had started.

    ``x`` and ``start_s`` are None where that is less than ``held_s``, the audio that one call of each encoder holds:
    all comes at once then.
    """
    import pipeline
    from pipeline.corpus.corpus_file import CorpusFile
    from pipeline.corpus.time_ranges import recording_of
    from pipeline.run.record import make_record

    manifest, planned_s = scratch / "sample.csv", 0.0
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "start_s", "end_s"])
        for row in rows:
            if planned_s >= audio_s:
                break
            writer.writerow([recording_of(row), row["start_s"], row["end_s"]])
            planned_s += CorpusFile.of_listed(row).seconds
    values = config.model_dump(mode="json") | {"sources": [str(manifest)]}
    values["run"] = {**values["run"], "max_failed_fraction": 1.0}
    began = time.monotonic()
    progress = index(type(config).model_validate(values))
    took = time.monotonic() - began
    busy_s = progress.throughput.busy_s
    durations = pipeline.open(config.into).to_arrow("files", ["n_clips", "duration_s"], where="n_clips > 0").to_pylist()
    length_s = config.window.length_s
    windows_s = sum(row["n_clips"] * min(length_s, row["duration_s"]) for row in durations)
    speed = progress.speed if windows_s >= held_s else None
    return {
        "files": progress.n_files,
        "failed": progress.n_failed,
        "encoders": max(1, math.ceil(progress.planned_s / config.run.batch_s)),  # no more have something to do
        "audio_s": progress.audio_s,
        "windows_s": windows_s,
        "x": speed or None,
        "start_s": max(0.0, took - progress.audio_s / speed) if speed else None,
        "write_share": busy_s["write"] / max(1e-9, sum(busy_s.values())),
        "bottleneck": make_record(progress).bottleneck,
        "index_bytes": sum(file.stat().st_size for file in Path(config.into).rglob("*") if file.is_file()),
    }


def _write_sounds(folder: Path) -> Path:
    """Half an hour of noise that swells, as wav, flac, mp3 and ogg."""
    import numpy as np
    import soundfile

    folder.mkdir()
    rng = np.random.default_rng(3)
    swell = np.sin(np.linspace(0, 60 * np.pi, 30 * 48_000)) ** 2
    for number in range(60):
        suffix = ("wav", "flac", "mp3", "ogg")[number % 4]
        soundfile.write(folder / f"{number:02d}.{suffix}", rng.normal(0, 0.1, len(swell)) * swell, 48_000)
    return folder


def _show(figure: "Row") -> None:
    """One figure as a line."""
    lines = {
        "decode": "decode  {format}: {x_per_core:,.0f}x real time per core ({files} files)",
        "encode": "encode  {precision}, {batch} windows a batch, {processes} processes: {x:,.2f}x real time{note}",
        "write": "write   frames of {dimension} numbers: {x:,.0f}x real time",
        "run": "run     {files} files, {audio_s:,.0f} s of audio: {x:,.2f}x real time, {of_what_parts_allow:.2f} of"
        " what the parts allow, where windows overlap and {encoded_per_audio:.2f} times the audio is encoded;"
        " {start_s:.1f} s to start and end, {write_share:.1%} of the work is writing, bottleneck {bottleneck}",
    }
    if figure["part"] == "run" and figure["x"] is None:
        print_line(
            f"run     {figure['files']} files, {figure['audio_s']:,.0f} s of audio: too few to tell how fast a run is;"
            " what follows is what the parts allow"
        )
        return
    if figure["part"] == "encode":
        held = figure["batch_held"]
        figure = {**figure, "note": "" if held >= figure["batch"] else f" (of which {held:g} fit)" if held else ""}
        if not held:
            print_line(f"encode  {figure['precision']}, {figure['batch']} windows a batch: does not fit")
            return
    if figure["part"] != "corpus":
        print_line(lines[figure["part"]].format(**figure))
        return
    size, wall_h = show_bytes(figure["index_gb"] * 1e9), figure["wall_h"]
    columns = ["hours of audio", "days", "core hours", *(["GPU hours"] if "gpu_h" in figure else []), "index"]
    values = [f"{figure['hours']:,.0f}", f"{wall_h / 24:,.1f}", f"{figure['core_h']:,.0f}"]
    values += [f"{figure['gpu_h']:,.0f}"] if "gpu_h" in figure else []
    print_table("a corpus on this machine", columns, [[*values, size]], right=columns)
