"""The whole flow: real Ray, real Lance, the bundled model, and a corpus whose truth is known."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import soundfile

import pipeline
from jobs.tiny.captions import CAPTIONS
from jobs.tiny.synth import CLASSES, Event, make_scene
from pipeline import schema
from pipeline.audio.windows import cut_windows
from pipeline.config import Config, DecodeConfig, make_config
from pipeline.encoder.encoder import load_encoder
from pipeline.errors import EarshotError, ModelError
from pipeline.grid import FRAME_S, HOP_SAMPLES, Grid, count_frames, plan_windows
from pipeline.index import journal
from pipeline.index.tables import create_tables, open_published
from pipeline.processes import find_descendants
from pipeline.run import resources
from pipeline.run.decode_stage import decode_batch
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import describe_run
from pipeline.run.progress import Progress
from pipeline.run.workers import run_stages, workers_on_ray
from pipeline.search.client import Index
from tests.helpers.checkpoints import edit_weights, make_pe_audio
from tests.helpers.fakes import noise, write_wav
from tests.helpers.long import in_one_piece, published
from tests.helpers.processes import LOOPBACK, find_listeners
from tests.helpers.progress import record_of
from tests.helpers.runs import WideEncoder, in_place, write_sounds
from tests.helpers.sounds import write_broken_corpus, write_formats

pytestmark = pytest.mark.usefixtures("ray_session")

GRID = Grid()
PER_CLASS = 2
SOUNDS = [label for label in CLASSES if label != "silence"]

ROOT = Path(__file__).parents[2]


def configure(folder: Path, index: Path, **sections: Any) -> Config:
    encode = {"actors": 1}  # each encoder takes seconds of both cores to start
    return make_config({"sources": [str(folder)], "into": str(index), "encode": encode, **sections})


def index_here(config: Config) -> Progress:
    """Without Ray, which takes seconds for each run."""
    return index_corpus(config, stages=in_place(load_encoder(config.encode, config.store.frames == "all")))


def read(index: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = open_published(index, name).to_table().to_pylist()
    return rows


def check_against_grid(index: Path) -> None:
    """Every row of every table is where the time grid says, and nothing else is there."""
    files = {row["file_id"]: row for row in read(index, "files")}
    clips: dict[str, list[dict[str, Any]]] = {file_id: [] for file_id in files}
    for row in read(index, "clips"):
        clips[row["file_id"]].append(row)
    frames: dict[str, list[dict[str, Any]]] = {}
    last = None
    for row in read(index, "frames"):
        assert row["audio_id"] == last or row["audio_id"] not in frames, "the frames of an audio are contiguous"
        last = row["audio_id"]
        frames.setdefault(last, []).append(row)
    batches = {row["batch_id"] for row in journal.read_journal(index).to_pylist()}
    assert frames.keys() == {row["audio_id"] for row in files.values() if row["status"] == "indexed"}
    for file_id, row in files.items():
        assert file_id == schema.make_file_id(row["uri"], row["audio_id"])
        assert row["batch_id"] in batches
        if row["status"] != "indexed":
            assert row["stage"]
            assert row["reason"]
            assert row["message"]
            assert not clips[file_id]
            assert (row["n_clips"], row["n_frames"]) == (0, 0)
            continue
        n_frames = count_frames(round(row["duration_s"] * 48_000))
        spans = plan_windows(n_frames, GRID)
        starts = [span.first for span in spans]
        assert row["n_frames"] == n_frames
        assert row["n_clips"] == len(starts)
        found = sorted(clips[file_id], key=lambda clip: float(clip["start_s"]))
        assert [clip["clip_id"] for clip in found] == [schema.make_clip_id(file_id, first) for first in starts]
        assert [clip["start_s"] for clip in found] == [first * HOP_SAMPLES / 48_000 for first in starts]
        ends = [min((span.first + span.length) * HOP_SAMPLES / 48_000, row["duration_s"]) for span in spans]
        assert [clip["end_s"] for clip in found] == ends
        audio = frames[row["audio_id"]]
        assert [frame["frame"] for frame in audio] == list(range(n_frames))
        assert [frame["start_s"] for frame in audio] == [k * HOP_SAMPLES / 48_000 for k in range(n_frames)]
        assert all(np.isfinite(frame["vector"]).all() for frame in audio[:3])
        assert {frame["batch_id"] for frame in audio} <= batches


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Event]]]:
    """Held-out scenes of every class at 0 to 20 dB, in four formats, and a long one."""
    folder = tmp_path_factory.mktemp("scenes")
    events: dict[str, list[Event]] = {}
    for number, label in enumerate(SOUNDS * PER_CLASS):
        rng = np.random.default_rng([4_242, number])
        other = str(rng.choice([other for other in SOUNDS if other != label]))
        waveform, planted = make_scene(rng, float(rng.uniform(5, 12)), [label, other], rng.uniform(0, 20), True)
        events.update(_write(folder, f"{number:03d}", ("wav", "flac", "ogg", "mp3")[number % 4], waveform, planted))
    rng = np.random.default_rng(4_243)
    waveform, planted = make_scene(rng, 61.7, SOUNDS, 15.0, held_out=True)
    events.update(_write(folder, "long", "flac", waveform, planted))
    return folder, events


def _write(folder: Path, name: str, suffix: str, waveform: Any, planted: list[Event]) -> dict[str, list[Event]]:
    file = folder / f"{name}.{suffix}"
    soundfile.write(file, waveform, 48_000)
    return {str(file): planted}


@pytest.fixture(scope="module")
def scenes(truth: tuple[Path, dict[str, list[Event]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = tmp_path_factory.mktemp("scenes-index") / "index"
    progress = index_corpus(configure(truth[0], index))
    assert (progress.n_indexed, progress.n_failed) == (len(truth[1]), 0)
    record = record_of(index)
    assert all(stage.busy_s > 0 for stage in record.stages.values())
    assert all(stage.speed for stage in record.stages.values())
    return index


def test_every_row_is_on_the_grid(scenes: Path) -> None:
    check_against_grid(scenes)


def test_vectors_are_those_of_the_encoder(truth: tuple[Path, dict[str, list[Event]]], scenes: Path) -> None:
    file = truth[0] / "long.flac"
    waveform, _ = soundfile.read(file, dtype="float32")
    encoder = load_encoder(configure(truth[0], scenes).encode)
    spans, windows = zip(*cut_windows([waveform], GRID), strict=True)
    clips, frames = encoder.encode(windows)
    assert frames is not None
    where = f"uri = '{file}'"
    stored = pipeline.open(str(scenes)).to_arrow("clips", where=where).sort_by("start_s")["vector"].to_pylist()
    assert _cosines(np.array(stored, np.float32), clips).min() >= 0.9999
    audio_id = pipeline.open(str(scenes)).to_arrow("files", ["audio_id"], where)["audio_id"][0].as_py()
    rows = pipeline.open(str(scenes)).to_arrow("frames", where=f"audio_id = '{audio_id}'").sort_by("frame")
    owned = [f[span.own_first - span.first : span.own_stop - span.first] for span, f in zip(spans, frames, strict=True)]
    assert _cosines(np.array(rows["vector"].to_pylist(), np.float32), np.concatenate(owned)).min() >= 0.9999


def _cosines(a: Any, b: Any) -> Any:
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def test_query_finds_the_right_clips(truth: tuple[Path, dict[str, list[Event]]], scenes: Path) -> None:
    opened = pipeline.open(str(scenes))
    precisions = {}
    for label in SOUNDS:
        hits = opened.search(CAPTIONS[label].held_out[0], k=PER_CLASS)
        right = [label in {event.label for event in truth[1][hit.uri]} for hit in hits]
        precisions[label] = sum(right) / PER_CLASS
        assert hits[0].probability is not None
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert np.mean(list(precisions.values())) >= 0.95, precisions


def test_locate_finds_the_right_moments(truth: tuple[Path, dict[str, list[Event]]], scenes: Path) -> None:
    opened = pipeline.open(str(scenes))
    found_right = n_found = n_planted = 0
    offsets = []
    for label in SOUNDS:
        planted = [(uri, event) for uri, events in truth[1].items() for event in events if event.label == label]
        events = opened.locate(CAPTIONS[label].held_out[0], k=1_000, min_duration_s=0.12)
        left = list(planted)
        for event in events:
            match = [item for item in left if item[0] == event.uri and abs(item[1].start_s - event.start_s) <= 0.2]
            if match:
                left.remove(match[0])
                found_right += 1
                offsets.append(abs(match[0][1].end_s - event.end_s))
        n_found += len(events)
        n_planted += len(planted)
    f1 = 2 * found_right / (n_found + n_planted)
    assert f1 >= 0.8, f"event F1 {f1:.3f}: {found_right} right of {n_found} found and {n_planted} planted"
    assert np.median(offsets) <= 0.12


def test_similar_finds_the_clip_of_a_sound_itself(truth: tuple[Path, dict[str, list[Event]]], scenes: Path) -> None:
    for uri in sorted(truth[1])[:5]:
        waveform, rate_hz = soundfile.read(uri, dtype="float32")
        hits = pipeline.open(str(scenes)).similar(waveform, rate_hz, k=3)
        assert hits[0].uri == uri
        assert hits[0].score >= 0.999
        assert hits[0].probability is None


def test_event_over_a_window_seam_equals_that_of_one_long_window(tmp_path: Path) -> None:
    """One event over each of four seams: before windows of 10 s, of 9.8 s, of 14.4 s and of 5.8 s."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(11)
    planted = {}
    for name, duration_s, events in (
        ("a.wav", 29.0, [Event("buzz", 8.4, 11.2), Event("noise", 18.6, 20.1)]),
        ("b.wav", 24.0, [Event("chirps", 8.7, 10.9)]),
        ("c.wav", 15.2, [Event("rumble", 8.4, 11.2)]),
    ):
        waveform, _ = make_scene(rng, duration_s, events, 15.0, held_out=True)
        soundfile.write(tmp_path / "in" / name, waveform, 48_000, subtype="FLOAT")
        check_seams(duration_s, events)
        planted[str(tmp_path / "in" / name)] = events
    cut = configure(tmp_path / "in", tmp_path / "cut")
    whole = configure(tmp_path / "in", tmp_path / "whole", window={"length_s": 40.0, "overlap_s": 0.0})
    for config in (cut, whole):
        index_here(config)
    for uri, events in planted.items():
        for event in events:
            text = CAPTIONS[event.label].held_out[0]
            [found] = pipeline.open(cut.into).locate(text)
            [uncut] = pipeline.open(whole.into).locate(text)
            assert found.uri == uncut.uri == uri
            assert abs(found.start_s - uncut.start_s) <= FRAME_S + 1e-9
            assert abs(found.end_s - uncut.end_s) <= FRAME_S + 1e-9
            assert abs(found.start_s - event.start_s) <= 0.2
            assert abs(found.end_s - event.end_s) <= 0.2


