"""``earshot demo``: synthesise a small corpus, index it, search it, and compare the answers with the truth."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.shared.indexing import run_index
from jobs.shared.options import Json
from jobs.shared.output import print_json, print_line, print_table
from pipeline.words import show_path

if TYPE_CHECKING:
    from jobs.tiny.synth import Event

N_SCENES = 28
SEED = 2_024
TOLERANCE_S = 0.2
QUESTIONS = {
    "siren": "an ambulance siren",
    "bell": "a bell ringing",
    "chirps": "birds chirping",
    "drum": "someone drumming",
    "rising_sweep": "a tone gliding upwards",
}


def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for the sounds and the index.")] = Path(
        "earshot-demo"
    ),
    json: Json = False,
) -> None:
    """Synthesise 30 recordings, index them with the bundled model, and find sounds in them.

    Example: earshot demo
    """
    import pipeline
    from pipeline.config import make_config

    truth = make_corpus(folder / "sounds")
    if not json:
        print_line(f"{len(truth)} recordings in {folder / 'sounds'}, two of them broken on purpose")
    config = make_config({"into": str(folder / "index"), "sources": [str(folder / "sounds")]})
    run_index(config, json=json, workers=context.obj)
    opened = pipeline.open(config.into)
    rows = [_ask(opened, text, label, truth) for label, text in QUESTIONS.items()]
    if json:
        print_json(rows)
    else:
        _print(rows, folder)
    if not all(row["right"] for row in rows):
        raise typer.Exit(1)


def _ask(opened: Any, text: str, label: str, truth: "dict[str, list[Event]]") -> dict[str, Any]:
    """Ask for the best clip and the best event of a class, and compare them with the planted events."""
    hit = opened.search(text, k=1)[0]
    events = opened.locate(text, k=1)
    row: dict[str, Any] = {"text": text, "label": label, "clip": hit.uri, "clip_start_s": hit.start_s}
    planted = [event for event in truth[Path(hit.uri).name] if event.label == label]
    in_clip = any(event.start_s < hit.end_s and hit.start_s < event.end_s for event in planted)
    if not events:
        return {**row, "right": False}
    found = events[0]
    there = [event for event in truth[Path(found.uri).name] if event.label == label]
    row.update(uri=found.uri, start_s=found.start_s, end_s=found.end_s, probability=found.probability)
    if not there:
        return {**row, "right": False}
    nearest = min(there, key=lambda event: abs(event.start_s - found.start_s) + abs(event.end_s - found.end_s))
    row.update(planted_start_s=nearest.start_s, planted_end_s=nearest.end_s)
    off_s = max(abs(nearest.start_s - found.start_s), abs(nearest.end_s - found.end_s))
    return {**row, "off_s": off_s, "right": in_clip and off_s <= TOLERANCE_S}


def _print(rows: list[dict[str, Any]], folder: Path) -> None:
    columns = ["asked for", "clip", "event", "found, s", "planted, s", "right"]
    values = [
        (
            row["text"],
            Path(row["clip"]).name,
            Path(row.get("uri", "-")).name,
            f"{row['start_s']:.2f}-{row['end_s']:.2f}" if "start_s" in row else "-",
            f"{row['planted_start_s']:.2f}-{row['planted_end_s']:.2f}" if "planted_start_s" in row else "-",
            "yes" if row["right"] else "NO",
        )
        for row in rows
    ]
    print_table("the best answers, and what was planted", columns, values, right=columns[3:5])
    index = shlex.quote(f"{show_path(str(folder))}/index")
    print_line(f"{sum(row['right'] for row in rows)} of {len(rows)} right. Try it yourself:")
    print_line(f'  earshot query {index} "a deep engine rumble" -k 3')
    print_line(f'  earshot locate {index} "clicking"')
    print_line(f"  earshot failures {index}")
    print_line(f"  earshot serve {index}")


def make_corpus(folder: Path) -> "dict[str, list[Event]]":
    """Write the recordings that are missing; returns the events of each, by file name."""
    import numpy as np

    from jobs.tiny.synth import CLASSES, make_scene

    folder.mkdir(parents=True, exist_ok=True)
    formats = ("wav", "flac", "ogg", "mp3")
    labels = [label for label in CLASSES if label != "silence"]
    truth: dict[str, list[Event]] = {}
    for number in range(N_SCENES):
        rng = np.random.default_rng([SEED, number])
        duration_s = 90.0 if number == 0 else float(rng.uniform(6, 16))
        n_events = 10 if number == 0 else 2
        chosen = [labels[(number * 3 + k) % len(labels)] for k in range(n_events)]
        name = f"{number:02d}.{formats[number % len(formats)]}"
        events = _place(rng, chosen, duration_s)
        waveform, truth[name] = make_scene(rng, duration_s, events, snr_db=float(rng.uniform(6, 20)), held_out=True)
        if not (folder / name).exists():
            _write(folder / name, waveform)
    truth["broken.wav"] = []
    (folder / "broken.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEnothing here")
    truth["no sound.mp3"] = []
    (folder / "no sound.mp3").write_text("<html>404 Not Found</html>")
    return truth


def _place(rng: Any, labels: list[str], duration_s: float) -> "list[Event]":
    """Place one sound after the other, with at least 0.4 s between them."""
    from jobs.tiny.synth import LENGTHS_S, Event

    events = []
    slot_s = duration_s / len(labels)
    for number, label in enumerate(labels):
        length_s = min(rng.uniform(*LENGTHS_S[label]), slot_s - 0.4)
        start_s = number * slot_s + 0.2 + rng.random() * (slot_s - 0.4 - length_s)
        events.append(Event(label, float(start_s), float(start_s + length_s)))
    return events


def _write(file: Path, waveform: Any) -> None:
    import soundfile

    scratch = file.with_name(f".{file.name}")
    soundfile.write(scratch, waveform, 48_000, format=file.suffix[1:].upper())
    scratch.replace(file)
