"""A recording is fetched, hashed and, where it is not seekable, decoded once for all of its consecutive ranges."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.recording import Recording
from pipeline.audio.source import hash_file
from pipeline.config import DecodeConfig
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import FileFailure
from tests.helpers.decoding import decode_all
from tests.helpers.sounds import encode, noise

HZ = 48_000


@pytest.mark.parametrize("name", ["mp3", "m4a", "ogg_opus"])
def test_ranges_of_a_file_without_exact_seeking_are_read_in_one_pass(tmp_path: Path, name: str) -> None:
    """Even where ranges overlap. The samples are those of a separate stream."""
    path = tmp_path / "a"
    path.write_bytes(encode(name, noise(90.0, 48_000), 48_000))
    whole, _ = decode_all(path)
    ranges = [(1.0, 5.0), (3.0, 8.0), (3.0, 4.0), (60.0, 62.0), (5.0, 7.0), (80.0, 200.0), (80.0, 85.0), (95.0, 96.0)]
    with Recording() as recording:
        recording.fetch(str(path))
        former = None
        for start_s, end_s in ranges:
            first, stop = TimeRange(start_s, end_s).samples
            stream = recording.stream(first, DecodeConfig())
            assert stream is former or former is None
            former = stream
            if start_s > 90.0:
                with pytest.raises(FileFailure, match="out_of_range"):
                    list(stream.blocks(first, stop))
            else:
                assert np.array_equal(np.concatenate(list(stream.blocks(first, stop))), whole[first:stop])
            assert (stream.truncated is None) is (end_s <= 90.0)
        assert sum(map(len, stream._kept)) < 64 * HZ
        again = recording.stream(HZ, DecodeConfig())
        assert again is not former
        assert np.array_equal(np.concatenate(list(again.blocks(HZ, 2 * HZ))), whole[HZ : 2 * HZ])


def test_recording_is_hashed_once_until_another_one_is_fetched(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    with Recording() as recording:
        recording.fetch(str(path))
        before = recording.hash()
        path.write_bytes(b"another")
        recording.fetch(str(path))
        assert recording.hash() == before
        recording.fetch(str(tmp_path))
        recording.fetch(str(path))
        assert (recording.hash(), recording.measure()) == (hash_file(path), 7)
