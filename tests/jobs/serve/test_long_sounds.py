"""Parts of recordings of any length and in any place: little is read, and little is held."""

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from PIL import Image
from starlette.testclient import TestClient

import pipeline
from jobs.serve.models import SharedModels
from jobs.serve.service import Service
from jobs.serve.sounds import Sounds
from jobs.serve.states import States
from jobs.serve.wave import HEADER_BYTES
from pipeline import storage
from pipeline.audio.excerpt import Excerpt, open_excerpt
from tests.helpers import corpora, served
from tests.helpers.ears import GRID, Ear, open_with
from tests.helpers.shards import write_shard
from tests.helpers.tables import SILENT, write_index
from tests.helpers.waiting import wait_until

RATE_HZ, HOURS = 8_000, 12
BURST_HZ = 440.0


def make_burst(n_samples: int) -> npt.NDArray[np.int16]:
    wave: npt.NDArray[np.float64] = 20_000 * np.sin(2 * np.pi * BURST_HZ / RATE_HZ * np.arange(n_samples))
    return wave.astype(np.int16)


def write_long(path: Path, bursts_s: list[int]) -> None:
    """A recording of twelve hours: silence that takes no room on the disk, and bursts of a second."""
    n_samples = HOURS * 3_600 * RATE_HZ
    soundfile.write(path, np.zeros(0, np.int16), RATE_HZ, "PCM_16")
    head = bytearray(path.read_bytes()[:HEADER_BYTES])
    head[4:8], head[40:44] = (size.to_bytes(4, "little") for size in (36 + 2 * n_samples, 2 * n_samples))
    with path.open("wb") as file:
        file.write(head)
        file.truncate(HEADER_BYTES + 2 * n_samples)
        for start_s in bursts_s:
            file.seek(HEADER_BYTES + 2 * start_s * RATE_HZ)
            file.write(make_burst(RATE_HZ).astype("<i2").tobytes())


class CountedExcerpts:
    """Opens recordings, and counts the samples that are read of them."""

    def __init__(self) -> None:
        self.n_samples = self.n_open = 0

    def open(self, uri: str, start_s: float, end_s: float | None) -> "CountedExcerpt":
        self.n_open += 1
        return CountedExcerpt(self, open_excerpt(uri, start_s, end_s))


class CountedExcerpt:
    def __init__(self, counted: CountedExcerpts, excerpt: Excerpt) -> None:
        self._counted, self._excerpt = counted, excerpt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._excerpt, name)

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        for block in self._excerpt.blocks():
            self._counted.n_samples += len(block)
            yield block

    def close(self) -> None:
        self._counted.n_open -= 1
        self._excerpt.close()


@pytest.fixture
def long(tmp_path: Path) -> tuple[str, CountedExcerpts, TestClient]:
    """A recording of twelve hours in an index, which says so without having its frames."""
    path, index = tmp_path / "long.wav", tmp_path / "index"
    write_long(path, [0, 21_600, 43_199])
    size_bytes, modified_ns = storage.stat_file(str(path))
    row = {"size_bytes": size_bytes, "modified_ns": modified_ns, "duration_s": HOURS * 3_600.0}
    write_index(index, {str(path): SILENT}, GRID, ledger={str(path): {**row, "sample_rate_hz": RATE_HZ}})
    counted = CountedExcerpts()
    states = States(str(index), lambda: open_with(index, Ear()))
    service = Service(states, SharedModels(str(index)), sounds=Sounds(counted.open))
    return str(path), counted, served.make_client(service, cache=tmp_path / "cache")


def test_any_part_of_twelve_hours_is_read_alone(long: tuple[str, CountedExcerpts, TestClient]) -> None:
    uri, counted, client = long
    n_bytes = HEADER_BYTES + 2 * HOURS * 3_600 * RATE_HZ
    burst = make_burst(RATE_HZ).tobytes()
    client.get("/api/audio", params={"uri": uri}, headers={"Range": "bytes=0-99"})  # what is made once is made
    tracemalloc.start()
    try:
        for start_s in (0, 21_600, 43_199):
            counted.n_samples = 0
            first = HEADER_BYTES + 2 * start_s * RATE_HZ
            header = f"bytes={first}-{first + len(burst) - 1}"
            answer = client.get("/api/audio", params={"uri": uri}, headers={"Range": header})
            assert (answer.status_code, answer.headers["content-range"]) == (
                206,
                f"{header.replace('=', ' ')}/{n_bytes}",
            )
            heard, written = (np.frombuffer(data, "<i2").astype(int) for data in (answer.content, burst))
            assert np.abs(heard - written).max() <= 1
            assert counted.n_samples <= 10 * RATE_HZ
        n_peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_peak_bytes < 20_000_000
    wait_until(lambda: counted.n_open == 0)  # other threads close them


