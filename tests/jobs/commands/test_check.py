"""``earshot check``: what it prints, and its exit code."""

import json
import subprocess
from pathlib import Path

from jobs.commands.check import format_line, summarise
from pipeline.encoder.check import Finding
from tests.helpers.checkpoints import JUDGED, edit_weights, make_pe_audio
from tests.helpers.processes import run_python


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "jobs.main", "check", *arguments, OMP_NUM_THREADS="1")


def test_a_line_is_no_wider_than_a_terminal() -> None:
    finding = Finding("clip embeddings", "right", "differ " + "by next to nothing " * 20)
    lines = format_line(finding).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("right  clip embeddings: differ by")
    assert all(line.startswith(" " * 9) for line in lines[1:])
    assert format_line(Finding("speed", "told", "fast")).startswith("       speed: fast")
    assert "\x1b" not in format_line(Finding("clip model", "wrong", "/tmp/\x1b[2J: no such model"))


def test_summary_says_what_to_do() -> None:
    assert summarise(6, 0) == "all 6 are right; please send this output to the project"
    assert summarise(5, 1).startswith("1 of 6 are wrong: do not index with these models here")


def test_the_bundled_model_is_right_on_the_command_line() -> None:
    done = run("--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["what"] for row in rows if row["verdict"] == "right"] == JUDGED
    assert not [row for row in rows if row["verdict"] == "wrong"]
    hints = {row["what"]: row for row in rows}
    for which in ("clips", "frames"):
        assert hints[f"siren, {which}"]["figure"] > 0
        assert hints[f"siren, {which}"]["verdict"] == "told"
    for version in ("earshot ", "Python ", "torch ", "transformers "):
        assert version in hints["machine"]["said"]


def test_missing_weight_is_wrong_and_ends_the_check(tmp_path: Path) -> None:
    folder = make_pe_audio(tmp_path)
    edit_weights(folder, lambda state: state.pop("audio_encoder.norm.weight"))
    done = run("--model", folder)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= max(80, len(str(folder)) + 20)
    said = " ".join(" ".join(lines).split())
    assert f"wrong clip model: {folder}: does not load exactly, of its weights 1 missing (audio_encoder.norm." in said
    assert "1 of 1 are wrong: do not index with these models here, and please report this output" in said


def test_missing_model_is_a_usage_error(tmp_path: Path) -> None:
    done = run("--model", tmp_path / "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith(f"earshot: {tmp_path}/nothing: no such model")
