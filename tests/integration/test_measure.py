"""The commands that measure starting and decoding run to their end; whether limits hold, a busy machine cannot say."""

import json
import subprocess
import sys

import pytest

STARTING = ["earshot --help", "earshot index", "earshot index", "earshot query", "pipeline.open(...).search"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "measured"),
    [
        (["jobs.bench.start", "--rounds", "1"], STARTING),
        (["jobs.bench.flow", "--rounds", "1", "--hours", "0.3"], ["decode", "padding"]),
    ],
)
def test_every_figure_is_measured(command: list[str], measured: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command, "--json"], capture_output=True, text=True, timeout=600)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["measurement"] for row in rows] == measured, done.stderr
    assert all(row["value"] > 0 for row in rows)
    assert done.returncode == any(row["missed"] for row in rows)
