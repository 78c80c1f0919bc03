"""Earshot beside what one would write in an afternoon, in one run: same files, same weights, same cores.

    python -m jobs.bench --peers [--model earshot-tiny] [--files 48]      # `--model random`: of the default size

``loop``: transformers' model and feature extractor in a plain loop. ``ray``: `read_audio`, `map_batches` with an actor
for each core, `write_parquet`, as Ray Data's documentation has it. ``daft``: likewise, where `daft` is installed. Each
is a process of its own, timed from its start to its end, and writes one embedding for each file and one for each frame.

Then each gets files that are not like the others, one at a time, beside a plain one: what it makes of them is told, not
timed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jobs.shared.output import print_json, print_line
from pipeline.grid import count_frames

PEERS = ("loop", "ray", "daft", "earshot")
BATCH = 4
SECONDS = 10.0
ODD = {
    "resample.wav": "44.1 kHz, stereo, 10 s",
    "long.wav": "90 s",
    "broken.wav": "not audio",
}


class Embed:
    """The model and its feature extractor, as its page in transformers' documentation uses them."""

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

    # By default all of so few files are one piece of work, which one process gets while the others wait.
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


def count_rows(peer: str, into: str) -> dict[str, int]:
    """Frames of each file that came out, by name."""
    if peer == "earshot":
        import pipeline

        files = pipeline.open(into).to_arrow("files", ["uri", "n_frames", "status"])
        return {Path(row["uri"]).name: row["n_frames"] for row in files.to_pylist() if row["status"] == "indexed"}
    import pyarrow.parquet as pq

    rows = [row for part in Path(into).glob("**/*.parquet") for row in pq.read_table(part).to_pylist()]
    if peer == "daft":
        return {Path(row["path"]).name: len(row["embeddings"]) - 1 for row in rows}
    return {Path(row["uri"]).name: _count(row["frames"], len(row["clip"])) for row in rows}


def _count(frames: Any, dimension: int) -> int:
    """Ray writes arrays flat, and gives them back in their shape where it has been imported."""
    return sum(map(np.size, frames)) // dimension


def call(peer: str, folder: Path, into: Path, model: str) -> tuple[float, dict[str, int], str]:
    """Seconds, frames of each file, and the last line of an error."""
    command = [sys.executable, "-m", "jobs.bench.baselines", "--here", peer, str(folder), str(into), model]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    errors = re.findall(r"^(?:[\w.]+\.)?(\w+(?:Error|Exception)\b.*)$", done.stderr, re.MULTILINE)
    error = (errors or done.stderr.split("\n") or ["?"])[-1][:160] if done.returncode else ""
    try:
        return took, count_rows(peer, str(into)), error
    except Exception:  # nothing was written
        return took, {}, error


def write_sounds(folder: Path, n_files: int) -> Path:
    import soundfile

    from jobs.bench.encoder import make_sounds

    folder.mkdir()
    for number, sound in enumerate(make_sounds(n_files, SECONDS)):
        soundfile.write(folder / f"{number:03d}.wav", sound, 48_000, subtype="FLOAT")
    return folder


def write_odd(root: Path) -> dict[str, Path]:
    """For each odd file a folder with it and a plain one."""
    import soundfile

    from jobs.bench.encoder import make_sounds

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
    """A checkpoint of the default size with random weights, but for a small text tower."""
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


def measure(model: str, n_files: int) -> Iterator[dict[str, Any]]:
    """For each peer its time and ratio, then what it made of the odd files."""
    from pipeline.encoder.checkpoint import BUNDLED, find_checkpoint

    with tempfile.TemporaryDirectory(prefix="earshot-peers-") as scratch:
        root = Path(scratch)
        name = save_random(root / "model") if model == "random" else str(find_checkpoint(model, None).folder)
        sounds, odd = write_sounds(root / "sounds", n_files), write_odd(root)
        tiny = str(find_checkpoint(BUNDLED, None).folder)
        frames, first = round(SECONDS * 25), 0.0
        for peer in PEERS:
            took, found, error = call(peer, sounds, root / peer, name)
            is_whole = len(found) == n_files and set(found.values()) == {frames}
            first = first or took
            speed = {"seconds": took, "x": n_files * SECONDS / took, "ratio": first / took} if is_whole else {}
            told = {file: call(peer, folder, root / f"{peer}-{file}", tiny)[1:] for file, folder in odd.items()}
            makes = {file: {"frames": found, "error": odd_error} for file, (found, odd_error) in told.items()}
            yield {"peer": peer, "files": len(found), "error": error, **speed, "odd": makes}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.bench --peers", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="earshot-tiny", help="a checkpoint, or `random`: one of the default size")
    parser.add_argument("--files", type=int, default=48, help=f"how many files of {SECONDS:g} s (default: 48)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of tables")
    parser.add_argument("--here", nargs=4, help=argparse.SUPPRESS)  # a process of its own: peer, folder, into, model
    asked = parser.parse_args([argument for argument in arguments if argument != "--peers"])
    if asked.here:
        peer, folder, into, model = asked.here
        runs: dict[str, Callable[[str, str, str], None]] = {
            "loop": run_loop,
            "ray": run_ray,
            "daft": run_daft,
            "earshot": run_earshot,
        }
        runs[peer](folder, into, model)
        return 0
    for row in measure(asked.model, asked.files):
        if asked.json:
            print_json([row])
            continue
        timed = (
            f"{row['seconds']:8.1f} s {row['x']:8.2f}x real time {row['ratio']:6.2f}" if "x" in row else row["error"]
        )
        print_line(f"{row['peer']:8} {timed}")
        for file, what in ODD.items():
            made = row["odd"][file]
            others = f"{made['frames'].get('plain.wav', 'no')} of the plain file beside it"
            ended = f"; ended with {made['error']}" if made["error"] else ""
            print_line(f"{'':10}{what:24}{made['frames'].get(file, 'no')} frames, {others}{ended}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
