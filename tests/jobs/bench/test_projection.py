"""``earshot bench`` measures the stages and a run on a person's own files, and projects a corpus."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.bench.projection import (
    CALLS,
    FILES_PER_FORMAT,
    draw_rows,
    measure_run,
    pick_of_each_format,
    project,
    write_sample,
)
from jobs.commands.bench import print_figure
from pipeline.config import Config, make_config
from pipeline.encoder.encoder import load_encoder
from pipeline.run.driver import index_corpus
from pipeline.run.progress import STAGES, Progress, Throughput
from tests.helpers.checkpoints import make_pe_audio
from tests.helpers.fakes import noise, write_wav
from tests.helpers.runs import in_place

ROOT = Path(__file__).parents[3]


def test_sample_has_a_few_files_of_each_format(config: Config) -> None:
    rows = draw_rows(config)
    assert len(rows) == 4
    assert {Path(row["uri"]).suffix for row in pick_of_each_format(rows * 9)} == {".wav", ".mp3", ".wav#t=,60"}
    assert len(pick_of_each_format(rows * 9)) == 2 * FILES_PER_FORMAT


def test_format_is_that_of_the_member_or_recording() -> None:
    uris = ["s.tar#a.wav", "s.tar#a.wav#2", "s.tar#b.mp3", "c#d.flac", "e.wav#t=,60"]
    rows: list[dict[str, Any]] = [{"uri": uri, "end_s": 60.0 if uri.endswith("60") else None} for uri in uris]
    n_most = FILES_PER_FORMAT
    assert len(pick_of_each_format(rows * n_most)) == 3 * n_most  # wav, mp3, flac


def test_short_run_has_no_speed(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first receipts come after 3 s, all others 10 s later."""
    encoder = load_encoder(config.encode)

    def index(config: Config) -> Progress:
        progress = index_corpus(config, stages=in_place(encoder))
        done = {"audio_s": progress.audio_s / 2, "decode_s": 1.0, "encode_s": 8.0, "write_s": 1.0}
        progress.throughput = Throughput()
        for now in (3.0, 13.0):
            progress.throughput.add(done, now, dict.fromkeys(STAGES, 1.0))
        return progress

    found = []
    for least_s in (320.0, 5.0):
        values = config.model_dump(mode="json") | {"into": str(tmp_path / f"{least_s}"), "run": {"batch_s": 10.0}}
        manifest = write_sample(draw_rows(config), tmp_path / "sample.csv", 100.0)
        found.append(measure_run(make_config(values), manifest, least_s, index))
    short, long = found
    assert (short["x"], short["start_s"]) == (None, None)
    assert long["audio_s"] == pytest.approx(84.0)
    assert long["x"] == pytest.approx(4.2)
    assert long["write_share"] == pytest.approx(0.1)
    print_figure({"part": "run", **short})
    assert "too few to measure a run" in capsys.readouterr().out


def test_random_weights_are_deleted_after_the_measurement(
    config: Config,
) -> None:
    used: list[Config] = []

    def measure(config: Config, scratch: Path, hours: float) -> Iterator[dict[str, Any]]:
        assert (Path(config.encode.clip_model) / "config.json").is_file()
        used.append(config)
        yield from ()

    save = lambda folder: str(make_pe_audio(folder))  # noqa: E731
    assert not list(project(list(config.sources), "random", None, 1.0, measure=measure, save_random=save))
    assert not Path(used[0].encode.clip_model).exists()


@pytest.mark.slow
def test_bench_projects_a_corpus_from_its_measurements(config: Config) -> None:
    for seed in range(24):  # enough for a run with a middle
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
    n_encoders = figures["encode"][0]["processes"]
    assert (run["x"] is None) == (run["windows_s"] < CALLS * 2 * 10 * n_encoders)  # blocks of two windows of 10 s
    if run["x"] is not None:
        assert corpus["wall_h"] == pytest.approx(500 / run["x"])
        assert run["of_what_parts_allow"] > 0
    assert 1.0 <= run["encoded_per_audio"] < 1.06
    assert "gpu_h" not in corpus
    assert all(each["batch_held"] == each["batch"] for each in figures["encode"])
    stages = [row["stage"] for row in figures["profile"] if "stage" in row]
    assert stages == [*(f"codec block {k}" for k in (1, 2, 3, 4)), "codec end", "transformer"]
