"""``earshot status``."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.shared.ray_jobs import Cluster
from pipeline.config import Config
from pipeline.run.progress import STAGES, Progress
from pipeline.run.ray_start import JOB_VARIABLE
from pipeline.run.record import make_record, write_record
from tests.helpers.commands import run_main
from tests.helpers.ray_jobs import ADDRESS, FakeClient

EACH = dict.fromkeys(STAGES, 1.0)


def test_status_shows_the_record_of_the_job_only(
    earshot: Any, client: FakeClient, cluster: Cluster, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = earshot("status")
    assert (code, err) == (2, f"earshot: {ADDRESS}: no Earshot job here; `earshot submit CONFIG` starts one\n")
    name = cluster.submit(config)
    assert "its record is not visible from here; its last line: three" in earshot("status")[1]
    Path(config.into).mkdir()
    Path(config.into, "run.json").write_text("{")
    assert "its record is unreadable: " in earshot("status")[1]
    progress = Progress(index=config.into, n_files=9, n_indexed=4, planned_s=7200.0, audio_s=3600.0, stage="encoding")
    write_record(config.into, make_record(progress))
    assert "it has not written a record yet" in earshot("status", name)[1]  # the record belongs to a run without a job
    client.end(name, "STOPPED")
    assert "a later run has replaced its record" in earshot("status", name)[1]
    client.jobs[name].start_time = 4_000_000_000_000
    assert "it ended before it wrote a record" in earshot("status", name)[1]
    client.end(name, "RUNNING")
    monkeypatch.setenv(JOB_VARIABLE, name)
    write_record(config.into, make_record(progress))
    assert "it has not written a record yet" in earshot("status", name)[1]  # another cluster has a job of this name
    progress.run_id = client.jobs[name].metadata["earshot_run"]
    write_record(config.into, make_record(progress))
    for arguments in ([], [name], [config.into]):
        told = earshot("status", *arguments)[1]
        assert "running" in told
        assert "4 of 9: 4 indexed" in told
        assert "60.0 min of about 2.0 h" in told
        values = json.loads(earshot("status", *arguments, "--json")[1])
        assert (values["job"], values["state"], values["record"]["n_done"]) == (name, "running", 4)
    client.end(name, "FAILED")
    client.jobs[name].message = "one\nthe driver died: SIGKILL"
    assert json.loads(earshot("status", "--json")[1])["state"] == "failed"  # Ray knows: it was killed
    told = earshot("status")[1]
    assert re.search(r"was doing +encoding *\n", told)
    assert re.search(r"error +the driver died: SIGKILL *\n", told)


def test_silent_run_has_no_time_left(earshot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = earshot("status", tmp_path)
    assert code == 2
    assert "no record of a run here" in err
    progress = Progress(planned_s=7200.0)
    for late_s in (20.0, 10.0, 0.0):
        progress.throughput.add(
            {"audio_s": 20.0, "decode_s": 1, "encode_s": 1, "write_s": 1}, time.monotonic() - late_s, EACH
        )
    write_record(str(tmp_path), make_record(progress))
    assert re.search(r"left +1 h 0 min", earshot("status", tmp_path)[1])
    assert f"{tmp_path}: running\n" in earshot("status", tmp_path)[1].replace("\n\n", "\n")
    monkeypatch.setattr("pipeline.run.record.SILENT_S", -1.0)
    told = earshot("status", tmp_path)[1]
    assert "running, but silent for less than a minute" in told
    assert not re.search(r"\bleft\b", told)


def test_name_of_neither_folder_nor_job_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    run_main("status", "my-index", "--address", "http://127.0.0.1:2")
    said = capsys.readouterr().err
    assert said.startswith("earshot: my-index: no such folder; taken for the name of a job: http://127")