def check_seams(duration_s: float, events: list[Event]) -> None:
    """Each event goes on for half a second on both sides of a seam."""
    spans = plan_windows(count_frames(round(duration_s * 48_000)), GRID)[1:]
    seams_s = [span.own_first * FRAME_S for span in spans]
    for event in events:
        assert any(event.start_s + 0.5 <= seam_s <= event.end_s - 0.5 for seam_s in seams_s), (event, seams_s)


def test_event_of_a_fifth_of_a_second_is_found_in_ten_seconds(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    planted = {}
    for number in range(6):
        rng = np.random.default_rng([12, number])
        start_s = float(rng.uniform(1, 9))
        waveform, _ = make_scene(rng, 10.0, [Event("high_tone", start_s, start_s + 0.2)], 15.0, held_out=True)
        soundfile.write(tmp_path / "in" / f"{number}.wav", waveform, 48_000)
        planted[str(tmp_path / "in" / f"{number}.wav")] = start_s
    config = configure(tmp_path / "in", tmp_path / "index")
    index_here(config)
    events = pipeline.open(config.into).locate(CAPTIONS["high_tone"].held_out[0], k=20)
    best = {event.uri: event for event in reversed(events)}
    for uri, start_s in planted.items():
        assert abs(best[uri].start_s - start_s) <= 0.08
        assert abs(best[uri].end_s - (start_s + 0.2)) <= 0.08


def test_broken_files_are_rows_and_a_rerun_leaves_them(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    expected = write_broken_corpus(folder)
    assert len(expected) >= 20
    config = configure(folder, tmp_path / "index", corpus={"extensions": ["*"]})
    progress = index_here(config)
    rows = {Path(row["uri"]).name: row for row in read(Path(config.into), "files")}
    assert rows.keys() == expected.keys()
    for name, (status, reason) in expected.items():
        assert (rows[name]["status"], rows[name]["reason"]) == (status, reason), name
    assert progress.n_indexed + progress.n_failed == progress.n_files == len(expected)
    check_against_grid(Path(config.into))
    before = journal.read_published(config.into)
    again = index_here(config)
    assert (again.n_unchanged, again.n_indexed, again.n_failed) == (len(expected), 0, 0)
    assert journal.read_published(config.into) == before


@pytest.mark.parametrize("n_files", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_many_files_of_every_format_have_a_row_each(tmp_path: Path, n_files: int) -> None:
    folder = tmp_path / "in"
    rng = np.random.default_rng(9)
    written: list[Path] = []
    while len(written) < n_files:
        waveform, _ = make_scene(rng, float(rng.uniform(0.5, 4)), [str(rng.choice(SOUNDS))], 10.0)
        channels = int(rng.choice([1, 2]))
        where = folder / f"take {len(written):03d} ({channels})"
        where.mkdir(parents=True)
        written += write_formats(where, waveform, 48_000, channels)
    config = configure(folder, tmp_path / "index", corpus={"extensions": ["*"]})
    progress = index_corpus(config) if n_files > 100 else index_here(config)
    rows = read(Path(config.into), "files")
    assert {row["uri"] for row in rows} == set(map(str, written))
    failed = [(row["uri"], row["reason"], row["message"]) for row in rows if row["status"] != "indexed"]
    assert not failed
    assert progress.n_indexed == len(written) == len(rows)
    check_against_grid(Path(config.into))


def test_index_without_frames_finds_clips_and_refuses_locate(tmp_path: Path) -> None:
    """Its ledger keeps the values of the header."""
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.flac"
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, (44_100, 2)), 44_100)
    config = configure(tmp_path / "in", tmp_path / "index", store={"frames": "none"})
    index_here(config)
    [row] = read(Path(config.into), "files")
    assert (row["sample_rate_hz"], row["channels"], row["codec"]) == (44_100, 2, "flac")
    assert row["duration_s"] == row["expected_duration_s"] == 1.0
    assert row["content_hash"] == hashlib.sha256(file.read_bytes()).hexdigest()
    opened = Index(config.into)
    assert (opened.describe()["frames"], opened.describe()["clips"]) == (0, 1)
    assert len(opened.search("noise")) == 1
    with pytest.raises(EarshotError, match="without frames"):
        opened.locate("noise")


def test_nothing_is_written_for_a_model_that_does_not_load_exactly(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", noise(0.5))
    model = make_pe_audio(tmp_path / "model")
    edit_weights(model, lambda state: state.pop("audio_encoder.norm.weight"))
    with pytest.raises(ModelError, match="does not load exactly"):
        index_corpus(configure(tmp_path / "a.wav", tmp_path / "index", encode={"clip_model": str(model)}))
    assert not (tmp_path / "index").exists()


def test_messages_of_ray_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    from ray._private import worker

    for line in ("2 workers were killed: the node ran out of memory", "it was killed by `ray.kill`."):
        worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "out of memory" in err
    assert "ray.kill" not in err


@pytest.mark.slow
def test_error_of_a_worker_that_cannot_write_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_wav(tmp_path / "in" / "a.wav", noise(0.5))
    index = tmp_path / "index"
    settings, clip_dimension, frame_dimension = describe_run(configure(tmp_path / "in", index))
    create_tables(index, settings, clip_dimension=clip_dimension, frame_dimension=frame_dimension)
    shutil.rmtree(index / "frames.lance" / "data", ignore_errors=True)
    (index / "frames.lance" / "data").write_text("in the way")
    with pytest.raises(EarshotError, match=r"the run stopped: .*File exists.*run again") as caught:
        index_corpus(configure(tmp_path / "in", index))
    assert "\n" not in str(caught.value)
    assert "UDF" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_file_that_kills_its_worker_is_a_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """Also in the middle of several batches that one task decodes."""
    write_sounds(tmp_path / "in", (0.5 + number for number in range(6)))
    (seen := tmp_path / "seen").mkdir()

    def deadly(planned: dict[str, Any], config: DecodeConfig, grid: Grid, *limits: Any) -> Iterator[pa.Table]:
        with (seen / ray.get_runtime_context().get_task_id()).open("a") as file:
            file.write(planned["batch_id"] + "\n")
        if any(uri.endswith("/3.wav") for audio in planned["audios"] for uri in audio["uris"]):
            os.kill(os.getpid(), signal.SIGSEGV)
        yield from decode_batch(planned, config, grid, *limits)

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        return run_stages(batches, config, frames_schema, deadly, lambda *_: WideEncoder())

    if together:
        monkeypatch.setattr(resources, "TASKS_PER_CORE", 0.1)
    config = configure(tmp_path / "in", tmp_path / "index", run={"batch_s": 1.0})
    progress = index_corpus(config, stages=stages)
    assert (progress.n_indexed, progress.n_failed) == (5, 1)
    batches_of_tasks = [set(task.read_text().split()) for task in seen.iterdir()]
    assert any(len(batches) > 1 for batches in batches_of_tasks) == together
    [row] = [row for row in read(Path(config.into), "files") if row["status"] == "failed"]
    assert (Path(row["uri"]).name, row["stage"], row["reason"]) == ("3.wav", "decode", "crashed")
    check_against_grid(Path(config.into))
    out, err = capfd.readouterr()
    assert out == ""
    assert "SIGSEGV" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lacks_memory", "together", "said", "n_tries"),
    [
        (False, False, r"its decoder read and gave nothing for \d+ s", 2),
        (False, True, r"its decoder read and gave nothing for \d+ s", 2),
        (True, False, "it takes more memory than there is", 6),
    ],
)
def test_decoder_that_does_not_return_or_lacks_memory_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks_memory: bool, together: bool, said: str, n_tries: int
) -> None:
    """One that does not return costs the limit of time once with its batch, of which it gave a part, and once alone."""
    write_sounds(tmp_path / "in", (0.5 + number for number in range(6)))
    tries = tmp_path / "tries"
    tries.mkdir()

    def stop(planned: dict[str, Any], config: DecodeConfig, grid: Grid, *limits: Any) -> Iterator[pa.Table]:
        is_odd = any(uri.endswith("/3.wav") for audio in planned["audios"] for uri in audio["uris"])
        if is_odd:
            (tries / str(time.time_ns())).touch()
            yield next(decode_batch(planned, config, grid, 1))
        while is_odd:
            if lacks_memory:
                raise MemoryError
            time.sleep(0.1)
        yield from decode_batch(planned, config, grid, *limits)

    if together:
        monkeypatch.setattr(resources, "TASKS_PER_CORE", 0.1)
    workers = workers_on_ray(decode=stop, load=lambda *_: WideEncoder())
    limits = {"batch_s": 1.0, "decoder_silence_s": 8.0}
    config = configure(tmp_path / "in", tmp_path / "index", run=limits)
    progress = index_corpus(config, stages=workers)
    assert (progress.n_indexed, progress.n_failed) == (5, 1)
    [row] = [row for row in read(Path(config.into), "files") if row["status"] == "failed"]
    assert (Path(row["uri"]).name, row["stage"], row["reason"]) == ("3.wav", "decode", "crashed")
    assert re.search(f"alone too: {said}", row["message"])
    assert len(list(tries.iterdir())) == n_tries
    check_against_grid(Path(config.into))


