"""Estimates before a run: bytes and seconds. Plans: tests/planning; configurations: tests/index/test_journal.py."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from pipeline.config import Config, make_config
from pipeline.errors import UsageError
from pipeline.grid import Grid
from pipeline.index import journal
from pipeline.index.handle import find_index
from pipeline.index.tables import open_published
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import describe_lack_of_space, estimate_times, note_unreadable, plan_corpus, read_pace
from tests.helpers.damage import publish
from tests.helpers.fakes import noise, write_wav
from tests.helpers.indexes import table
from tests.helpers.runs import DIMENSION, WideEncoder, configure, in_place, write_sounds


def test_estimated_bytes_are_about_those_written(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", [40.0] * 6)
    for frames in ("all", "none"):
        told: list[int] = []
        config = configure(folder, tmp_path / frames, store={"frames": frames})

        def announce(plan: Plan, told: list[int] = told) -> None:
            told.append(plan.bytes_to_write)

        index_corpus(config, announce=announce, stages=in_place(WideEncoder()))
        tables = ("clips", "frames") if frames == "all" else ("clips",)
        n_vectors = sum(open_published(config.into, name).count_rows() for name in tables)
        assert told == [pytest.approx(n_vectors * 2 * DIMENSION, rel=0.06)]


def test_estimated_bytes_count_a_clip_for_each_short_file(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", [0.5, 0.6, 0.7, 0.8])
    shutil.copyfile(folder / "0.wav", folder / "copy.wav")
    plan = plan_corpus(configure(folder, tmp_path / "index", store={"frames": "none"}))
    assert (plan.n_to_decode, plan.bytes_to_write) == (5, 5 * 2 * DIMENSION)


def test_pace_counts_each_content_once_and_not_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for number in range(5):
        write_wav(tmp_path / "in" / f"{number}.wav", noise(2.5, seed=1))
    config = configure(tmp_path / "in", tmp_path / "index")

    clock = [0.0]
    for module in ("dispatch", "checkpoints"):
        monkeypatch.setattr(f"pipeline.run.{module}.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow_start(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Any:
        clock[0] += 30.0
        for receipt in in_place(WideEncoder())(batches, config, frames_schema):
            yield {**receipt, "decode_s": 0.2, "encode_s": 0.3}

    progress = index_corpus(config, stages=slow_start)
    assert progress.finished_s == 2.5
    assert progress.finished_planned_s == pytest.approx(progress.planned_s)
    [row] = [row for row in journal.read_journal(config.into).to_pylist() if row["kind"] == "index"]
    assert (row["audio_s"], journal.encoded_s(row)) == (12.5, 2.5)
    assert row["seconds"] == pytest.approx(0.5)
    pace = read_pace(find_index(config.into).live)
    assert pace == pytest.approx(row["seconds"] / 2.52)  # in windows of whole frames
    write_wav(tmp_path / "in" / "new.wav", noise(0.01, seed=2))
    index_corpus(config, stages=slow_start)  # a run that encodes nothing has no speed
    assert read_pace(find_index(config.into).live) == pace


def test_time_follows_what_the_windows_of_a_run_hold(tmp_path: Path) -> None:
    config = configure(write_sounds(tmp_path / "in", [10.04] * 3), tmp_path / "index", window={"tail": "back"})
    index_corpus(config, stages=in_place(WideEncoder()))
    live = find_index(config.into).live
    pace = read_pace(live)
    assert pace
    took_s = sum(row["seconds"] or 0 for row in journal.read_journal(config.into).to_pylist())
    assert pace == pytest.approx(took_s / (3 * 20))
    again = plan_corpus(config, RunRequest(full=True))
    for grid, in_windows_s in ((Grid(250, 10, "back"), 20), (Grid(250, 10, "fit"), 10.04), (Grid(125, 0, "back"), 15)):
        assert estimate_times(again, live, grid) == pytest.approx((pace * 3 * in_windows_s, 0))


def test_time_of_other_lengths_follows_their_windows(tmp_path: Path) -> None:
    config = configure(write_sounds(tmp_path / "in", [10.04] * 3), tmp_path / "index", window={"tail": "back"})
    index_corpus(config, stages=in_place(WideEncoder()))
    live = find_index(config.into).live
    write_wav(tmp_path / "in" / "short.wav", noise(5.0, seed=9))
    times = estimate_times(plan_corpus(config), live, config.window.grid)
    assert times == pytest.approx(((read_pace(live) or 0) * 5.0, 0))


def test_an_unknown_reason_is_refused(tmp_path: Path) -> None:
    config = configure(write_sounds(tmp_path / "in", [0.5]), tmp_path / "index")
    with pytest.raises(UsageError, match=r"--reason misspelt: no file fails so; the reasons are bad_name, "):
        plan_corpus(config, RunRequest(retry_failed=True, reason="misspelt"))


def test_lengths_follow_the_headers(tmp_path: Path) -> None:
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(8_000 * 20, number / 10), 8_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF" + bytes(40))
    plan = plan_corpus(make_config({"sources": [str(tmp_path)], "into": str(tmp_path / "index")}))
    assert plan.seconds_to_decode == pytest.approx(60.0, rel=0.01)


def test_all_that_is_examined_may_have_to_be_written(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", [10.0] * 4)
    shutil.copyfile(folder / "0.wav", folder / "copy.wav")
    config = configure(folder, tmp_path / "index")
    afresh = plan_corpus(config)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert plan_corpus(config).bytes_examined == 0
    table(config.into, "files").update({"decoder": "2", "channels": "2"})  # stereo was mixed otherwise
    publish(config.into)
    plan = plan_corpus(config)
    assert (plan.n_examined, plan.n_to_decode, plan.bytes_to_write, plan.lack_of_space) == (5, 0, 0, None)
    assert plan.bytes_examined == afresh.bytes_to_write


def test_files_that_cannot_be_read_are_counted() -> None:
    one, other = ("b.wav", "is no regular file"), ("a.wav", "is not there")
    assert note_unreadable([]) == ()
    said = "1 file of the index cannot be read now, its rows stay: b.wav: is no regular file"
    assert note_unreadable([one]) == (said,)
    [note] = note_unreadable([one, other])
    assert note == "2 files of the index cannot be read now, their rows stay; the first one is a.wav: is not there"


def test_lack_of_space_is_said() -> None:
    config = make_config({"sources": ["x"], "into": "ix"})
    assert describe_lack_of_space(config, 2_000, count_free=lambda path: 2_000) is None
    assert describe_lack_of_space(config, 2_000, count_free=lambda path: None) is None
    said = describe_lack_of_space(config, 2 * 10**9, count_free=lambda path: 10**9)
    assert said is not None
    assert said.startswith("ix: about 2.0 GB will be written, and its disk has 1.0 GB free: make room, or")
    assert "--frames none" in said
    most = describe_lack_of_space(config, 2 * 10**9, "up to", lambda path: 10**9)
    assert most is not None
    assert most.startswith("ix: up to 2.0 GB will be written")
    bare = make_config({"sources": ["x"], "into": "ix", "store": {"frames": "none"}})
    assert "--frames" not in str(describe_lack_of_space(bare, 2 * 10**9, count_free=lambda path: 10**9))
