"""Measurements run to their end. Their limits are not checked: a busy machine may miss them."""

import json
import subprocess
import sys

import pytest

STARTING = [
    "earshot --help",
    "earshot index",
    "earshot index",
    "earshot query",
    "earshot query",
    "pipeline.open(...).search",
]
TILES = ["tile", "overview"] * 6 + ["sound", "samples"] * 2 + ["sound"] * 2 + ["samples"]
EXAMINING = ["decode", "channels", "streams", "length"] * 12
EXAMINING.insert(8, "encode")
HOSTILE = ["sounds"] * 16 + ["shards"] * 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "measured"),
    [
        (["start", "--rounds", "1"], STARTING),
        (["tiles", "--rounds", "1", "--hours", "0.1"], TILES),
        (["many", "folder", "--files", "300"], ["folder"] * 4),
        (["reindex", "--scale", "0.04"], ["change"] * 2),
        (["hostile", "sounds", "shards", "--side", "200", "--hours", "0.05"], HOSTILE),
        (["examine", "--minutes", "0.1", "--rounds", "1"], EXAMINING),
        (
            ["windows", "--rounds", "1", "--minutes", "1"],
            ["cost"] * 5 + ["passes"] * 8 + ["speed"] * 3 + ["seam"] * 9 + ["quality"] * 6 + ["runs"] * 4,
        ),
    ],
)
def test_every_figure_is_measured(command: list[str], measured: list[str]) -> None:
    call = [sys.executable, "-m", "jobs.bench", *command, "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["measurement"] for row in rows] == measured, done.stderr
    # A loss may be zero or less.
    assert all(row["value"] > 0 for row in rows if row["measurement"] != "quality")
    assert done.returncode == any(row["missed"] for row in rows)
