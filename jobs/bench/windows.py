"""Measure what the rules for last windows cost, what they do to batches, and how good frames are where windows meet.

    python -m jobs.bench windows                    # takes some eight minutes
    python -m jobs.bench windows runs --model random    # with a model of the default size: a quarter of an hour

``cost``: audio encoded per audio stored, by each rule, for four corpora of made lengths: 10.00 to 10.03 s as in
AudioSet, 15 to 30 s as in Clotho, log-normal lengths as in FSD50K, and recordings of hours. ``passes``: the passes of
the model on a GPU that an hour of each corpus takes, and the share of the audio in passes of at least 40 s; where the
durations are known exactly before decoding (wav), and where they are estimated to a tenth (mp3). Blocks and calls are
counted as Ray joins and cuts them. ``speed``: encoding windows of many lengths against windows of 10 s, in turns, by
one thread. ``seam``: the cosine of frames near a seam to the same frames in the middle of a window, for windows of 5,
10 and 15 s and the shortest and longest last window. ``quality``: how much worse the bundled model finds sounds by the
rule ``fit``, in held-out scenes of more than 10 s. ``runs``: whole runs of each corpus by both rules, from the start of
workers to the last commit, while Ray runs already.

The exit code is 1 where a limit is missed.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer

from jobs.bench.baselines import save_random
from jobs.bench.figures import Figure, measure_and_report
from jobs.bench.sounds import make_sounds, write_sounds
from jobs.shared.options import Json
from jobs.tiny.evaluate import CHECKPOINT, load, make_long_exam, measure
from jobs.tiny.synth import draw_scene
from pipeline.config import EncodeConfig, RunConfig, make_config
from pipeline.encoder.batching import MOST_GPU_WINDOWS, WINDOW_SAMPLES, fit_batch, share_call
from pipeline.encoder.encoder import load_encoder, load_for_run
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.grid import FRAME_S, HOP_SAMPLES, SAMPLE_RATE_HZ, Grid, Waveform, plan_windows, seconds_to_frames
from pipeline.run.decode_stage import BLOCK_S
from pipeline.run.driver import index_corpus
from pipeline.run.resources import CALL_S

Lengths = npt.NDArray[np.float64]

FIT, BACK = Grid(250, 10, "fit"), Grid(250, 10, "back")
LEAST_PASS_S = 40.0
SEAM_SCENES = 12
SPEED_S = BLOCK_S / 2

GOALS = {"10 s": 1.7, "15-30 s": 1.2}
"""How many times as fast whole runs should be by the rule ``fit``."""
BATCH_S = RunConfig().batch_s


class Part(StrEnum):
    cost = "cost"
    passes = "passes"
    speed = "speed"
    seam = "seam"
    quality = "quality"
    runs = "runs"


def windows(
    parts: Annotated[list[Part] | None, typer.Argument(help="What to measure; by default all.")] = None,
    model: Annotated[str, typer.Option(help="A model, or `random`: one of the default size.")] = "earshot-tiny",
    rounds: Annotated[int, typer.Option(help="Of speeds; and 24 scenes for quality in each.", min=1)] = 5,
    minutes: Annotated[float, typer.Option(help="Audio of each corpus in whole runs.", min=1)] = 12.0,
    json: Json = False,
) -> None:
    """Measure the cost, batches, seams and whole runs of the rules for the last window of a file."""
    measurements: dict[Part, Callable[[Path], Iterator[Figure]]] = {
        Part.cost: lambda folder: measure_cost(),
        Part.passes: lambda folder: measure_passes(),
        Part.speed: partial(measure_speed, model=model, rounds=rounds),
        Part.seam: lambda folder: measure_seams(),
        Part.quality: lambda folder: measure_quality(24 * rounds),
        Part.runs: partial(measure_runs, model=model, minutes=minutes),
    }
    measure_and_report("windows", [measurements[part] for part in parts or list(Part)], json=json)


def make_corpora(hours: float = 20.0) -> dict[str, Lengths]:
    """The lengths of files, in seconds, by corpus; each corpus has about so many hours."""
    rng = np.random.default_rng(0)
    draw: dict[str, Callable[[int], Lengths]] = {
        "10 s": lambda n: rng.uniform(10.0, 10.03, n),
        "15-30 s": lambda n: rng.uniform(15.0, 30.0, n),
        "FSD50K": lambda n: np.clip(rng.lognormal(np.log(5.0), 0.9, n), 0.3, 30.0),
        "hours": lambda n: rng.uniform(1800.0, 7200.0, n),
    }
    mean_s = {"10 s": 10.0, "15-30 s": 22.5, "FSD50K": 7.1, "hours": 4500.0}
    return {name: draw_s(max(1, round(hours * 3600 / mean_s[name]))) for name, draw_s in draw.items()}


def list_files(lengths_s: Lengths, grid: Grid, error: float = 0.0) -> list[list[int]]:
    """The frames of the windows of each file, in the order in which a run decodes them: the longest file first, as far
    as it can tell, with a relative ``error``."""
    estimated_s = lengths_s * np.exp(np.random.default_rng(1).normal(0, 1, len(lengths_s)) * error)
    n_frames = np.ceil(lengths_s[np.argsort(-estimated_s)] / FRAME_S - 1e-9).astype(int)
    return [[span.length for span in plan_windows(n, grid)] for n in n_frames.tolist()]


def measure_cost() -> Iterator[Figure]:
    # Full windows have 10 s in 9.6 s of a long recording: its cost tends to 10 / 9.6, which no rule for the last one
    # changes.
    for name, lengths_s in make_corpora().items():
        limit = 1.045 if name == "hours" else 1.04
        audio_s = float(lengths_s.sum())
        before, after = (sum(map(sum, list_files(lengths_s, grid))) * FRAME_S / audio_s for grid in (BACK, FIT))
        yield Figure("cost", name, after, "x", limit, f"back: {before:.3f} x; {len(lengths_s):,} files")
    worst = max(sum(span.length for span in plan_windows(n, FIT)) / n for n in range(seconds_to_frames(5.0), 10_000))
    yield Figure("cost", "worst file of 5 s or more", worst, "x", 1.06)


def list_calls(files: Sequence[Sequence[int]], rows_per_call: int) -> list[list[int]]:
    """The windows in each call of an encoder on a GPU. Each file has a row for each window and one for itself.

    A block is what was decoded of a batch, at most ``BLOCK_S`` of audio. Ray takes whole blocks until it has
    ``rows_per_call`` rows, then makes calls of just as many, and one of the rows that remain.
    """
    calls: list[list[int]] = []
    taken: list[int] = []
    block: list[int] = []
    batch_s = BATCH_S
    for number, file in enumerate(files):
        for n in [*file, 0]:
            if (sum(block) + n) * FRAME_S > BLOCK_S:
                taken, block = [*taken, *block], []
            block.append(n)
        batch_s -= sum(file) * FRAME_S
        last = number == len(files) - 1
        if batch_s <= 0 or last:
            taken, block, batch_s = [*taken, *block], [], BATCH_S
        if len(taken) >= rows_per_call or last:
            calls += [taken[i : i + rows_per_call] for i in range(0, len(taken), rows_per_call)]
            taken = []
    return [windows for call in calls if (windows := [n for n in call if n])]


def list_passes(calls: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The frames of the windows in each pass of the model on a large GPU."""
    for call in calls:
        waiting = sorted((length * HOP_SAMPLES for length in call), reverse=True)
        most = share_call(waiting)
        while waiting:
            n = fit_batch(waiting, MOST_GPU_WINDOWS * WINDOW_SAMPLES, most)
            yield [length // HOP_SAMPLES for length in waiting[:n]]
            waiting = waiting[n:]


def list_codec_passes(passes: Sequence[Sequence[int]]) -> list[int]:
    """The frames in each pass of the codec, which takes the windows of one length together."""
    return [n * each.count(n) for each in passes for n in set(each)]


def measure_passes() -> Iterator[Figure]:
    for name, lengths_s in make_corpora().items():
        for error in (0.0, 0.1):
            said = []
            for grid, call_s in ((BACK, CALL_S), (FIT, BLOCK_S), (FIT, CALL_S)):
                files = list_files(lengths_s, grid, error)
                n_rows = sum(map(len, files)) + len(files)
                calls = list_calls(files, max(1, int(call_s * n_rows / lengths_s.sum())))
                passes = list(list_passes(calls))
                seconds = np.array([sum(each) for each in passes]) * FRAME_S
                of_codec = np.array(list_codec_passes(passes)) * FRAME_S
                hours = lengths_s.sum() / 3600
                said.append(
                    f"{len(seconds) / hours:.0f} ({count_long(seconds):.0%}), "
                    f"codec {len(of_codec) / hours:.0f} ({count_long(of_codec):.0%})"
                )
            known = f"{name}, durations known to {error:.0%}" if error else name
            detail = f"(of the audio, in passes of 40 s) {said[2]}; in calls of one block {said[1]}; back {said[0]}"
            yield Figure("passes", known, len(seconds) / hours, "/ h", None, detail)


def count_long(seconds: Lengths) -> float:
    """The share of the audio in passes of at least ``LEAST_PASS_S``."""
    return float(seconds[seconds >= LEAST_PASS_S].sum() / seconds.sum())


def measure_speed(folder: Path, *, model: str, rounds: int) -> Iterator[Figure]:
    """One call with all windows of a corpus as large as half a block of a run, in one thread, as the encoders of a run
    have on a CPU. Processor time counts, since it depends less on other work on the machine."""
    name = save_random(folder / "random") if model == "random" else model
    n_threads = torch.get_num_threads()
    encoder = load_for_run(EncodeConfig(clip_model=name, device="cpu"), True, 1)
    corpora = {name: lengths for name, lengths in make_corpora(SPEED_S / 3600).items() if name != "hours"}
    calls = {"equal": [FIT.length_frames] * round(SPEED_S / FRAME_S / FIT.length_frames)} | {
        name: [n for file in list_files(each, FIT) for n in file] for name, each in corpora.items()
    }
    [longest] = make_sounds(1, FIT.longest_frames * FRAME_S)
    encoder.encode([longest])  # loads what loads once
    speeds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for each, lengths in calls.items():
            some: list[Waveform] = [longest[: n * HOP_SAMPLES] for n in lengths]
            began = time.process_time()
            encoder.encode(some)
            speeds[each].append(sum(lengths) * FRAME_S / (time.process_time() - began))
    torch.set_num_threads(n_threads)
    for each in corpora:
        ratio = statistics.median(mixed / equal for mixed, equal in zip(speeds[each], speeds["equal"], strict=True))
        detail = f"{statistics.median(speeds[each]):.2f} and {statistics.median(speeds['equal']):.2f} times real time"
        detail += f"; {len(calls[each])} windows of {len(set(calls[each]))} lengths"
        yield Figure("speed", f"{each}: time, of that of windows of 10 s", 1 / ratio, "x", 1 / 0.97, detail)


def measure_seams() -> Iterator[Figure]:
    """With the bundled model, on scenes like those it was trained on."""
    encoder = load_encoder(EncodeConfig(device="cpu"))

    def hear(scene: Waveform, first: int, n: int) -> npt.NDArray[np.float64]:
        """The directions of the frames of a window."""
        _, frames = encoder.encode([scene[first * HOP_SAMPLES : (first + n) * HOP_SAMPLES]])
        rows = np.asarray((frames or [])[0], np.float64)
        directions: npt.NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return directions

    for length_s in (5.0, 10.0, 15.0):
        grid = Grid(seconds_to_frames(length_s), 10)
        length, overlap, longest = grid.length_frames, grid.overlap_frames, grid.longest_frames
        later, half = 2 * length, (overlap + 1) // 2  # the frame at which the later window begins
        shortest = longest - (grid.step_frames - 1) // grid.quantum_frames * grid.quantum_frames
        rng = np.random.default_rng(5)
        scenes = [draw_scene(rng, (later + longest) * FRAME_S)[0] for _ in range(SEAM_SCENES)]
        begin = later + half - length // 2
        true = [hear(scene, begin, length)[later - begin :][:overlap] for scene in scenes]
        earlier = [hear(scene, later + overlap - length, length)[-overlap:] for scene in scenes]
        before = np.mean([(a * b).sum(1) for a, b in zip(earlier, true, strict=True)], axis=0)
        for last, n in {"shortest": shortest, "equal": length, "longest": longest}.items():
            after = np.mean(
                [(hear(s, later, n)[:overlap] * b).sum(1) for s, b in zip(scenes, true, strict=True)], axis=0
            )
            middle = float(np.r_[before[:half], after[half:]].mean())
            detail = f"all from the earlier window {before.mean():.2%}, all from the later {after.mean():.2%}"
            yield Figure("seam", f"{length_s:.0f} s, {last} last window: cosine", 100 * middle, "%", None, detail)


def measure_quality(n_scenes: int) -> Iterator[Figure]:
    """The loss by the rule ``fit`` of three figures of ``jobs.tiny.evaluate``, below zero where it finds more."""
    keep_freed_memory()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with so small a model, threads spin longer than they work
    model, tokenizer = load(CHECKPOINT)
    for shortest_s, longest_s in ((10.04, 15.0), (15.0, 30.0)):
        exam = make_long_exam(shortest_s, longest_s, n_scenes)
        back, fit = (measure(model, tokenizer, exam, grid=grid) for grid in (BACK, FIT))
        for name in ("precision_at_10", "frame_f1", "event_f1"):
            before, after = float(getattr(back, name)), float(getattr(fit, name))
            what = f"scenes of {shortest_s:.0f} to {longest_s:.0f} s: {name.replace('_', ' ')}, loss"
            yield Figure("quality", what, 100 * (before - after), "%", 1.0, f"back {before:.3f}, fit {after:.3f}")
    torch.set_num_threads(n_threads)


def measure_runs(folder: Path, *, model: str, minutes: float) -> Iterator[Figure]:
    """Index each corpus by both rules. A first run starts Ray and loads what loads once."""
    name = save_random(folder / "random") if model == "random" else model
    noise = np.random.default_rng(7).normal(0, 0.1, int(60 * minutes) * SAMPLE_RATE_HZ).astype(np.float32)

    def index(corpus: str, tail: str) -> tuple[float, float]:
        """Seconds that the run took, and the speed of its workers."""
        into = folder / f"{corpus}-{tail}"
        values = {"sources": [str(folder / corpus)], "into": str(into), "window": {"tail": tail}}
        began = time.perf_counter()
        progress = index_corpus(make_config({**values, "encode": {"clip_model": name}}))
        return time.perf_counter() - began, progress.throughput.speed

    write_sounds(folder / "first", [noise[: 10 * SAMPLE_RATE_HZ]], ("flac",))
    index("first", "fit")
    for corpus, lengths_s in make_corpora(minutes / 60).items():
        n_samples = np.minimum(lengths_s * SAMPLE_RATE_HZ, len(noise)).astype(int)
        starts = np.random.default_rng(8).integers(0, len(noise) - n_samples + 1)
        sounds = (noise[start : start + n] for start, n in zip(starts, n_samples, strict=True))
        write_sounds(folder / corpus, sounds, ("flac",))
        took_s, speeds = zip(*(index(corpus, tail) for tail in ("back", "fit")), strict=True)
        hours = [float(n_samples.sum()) / SAMPLE_RATE_HZ / seconds for seconds in took_s]
        detail = f"back {hours[0]:.2f}, fit {hours[1]:.2f} h / h, {hours[1] / hours[0]:.2f} x; {len(n_samples)} files"
        if all(speeds):  # not where everything came back at once
            detail += f"; workers {speeds[0]:.2f} and {speeds[1]:.2f} ({speeds[1] / speeds[0]:.2f} x)"
        limit = 1 / GOALS[corpus] if corpus in GOALS else None
        yield Figure("runs", f"{corpus}: time by fit, of that by back", hours[0] / hours[1], "x", limit, detail)