def test_span_of_twelve_hours_is_a_file_of_its_own(long: tuple[str, CountedExcerpts, TestClient]) -> None:
    uri, counted, client = long
    answer = client.get("/api/audio", params={"uri": uri, "start_s": 21_600, "end_s": 21_601})
    heard = np.frombuffer(answer.content[HEADER_BYTES:], "<i2").astype(int)
    assert np.abs(heard - make_burst(RATE_HZ)).max() <= 1
    assert counted.n_samples <= 10 * RATE_HZ
    assert client.head("/api/audio", params={"uri": uri}).headers["content-length"] == str(
        HEADER_BYTES + 2 * HOURS * 3_600 * RATE_HZ
    )


def test_twelve_hours_are_one_picture_of_samples(long: tuple[str, CountedExcerpts, TestClient]) -> None:
    """The bursts at the beginning and at the end lie in the middle of no column; that of a view around one does."""
    uri, _, client = long
    asked: dict[str, Any] = {"uri": uri, "width": 400, "height": 64, "sampled": True}
    for span, is_seen in (({}, False), ({"start_s": 653, "end_s": 42_653}, True)):
        answer = client.get("/api/spectrogram", params=asked | span, headers={"Accept": "image/png"})
        assert (answer.status_code, answer.headers["x-earshot-sampled"]) == (200, "1")
        picture = Image.open(io.BytesIO(answer.content)).convert("L")
        assert picture.size == (400, 64)
        assert (np.asarray(picture).max() > 100) == is_seen


# --- members of shards and time ranges --------------------------------------------------------------------------------


def test_members_of_shards_and_time_ranges_are_heard_as_they_were_indexed(tmp_path: Path) -> None:
    samples = {name: np.random.default_rng(n).integers(-9_000, 9_000, 8_000) for n, name in enumerate("abc")}
    sounds = dict[str, bytes]()
    for name, values in samples.items():
        soundfile.write(tmp_path / f"{name}.wav", values.astype(np.int16), 8_000)
        sounds[name] = (tmp_path / f"{name}.wav").read_bytes()
    shard = write_shard(tmp_path / "s.tar", [("a.wav", sounds["a"]), ("sub/b.wav", sounds["b"])])
    ranges = corpora.write_ranges(tmp_path / "ranges.csv", (str(tmp_path / "c.wav"), 0.25, 0.75))
    config = corpora.configure(tmp_path, shard, ranges)
    corpora.index(config)
    expected = {
        f"{shard}#a.wav": samples["a"],
        f"{shard}#sub/b.wav": samples["b"],
        f"{tmp_path / 'c.wav'}#t=0.25,0.75": samples["c"][2_000:6_000],
    }
    assert set(pipeline.open(config.into).to_arrow("files", ["uri"])["uri"].to_pylist()) == set(expected)
    client = served.make_client(config.into, cache=tmp_path / "cache")
    for uri, values in expected.items():
        whole = client.get("/api/audio", params={"uri": uri})
        assert whole.status_code == 200, whole.text
        assert np.abs(np.frombuffer(whole.content[HEADER_BYTES:], "<i2") - values).max() <= 1
        part = client.get("/api/audio", params={"uri": uri}, headers={"Range": "bytes=1044-2043"})
        assert (part.status_code, part.content) == (206, whole.content[1_044:2_044])
        span = client.get("/api/audio", params={"uri": uri, "start_s": 0.125, "end_s": 0.25})
        assert span.content[HEADER_BYTES:] == whole.content[HEADER_BYTES + 2_000 : HEADER_BYTES + 4_000]
    shard.unlink()
    (tmp_path / "c.wav").unlink()
    assert [client.get("/api/audio", params={"uri": uri}).status_code for uri in expected] == [404] * 3