DEADLY = """
import os, signal, sys, time

from pipeline.config import load_config
from pipeline.grid import count_frames
from pipeline.run.driver import index_corpus
from pipeline.run.ray_start import start_ray
from pipeline.run.workers import workers_on_ray
from tests.helpers.runs import WideEncoder

class Deadly(WideEncoder):
    def encode(self, windows):
        if any(count_frames(len(window)) == 88 for window in windows):  # 3.5 s
            time.sleep(2)  # meanwhile others may be queued for this process: none may be lost with it
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(windows)

start_ray(num_gpus=1)
progress = index_corpus(load_config(sys.argv[1]), stages=workers_on_ray(load=lambda *_: Deadly()))
print(progress.n_indexed, progress.n_failed)
"""
"""A run that encodes on a claimed GPU, where one sound kills the encoder."""


@pytest.mark.slow
def test_file_that_kills_its_encoder_takes_no_others_along_on_a_gpu(tmp_path: Path) -> None:
    """There, an encoder gets several blocks in a call: those of files that are tried alone must stay alone."""
    write_sounds(tmp_path / "in", (0.5 + number for number in range(6)))
    config = configure(tmp_path / "in", tmp_path / "index", run={"batch_s": 1.0, "max_failed_fraction": 0.5})
    file = tmp_path / "config.yaml"
    file.write_text(config.model_dump_json())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", DEADLY, str(file)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["5", "1"]
    [row] = [row for row in read(Path(config.into), "files") if row["status"] == "failed"]
    assert (Path(row["uri"]).name, row["reason"]) == ("3.wav", "crashed")


