"""The first command that a newcomer types."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.main import app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "jobs.start", "demo", str(folder / "earshot-demo"), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    return folder, [json.loads(line) for line in result.stdout.splitlines()]


def test_every_answer_of_the_demo_is_right(demo: tuple[Path, list[dict[str, Any]]]) -> None:
    summary, *answers = demo[1]
    assert (summary["files"], summary["indexed"], summary["failed"]) == (30, 28, 2)
    assert len(answers) == 5
    for answer in answers:
        assert answer["right"], answer
        assert abs(answer["start_s"] - answer["planted_start_s"]) <= 0.2
        assert abs(answer["end_s"] - answer["planted_end_s"]) <= 0.2


def test_a_filter_that_leaves_nothing_says_so(demo: tuple[Path, list[dict[str, Any]]]) -> None:
    index, sound = demo[0] / "earshot-demo/index", demo[0] / "earshot-demo/sounds/00.wav"
    for command, question in (("query", "a siren"), ("locate", "a siren"), ("similar", sound)):
        for options, said in (([], r"nothing found.* where codec = 'none'.*\n"), (["--json"], "")):
            asked = [command, str(index), str(question), "--where", "codec = 'none'", *options]
            result = CliRunner().invoke(app, asked)
            assert (result.exit_code, result.stderr) == (0, ""), result.exception
            assert re.fullmatch(said, result.stdout)
