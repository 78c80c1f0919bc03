"""From files to a batch: decode, encode, write and collect, every row against the time grid and the fake encoder."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import schema
from pipeline.config import DecodeConfig
from pipeline.grid import Grid, samples_to_seconds
from pipeline.index.checksum import sum_rows
from pipeline.index.writer import Batch
from pipeline.run.collector import IncompleteBatch
from pipeline.run.decode_stage import decode_batch
from pipeline.run.encode_stage import encode_windows
from pipeline.schema import Row
from tests.helpers.decoding import decode_all
from tests.helpers.fakes import CLIP_DIMENSION, GRID, FakeEncoder, FrameSink, encode_all, noise, plan_batch, write_wav
from tests.helpers.stages import (
    BATCH,
    EDITS,
    OTHER,
    audio_id_of,
    collect,
    expected_clips,
    expected_file,
    expected_frames,
    held,
    index,
    index_planned,
    make_collector,
    marked,
    named,
    outcomes,
    published_frames,
    windows_of,
)
from tests.helpers.stages import two_batches as two_batches

# --- healthy files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n_samples", [1_920, 1_921, 8 * 1_920 - 5, 10 * 1_920, 10 * 1_920 + 1, 18 * 1_920, 26 * 1_920 + 7, 144_321]
)
def test_every_row_of_a_file_is_as_expected(tmp_path: Path, n_samples: int) -> None:
    samples = noise(samples_to_seconds(n_samples))
    path = write_wav(tmp_path / "a.wav", samples)
    batch, frames = index([path])
    assert batch.files.to_pylist() == [expected_file(path, samples)]
    assert batch.clips.to_pylist() == [
        {name: row[name] for name in batch.clips.column_names} for row in expected_clips(path, samples)
    ]
    assert set(batch.clips.column_names) == set(schema.clips_schema(CLIP_DIMENSION).names) - {"batch_id"}
    assert frames == expected_frames(path, samples)
    assert [row["frame"] for row in frames] == list(range(-(-n_samples // 1920)))
    assert (batch.batch_id, batch.orphaned, batch.precision) == (BATCH, frozenset(), "float32")
    assert (batch.drop_files, batch.drop_frames) == (frozenset(), frozenset())


def test_resampled_file_on_the_usual_grid(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(25.0), 44_100)
    samples, _ = decode_all(path)
    grid = Grid()
    batch, frames = index([path], grid=grid)
    n_seconds = 25.0 * 48_000 / 44_100
    (row,) = batch.files.to_pylist()
    assert (row["duration_s"], row["sample_rate_hz"]) == (len(samples) / 48_000, 44_100)
    assert row["duration_s"] == pytest.approx(n_seconds, abs=1e-3)
    clips = expected_clips(path, samples, grid)
    assert named(batch.clips.to_pylist(), "start_s", "end_s", "vector") == named(clips, "start_s", "end_s", "vector")
    assert frames == expected_frames(path, samples, grid)


def test_rows_of_many_files_are_separate_and_in_order(tmp_path: Path) -> None:
    sounds = {write_wav(tmp_path / f"{k}.wav", noise(0.1 + 0.37 * k, k)): noise(0.1 + 0.37 * k, k) for k in range(7)}
    batch, frames = index(*([path] for path in sounds))
    assert batch.files.to_pylist() == [expected_file(path, samples) for path, samples in sounds.items()]
    columns = ("clip_id", "file_id", "audio_id", "start_s", "end_s", "vector")
    clips = [clip for path, samples in sounds.items() for clip in expected_clips(path, samples)]
    assert named(batch.clips.to_pylist(), *columns) == named(clips, *columns)
    assert frames == [row for path, samples in sounds.items() for row in expected_frames(path, samples)]
    assert batch.describe() == {
        "n_files": 7,
        "n_failed": 0,
        "n_clips": len(clips),
        "n_frames": len(frames),
        "audio_s": pytest.approx(sum(len(samples) / 48_000 for samples in sounds.values())),
        "precision": "float32",
        "seconds": None,
        "detail": {},
    }
    assert batch.n_rows == len(clips) + len(frames)


def test_files_with_the_same_bytes_share_their_frames_and_have_their_own_clips(tmp_path: Path) -> None:
    samples, other = noise(1.3), noise(0.7, 1)
    paths = [write_wav(tmp_path / f"{name}.wav", samples) for name in "abc"]
    single = write_wav(tmp_path / "d.wav", other)
    os.utime(paths[1], ns=(5, 5))
    batch, frames = index(paths, [single])
    files = [*(expected_file(path, samples) for path in paths), expected_file(single, other)]
    assert batch.files.to_pylist() == files
    assert files[1]["modified_ns"] == 5
    clips = [clip for path in paths for clip in expected_clips(path, samples)] + expected_clips(single, other)
    columns = ("clip_id", "file_id", "uri", "start_s", "vector")
    assert named(batch.clips.to_pylist(), *columns) == named(clips, *columns)
    assert frames == expected_frames(paths[0], samples) + expected_frames(single, other)
    # What the journal counts is what was written: one set of frames for three files.
    assert batch.describe()["n_frames"] == len(frames)
    assert batch.n_rows == len(clips) + len(frames)


def test_equal_files_of_a_batch_are_encoded_once(tmp_path: Path) -> None:
    """Also if their content fails. Planning did not hash them, so it did not know that they are equal."""
    good, broken = noise(2.0), noise(2.0, seed=1)
    broken[-1] = np.nan
    paths = [write_wav(tmp_path / f"{n}.wav", good if n < 3 else broken) for n in range(6)]
    batch, frames = index(*([path] for path in paths))
    assert batch.files.to_pylist() == [index([path])[0].files.to_pylist()[0] for path in paths]
    assert frames == index([paths[0]])[1]
    assert batch.n_frames == len(frames)


def test_bad_files_are_rows_among_the_good(tmp_path: Path) -> None:
    samples = noise(1.3)
    good = [write_wav(tmp_path / f"good{k}.wav", samples * np.float32(1 - k / 8)) for k in range(3)]
    (tmp_path / "text.wav").write_bytes(b"no sound at all\n" * 100)
    (tmp_path / "empty.wav").touch()
    write_wav(tmp_path / "short.wav", noise(0.03))
    cut = write_wav(tmp_path / "cut.wav", samples)
    cut.write_bytes(cut.read_bytes()[: 44 + 4 * 40_000])
    bad = [tmp_path / f"{name}.wav" for name in ("text", "empty", "short")]
    batch, frames = index([bad[0]], [good[0]], [bad[1]], [good[1]], [cut], [bad[2]], [good[2]])
    assert outcomes(batch) == {
        "text.wav": ("failed", "decode", "not_audio"),
        "good0.wav": ("indexed", None, None),
        "empty.wav": ("failed", "decode", "empty"),
        "good1.wav": ("indexed", None, None),
        "cut.wav": ("indexed", "decode", "truncated"),
        "short.wav": ("failed", "decode", "too_short"),
        "good2.wav": ("indexed", None, None),
    }
    rows = {Path(row["uri"]).name: row for row in batch.files.to_pylist()}
    assert (rows["cut.wav"]["duration_s"], rows["cut.wav"]["expected_duration_s"]) == (40_000 / 48_000, 1.3)
    assert (rows["text.wav"]["n_clips"], rows["text.wav"]["n_frames"]) == (0, 0)
    assert rows["text.wav"]["audio_id"] == audio_id_of(tmp_path / "text.wav")
    heard = [(good[0], 1.0), (good[1], 7 / 8), (cut, 1.0), (good[2], 6 / 8)]
    expected = [
        frame
        for path, gain in heard
        for frame in expected_frames(path, samples[: 40_000 if path == cut else None] * np.float32(gain))
    ]
    assert frames == expected
    assert batch.orphaned == frozenset()
    counts = batch.describe()
    assert (counts["n_files"], counts["n_failed"], counts["n_frames"]) == (7, 3, len(expected))
    assert counts["audio_s"] == pytest.approx(3 * 1.3 + 40_000 / 48_000)


def test_windows_of_a_file_that_fails_later_are_orphaned(tmp_path: Path) -> None:
    samples = noise(5.0)
    before, after = write_wav(tmp_path / "a.wav", noise(0.9, 1)), write_wav(tmp_path / "z.wav", noise(0.9, 2))
    bad = [write_wav(tmp_path / f"{k}.wav", marked(samples, np.nan, at_s=4.5)) for k in range(2)]
    batch, frames = index([before], bad, [after])
    assert outcomes(batch) == {
        "a.wav": ("indexed", None, None),
        "0.wav": ("failed", "decode", "not_finite"),
        "1.wav": ("failed", "decode", "not_finite"),
        "z.wav": ("indexed", None, None),
    }
    failed = batch.files.to_pylist()[1]
    assert 0 < failed["duration_s"] < 4.5
    assert (failed["n_clips"], failed["n_frames"]) == (0, 0)
    assert batch.orphaned == {audio_id_of(bad[0])}  # there are frames of it among the fragments
    assert frames == expected_frames(before, noise(0.9, 1)) + expected_frames(after, noise(0.9, 2))
    assert set(batch.clips["uri"].to_pylist()) == {str(before), str(after)}
    assert batch.describe()["n_frames"] == len(frames)


# --- files that change ------------------------------------------------------------------------------------------------


def test_a_file_that_changed_since_it_was_listed_yields_no_window(tmp_path: Path) -> None:
    changed = write_wav(tmp_path / "a.wav", noise(1.3))
    good = write_wav(tmp_path / "b.wav", noise(0.9, 1))
    planned = plan_batch(BATCH, [changed], [good])
    write_wav(changed, noise(0.9, 1))  # the bytes of the other file, whose rows must stay
    batch, frames = index_planned(planned)
    assert outcomes(batch) == {"a.wav": ("failed", "read", "changed_while_reading"), "b.wav": ("indexed", None, None)}
    assert batch.orphaned == frozenset()
    assert frames == expected_frames(good, noise(0.9, 1))


@pytest.mark.parametrize("data", [b"text" * 99, b""])
def test_a_file_that_became_something_else_fails_as_changed(tmp_path: Path, data: bytes) -> None:
    # Recorded as not_audio, it would stay so when its old bytes come back.
    path, twin = (write_wav(tmp_path / f"{name}.wav", noise(1.3)) for name in "ab")
    planned = plan_batch(BATCH, [path, twin])
    path.write_bytes(data)
    batch, _ = index_planned(planned)
    assert outcomes(batch) == {"a.wav": ("failed", "read", "changed_while_reading"), "b.wav": ("indexed", None, None)}


def test_a_file_that_changes_while_it_is_read_fails_with_its_copies(tmp_path: Path) -> None:
    samples = noise(5.0)
    paths = [write_wav(tmp_path / f"{name}.wav", samples) for name in "ab"]
    planned = plan_batch(BATCH, paths)
    sink = FrameSink()
    receipts: list[Row] = []
    for block in decode_batch(planned, DecodeConfig(), GRID, block_windows=2):
        if not receipts:
            os.utime(paths[0], ns=(7, 7))
        receipts += sink.write(encode_windows(block, FakeEncoder()))
    collector = make_collector(planned=[planned])
    batch = [collector.add(receipt) for receipt in receipts][-1]
    assert batch is not None
    assert outcomes(batch) == dict.fromkeys(("a.wav", "b.wav"), ("failed", "read", "changed_while_reading"))
    rows = batch.files.to_pylist()
    # Both are read again by the next run; the message of the one that did not change says why it failed.
    assert rows[1]["message"].startswith(f"{paths[0]} has the same bytes")
    assert batch.orphaned == {audio_id_of(paths[0])}
    assert batch.clips.num_rows == 0
    assert batch.describe()["n_frames"] == 0


@pytest.mark.parametrize("n_deleted", [1, 2, 3])
def test_the_first_readable_of_equal_files_is_read(tmp_path: Path, n_deleted: int) -> None:
    samples = noise(1.3)
    paths = [write_wav(tmp_path / f"{name}.wav", samples) for name in "abc"]
    planned = plan_batch(BATCH, paths)
    kept = {path: expected_file(path, samples) for path in paths}
    for path in paths[:n_deleted]:
        path.unlink()
    batch, frames = index_planned(planned)
    vanished = ("failed", "read", "vanished")
    assert outcomes(batch) == {
        path.name: vanished if k < n_deleted else ("indexed", None, None) for k, path in enumerate(paths)
    }
    assert batch.files.to_pylist()[n_deleted:] == [kept[path] for path in paths[n_deleted:]]
    assert len(frames) == (33 if n_deleted < 3 else 0)
    assert batch.describe()["n_frames"] == len(frames)
    assert batch.orphaned == frozenset()


def without_fragments(batch: Batch) -> Batch:
    return replace(batch, frame_fragments=(), pool_fragments=())


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_block_boundaries_and_order_of_arrival_change_nothing(two_batches: list[pa.Table], data: st.DataObject) -> None:
    whole = collect(two_batches)
    assert whole.keys() == {BATCH, OTHER}
    # Rows of both batches shuffled together, each batch in its order, then cut anywhere and shuffled again.
    lengths = [table.num_rows for table in two_batches]
    turns = data.draw(st.permutations([0] * lengths[0] + [1] * lengths[1]))
    taken = [0, 0]
    rows = []
    for which in turns:
        rows.append(two_batches[which].slice(taken[which], 1))
        taken[which] += 1
    table = pa.concat_tables(rows)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(turns) - 1), max_size=8)))
    blocks = [table.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, len(turns)], strict=True)]
    for batch_id, (batch, rows) in collect(data.draw(st.permutations(blocks))).items():
        expected, expected_rows = whole[batch_id]
        assert without_fragments(batch) == without_fragments(expected)
        assert rows == expected_rows


def test_a_batch_is_held_back_until_its_last_part(two_batches: list[pa.Table]) -> None:
    table = two_batches[0]
    for missing in range(table.num_rows):
        sink, collector = FrameSink(), make_collector()
        parts = [table.slice(0, missing), table.slice(missing + 1)]
        assert [collector.add(r) for part in parts for r in sink.write(part)].count(None) in (1, 2)
        assert collector.missing == {BATCH}
        (last,) = sink.write(table.slice(missing, 1))
        assert collector.add(last) is not None
        assert collector.missing == set()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(edits=["deleted", "same", "same", "same"], cut=5, end=False)  # the second try is one row ahead
@given(edits=st.lists(st.sampled_from(EDITS), min_size=4, max_size=4), cut=st.integers(0, 40), end=st.booleans())
def test_halves_of_tries_that_saw_different_files_are_never_published(
    tmp_path_factory: pytest.TempPathFactory, edits: list[str], cut: int, end: bool
) -> None:
    folder = tmp_path_factory.mktemp("tries")
    lengths_s = [1.0, 0.2, 0.02, 1.9]  # the third is too short: a file without windows
    paths = [write_wav(folder / f"{k}.wav", noise(length_s, k)) for k, length_s in enumerate(lengths_s)]
    twin = write_wav(folder / "twin.wav", noise(lengths_s[0], 0))
    planned = plan_batch(BATCH, [paths[0], twin], *([path] for path in paths[1:]))
    first = encode_all(planned, FakeEncoder())
    for path, length_s, edit in zip(paths, lengths_s, edits, strict=True):
        if edit == "deleted":
            path.unlink()
        elif edit == "text":
            path.write_bytes(b"text" * 1_000)
        elif edit != "same":
            write_wav(path, noise(length_s + (0.5 if edit == "longer" else 0.0), 9))
    second = encode_all(planned, FakeEncoder())
    if end:  # counted from the end, so that the last rows are those of both
        halves = [first.slice(0, max(0, first.num_rows - cut)), second.slice(max(0, second.num_rows - cut))]
    else:
        halves = [first.slice(0, cut), second.slice(cut)]
    collector, sink = make_collector(planned=[planned]), FrameSink()
    try:
        batches = [collector.add(receipt) for half in halves for receipt in sink.write(half)]
    except IncompleteBatch:
        return
    published = [batch for batch in batches if batch is not None]
    if not published:
        assert collector.missing == {BATCH}
        return
    (batch,) = published
    rows = batch.files.to_pylist()
    assert sorted(row["uri"] for row in rows) == sorted(str(path) for path in [*paths, twin])
    # Each file is published as the first or the second try alone would have it.
    alone: dict[str, list[Row]] = {row["uri"]: [] for row in rows}
    for table in (first, second):
        for value in table["files"].to_pylist():
            for row in value or ():
                alone[row["uri"]].append(row)
    unsummed = [row | {"clips_checksum": None, "frames_checksum": None} for row in rows]
    assert all(row in alone[row["uri"]] for row in unsummed)
    contents = dict(held(lengths_s))
    frames = published_frames(batch, sink)
    for row in rows:
        if row["status"] == "indexed":
            windows = windows_of(contents[row["audio_id"]], GRID)
            vectors = [FakeEncoder.clip(window).astype(np.float16).tolist() for *_, window in windows]
            assert [c["vector"] for c in batch.clips.to_pylist() if c["file_id"] == row["file_id"]] == vectors
            own = [f for f in frames if f["audio_id"] == row["audio_id"]]
            assert [f["frame"] for f in own] == list(range(row["n_frames"]))
            vectors_of_frames = np.array([f["vector"] for f in own], np.float16)
            assert row["frames_checksum"] == sum_rows(range(row["n_frames"]), vectors_of_frames)
    assert {frame["audio_id"] for frame in frames} == {row["audio_id"] for row in rows if row["status"] == "indexed"}


def test_a_batch_that_differs_from_its_plan_is_incomplete(tmp_path: Path) -> None:
    paths = [write_wav(tmp_path / f"{k}.wav", noise(0.5, k)) for k in range(3)]
    planned = plan_batch(BATCH, *([path] for path in paths))
    fewer = {**planned, "audios": planned["audios"][:2]}
    (receipt,) = FrameSink().write(encode_all(fewer, FakeEncoder()))
    with pytest.raises(IncompleteBatch):
        make_collector(planned=[planned]).add(receipt)
    doubled = {**receipt, "files": [*receipt["files"], receipt["files"][0]]}
    with pytest.raises(IncompleteBatch):
        make_collector().add(doubled)
    orphan = {**receipt, "files": receipt["files"][1:]}
    with pytest.raises(IncompleteBatch):
        make_collector().add(orphan)
    short = {**receipt, "windows": receipt["windows"][1:]}
    with pytest.raises(IncompleteBatch, match=r"0\.wav"):
        make_collector().add(short)
