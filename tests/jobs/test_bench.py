"""``earshot bench`` measures the stages of a run on a person's own files, and says what a corpus will take."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.bench import baselines, command, parts
from jobs.main import app
from pipeline.config import Config, EncodeConfig, make_config
from pipeline.corpus.discover import list_corpus
from pipeline.encoder.encoder import load_encoder
from pipeline.errors import ModelError
from pipeline.grid import Grid
from pipeline.run.driver import index_corpus
from pipeline.run.progress import STAGES, Progress, Throughput
from pipeline.run.resources import share_machine
from tests.helpers.checkpoints import make_pe_audio
from tests.helpers.fakes import noise, write_wav
from tests.helpers.runs import in_place

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "in").mkdir()
    for name, seconds in (("a", 3.0), ("b", 21.0), ("long", 150.0)):
        write_wav(tmp_path / "in" / f"{name}.wav", noise(seconds))
    (tmp_path / "in" / "broken.mp3").write_text("nothing to hear")
    return make_config({"sources": [str(tmp_path / "in")], "into": str(tmp_path / "index")})


def test_files_are_decoded_as_in_a_run_and_long_ones_for_a_minute(config: Config) -> None:
    rows = [parts.shorten(row) for row in list_corpus(config.sources).to_pylist()]
    decoded = {Path(each.uri).name: each for each in parts.decode_files(rows, config)}
    assert {name: each.audio_s for name, each in decoded.items()} == {"a.wav": 3, "b.wav": 21, "long.wav#t=,60": 60}
    assert [len(each.windows) for each in decoded.values()] == [1, 3, 7]
    assert all(each.cpu_s > 0 for each in decoded.values())
    [(codec, (n_files, speed))] = parts.by_format(list(decoded.values())).items()
    assert (codec, n_files) == ("pcm_f32", 3)
    assert speed == pytest.approx(84 / sum(each.cpu_s for each in decoded.values()))


def test_every_format_has_a_few_files(config: Config) -> None:
    rows = command._draw(config)
    assert len(rows) == 4
    assert {Path(row["uri"]).suffix for row in command._some_of_each(rows * 9)} == {".wav", ".mp3", ".wav#t=,60"}
    assert len(command._some_of_each(rows * 9)) == 2 * command.FILES_PER_FORMAT


def test_writing_is_measured(tmp_path: Path) -> None:
    assert parts.write_speed(str(tmp_path / "written"), 8, Grid(250, 10), least_s=0.0) > 0


def make_machine(root: Path, free_kb: int, files: dict[str, str]) -> Path:
    """What the system says of memory, under ``root``."""
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {2 * free_kb} kB\nMemAvailable: {free_kb} kB\n")
    for name, text in files.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 2**33),
        ({"memory.max": "max\n", "memory.current": "1\n"}, 2**33),
        ({"memory.max": f"{2**32}\n", "memory.current": f"{2**30}\n"}, 3 * 2**30),
        (
            {
                "memory.max": f"{2**32}\n",
                "memory.current": f"{2**31}\n",
                "memory.stat": f"anon 1\ninactive_file {2**29}\nactive_file {2**29}\n",
            },
            3 * 2**30,
        ),
        ({"memory/memory.limit_in_bytes": f"{2**62}", "memory/memory.usage_in_bytes": "7"}, 2**33),
        ({"memory/memory.limit_in_bytes": f"{2**31}", "memory/memory.usage_in_bytes": "7"}, 2**31 - 7),
    ],
)
def test_free_memory_is_that_of_the_container(tmp_path: Path, files: dict[str, str], free: int) -> None:
    assert parts.free_bytes(make_machine(tmp_path, 2**23, files)) == free


def test_processes_and_gpus_are_those_of_a_run() -> None:
    cpus = share_machine({"CPU": 16, "memory": 9 * 2**30}, EncodeConfig())
    assert (cpus.most, cpus.threads, parts.count_gpus(cpus)) == (2, 8, 0)
    for config, processes in ((EncodeConfig(), 4), (EncodeConfig(actors_per_gpu=3), 12)):
        gpus = share_machine({"CPU": 16, "GPU": 4, "memory": 2**36}, config)
        assert (gpus.most, parts.count_gpus(gpus)) == (processes, 4)
    assert parts.count_gpus(share_machine({"CPU": 16, "GPU": 4}, EncodeConfig(actors=2))) == 2


def test_the_machine_is_described_as_ray_would_find_it() -> None:
    resources = parts.machine_resources("cpu")
    assert resources["CPU"] == max(2, len(os.sched_getaffinity(0)))
    assert resources["GPU"] == 0
    assert 0 < resources["memory"] < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_each_process_gets_one_of_the_gpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert parts.list_gpus(3) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7,2")
    assert parts.list_gpus(2) == ["5", "GPU-7"]
    assert parts.list_gpus(0) == []


def test_encoding_is_measured_in_as_many_processes_and_with_the_batch_that_was_held(
    config: Config,
) -> None:
    encoders = share_machine({"CPU": 2, "memory": 2**34}, config.encode)
    windows = [np.zeros(10 * 1920, np.float32)]
    speed, held = parts.encode_speed(config, windows, "float32", 3, encoders, least_s=0.0)
    assert (encoders.most, held) == (2, 3)
    assert speed > 0
    broken = config.model_copy(update={"encode": config.encode.model_copy(update={"clip_model": "no/such"})})
    with pytest.raises(ModelError, match="no/such"):  # and no process waits for the others for ever
        parts.encode_speed(broken, windows, "float32", 1, encoders)


def test_figures_are_told_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    encode = {"part": "encode", "precision": "float32", "batch": 8, "processes": 2, "x": 3.0}
    for held in (8.0, 4.0, 0):
        command._show({**encode, "batch_held": held})
    run = {"part": "run", "files": 2, "audio_s": 20.0, "x": 4.0, "of_what_parts_allow": 0.95, "start_s": 1.0}
    command._show({**run, "encoded_per_audio": 1.23, "write_share": 0.01, "bottleneck": "encode"})
    whole, halved, none, told = capsys.readouterr().out.splitlines()
    assert whole.endswith("2 processes: 3.00x real time")
    assert halved.endswith("3.00x real time (of which 4 fit)")
    assert none.endswith("8 windows a batch: does not fit")
    assert "0.95 of what the parts allow, where windows overlap and 1.23 times the audio is encoded" in told


def test_too_short_a_run_does_not_tell_how_fast_runs_are(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first receipts are taken to come after 3 s, and all others 10 s later."""
    encoder = load_encoder(config.encode)

    def index(config: Config) -> Progress:
        progress = index_corpus(config, stages=in_place(encoder))
        done = {"audio_s": progress.audio_s / 2, "decode_s": 1.0, "encode_s": 8.0, "write_s": 1.0}
        progress.throughput = Throughput()
        for now in (3.0, 13.0):
            progress.throughput.add(done, now, dict.fromkeys(STAGES, 1.0))
        return progress

    found = []
    for held_s in (320.0, 5.0):
        values = config.model_dump(mode="json") | {"into": str(tmp_path / f"{held_s}"), "run": {"batch_s": 10.0}}
        found.append(command._run(make_config(values), command._draw(config), tmp_path, 100.0, held_s, index))
    short, long = found
    assert (short["x"], short["start_s"]) == (None, None)
    assert long["audio_s"] == pytest.approx(84.0)
    assert long["x"] == pytest.approx(4.2)
    assert long["write_share"] == pytest.approx(0.1)
    command._show({"part": "run", **short})
    assert "too few to tell how fast a run is" in capsys.readouterr().out


