"""``earshot bench`` measures the stages of a run on a person's own files, and says what a corpus will take."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.bench import command, parts, peers
from jobs.main import app
from pipeline.config import Config, make_config
from pipeline.corpus import list_corpus
from tests.checkpoints import make_pe_audio
from tests.fakes import noise, write_wav

ROOT = Path(__file__).parents[1]


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


def test_writing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LEAST_S", 0.01)
    assert parts.write_speed(str(tmp_path / "written"), 8) > 100


def test_random_weights_are_saved_for_the_time_of_the_measurement(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Config] = []

    def measure(config: Config, scratch: Path, hours: float) -> Iterator[dict[str, Any]]:
        assert (Path(config.encode.clip_model) / "config.json").is_file()
        used.append(config)
        yield from ()

    monkeypatch.setattr(peers, "save_random", lambda folder: str(make_pe_audio(folder)))
    monkeypatch.setattr(command, "measure", measure)
    result = CliRunner().invoke(app, ["bench", *config.sources, "--model", "random", "--json"])
    assert result.exit_code == 0, result.output
    assert not Path(used[0].encode.clip_model).exists()


@pytest.mark.slow
def test_bench_projects_a_corpus_from_what_it_measured(config: Config) -> None:
    for seed in range(12):  # so many that the run has a middle
        write_wav(Path(config.sources[0]) / f"more{seed}.wav", noise(30.0, seed=seed))
    call = [sys.executable, "-m", "jobs.main", "bench", *config.sources, "--hours", "500", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    figures: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        figure = json.loads(line)
        assert "cores" in figure["machine"]
        figures.setdefault(figure["part"], []).append(figure)
    assert list(figures) == ["decode", "encode", "write", "run", "corpus"]
    [run], [corpus] = figures["run"], figures["corpus"]
    assert (run["files"], run["failed"], run["audio_s"]) == (16, 1, pytest.approx(444))
    assert corpus["wall_h"] == pytest.approx(500 / run["x"])
    assert 0 < run["of_what_parts_allow"] < 1.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_peers_make_the_same_of_plain_files_and_not_of_others() -> None:
    rows = {row["peer"]: row for row in peers.measure("earshot-tiny", 3)}
    for peer in ("loop", "ray", "earshot"):
        assert rows[peer].get("x", 0) > 0, rows[peer]
        assert rows[peer]["odd"]["long.wav"]["frames"] == {"plain.wav": 250, "long.wav": 2250}
    ours = rows["earshot"]["odd"]
    assert ours["resample.wav"] == {"frames": {"plain.wav": 250, "resample.wav": 250}, "error": ""}
    assert ours["broken.wav"] == {"frames": {"plain.wav": 250}, "error": ""}
    assert rows["loop"]["odd"]["broken.wav"]["error"]
