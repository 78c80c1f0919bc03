"""A broken file ends as one failure with the right reason, or decodes up to the damage and says so."""

import io
import os
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.bench.hostile_sounds import claim_samples, with_cover
from pipeline.audio.decode import open_audio
from pipeline.errors import FileFailure
from pipeline.grid import HOP_SAMPLES
from tests.helpers.decoding import decode_all, measure_format, measure_fresh
from tests.helpers.processes import run_python
from tests.helpers.sounds import (
    FORMATS,
    claim_bytes,
    cut,
    encode,
    noise,
    tone,
    write_broken_corpus,
    write_special_files,
)

HZ = 48_000


def outcome(source: Path | io.BytesIO) -> tuple[str, str | None]:
    """Status and reason in the ledger; the caller of ``open_audio`` applies the rule on too short files."""
    try:
        with open_audio(source) as audio:
            n_samples = sum(len(block) for block in audio.blocks())
            truncated = audio.truncated
    except FileFailure as failure:
        check_told(failure)
        return "failed", failure.reason
    if n_samples < HOP_SAMPLES:
        return "failed", "too_short"
    return "indexed", "truncated" if truncated else None


def check_told(failure: FileFailure) -> None:
    assert failure.message.strip()
    assert "<none>" not in failure.message  # FFmpeg sees no name
    assert failure.stage == ("read" if failure.reason in ("vanished", "unreadable") else "decode")


def test_every_broken_file_gets_its_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = write_broken_corpus(tmp_path) | write_special_files(tmp_path)
    assert len(expected) > 70
    capfd.readouterr()
    assert {name: outcome(tmp_path / name) for name in expected} == expected
    assert capfd.readouterr() == ("", "")  # neither library prints anything


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_read_permission_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(encode("wav_s16", tone(0.1, HZ), HZ))
    path.chmod(0)
    assert outcome(path) == ("failed", "unreadable")


class Failing(io.BytesIO):
    """A file whose disk fails from some byte on."""

    def __init__(self, data: bytes, good_bytes: int, error: Exception) -> None:
        super().__init__(data)
        self.good_bytes, self.error = good_bytes, error

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self.good_bytes:
            raise self.error
        return super().read(size)


@pytest.mark.parametrize("name", ["wav_s16", "flac", "mp3", "ogg_vorbis", "webm_opus", "m4a_faststart"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(5, "Input/output error"), "unreadable"),
        (FileNotFoundError(2, "No such file"), "vanished"),
        (RuntimeError("the store hung up"), "unreadable"),
    ],
)
def test_disk_error_is_not_taken_for_the_end_of_the_file(
    name: str, error: Exception, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encode(name, noise(6.0, HZ, 2), HZ)
    for good_bytes in (0, len(data) // 2):
        with pytest.raises(FileFailure) as caught:
            decode_all(Failing(data, good_bytes, error))
        assert (caught.value.stage, caught.value.reason) == ("read", reason)
    assert capfd.readouterr() == ("", "")


def test_cut_file_decodes_to_the_beginning_of_the_whole() -> None:
    for name in ("wav_s16", "flac", "ogg_vorbis", "ogg_opus", "webm_opus", "m4a_faststart", "mp3"):
        data = encode(name, noise(4.0, HZ), HZ)
        whole, _ = decode_all(io.BytesIO(data))
        with open_audio(io.BytesIO(cut(data, 0.6))) as audio:
            part = np.concatenate(list(audio.blocks()))
            assert audio.truncated is not None
        assert 1.5 * HZ < len(part) < 2.6 * HZ, name
        # The last frames of lossy codecs overlap with the missing ones.
        n_same = len(part) - HZ // 10
        assert np.array_equal(part[:n_same], whole[:n_same]), name


def test_truncated_says_how_much_is_missing() -> None:
    with open_audio(io.BytesIO(cut(encode("wav_s16", tone(4.0, HZ), HZ), 0.25))) as audio:
        assert audio.truncated is not None  # before decoding, all of it is missing
        assert len(np.concatenate(list(audio.blocks()))) == HZ - 17
        assert audio.truncated == "1.000 s decoded of 4.000 s"
        assert audio.info.expected_duration_s == pytest.approx(4.0, abs=1e-3)


def test_failure_names_the_time_of_a_non_finite_sample() -> None:
    samples = noise(5.0, HZ, 2)
    samples[3 * HZ + 480, 1] = np.nan
    with open_audio(io.BytesIO(encode("wav_f32", samples, HZ))) as audio:
        blocks = audio.blocks()
        assert len(next(blocks)) == 2 * HZ
        with pytest.raises(FileFailure, match=r"not_finite: NaN or infinite sample at 3\.010 s"):
            list(blocks)


# --- wrong headers ----------------------------------------------------------------------------------------------------


def decode_within(data: bytes, path: Path, limit_bytes: int) -> tuple[int, bool]:
    """The number of samples and whether truncated, from a fresh process with ``limit_bytes`` more address space."""
    path.write_bytes(data)
    program = (
        "import resource, sys\n"
        "from pipeline.audio.decode import open_audio\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[2]),) * 2)\n"
        "with open_audio(sys.argv[1]) as audio:\n"
        "    print(sum(len(block) for block in audio.blocks()), int(audio.truncated is not None))\n"
    )
    done = run_python("-c", program, path, limit_bytes)
    assert (done.returncode, done.stderr) == (0, "")
    n_samples, truncated = map(int, done.stdout.split())
    return n_samples, bool(truncated)


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "cover"])
def test_absurd_sizes_in_headers_allocate_nothing(name: str, tmp_path: Path) -> None:
    second = tone(1.0, HZ)
    flac, mp3 = encode("flac", second, HZ), encode("mp3", second, HZ)
    data, truncated = {
        "wav": (claim_bytes(encode("wav_s16", second, HZ), 0x7F00_0000), True),
        "flac": (claim_samples(flac), True),
        "mp3": (claim_frames(mp3), True),
        "cover": (with_cover(mp3, 30_000_000), False),
    }[name]
    n_samples, told = decode_within(data, tmp_path / "sound", 200_000_000)
    assert told == truncated
    assert HZ <= n_samples <= HZ + 1_152