def test_random_weights_are_saved_for_the_time_of_the_measurement(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Config] = []

    def measure(config: Config, scratch: Path, hours: float) -> Iterator[dict[str, Any]]:
        assert (Path(config.encode.clip_model) / "config.json").is_file()
        used.append(config)
        yield from ()

    monkeypatch.setattr(baselines, "save_random", lambda folder: str(make_pe_audio(folder)))
    monkeypatch.setattr(command, "measure", measure)
    result = CliRunner().invoke(app, ["bench", *config.sources, "--model", "random", "--json"])
    assert result.exit_code == 0, result.output
    assert not Path(used[0].encode.clip_model).exists()


@pytest.mark.slow
def test_bench_projects_a_corpus_from_what_it_measured(config: Config) -> None:
    for seed in range(24):  # so many that the run has a middle
        write_wav(Path(config.sources[0]) / f"more{seed}.wav", noise(30.0, seed=seed))
    call = [sys.executable, "-m", "jobs.main", "bench", *config.sources, "--hours", "500", "--profile", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    figures: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        figure = json.loads(line)
        assert "cores" in figure["machine"]
        figures.setdefault(figure["part"], []).append(figure)
    assert list(figures) == ["decode", "encode", "write", "run", "corpus", "profile"]
    [run], [corpus] = figures["run"], figures["corpus"]
    assert (run["files"], run["failed"], run["audio_s"]) == (28, 1, pytest.approx(804))
    assert corpus["wall_h"] > 0
    if run["x"] is not None:  # as on a machine of so many encoders that each has all of its audio at once
        assert corpus["wall_h"] == pytest.approx(500 / run["x"])
        assert run["of_what_parts_allow"] > 0
    assert run["encoded_per_audio"] == pytest.approx(run["windows_s"] / run["audio_s"])
    assert "gpu_h" not in corpus
    assert all(each["batch_held"] == each["batch"] for each in figures["encode"])
    stages = [row["stage"] for row in figures["profile"] if "stage" in row]
    assert stages == [*(f"codec block {k}" for k in (1, 2, 3, 4)), "codec end", "transformer"]


@pytest.mark.parametrize("frames", [[[0.0] * 4] * 3, [0.0] * 12, np.zeros((3, 4)), [np.zeros(4)] * 3])
def test_frames_are_counted_however_they_are_written(frames: Any) -> None:
    assert baselines._count(frames, 4) == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_peers_make_the_same_of_plain_files_and_not_of_others() -> None:
    rows = {row["peer"]: row for row in baselines.measure("earshot-tiny", 3)}
    for peer in ("loop", "ray", "earshot"):
        assert rows[peer].get("x", 0) > 0, rows[peer]
        assert rows[peer]["odd"]["long.wav"]["frames"] == {"plain.wav": 250, "long.wav": 2250}
    ours = rows["earshot"]["odd"]
    assert ours["resample.wav"] == {"frames": {"plain.wav": 250, "resample.wav": 250}, "error": ""}
    assert ours["broken.wav"] == {"frames": {"plain.wav": 250}, "error": ""}
    assert rows["loop"]["odd"]["broken.wav"]["error"]


def test_extensions_are_those_of_members_and_recordings() -> None:
    uris = ["s.tar#a.wav", "s.tar#a.wav#2", "s.tar#b.mp3", "c#d.flac", "e.wav#t=,60"]
    rows: list[dict[str, Any]] = [{"uri": uri, "end_s": 60.0 if uri.endswith("60") else None} for uri in uris]
    n_most = command.FILES_PER_FORMAT
    assert len(command._some_of_each(rows * n_most)) == 3 * n_most  # wav, mp3, flac
