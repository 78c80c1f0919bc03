"""Long recordings: they are split into parts, which give the same rows as the whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio.windows import cut_windows
from pipeline.config import Config, DecodeConfig
from pipeline.grid import FRAME_S, HOP_SAMPLES, Grid, Part, plan_parts
from pipeline.index.verify import verify_index
from pipeline.run.decode_stage import decode_batch
from pipeline.run.driver import index_corpus
from pipeline.run.split_stage import split_batch
from tests.helpers.contents import read
from tests.helpers.fakes import GRID, noise, plan_batch
from tests.helpers.long import PART_S, decode, in_one_piece, in_parts, published
from tests.helpers.runs import WideEncoder, configure

BATCH = "0" * 32
RATES_HZ = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000]


def write(path: Path, duration_s: float, rate_hz: int = 48_000) -> Path:
    """Noise that begins soft and ends loud, 16 bits."""
    n_samples = round(duration_s * rate_hz)
    samples = np.random.default_rng(7).uniform(-0.7, 0.7, n_samples) * np.linspace(0.1, 1, n_samples)
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    return path


def split(path: Path, *copies: Path, part_s: float = PART_S) -> list[dict[str, Any]]:
    return split_batch(plan_batch(BATCH, [path, *copies]), DecodeConfig(), GRID, part_s)


def test_recording_that_is_too_long_is_not_split_and_fails(tmp_path: Path) -> None:
    planned = plan_batch(BATCH, [write(tmp_path / "a.wav", 12.0)])
    assert split_batch(planned, DecodeConfig(), GRID, 2.0, max_hours=0.003) == [planned]
    assert len(split_batch(planned, DecodeConfig(), GRID, 2.0, max_hours=0.004)) > 1
    [table] = decode_batch(planned, DecodeConfig(), GRID, max_hours=0.003)
    [row] = table.to_pylist()
    assert [(file["status"], file["reason"]) for file in row["files"]] == [("failed", "too_long")]


@given(
    n_frames=st.integers(1, 400),
    rest=st.integers(0, HOP_SAMPLES - 1),
    length=st.integers(2, 12),
    overlap=st.integers(0, 6),
    n_windows=st.integers(1, 7),
    doubt=st.integers(-3, 3),
)
def test_parts_have_the_windows_of_the_whole(
    n_frames: int, rest: int, length: int, overlap: int, n_windows: int, doubt: int
) -> None:
    grid = Grid(length, min(overlap, length // 2))
    n_samples = n_frames * HOP_SAMPLES + rest
    samples = np.arange(n_samples, dtype=np.float32)
    parts = plan_parts(n_samples + doubt, grid, n_windows)
    found = []
    for part in parts:
        begin = samples[part.first * grid.step_frames * HOP_SAMPLES :]
        found += list(cut_windows(np.array_split(begin, 5), grid, part))
    whole = list(cut_windows([samples], grid))
    assert [span for span, _ in found] == [span for span, _ in whole]
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(found, whole, strict=True))
    assert all(part.stop is None or part.stop - part.first == n_windows for part in parts)


def test_part_that_ends_early_has_fewer_windows() -> None:
    samples = noise(4.0)
    spans = [span for span, _ in cut_windows([samples], GRID, Part(0, 20))]
    assert 0 < len(spans) < 20
    assert len(list(cut_windows([noise(20.0)], GRID, Part(0, 20)))) == 20


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_parts_decode_like_the_whole(tmp_path: Path, rate_hz: int, suffix: str) -> None:
    for n, duration_s in enumerate([30.0, 31.2345]):
        path = write(tmp_path / f"{n}.{suffix}", duration_s, rate_hz)
        parts = split(path, part_s=0.5 if rate_hz < 32_000 else PART_S)
        assert len(parts) > 4
        whole = decode(plan_batch(BATCH, [path]))
        found = [row for part in parts for row in decode(part)]
        loudest = 0.0
        for row, other in zip(found, whole, strict=True):
            one, two = (np.frombuffer(each.pop("pcm") or b"", np.float32) for each in (row, other))
            assert one.shape == two.shape
            loudest = max(loudest, float(np.abs(one - two).max(initial=0.0)))
        assert loudest < (1e-9 if rate_hz == 48_000 else 1e-5)
        assert found == whole


def test_parts_are_mixed_like_the_whole(tmp_path: Path) -> None:
    """The channels cancel each other in some parts, and in the whole."""
    path = tmp_path / "a.wav"
    sound = noise(30.0)[:, None] * np.array([1, -1], np.float32)
    sound[: 5 * 48_000] = 1e-3 * noise(5.0)[:, None]  # not here
    soundfile.write(path, sound, 48_000)
    parts = split(path)
    assert len(parts) > 4
    whole = decode(plan_batch(BATCH, [path]))
    assert [row for part in parts for row in decode(part)] == whole
    assert whole[-1]["files"][0]["note"] == "its two channels cancel each other: the first is read"
    assert np.abs(np.frombuffer(whole[-2]["pcm"], np.float32)).max() > 0.01


def test_copy_of_a_long_recording_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 30.0)
    copy = tmp_path / "b.wav"
    copy.write_bytes(path.read_bytes())
    found = [row for part in split(path, copy) for row in decode(part)]
    assert [row["uri"] for row in found[-1]["files"]] == [str(path), str(copy)]
    assert found == decode(plan_batch(BATCH, [path, copy]))


def damage(path: Path, at: float, size: int = 3_000) -> Path:
    """Overwrite some bytes in the middle."""
    data = bytearray(path.read_bytes())
    begin = int(at * len(data))
    data[begin : begin + size] = bytes(size)
    path.write_bytes(data)
    return path


def cut_off(path: Path, at: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(at * len(data))])
    return path


def test_recording_that_is_cut_off_or_does_not_seek_exactly_is_streamed(tmp_path: Path) -> None:
    mp3 = tmp_path / "a.mp3"
    soundfile.write(mp3, noise(30.0), 48_000, format="MP3")
    odd = write(tmp_path / "odd.wav", 30.0, 44_056)
    broken = cut_off(write(tmp_path / "a.flac", 30.0), 0.8)
    vanished = write(tmp_path / "b.wav", 30.0)
    for path in (mp3, odd, broken):
        assert split(path, part_s=0.5) == [plan_batch(BATCH, [path])]
    planned = plan_batch(BATCH, [vanished])
    vanished.unlink()
    assert split_batch(planned, DecodeConfig(), GRID, PART_S) == [planned]


def test_short_files_and_batches_of_several_files_are_not_split(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.wav", 9.0), write(tmp_path / "b.wav", 30.0)
    assert split(one) == [plan_batch(BATCH, [one])]
    both = plan_batch(BATCH, [one], [other])
    assert split_batch(both, DecodeConfig(), GRID, PART_S) == [both]


def test_batch_planned_as_a_whole_is_not_split(tmp_path: Path) -> None:
    planned = plan_batch(BATCH, [write(tmp_path / "a.wav", 30.0)]) | {"part": {"first": 0, "stop": None}}
    assert split_batch(planned, DecodeConfig(), GRID, PART_S) == [planned]
    assert decode(planned)[-1]["last"]


HARMS = ["none", "cut off", "in the middle", "near the end", "at the start"]


@pytest.mark.parametrize(
    ("suffix", "harm"), [*((suffix, harm) for suffix in ("wav", "flac") for harm in HARMS), ("wav", "goes on")]
)
def test_index_made_of_parts_equals_one_made_of_wholes(tmp_path: Path, suffix: str, harm: str) -> None:
    """Whatever is wrong with a recording, its rows are those of one task that streams it."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = write(folder / f"long.{suffix}", 31.3)
    write(folder / "short.wav", 2.0)
    if harm == "cut off":
        cut_off(path, 0.8)
    elif harm == "goes on":
        path.write_bytes(path.read_bytes() + np.random.default_rng(8).bytes(500_000))
    elif harm != "none":
        damage(path, {"in the middle": 0.5, "near the end": 0.97, "at the start": 0.02}[harm])
    configs = [
        configure(folder, tmp_path / name, run={"batch_s": 5.0}, store={"checkpoint_rows": 1})
        for name in ("parts", "whole")
    ]
    n_parts: list[int] = []
    index_corpus(configs[0], stages=in_parts(WideEncoder(), n_parts))
    index_corpus(configs[1], stages=in_one_piece(WideEncoder()))
    assert published(configs[0]) == published(configs[1])
    assert verify_index(configs[0].into) == []
    damaged = suffix == "flac" and harm != "none"
    assert (max(n_parts) > 4) is not (suffix == "flac" and harm in ("cut off", "near the end"))
    [long] = [row for row in read(configs[0].into, "files", ["uri", "reason"]) if row["uri"] == str(path)]
    assert (long["reason"] == "truncated") is (damaged or harm in ("cut off", "goes on"))


def test_recording_that_changes_between_its_parts_is_not_published(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = write(folder / "long.wav", 31.3)
    config = configure(folder, tmp_path / "index", run={"batch_s": 5.0})
    encoder = WideEncoder()
    stages = in_parts(encoder)

    def change(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        for number, receipt in enumerate(stages(batches, config, frames_schema)):
            if number == 3:
                write(path, 25.0)
            yield receipt

    progress = index_corpus(config, stages=change)
    assert dict(progress.reasons) == {"changed_while_reading": 1}
    assert read(config.into, "clips", ["clip_id"]) == []
    assert index_corpus(config, stages=in_parts(encoder)).n_indexed == 1
    assert verify_index(config.into) == []
    assert read(config.into, "frames", ["frame"])[-1]["frame"] == round(25.0 / FRAME_S) - 1