@pytest.mark.slow
def test_long_recording_is_decoded_by_several_tasks(tmp_path: Path) -> None:
    """Real workers, a cheap encoder: the rows are those of one task that reads the recording from end to end."""
    folder, seen = tmp_path / "in", tmp_path / "seen"
    folder.mkdir()
    seen.mkdir()
    with soundfile.SoundFile(folder / "long.wav", "w", 48_000, 1, subtype="FLOAT") as file:
        for minute in range(31):
            file.write(noise(60.0, seed=minute))
    write_wav(folder / "short.wav", noise(3.0))

    def decode(planned: dict[str, Any], config: DecodeConfig, grid: Grid, *limits: Any) -> Iterator[pa.Table]:
        part = planned["part"] or {}
        (seen / f"{part.get('first')}-{part.get('stop')}").touch()
        yield from decode_batch(planned, config, grid, *limits)

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        return run_stages(batches, config, frames_schema, decode, lambda *_: WideEncoder())

    in_parts = configure(folder, tmp_path / "parts", run={"batch_s": 300.0})
    whole = configure(folder, tmp_path / "whole", run={"batch_s": 300.0})
    assert index_corpus(in_parts, stages=stages).n_indexed == 2
    assert sorted(path.name for path in seen.iterdir()) == ["0-62", "124-None", "62-124", "None-None"]
    index_corpus(whole, stages=in_one_piece(WideEncoder()))
    assert published(in_parts) == published(whole)
    check_against_grid(tmp_path / "parts")


def test_ray_started_by_a_run_listens_on_this_machine_only() -> None:
    worker = ray.get(ray.remote(lambda: os.getpid()).remote())
    ours = find_descendants(os.getpid()) | {os.getpid()}
    listeners = find_listeners(ours)
    assert worker in ours
    assert len({pid for pid, _, _ in listeners}) >= 4  # control store, raylet, an agent, a worker
    assert not [each for each in listeners if each[1] not in LOOPBACK]
    assert os.environ["RAY_AUTH_MODE"] == "token"
