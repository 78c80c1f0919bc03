"""Earshot beside baselines that one would write in an afternoon, in one run: same files, same weights, same cores.

    python -m jobs.bench baselines [--model earshot-tiny] [--files 48] [--corpus 10s]   # `--model random`: default size

``loop``: transformers' model and feature extractor in a plain loop. ``ray``: `read_audio`, `map_batches` with an actor
for each core, `write_parquet`, as in Ray Data's documentation. ``daft``: the same, where `daft` is installed. Each is a
process of its own, timed from its start to its end, and writes one embedding for each file and one for each frame.
The corpora are files of 10 s, of 10.02 s, and of 15 to 30 s.

Then each gets odd files, one at a time, beside a plain one. The command prints the result and takes no times.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from jobs.bench.sounds import make_sounds, write_sounds
from jobs.shared.options import Json
from jobs.shared.output import print_json, print_line
from pipeline.grid import FRAME_S, SAMPLE_RATE_HZ, count_frames, seconds_to_samples

BATCH = 4


class Corpus(StrEnum):
    """Files of 10 s; of 10.02 s, as clips of AudioSet decode; and of 15 to 30 s, as those of Clotho."""

    plain = "10s"
    over = "10.02s"
    mixed = "15-30s"


SECONDS = {Corpus.plain: (10.0, 10.0), Corpus.over: (10.02, 10.02), Corpus.mixed: (15.0, 30.0)}
"""The shortest and the longest file."""

ODD = {
    "resample.wav": "44.1 kHz, stereo, 10 s",
    "long.wav": "90 s",
    "broken.wav": "not audio",
}


class Embed:
    """The model and its feature extractor, as in transformers' documentation."""

    def __init__(self, model: str) -> None:
        import torch
        from transformers import PeAudioFeatureExtractor, PeAudioModel

        torch.set_num_threads(1)
        self._model = PeAudioModel.from_pretrained(model, trust_remote_code=False).eval()
        self._extractor = PeAudioFeatureExtractor()

    def embed(self, sounds: list[Any], sample_rate_hz: int) -> tuple[Any, list[Any]]:
        """Clip embeddings, and the frames of each sound."""
        import torch

        inputs = self._extractor(sounds, sampling_rate=sample_rate_hz, padding=True, return_tensors="pt")
        with torch.inference_mode():
            heard = self._model.audio_encoder(inputs["input_values"], padding_mask=inputs["padding_mask"])
            clips = self._model.audio_head(heard.pooler_output).numpy()
            frames = self._model.audio_head(heard.last_hidden_state).numpy()
        return clips, [rows[: count_frames(len(sound))] for rows, sound in zip(frames, sounds, strict=True)]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        sounds = [np.atleast_2d(sound).mean(0).astype(np.float32) for sound in batch["amplitude"]]
        clips, frames = self.embed(sounds, int(batch["sample_rate"][0]))
        return {"uri": batch["path"], "clip": clips, "frames": np.array([rows.tolist() for rows in frames], object)}


