"""Each stage is measured by itself as a run would use it."""

import os
from pathlib import Path

import numpy as np
import pytest

from jobs.bench import parts
from pipeline.config import Config, EncodeConfig
from pipeline.corpus.discover import list_corpus
from pipeline.errors import ModelError
from pipeline.grid import Grid
from pipeline.run.resources import share_machine


def test_decode_files_takes_the_first_minute_of_long_files(config: Config) -> None:
    rows = [parts.shorten(row) for row in list_corpus(config.sources).to_pylist()]
    decoded = {Path(each.uri).name: each for each in parts.decode_files(rows, config)}
    assert {name: each.audio_s for name, each in decoded.items()} == {"a.wav": 3, "b.wav": 21, "long.wav#t=,60": 60}
    assert [len(each.windows) for each in decoded.values()] == [1, 2, 6]
    assert all(each.cpu_s > 0 for each in decoded.values())
    [(codec, (n_files, speed))] = parts.by_format(list(decoded.values())).items()
    assert (codec, n_files) == ("pcm_f32", 3)
    assert speed == pytest.approx(84 / sum(each.cpu_s for each in decoded.values()))


def test_write_speed_is_positive(tmp_path: Path) -> None:
    assert parts.write_speed(str(tmp_path / "written"), 8, Grid(250, 10), least_s=0.0) > 0


def test_count_gpus_matches_the_processes_of_a_run() -> None:
    cpus = share_machine({"CPU": 16, "memory": 9 * 2**30}, EncodeConfig())
    assert (cpus.most, cpus.threads, parts.count_gpus(cpus)) == (2, 8, 0)
    for config, processes in ((EncodeConfig(), 4), (EncodeConfig(actors_per_gpu=3), 12)):
        gpus = share_machine({"CPU": 16, "GPU": 4, "memory": 2**36}, config)
        assert (gpus.most, parts.count_gpus(gpus)) == (processes, 4)
    assert parts.count_gpus(share_machine({"CPU": 16, "GPU": 4}, EncodeConfig(actors=2))) == 2


def test_machine_resources_match_the_machine() -> None:
    resources = parts.machine_resources("cpu")
    assert resources["CPU"] == max(2, len(os.sched_getaffinity(0)))
    assert resources["GPU"] == 0
    assert 0 < resources["memory"] < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_list_gpus_follows_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert parts.list_gpus(3) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7,2")
    assert parts.list_gpus(2) == ["5", "GPU-7"]
    assert parts.list_gpus(0) == []


def test_encode_speed_reports_the_batch_held_and_raises_the_error_of_a_process(
    config: Config,
) -> None:
    encoders = share_machine({"CPU": 2, "memory": 2**34}, config.encode)
    windows = [np.zeros(10 * 1920, np.float32)]
    speed, held = parts.encode_speed(config, windows, "float32", 3, encoders, least_s=0.0)
    assert (encoders.most, held) == (2, 3)
    assert speed > 0
    broken = config.model_copy(update={"encode": config.encode.model_copy(update={"clip_model": "no/such"})})
    with pytest.raises(ModelError, match="no/such"):  # no process waits for ever
        parts.encode_speed(broken, windows, "float32", 1, encoders)
