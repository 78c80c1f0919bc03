"""Figures with limits, memory, and the encoder that costs nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer

from jobs.bench.figures import CheapEncoder, Figure, call_fresh, measure_and_report, read_memory
from pipeline.grid import HOP_SAMPLES


def test_missed_limit_sets_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    folders = []

    def measure(folder: Path) -> Iterator[Figure]:
        (folder / "scratch").touch()
        folders.append(folder)
        yield Figure("many", "files", float(len(folders)), "s", limit=2.0)

    measure_and_report("a title", [measure], json=False)
    assert "< 2 ok" in capsys.readouterr().out
    with pytest.raises(typer.Exit) as exit:
        measure_and_report("a title", [measure, measure], json=True)
    assert exit.value.exit_code == 1
    assert [json.loads(line)["missed"] for line in capsys.readouterr().out.splitlines()] == [True, True]
    assert len(set(folders)) == 3
    assert not any(folder.exists() for folder in folders)


def test_fresh_process_has_memory_of_its_own() -> None:
    allocated = np.ones(50_000_000)  # 400 MB
    peak_bytes = call_fresh(read_memory)["VmHWM"]
    assert 0 < peak_bytes < read_memory()["VmHWM"]
    assert read_memory()["VmHWM"] > allocated.nbytes


def test_cheap_encoder_gives_a_vector_for_each_window_and_frame() -> None:
    clips, frames = CheapEncoder(4).encode([np.zeros(n * HOP_SAMPLES, np.float32) for n in (3, 1)])
    assert clips.shape == (2, 4)
    assert frames is not None
    assert [rows.shape for rows in frames] == [(3, 4), (1, 4)]
