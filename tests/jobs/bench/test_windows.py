"""What the rules for last windows cost, and the passes of the model that windows make."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jobs.bench.windows import (
    BACK,
    FIT,
    count_long,
    list_calls,
    list_codec_passes,
    list_files,
    list_passes,
    make_corpora,
    measure_cost,
)
from pipeline.grid import FRAME_S
from tests.helpers.runs import configure, write_sounds


def test_each_corpus_has_its_lengths() -> None:
    corpora = make_corpora(2.0)
    assert list(corpora) == ["10 s", "15-30 s", "FSD50K", "hours"]
    ranges = {"10 s": (10.0, 10.03), "15-30 s": (15.0, 30.0), "FSD50K": (0.3, 30.0), "hours": (1800.0, 7200.0)}
    for name, (shortest_s, longest_s) in ranges.items():
        assert shortest_s <= corpora[name].min() <= corpora[name].max() <= longest_s
    assert sum(corpora["10 s"]) == pytest.approx(7200, rel=0.05)


def test_windows_come_longest_file_first() -> None:
    lengths_s = np.array([3.0, 30.0, 10.02])
    assert list_files(lengths_s, FIT) == [[250, 250, 275], [251], [75]]
    assert list_files(lengths_s, BACK) == [[250] * 4, [250] * 2, [75]]
    assert sorted(list_files(lengths_s, FIT, error=0.5)) == [[75], [250, 250, 275], [251]]


def test_calls_hold_so_many_rows_and_what_remains_of_blocks() -> None:
    files = [[250]] * 64  # 30 files fill a batch, and so a block of 60 rows
    assert [len(call) for call in list_calls(files, rows_per_call=1_000)] == [64]
    assert [len(call) for call in list_calls(files, rows_per_call=80)] == [40, 20, 4]
    assert [len(call) for call in list_calls(files, rows_per_call=40)] == [20, 10, 20, 10, 4]
    long = [[250] * 100]  # blocks of 32 windows
    assert [len(call) for call in list_calls(long, rows_per_call=1)] == [1] * 100
    assert [len(call) for call in list_calls(long, rows_per_call=50)] == [50, 50]
    assert sum(map(sum, list_calls(files + long, 77))) == sum(map(sum, files + long))


def test_passes_hold_windows_of_one_call_longest_first() -> None:
    lengths = [250, 145, 250, 145, 250, 250]
    assert list(list_passes([lengths])) == [[250] * 4, [145] * 2]
    assert list(list_passes([lengths[:3], lengths[3:]])) == [[250, 250, 145], [250, 250, 145]]
    assert list(list_passes([[375] + [25] * 40])) == [[375] + [25] * 25, [25] * 15]


def test_fitted_windows_encode_little_twice() -> None:
    figures = list(measure_cost())
    assert len(figures) == 5
    assert not any(figure.is_missed for figure in figures)


RECORDED = """
import json, sys

from pipeline.config import load_config
from pipeline.grid import count_frames
from pipeline.run.driver import index_corpus
from pipeline.run.ray_start import start_ray
from pipeline.run.workers import workers_on_ray
from tests.helpers.runs import WideEncoder

CALLS = sys.argv[2]

class Recording(WideEncoder):
    def encode(self, windows):
        if windows:
            with open(CALLS, "a") as file:
                print(json.dumps([count_frames(len(window)) for window in windows]), file=file)
        return super().encode(windows)

start_ray(num_gpus=1)
index_corpus(load_config(sys.argv[1]), stages=workers_on_ray(load=lambda *_: Recording()))
"""
"""A run that encodes on a claimed GPU and notes the frames of the windows of each call."""


@pytest.mark.slow
def test_calls_are_about_as_large_as_those_of_a_run(tmp_path: Path) -> None:
    lengths_s = np.random.default_rng(3).uniform(15.0, 30.0, 60)
    config = configure(write_sounds(tmp_path / "in", lengths_s), tmp_path / "index", run={}, window={})
    file, noted = tmp_path / "config.yaml", tmp_path / "calls"
    file.write_text(config.model_dump_json())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", RECORDED, str(file), str(noted)]
    # A worker has arguments of its own: nothing that it might write by mistake comes into this repository.
    root = str(Path(__file__).parents[3])
    subprocess.run(command, env={**environment, "PYTHONPATH": root}, cwd=tmp_path, check=True, timeout=300)
    calls = [json.loads(line) for line in noted.read_text().splitlines()]
    files = list_files(lengths_s, FIT)
    n_rows = sum(map(len, files)) + len(files)
    expected = list_calls(files, rows_per_call=n_rows // 4)  # each encoder gets at least four calls
    assert sum(map(sum, calls)) == sum(map(sum, expected))
    assert len(expected) / 2 <= len(calls) <= 2 * len(expected)  # which task yields its block first is chance
    assert count_codec_in_long_passes(calls) == pytest.approx(count_codec_in_long_passes(expected), abs=0.2)


def count_codec_in_long_passes(calls: Sequence[Sequence[int]]) -> float:
    return count_long(np.array(list_codec_passes(list(list_passes(calls)))) * FRAME_S)
