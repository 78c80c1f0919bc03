"""Checkpoints: when they come, and what a commit makes of contents that several batches hold."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.audio.decoder_versions import DECODER
from pipeline.grid import Waveform
from pipeline.index import journal
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import live, read
from tests.helpers.damage import publish
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, configure, in_place, write_sounds
from tests.helpers.runs import corpus as corpus
from tests.helpers.shards import write_rows
from tests.helpers.sounds import encode, noise


def test_checkpoints_are_bounded_by_rows_and_seconds(corpus: Path, tmp_path: Path) -> None:
    often = configure(corpus, tmp_path / "often", store={"checkpoint_rows": 1, "checkpoint_s": 1e6})
    once = configure(corpus, tmp_path / "once", store={"checkpoint_rows": 10**9, "checkpoint_s": 1e6})
    by_time = configure(corpus, tmp_path / "by_time", store={"checkpoint_rows": 10**9, "checkpoint_s": 1e-9})
    versions = []
    for config in (often, once, by_time):
        index_corpus(config, stages=in_place(WideEncoder()))
        batches = journal.read_journal(config.into)
        indexed = [row["files_version"] for row in batches.to_pylist() if row["kind"] == "index"]
        versions.append(len(set(indexed)))
        assert len(indexed) == len(set(batches["batch_id"].to_pylist())) - 3  # beside `create`, `configure`, `maintain`
    assert versions[0] > 3
    assert versions[1] == 1
    assert versions[2] > 3
    assert live(often.into) == live(once.into)


def make_same(folder: Path) -> Callable[[int], None]:
    """Gives all files of a folder the bytes of the first one when the first batch begins; their times stay."""

    def act(number: int) -> None:
        first, *others = sorted(folder.iterdir())
        for file in others if number == 0 else ():
            modified_ns = file.stat().st_mtime_ns
            file.write_bytes(first.read_bytes())
            os.utime(file, ns=(modified_ns, modified_ns))

    return act


@pytest.mark.parametrize("checkpoint_rows", [1, 10_000])
def test_contents_that_become_equal_during_a_run_are_stored_once(tmp_path: Path, checkpoint_rows: int) -> None:
    """In one batch, in several batches of one commit, and in several commits: the plan saw different contents."""
    folder = write_sounds(tmp_path / "in", [5.0] * 6)
    config = configure(folder, tmp_path / "index", run={"batch_s": 12.0}, store={"checkpoint_rows": checkpoint_rows})
    encoder = WideEncoder()
    index_corpus(config, stages=in_place(encoder, make_same(folder)))
    assert verify_index(config.into) == []
    afresh = configure(folder, tmp_path / "afresh")
    index_corpus(afresh, stages=in_place(WideEncoder()))
    assert live(config.into) == live(afresh.into)
    n_batches = sum(row["kind"] == "index" for row in journal.read_journal(config.into).to_pylist())
    assert encoder.n_windows == 3 * n_batches == 9
    assert verify_index(config.into) == []


class DriftingEncoder(WideEncoder):
    """Never gives the same numbers twice, like an encoder with another precision or batch."""

    def encode(self, windows: Sequence[Waveform]) -> tuple[Any, list[Any] | None]:
        clips, frames = super().encode(windows)
        return clips * self.n_windows, frames and [rows * self.n_windows for rows in frames]


@pytest.mark.parametrize("checkpoint_rows", [1, 10_000])
def test_checksums_of_frames_are_of_the_last_file_that_wrote_them(tmp_path: Path, checkpoint_rows: int) -> None:
    folder = write_sounds(tmp_path / "in", [3.0] * 4)
    config = configure(folder, tmp_path / "index", run={"batch_s": 3.0}, store={"checkpoint_rows": checkpoint_rows})
    index_corpus(config, stages=in_place(DriftingEncoder(), make_same(folder)))
    [n_audios] = {len(set(open_published(config.into, "files").to_table()["audio_id"].to_pylist()))}
    assert n_audios == 1
    assert verify_index(config.into) == []


@pytest.mark.parametrize("batch_s", [0.1, 12.0])
def test_file_that_is_only_examined_has_the_checksum_of_frames_that_another_wrote(
    tmp_path: Path, batch_s: float
) -> None:
    """The plan cannot know that a new row of a table holds the same bytes, for it is not hashed."""
    folder, encoder = tmp_path / "in", DriftingEncoder()
    folder.mkdir()
    sound = encode("wav_s16", noise(2.0, 48_000, 2), 48_000)
    (folder / "a.wav").write_bytes(sound)
    sources = [str(folder), str(write_rows(tmp_path / "t.parquet", [("new.wav", sound)]))]
    before, after = (
        configure(folder, tmp_path / "index", sources=some, run={"batch_s": batch_s}) for some in (sources[:1], sources)
    )
    index_corpus(before, stages=in_place(encoder))
    table(before.into, "files").update({"decoder": "2"})
    publish(before.into)
    progress = index_corpus(after, stages=in_place(encoder))
    assert (progress.n_indexed, progress.n_unchanged, encoder.n_windows) == (1, 1, 2)
    told = {(row["audio_id"], row["frames_checksum"], row["decoder"]) for row in read(after.into, "files")}
    assert len(told) == 1
    assert {decoder for _, _, decoder in told} == {DECODER}
    assert verify_index(after.into) == []
