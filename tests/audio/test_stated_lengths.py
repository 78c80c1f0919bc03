"""Headers tell durations without a decoder, and a hostile one does no harm."""

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.source import Bytes
from pipeline.audio.stated_lengths import measure_length, read_length
from pipeline.errors import FileFailure
from tests.helpers.processes import print_of
from tests.helpers.sounds import FORMATS, encode, tone

HZ, DURATION_S = 48_000, 3.0
UNTOLD = {"wavpack", "aac_adts", "ac3", "webm_live", "mp3_in_wav", "mp3_no_xing", "mp3_vbr_no_xing"}

LIKELY = np.frombuffer(b"\0\1\x55\x7f\x80\xff", np.uint8)
"""Bytes that make the smallest and the largest sizes."""


@pytest.fixture(scope="module")
def sounds() -> dict[str, bytes]:
    samples = tone(DURATION_S, HZ)
    return {name: encode(name, samples, HZ) for name in FORMATS}


def test_headers_tell_how_long_files_are(sounds: dict[str, bytes], tmp_path: Path) -> None:
    found = {}
    for name, data in sounds.items():
        (tmp_path / "sound").write_bytes(data)
        found[name] = measure_length(str(tmp_path / "sound"))
    assert {name for name, duration_s in found.items() if duration_s is None} == UNTOLD
    expected = {name: pytest.approx(DURATION_S, abs=0.06) for name in found if name not in UNTOLD}
    assert {name: duration_s for name, duration_s in found.items() if duration_s} == expected


class Counting(io.BytesIO):
    n_reads = n_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.n_reads, self.n_bytes = self.n_reads + 1, self.n_bytes + len(data)
        return data


def test_damaged_headers_cost_little(sounds: dict[str, bytes]) -> None:
    """A header may lie about sizes, or lead back to itself: a few small reads are all that it gets."""
    draw = np.random.default_rng(7)
    for data in sounds.values():
        for _ in range(30):
            damaged = bytearray(data)
            for at in draw.integers(0, 300, 8):
                damaged[at] = draw.choice(LIKELY)
            file = Counting(bytes(damaged[: draw.integers(1, len(damaged))]) if draw.random() < 0.3 else bytes(damaged))
            with suppress(FileFailure):
                assert read_length(Bytes(file)) != 0
            assert file.n_reads < 1_000
            assert file.n_bytes < 500_000


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF\0\0\0\0WAVE" + b"JUNK\0\0\0\0" * 10_000,
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + bytes(16) + b"data\xff\xff\xff\xff",
        b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12\0\1\0\0\0\1\0\x10\x7f\xff" + b"\xff" * 8,
        b"caff\0\1\0\0" + b"free\xff\xff\xff\xff\xff\xff\xff\xf4" * 1_000,
        b"riff\x2e\x91\xcf\x11" + bytes(32) + bytes(1_000),
        b"\0\0\0\1ftyp\0\0\0\0\0\0\0\0" * 100,
        b"\0\0\0\x08ftyp" + b"\0\0\0\x08moov" * 10_000,
        b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67\x80" * 10_000,
        b"\x1a\x45\xdf\xa3\x00" * 100,
        b"ID3\4\0\0\x7f\x7f\x7f\x7f",
        b"fLaC" + b"\xff" * 10,
        b"x",
    ],
)
def test_headers_without_end_or_sense_tell_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    assert measure_length(str(tmp_path / "a.wav")) is None


def test_files_that_cannot_be_read_tell_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert measure_length(str(tmp_path / "empty.wav")) is None
    assert measure_length(str(tmp_path / "none.wav")) is None
    assert measure_length(str(tmp_path)) is None


def test_no_decoder_is_loaded(tmp_path: Path) -> None:
    """A fault in one would end the run."""
    (tmp_path / "a.flac").write_bytes(encode("flac", tone(1.0, HZ), HZ))
    program = (
        "import sys; from pipeline.audio.stated_lengths import measure_length\n"
        "print(measure_length(sys.argv[1]), sorted({'av', 'soundfile', 'soxr'} & set(sys.modules)))"
    )
    assert print_of(program, tmp_path / "a.flac") == "1.0 []\n"
