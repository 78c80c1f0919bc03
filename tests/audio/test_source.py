"""Bytes of a file: hashed, measured and recognised by how they begin; an error of the file is kept, not raised."""

import io
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import heartbeat
from pipeline.audio.decode import open_audio
from pipeline.audio.source import (
    PROBE_BYTES,
    Bytes,
    file_boundary,
    hash_file,
    measure_file,
    place_of,
    probe_file,
    resolve_uri,
)
from pipeline.corpus.raw_formats import RAW_FORMATS
from pipeline.corpus.shards import Place
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import FileFailure
from tests.helpers.sounds import encode, tone, write_special_files


class Broken(io.BytesIO):
    """A file whose disk fails."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(5, "Input/output error")


def test_hashing_fails_like_reading(tmp_path: Path) -> None:
    expected = write_special_files(tmp_path)
    for name, (_, reason) in expected.items():
        with pytest.raises(FileFailure) as caught:
            hash_file(tmp_path / name)
        assert (caught.value.stage, caught.value.reason) == ("read", reason)
    (tmp_path / "empty.wav").touch()
    assert hash_file(tmp_path / "empty.wav") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_size_and_probe_are_those_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    (tmp_path / "a").write_bytes(data)
    assert measure_file(tmp_path / "a") == len(data)
    assert probe_file(tmp_path / "a") == probe_file(io.BytesIO(data))
    for at in (0, len(data) // 2, len(data) - 1):
        assert probe_file(io.BytesIO(data[:at] + b"?" + data[at + 1 :])) != probe_file(io.BytesIO(data))
    unread = PROBE_BYTES + 1
    assert probe_file(io.BytesIO(data[:unread] + b"?" + data[unread + 1 :])) == probe_file(io.BytesIO(data))


def test_error_of_the_disk_is_kept_and_becomes_a_failure() -> None:
    source = Bytes(Broken(b"something"))
    assert source.read(4) == b""
    assert isinstance(source.error, OSError)
    with pytest.raises(FileFailure, match=r"unreadable: .*Input/output error"), file_boundary(source):
        pass


def test_seeking_before_the_beginning_is_no_error_of_the_file() -> None:
    source = Bytes(io.BytesIO(b"something"))
    assert source.seek(-1) == -1
    assert source.error is None


def test_any_other_error_is_a_decode_error() -> None:
    with pytest.raises(FileFailure, match="decode_error: no room"), file_boundary(Bytes(io.BytesIO(b"x"))):
        raise ValueError("no room")


def test_uri_resolves_to_a_file_and_a_range(tmp_path: Path) -> None:
    path = tmp_path / "a.g722"
    path.write_bytes(b"x")
    assert resolve_uri(str(path)) == (str(path), TimeRange(), RAW_FORMATS["g722"])
    assert resolve_uri(f"{path}#t=1,2") == (str(path), TimeRange(1.0, 2.0), RAW_FORMATS["g722"])
    (tmp_path / "a.g722#t=1,2").write_bytes(b"y")
    assert resolve_uri(f"{path}#t=1,2")[:2] == (f"{path}#t=1,2", TimeRange())  # a file of exactly that name


def test_place_of_a_member_lies_in_its_shard() -> None:
    assert place_of("/a.wav", None, 10) == "/a.wav"
    assert place_of("/s.tar#a.wav", 512, 10) == Place("/s.tar", 512, 10)


def test_file_that_asks_for_too_much_memory_fails_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(FileFailure, match="more memory than there is") as caught, Bytes(tmp_path / "a.wav") as file:  # noqa: SIM117
        with file_boundary(file):
            raise MemoryError
    assert (caught.value.stage, caught.value.reason) == ("decode", "crashed")


def test_file_whose_bytes_take_too_much_memory_may_be_read_later() -> None:
    class Large(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise pa.ArrowMemoryError("malloc of size 1 failed")

    with pytest.raises(FileFailure, match="it takes more memory than there is") as caught:
        hash_file(Large(b"x"))
    assert (caught.value.stage, caught.value.reason) == ("read", "unreadable")


def test_hashing_tells_the_watchdog_of_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    silent: list[bool] = []

    class Large(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            silent.append(heartbeat.find_silence_s() == float("inf"))
            monkeypatch.setattr(heartbeat, "_last", float("-inf"))
            return super().read(size)

    hash_file(Large(bytes(5 << 20)))
    assert len(silent) > 5
    assert not any(silent)


def test_reading_and_decoding_tell_the_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.wav").write_bytes(encode("wav_s16", tone(1.0, 48_000), 48_000))
    with Bytes(tmp_path / "a.wav") as file:
        monkeypatch.setattr(heartbeat, "_last", float("-inf"))
        file.read(1)
        assert heartbeat.find_silence_s() < float("inf")
    with open_audio(tmp_path / "a.wav") as audio:
        monkeypatch.setattr(heartbeat, "_last", float("-inf"))
        next(audio.blocks())
        assert heartbeat.find_silence_s() < float("inf")