def test_cover_picture_costs_no_memory(tmp_path: Path) -> None:
    mp3 = encode("mp3", tone(1.0, HZ), HZ)
    peaks = []
    for side in (16, 16_000):  # decoded, the large one takes 2 GB and 20 s
        path = tmp_path / f"{side}.mp3"
        path.write_bytes(with_cover(mp3, 0, side))
        measure = measure_fresh(path)
        assert (measure.decoded_s, measure.truncated) == (1.0, None)
        peaks.append(measure.peak_bytes)
    assert peaks[1] - peaks[0] < 10_000_000


def test_packet_time_a_year_ahead_becomes_no_silence() -> None:
    buffer, source = io.BytesIO(), io.BytesIO(encode("matroska_flac", noise(4.0, HZ), HZ))
    with av.open(source) as reader, av.open(buffer, "w", format="matroska") as writer:
        stream = writer.add_stream_from_template(reader.streams.audio[0])
        for packet in reader.demux(reader.streams.audio[0]):
            if packet.dts is not None:
                late = round(365 * 86_400 / packet.time_base) if packet.pts * packet.time_base > 2 else 0
                packet.pts, packet.dts, packet.stream = packet.pts + late, packet.dts + late, stream
                writer.mux(packet)
    buffer.seek(0)
    with open_audio(buffer) as audio:
        assert audio.info.expected_duration_s == pytest.approx(365 * 86_400, rel=1e-3)
        assert sum(len(block) for block in audio.blocks()) == 4 * HZ
        assert audio.truncated is not None


def claim_frames(mp3: bytes) -> bytes:
    """An mp3 whose Xing header counts four thousand million frames."""
    at = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    return mp3[:at] + b"\xff" * 4 + mp3[at + 4 :]


SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("wav_s16", "aiff", "ogg_vorbis", "ogg_opus", "webm_opus", "aac_adts", "m4a")
]


@pytest.mark.parametrize("name", ["flac", "mp3", *SLOW])
def test_memory_does_not_grow_with_the_length_of_a_file(name: str) -> None:
    """In fresh processes, twenty minutes need no more memory than one: their samples alone would be 230 MB."""
    short, long = measure_format(name, [60.0, 1_200.0], channels=1)
    assert long.decoded_s == pytest.approx(1_200.0, rel=0.002)
    assert long.truncated is None
    assert long.peak_bytes - short.peak_bytes < 10_000_000
    assert long.peak_bytes < 200_000_000


# --- anything at all --------------------------------------------------------------------------------------------------

SECOND = {name: encode(name, tone(1.0, HZ) + noise(1.0, HZ), HZ) for name in FORMATS if FORMATS[name].takes(HZ, 1)}


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(sorted(SECOND)), st.data())
def test_damaged_files_raise_nothing_but_failures(name: str, data: st.DataObject) -> None:
    """Flipped bytes, above all in headers, and cuts give an outcome, never an exception."""
    broken = bytearray(SECOND[name])
    for _ in range(data.draw(st.integers(0, 8))):
        limit = data.draw(st.sampled_from([64, 600, len(broken)]))
        at = data.draw(st.integers(0, min(limit, len(broken)) - 1))
        broken[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, zlib.crc32(bytes([at & 0xFF])) & 0xFF]))
    stop = data.draw(st.one_of(st.just(len(broken)), st.integers(0, len(broken))))
    status, reason = outcome(io.BytesIO(bytes(broken[:stop])))
    assert status == "indexed" or reason in REASONS


REASONS = {"empty", "not_audio", "no_audio_stream", "unsupported", "decode_error", "not_finite", "too_short"}


@settings(max_examples=200, deadline=None)
@given(
    st.binary(min_size=1, max_size=5_000), st.sampled_from([b"", b"RIFF\x24\x80\0\0WAVEfmt ", b"fLaC", b"OggS", b"ID3"])
)
@example(b"\0" * 4_000, b"")
def test_bytes_that_were_never_audio_are_refused(data: bytes, begin: bytes) -> None:
    status, reason = outcome(io.BytesIO(begin + data))
    assert status == "failed"
    assert reason in REASONS
