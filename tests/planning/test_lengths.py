"""Durations are estimated by the headers of some of the files."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from pipeline.audio.decoder_versions import Look
from pipeline.audio.stated_lengths import measure_length
from pipeline.corpus.corpus_file import CorpusFile, ExaminedFile, Stored, estimate_seconds
from pipeline.corpus.shards import Place, list_members
from pipeline.planning.lengths import MOST_OPENED, SAMPLED, correct_estimates
from tests.helpers.shards import write_shard


def make_file(uri: str, size_bytes: int, offset: int | None = None) -> CorpusFile:
    file = CorpusFile(uri, None, None, size_bytes, 1, offset)
    file.estimated_s = estimate_seconds(file.recording, size_bytes, file.time_range)
    return file


def test_files_are_as_long_as_the_headers_of_their_kind_tell() -> None:
    speech = [make_file(f"/a/{n}.wav", 16_000 * (n + 1)) for n in range(100)]
    music = [make_file("/a/x.mp3", 40_000 * 10)]
    opened = Counter[str]()

    def measure(recording: str | Place) -> float | None:
        assert isinstance(recording, str)
        opened[recording] += 1
        return 10.0 if recording.endswith("mp3") else float(recording[3:-4]) + 1

    correct_estimates([*speech, *music], measure)
    assert [file.estimated_s for file in speech] == pytest.approx([n + 1 for n in range(100)])
    assert music[0].estimated_s == pytest.approx(10.0)
    assert set(opened.values()) == {1}
    assert SAMPLED / 2 <= sum(recording.endswith("wav") for recording in opened) <= SAMPLED


def test_ranges_end_with_their_recording() -> None:
    to_end = CorpusFile("/a.wav#t=4,", 4.0, None, 160_000, 1, None)
    within = CorpusFile("/a.wav#t=4,9", 4.0, 9.0, 160_000, 1, None)
    correct_estimates([to_end, within], lambda place: {"/a.wav": 10.0}[str(place)])
    assert [to_end.estimated_s, within.estimated_s] == [6.0, 5.0]


@pytest.mark.parametrize("told", [None, 0.0, 1e9, 1e-6])
def test_header_that_cannot_be_right_changes_nothing(told: float | None) -> None:
    file = make_file("/a.wav", 150_000)
    correct_estimates([file], lambda recording: told)
    assert file.estimated_s == 1.0


def test_remote_files_and_rows_of_tables_are_not_opened() -> None:
    def measure(place: str | Place) -> float | None:
        raise AssertionError(place)

    files = [make_file(uri, 150_000, 0) for uri in ("s3://b/a.tar#a.wav", "/a.parquet#b.wav", "/a.arrow#c.wav")]
    files.append(make_file("s3://bucket/a.wav", 150_000))
    correct_estimates(files, measure)
    assert [file.estimated_s for file in files] == [1.0] * 4


def test_members_of_tar_shards_are_as_long_as_their_headers_tell(tmp_path: Path) -> None:
    """Telephone speech is not taken for a studio recording."""
    data = io.BytesIO()
    soundfile.write(data, np.zeros(8_000 * 30), 8_000, format="WAV", subtype="PCM_U8")
    shard = write_shard(tmp_path / "a.tar", [(f"{number}.wav", data.getvalue()) for number in range(30)])
    files = [make_file(uri, place.size_bytes, place.offset) for uri, place in list_members(str(shard))]
    assert files[0].estimated_s < 2
    correct_estimates(files, measure_length)
    assert [file.estimated_s for file in files] == pytest.approx([30.0] * 30, rel=0.01)


@pytest.mark.parametrize("n_extensions", [2, 40, 3_000])
def test_few_headers_are_read_in_all(n_extensions: int) -> None:
    """With ``extensions: ["*"]`` there may be thousands of extensions; the most frequent ones count."""
    opened = list[str]()

    def measure(recording: str | Place) -> float:
        opened.append(str(recording))
        return 1.0

    files = [make_file(f"/{number}.x{number % n_extensions}", 1_000) for number in range(3_000)]
    files += [make_file(f"/{number}.wav", 16_000) for number in range(500)]
    correct_estimates(files, measure)
    assert len(opened) <= MOST_OPENED
    assert {file.estimated_s for file in files if file.uri.endswith(".wav")} == {1.0}


def test_recording_that_is_cut_into_ranges_is_opened_once() -> None:
    opened = list[str]()

    def measure(recording: str | Place) -> float:
        opened.append(str(recording))
        return 100.0

    files = [CorpusFile(f"/a.wav#t={at},{at + 1}", float(at), at + 1.0, 160_000, 1, None) for at in range(50)]
    correct_estimates(files, measure)
    assert opened == ["/a.wav"]


def make_stored(*rows: tuple[str, int, float | None]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(("uri", "size_bytes", "duration_s"), row, strict=True)) for row in rows])


STORED = make_stored(
    ("s3://b/phone/1.wav", 16_000 * 10, 10.0),
    ("s3://b/phone/2.wav", 16_000 * 30, 30.0),
    ("s3://b/studio/1.wav", 300_000 * 40, 40.0),
    ("/t.parquet#1.flac", 60_000, 2.0),
    ("/speech/1.mp3", 4_000 * 9, 9.0),
    ("s3://b/phone/1.wav#t=0,1", 16_000 * 10, 1.0),
    ("s3://b/phone/wrong.wav", 10, 1e9),
    ("s3://b/phone/unknown.wav", 10, None),
)


def tell_nothing(place: str | Place) -> None:
    return None


@pytest.mark.parametrize(
    ("file", "expected_s"),
    [
        (make_file("s3://b/phone/new.wav", 16_000 * 7), 7.0),
        (make_file("s3://b/studio/new.wav", 300_000 * 7), 7.0),
        (make_file("s3://b/other/new.wav", 158_000 * 7), 7.0),  # the mean of all
        (make_file("/t.parquet#2.flac", 30_000 * 7, 2), 7.0),
        (make_file("/other.arrow#2.flac", 30_000 * 7, 2), 7.0),
        (make_file("/speech/2.mp3", 4_000 * 7), 7.0),  # a header that tells nothing
        (make_file("s3://b/phone/new.ogg", 18_000 * 7), 7.0),  # the usual estimate
    ],
)
def test_files_whose_header_is_not_read_are_like_those_of_the_index(file: CorpusFile, expected_s: float) -> None:
    correct_estimates([file], tell_nothing, STORED)
    assert file.estimated_s == pytest.approx(expected_s)


def test_range_of_a_remote_recording_ends_with_it() -> None:
    file = CorpusFile("s3://b/phone/new.wav#t=4,", 4.0, None, 160_000, 1, None)
    correct_estimates([file], tell_nothing, STORED)
    assert file.estimated_s == 6.0


def test_file_of_the_index_is_as_long_as_it_says() -> None:
    file = ExaminedFile("/a.wav", None, None, 150_000, 1, None, "0" * 64, 1.0, Stored(Look.LENGTH, 9.0, None))
    correct_estimates([file], tell_nothing)
    assert file.estimated_s == 9.0
