"""Cut audio: the samples of each span, names that sort, a manifest; an interrupted export goes on."""

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import soundfile

from pipeline.audio.sound_writer import Container
from pipeline.errors import UsageError
from pipeline.export.cuts import MANIFEST, cut_files, plan_cuts
from pipeline.export.exporting import Exported, export_cuts
from pipeline.export.folder import STATE, Folder
from pipeline.export.hits_file import read_hits
from pipeline.export.labels import Label
from pipeline.export.recordings import open_as_is
from pipeline.search.stopping import Stopped, stopping
from tests.helpers.exports import RATE_HZ, die_at_every_step, find_tapes, list_steps, open_tape, read_folder

LABELS = [
    Label("/s/a/x.wav", 1.0, 1.5, "a bell ringing", rank=1, score=2.0),
    Label("/s/b/x.wav", 1.0, 1.5, "犬が吠える", rank=2, score=1.0, verdict="wrong"),
    Label("/s/gone.wav", 1.0, 2.0, "a bell ringing", rank=3, score=0.5),
    Label("/s/cut.wav", 1.0, 3.0, "a bell ringing", rank=4, score=0.4),
    Label("/s/b/x.wav", 3.5, 4.0, rank=5),
    Label("/s/b/x.wav", 9.0, 9.5, "too late", rank=6),
    Label("/s/b/x.wav", 1.0, 2.0, "of another time", status="gone"),
]
REQUEST = {"format": "wav", "padding_s": 0.25}


def export(folder: Folder) -> Exported:
    return export_cuts(folder, REQUEST, lambda: LABELS, find_tapes)


def test_names_sort_in_the_order_of_the_labels_and_say_what_they_are() -> None:
    names = [cut.name for cut in plan_cuts(LABELS, "wav")]
    assert names == sorted(names)
    assert names[:2] == ["0001_a-bell-ringing_x.wav_1.00s.wav", "0002_犬が吠える_wrong_x.wav_1.00s.wav"]
    assert len(set(names)) == len(LABELS)
    many = [cut.name for cut in plan_cuts(LABELS * 2_000, "wav")]
    assert many == sorted(many)


def test_long_cut_ends_between_blocks_once_nobody_waits() -> None:
    n_read = list[int]()

    class Long:
        sample_rate_hz, channels, is_approximate = RATE_HZ, 1, False

        def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
            for number in range(1_000):
                n_read.append(number)
                yield np.zeros((100, 1), np.float32)

    with pytest.raises(Stopped), stopping(lambda: len(n_read) == 5):
        list(cut_files(LABELS[:1], "wav", lambda *_: nullcontext(Long())))
    assert len(n_read) == 5


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_soundfile_reads_each_cut_with_its_padding(container: Container) -> None:
    files = {name: b"".join(pieces) for name, pieces in cut_files(LABELS, container, open_tape, padding_s=0.25)}
    manifest = pd.read_csv(io.BytesIO(files.pop(MANIFEST)))
    assert manifest["file"].dropna().tolist() == list(files)
    for _, row in manifest.dropna(subset=["file"]).iterrows():
        samples, rate_hz = soundfile.read(io.BytesIO(files[row["file"]]))
        first, stop = round(max(0.0, row["start_s"] - 0.25) * RATE_HZ), round(min(4.0, row["end_s"] + 0.25) * RATE_HZ)
        assert (rate_hz, row["sample_rate_hz"], row["channels"]) == (RATE_HZ, RATE_HZ, 2)
        assert samples[:, 0].tolist() == (np.arange(first, stop) / 2**20).tolist()
        assert samples[:, 1].tolist() == (-np.arange(first, stop) / 2**20).tolist()
        assert row["cut_start_s"] == pytest.approx(first / RATE_HZ)
        assert row["cut_end_s"] == pytest.approx(stop / RATE_HZ)


def test_what_cannot_be_cut_is_told_in_the_manifest_and_nothing_is_lost(tmp_path: Path) -> None:
    exported = export(Folder(str(tmp_path / "out")))
    manifest = pd.read_csv(tmp_path / "out" / MANIFEST)
    assert len(manifest) == len(LABELS)
    assert manifest["reason"].fillna("").tolist() == ["", "", "vanished", "unreadable", "", "out_of_range", "vanished"]
    assert manifest["file"].isna().tolist() == manifest["reason"].notna().tolist()
    assert [problem.reason for problem in exported.problems] == manifest["reason"].dropna().tolist()
    assert sorted(exported.names) == sorted(read_folder(tmp_path / "out"))
    assert read_hits(MANIFEST, (tmp_path / "out" / MANIFEST).read_bytes())[1].text == "犬が吠える"


def test_export_that_dies_at_every_step_ends_like_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.export.exporting.AT_ONCE", 2)
    steps = list_steps(tmp_path / "undisturbed", export)
    assert len([step for step in steps if STATE in step]) == 5  # a plan, and four notes
    exported = die_at_every_step(tmp_path / "out", export)
    assert read_folder(tmp_path / "out") == read_folder(tmp_path / "undisturbed")
    assert len(exported.problems) == 4
    assert not (tmp_path / "out" / STATE).exists()


def test_export_goes_on_with_what_it_found_first(tmp_path: Path) -> None:
    undisturbed = export(Folder(str(tmp_path / "undisturbed")))

    def stop_late(step: str) -> None:
        if step.endswith(MANIFEST):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(Folder(str(tmp_path / "out"), stop_late))
    opened: list[str] = []

    def open_again(label: Label, start_s: float, end_s: float | None) -> AbstractContextManager[Any]:
        opened.append(label.uri)
        return open_tape(label, start_s, end_s)

    done = export_cuts(
        Folder(str(tmp_path / "out")), REQUEST, lambda: pytest.fail("searched again"), lambda labels: open_again
    )
    assert done == undisturbed
    assert opened == []
    assert read_folder(tmp_path / "out") == read_folder(tmp_path / "undisturbed")


def test_other_padding_is_another_export(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.begin(REQUEST, lambda: {"labels": ""})
    with pytest.raises(UsageError, match=r"differs in padding_s \(0\.25, not 1\.0\)"):
        export_cuts(folder, {**REQUEST, "padding_s": 1.0}, lambda: LABELS, find_tapes)


def test_nothing_found_is_a_manifest_without_rows(tmp_path: Path) -> None:
    assert export_cuts(Folder(str(tmp_path)), REQUEST, list, find_tapes).names == [MANIFEST]
    assert pd.read_csv(tmp_path / MANIFEST).empty


def test_progress_counts_every_cut(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    export_cuts(Folder(str(tmp_path)), REQUEST, lambda: LABELS, find_tapes, lambda *done: told.append(done))
    assert told[-1] == (len(LABELS), len(LABELS))
    assert [n for n, _ in told] == sorted(n for n, _ in told)


def test_real_recordings_are_cut_at_their_own_rate_sample_by_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = rng.integers(-(2**15), 2**15, (96_000, 2)).astype(np.int16)
    for suffix in ("wav", "flac"):
        uri = str(tmp_path / f"bats.{suffix}")
        soundfile.write(uri, samples, 192_000)
        files = cut_files([Label(f"{uri}#t=0.1", 0.05, 0.15)], "flac", open_as_is)
        name, pieces = next(files)
        found, rate_hz = soundfile.read(io.BytesIO(b"".join(pieces)), dtype="int16")
        assert (name, rate_hz) == (f"0001_bats.{suffix}_0.15s.flac", 192_000)
        assert np.array_equal(found, samples[28_800:48_000])
