"""A part of a recording is what a whole decode has there, and what lies before is decoded only where it has to be."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.audio.decode import open_audio
from pipeline.audio.part import is_quick, open_part
from pipeline.errors import FileFailure
from pipeline.grid import SAMPLE_RATE_HZ, Waveform, seconds_to_samples
from tests.helpers.sounds import FORMATS, encode, encode_damaged_mp3, noise, write_long

DURATION_S = 36.0
SPANS_S: list[tuple[float, float | None]] = [(0.0, 2.0), (31.017, 32.5), (33.3, 33.5), (35.0, None)]


def join(blocks: Iterator[Waveform]) -> Waveform:
    return np.concatenate(list(blocks))


def decode(path: Path) -> Waveform:
    with open_audio(path) as audio:
        return join(audio.blocks())


def between(whole: Waveform, start_s: float, end_s: float | None) -> Waveform:
    return whole[seconds_to_samples(start_s) : None if end_s is None else seconds_to_samples(end_s)]


def write(path: Path, name: str, samples: npt.NDArray[Any], rate_hz: int) -> Path:
    path.write_bytes(encode(name, samples, rate_hz))
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_part_is_that_of_a_whole_decode(name: str, tmp_path: Path) -> None:
    rate_hz = 44_100 if FORMATS[name].takes(44_100, 2) else 32_000 if FORMATS[name].takes(32_000, 2) else 8_000
    path = write(tmp_path / f"a.{FORMATS[name].suffix}", name, 3 * noise(DURATION_S, rate_hz, 2), rate_hz)
    whole = decode(path)
    for start_s, end_s in SPANS_S:
        with open_part(str(path), start_s, end_s) as part:
            heard = join(part.blocks())
        expected = between(whole, start_s, end_s)
        assert heard.shape == expected.shape
        # In the last frame of AAC, the decoder may make up noise, which depends on all that it has decoded.
        n_made = 0 if "aac" not in FORMATS[name].codec else SAMPLE_RATE_HZ // 20
        n = len(expected) - (n_made if end_s is None else 0)
        np.testing.assert_allclose(heard[:n], expected[:n], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("wav_s16", True), ("flac", True), ("mp3", True), ("m4a", True), ("ogg_opus", True), ("webm_opus", False)],
)
def test_what_lies_before_is_decoded_only_where_it_has_to_be(name: str, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / f"long.{FORMATS[name].suffix}"
    write_long(path, name, 240.0, 24_000, channels=1)
    n_blocks = 0

    def count() -> None:
        nonlocal n_blocks
        n_blocks += 1

    with open_part(str(path), 200.0, 202.0) as part:
        assert len(join(part.blocks(count))) == 2 * SAMPLE_RATE_HZ
    assert (n_blocks < 20) == expected
    assert is_quick(str(path), 200.0) == is_quick(f"{path}#t=190,220", 10.0) == expected
    assert is_quick(str(path), 20.0)


def test_part_of_a_damaged_file_is_found_by_a_whole_decode(tmp_path: Path) -> None:
    (path := tmp_path / "damaged.mp3").write_bytes(encode_damaged_mp3())
    assert not is_quick(str(path), 32.0)
    with open_part(str(path), 32.0, 33.0) as part:
        np.testing.assert_array_equal(join(part.blocks()), between(decode(path), 32.0, 33.0))


def test_channels_that_cancel_each_other_are_mixed_as_at_the_beginning(tmp_path: Path) -> None:
    samples = noise(DURATION_S, 44_100)
    path = write(tmp_path / "a.m4a", "alac", np.hstack([samples, -samples]), 44_100)
    with open_part(str(path), 33.0, 35.0) as part:
        assert part.is_quick
        heard = join(part.blocks())
    np.testing.assert_allclose(heard, between(decode(path), 33.0, 35.0), rtol=0, atol=1e-4)
    assert np.abs(heard).max() > 0.05


@pytest.mark.parametrize("name", ["wav_s16", "mp3", "webm_opus"])
def test_part_behind_the_end_is_out_of_range(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{FORMATS[name].suffix}", name, noise(DURATION_S, 48_000), 48_000)
    for start_s in (DURATION_S + 0.5, DURATION_S + 100):
        with (
            pytest.raises(FileFailure, match="nothing from ") as caught,
            open_part(str(path), start_s) as part,
        ):
            list(part.blocks())
        assert caught.value.reason == "out_of_range"


def test_work_ends_where_nobody_waits(tmp_path: Path) -> None:
    """Also while what lies before the part is decoded."""

    class Gone(Exception):
        pass

    def look() -> None:
        raise Gone

    path = write(tmp_path / "a.webm", "webm_opus", noise(DURATION_S, 48_000), 48_000)
    with open_part(str(path), 34.0) as part, pytest.raises(Gone):
        list(part.blocks(look))