def run_loop(folder: str, into: str, model: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile
    import torch

    embed, rows = Embed(model), []
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for file in sorted(Path(folder).iterdir()):
        sound, rate_hz = soundfile.read(file, dtype="float32")
        clips, frames = embed.embed([sound], rate_hz)
        rows.append({"uri": str(file), "clip": clips[0].tolist(), "frames": frames[0].tolist()})
    Path(into).mkdir()
    pq.write_table(pa.Table.from_pylist(rows), f"{into}/rows.parquet")


def run_ray(folder: str, into: str, model: str) -> None:
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # it listens on this machine only
    import ray

    ray.init("local", log_to_driver=False, logging_level="error")  # and not on a cluster that happens to run here
    cores = len(os.sched_getaffinity(0))
    (
        ray.data.read_audio(folder, include_paths=True)
        .map_batches(Embed, fn_constructor_args=(model,), batch_size=BATCH, num_cpus=0.5, concurrency=cores)
        .write_parquet(into)
    )


def run_daft(folder: str, into: str, model: str) -> None:
    import daft
    import soundfile

    # By default one process gets so few files in one piece, while the others wait.
    daft.set_execution_config(default_morsel_size=1)

    @daft.cls(max_concurrency=len(os.sched_getaffinity(0)))
    class EmbedFile:
        def __init__(self) -> None:
            self._embed = Embed(model)

        @daft.method(return_dtype=daft.DataType.list(daft.DataType.list(daft.DataType.float32())))  # type: ignore[untyped-decorator]
        def clip_and_frames(self, uri: str) -> list[Any]:
            sound, rate_hz = soundfile.read(uri.removeprefix("file://"), dtype="float32")
            clips, frames = self._embed.embed([sound], rate_hz)
            return [clips[0].tolist(), *frames[0].tolist()]

    files = daft.from_glob_path(f"{folder}/*")
    files.with_column("embeddings", EmbedFile().clip_and_frames(daft.col("path"))).write_parquet(into)


def run_earshot(folder: str, into: str, model: str) -> None:
    from pipeline.config import make_config
    from pipeline.run.driver import index_corpus

    values = {"sources": [folder], "into": into, "encode": {"clip_model": model}, "run": {"max_failed_fraction": 1.0}}
    index_corpus(make_config(values))


BASELINES: dict[str, Callable[[str, str, str], None]] = {
    "loop": run_loop,
    "ray": run_ray,
    "daft": run_daft,
    "earshot": run_earshot,
}


def count_rows(baseline: str, into: str) -> dict[str, int]:
    """Frames of each file in the output, by name."""
    if baseline == "earshot":
        import pipeline

        files = pipeline.open(into).to_arrow("files", ["uri", "n_frames", "status"])
        return {Path(row["uri"]).name: row["n_frames"] for row in files.to_pylist() if row["status"] == "indexed"}
    import pyarrow.parquet as pq

    rows = [row for part in Path(into).glob("**/*.parquet") for row in pq.read_table(part).to_pylist()]
    if baseline == "daft":
        return {Path(row["path"]).name: len(row["embeddings"]) - 1 for row in rows}
    return {Path(row["uri"]).name: count_written(row["frames"], len(row["clip"])) for row in rows}


def count_written(frames: Any, dimension: int) -> int:
    """The number of frames: Ray writes arrays flat, and reads them in their shape where it has been imported."""
    return sum(map(np.size, frames)) // dimension


def call(baseline: str, folder: Path, into: Path, model: str) -> tuple[float, dict[str, int], str]:
    """Run a baseline in a process of its own: seconds, frames of each file, and the last line of an error."""
    run = BASELINES[baseline].__name__
    program = f"import sys; from jobs.bench.baselines import {run}; {run}(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(folder), str(into), model]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    errors = re.findall(r"^(?:[\w.]+\.)?(\w+(?:Error|Exception)\b.*)$", done.stderr, re.MULTILINE)
    error = (errors or done.stderr.split("\n") or ["?"])[-1][:160] if done.returncode else ""
    try:
        return took, count_rows(baseline, str(into)), error
    except Exception:  # nothing was written
        return took, {}, error


def write_odd(root: Path) -> dict[str, Path]:
    """A folder for each odd file, with a plain one beside it."""
    import soundfile

    [sound] = make_sounds(1, 90.0)
    folders = {name: root / f"odd-{name}" for name in ODD}
    for folder in folders.values():
        folder.mkdir()
        soundfile.write(folder / "plain.wav", sound[:480_000], 48_000)
    soundfile.write(
        folders["resample.wav"] / "resample.wav", np.stack([sound[:441_000]] * 2, axis=1), 44_100, subtype="FLOAT"
    )
    soundfile.write(folders["long.wav"] / "long.wav", sound, 48_000, subtype="FLOAT")
    (folders["broken.wav"] / "broken.wav").write_text("nothing to hear")
    return folders


def save_random(folder: Path) -> str:
    """Save a checkpoint of the default size with random weights and a small text tower; returns its folder."""
    from transformers import PeAudioConfig, PeAudioModel
    from transformers.utils import logging

    from pipeline.encoder.checkpoint import BUNDLED, find_checkpoint
    from pipeline.encoder.loading import load_tokenizer

    logging.disable_progress_bar()
    text = {"num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 1_000, "pad_token_id": 0}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    PeAudioModel(PeAudioConfig(text_config=text)).save_pretrained(folder)
    load_tokenizer(find_checkpoint(BUNDLED, None)).save_pretrained(folder)
    return str(folder)


def make_corpus(corpus: Corpus, n_files: int) -> list[Any]:
    """The sounds of a corpus, each (samples,)."""
    shortest_s, longest_s = SECONDS[corpus]
    lengths_s = np.random.default_rng(0).uniform(shortest_s, longest_s, n_files)
    sounds = make_sounds(n_files, longest_s + FRAME_S)
    return [sound[: seconds_to_samples(length_s)] for sound, length_s in zip(sounds, lengths_s, strict=True)]


def measure(model: str, n_files: int, corpora: Sequence[Corpus] = tuple(Corpus)) -> Iterator[dict[str, Any]]:
    """For each corpus and baseline its time and ratio; then the frames that each baseline makes of the odd files."""
    from pipeline.encoder.checkpoint import BUNDLED, find_checkpoint

    with tempfile.TemporaryDirectory(prefix="earshot-baselines-") as scratch:
        root = Path(scratch)
        name = save_random(root / "model") if model == "random" else str(find_checkpoint(model, None).folder)
        for corpus in corpora:
            made = make_corpus(corpus, n_files)
            expected = {f"{number:05d}.wav": count_frames(len(sound)) for number, sound in enumerate(made)}
            audio_s = sum(map(len, made)) / SAMPLE_RATE_HZ
            sounds = write_sounds(root / corpus, made, subtype="FLOAT")
            first = 0.0
            for baseline in BASELINES:
                took, found, error = call(baseline, sounds, root / f"{baseline}-{corpus}", name)
                first = first or took
                speed = {"seconds": took, "x": audio_s / took, "ratio": first / took} if found == expected else {}
                yield {"corpus": corpus.value, "baseline": baseline, "files": len(found), "error": error, **speed}
        tiny, odd = str(find_checkpoint(BUNDLED, None).folder), write_odd(root)
        for baseline in BASELINES:
            results = {file: call(baseline, odd[file], root / f"{baseline}-{file}", tiny)[1:] for file in odd}
            of_odd = {file: {"frames": found, "error": error} for file, (found, error) in results.items()}
            yield {"baseline": baseline, "odd": of_odd}


def baselines(
    model: Annotated[str, typer.Option(help="A checkpoint, or `random`: the default size.")] = "earshot-tiny",
    files: Annotated[int, typer.Option(help="Number of files of a corpus.", min=1)] = 48,
    corpus: Annotated[list[Corpus] | None, typer.Option(help="By default each of them.")] = None,
    json: Json = False,
) -> None:
    """Measure Earshot beside a plain loop, Ray Data and Daft."""
    for row in measure(model, files, corpus or tuple(Corpus)):
        if json:
            print_json([row])
        else:
            _print_row(row)


def _print_row(row: dict[str, Any]) -> None:
    if "odd" not in row:
        timed = (
            f"{row['seconds']:8.1f} s {row['x']:8.2f}x real time {row['ratio']:6.2f}" if "x" in row else row["error"]
        )
        print_line(f"{row['corpus']:9} {row['baseline']:8} {timed}")
        return
    for file, description in ODD.items():
        made = row["odd"][file]
        others = f"{made['frames'].get('plain.wav', 'no')} of the plain file beside it"
        ended = f"; ended with {made['error']}" if made["error"] else ""
        print_line(f"{row['baseline']:8}  {description:24}{made['frames'].get(file, 'no')} frames, {others}{ended}")
