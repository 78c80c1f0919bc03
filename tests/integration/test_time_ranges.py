"""Time ranges are read as slices of their recording, and each is a file of the index by itself."""

import cProfile
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import schema
from pipeline.audio.source import hash_file
from pipeline.config import CorpusConfig, DecodeConfig
from pipeline.corpus.corpus_file import estimate_seconds
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.time_ranges import TimeRange, split_uri
from pipeline.errors import FileFailure
from pipeline.index.handle import open_index
from pipeline.index.verify import verify_index
from pipeline.index.verify_deep import compare
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.split_stage import is_long, split_batch
from pipeline.schema import Row
from tests.helpers.bursts import make_film
from tests.helpers.contents import read
from tests.helpers.corpora import TimedRow, actions, configure, write_ranges
from tests.helpers.decoding import decode_all
from tests.helpers.ears import Ear, open_with
from tests.helpers.ears import index as index
from tests.helpers.fakes import GRID, noise, write_wav
from tests.helpers.long import PART_S, decode
from tests.helpers.plans import plan_files
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.sounds import encode
from tests.helpers.sounds import noise as loud
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky

HZ = 48_000


def planned(*sources: Path | str) -> Plan:
    """A first plan for a corpus, which hashes what is needed."""
    return plan_files(list_corpus(list(map(str, sources)), CorpusConfig()))


def decoded(*sources: Path | str) -> dict[str, Row]:
    """The ledger row of each file of a corpus once it is decoded, by the last part of its uri."""
    rows = [row for batch in planned(*sources).batches.to_pylist() for row in decode(batch)]
    return {Path(file["uri"]).name: file for row in rows if row["files"] for file in row["files"]}


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_each_range_is_a_file_of_its_own(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encode("wav_f32" if suffix == "wav" else "mp3", loud(12.0, HZ), HZ))
    rows: list[TimedRow] = [
        (path.name, None, None),
        (path.name, 2.5, 5),
        (path.name, 4, 6),
        (path.name, 10, None),
        (path.name, 11, 15),
        (path.name, 3, 3.03),
        (path.name, 20, 30),
    ]
    found = decoded(write_ranges(tmp_path / "m.csv", *rows))
    content_hash = hash_file(path)
    said = {}
    for uri, row in found.items():
        part = split_uri(uri)[1]
        assert row["audio_id"] == schema.make_audio_id(content_hash, str(part))
        assert row["file_id"] == schema.make_file_id(str(tmp_path / uri), row["audio_id"])
        assert (row["content_hash"], row["size_bytes"]) == (content_hash, path.stat().st_size)
        said[str(part)] = (row["status"], row["reason"], round(row["duration_s"], 3), row["n_frames"])
    end_s, n_frames = round(found[path.name]["duration_s"], 3), found[path.name]["n_frames"]
    assert said == {
        "": ("indexed", None, end_s, n_frames),
        "#t=2.5,5": ("indexed", None, 2.5, 63),
        "#t=4,6": ("indexed", None, 2.0, 50),
        "#t=10": ("indexed", None, pytest.approx(end_s - 10), n_frames - 250),
        "#t=11,15": ("indexed", "truncated", pytest.approx(end_s - 11), n_frames - 275),
        "#t=3,3.03": ("failed", "too_short", 0.03, 0),
        "#t=20,30": ("failed", "out_of_range", 0.0, 0),
    }
    assert found[f"{path.name}#t=11,15"]["expected_duration_s"] == 4.0
    assert found[f"{path.name}#t=11,15"]["message"].endswith("s decoded of 15.000 s")
    message = found[f"{path.name}#t=20,30"]["message"]
    assert message == f"nothing from 20.000 s on: the recording lasts {end_s:.3f} s"


def test_range_has_the_windows_of_a_file_with_its_samples(tmp_path: Path) -> None:
    samples = noise(12.0)
    write_wav(tmp_path / "a.wav", samples)
    write_wav(tmp_path / "b.wav", samples[round(2.51 * HZ) : round(5.77 * HZ)])
    manifest = write_ranges(tmp_path / "m.csv", ("a.wav", 2.51, 5.77), ("b.wav", None, None))
    [batch] = planned(manifest).batches.to_pylist()
    windows: dict[str, list[Row]] = {}
    for row in decode(batch):
        if row["files"] is None:
            windows.setdefault(row["audio_id"], []).append({**row, "audio_id": None, "seq": None})
    one, other = windows.values()
    assert len(one) > 5
    assert one == other


def test_damage_costs_only_the_ranges_that_reach_it(tmp_path: Path) -> None:
    samples = np.clip(5 * loud(30.0, HZ), -1, 1)
    flac = encode("flac", samples, HZ)
    (tmp_path / "cut.flac").write_bytes(flac[: int(0.6 * len(flac))])
    broken = samples[:, 0].copy()
    broken[10 * HZ] = np.nan
    write_wav(tmp_path / "nan.wav", broken)
    names = [("cut.flac", 1, 10), ("cut.flac", 16, 20), ("cut.flac", 25, 28), ("cut.flac", 5, None)]
    names += [("nan.wav", 1, 5), ("nan.wav", 9, 11), ("nan.wav", 15, 16)]
    found = {
        uri: (row["status"], row["reason"]) for uri, row in decoded(write_ranges(tmp_path / "m.csv", *names)).items()
    }
    assert found == {
        "cut.flac#t=1,10": ("indexed", None),
        "cut.flac#t=16,20": ("indexed", "truncated"),
        "cut.flac#t=25,28": ("failed", "out_of_range"),
        "cut.flac#t=5": ("indexed", "truncated"),
        "nan.wav#t=1,5": ("indexed", None),
        "nan.wav#t=9,11": ("failed", "not_finite"),
        "nan.wav#t=15,16": ("indexed", None),
    }
    whole, _ = decode_all(tmp_path / "cut.flac")
    part, _ = decode_all(tmp_path / "cut.flac", start_s=16, end_s=20)
    np.testing.assert_array_equal(part, whole[16 * HZ : 20 * HZ])


def test_range_behind_damage_is_unchanged(tmp_path: Path) -> None:
    """The whole recording loses a part there, and so its end."""
    flac = bytearray(encode("flac", np.clip(5 * loud(30.0, HZ), -1, 1), HZ))
    clean, _ = decode_all(io.BytesIO(flac))
    middle = len(flac) // 2
    flac[middle : middle + 3_000] = bytes(3_000)
    (tmp_path / "a.flac").write_bytes(flac)
    ranges: list[TimedRow] = [("a.flac", None, None), ("a.flac", 12, 14.5), ("a.flac", 14, 16), ("a.flac", 20, 30)]
    found = decoded(write_ranges(tmp_path / "m.csv", *ranges))
    assert [row["reason"] for row in found.values()] == ["truncated", None, None, None]
    part, _ = decode_all(tmp_path / "a.flac", start_s=20, end_s=30)
    np.testing.assert_array_equal(part, clean[20 * HZ :])


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_gaps_are_told_of_the_ranges_that_they_lie_in(tmp_path: Path, container: str) -> None:
    """Packets from 5 s on come 4 s later. The ranges are read in one pass, and each alone."""
    film = make_film(container, "aac", move_s=lambda time_s: 4.0 * (time_s >= 5.0))
    (tmp_path / "a.mkv").write_bytes(film)
    missing_s: dict[tuple[float, float | None], float | None] = {
        (1, 4): None,
        (4, 12): 4.0,
        (6, 8): 2.0,
        (8, 12): 1.0,
        (10, 14): None,
        (3, None): 4.0,
        (10, None): None,
    }
    names: list[TimedRow] = [("a.mkv", *times) for times in missing_s]
    for some in (names, *([name] for name in names)):
        found = decoded(write_ranges(tmp_path / "m.csv", *some))
        for uri, row in found.items():
            part = split_uri(uri)[1]
            expected_s = missing_s[part.start_s or 0.0, part.end_s]
            assert (row["status"], row["reason"]) == ("indexed", "truncated" if expected_s else None), uri
            if expected_s:
                assert row["message"].endswith("s of this range are missing, and taken as silence")
                assert float(row["message"].split()[0]) == pytest.approx(expected_s, abs=0.05)


@pytest.mark.parametrize("name", ["mp3_no_xing", "aac_adts"])
def test_lost_bytes_are_told_of_the_ranges_that_they_lie_in(tmp_path: Path, name: str) -> None:
    data = encode(name, loud(12.0, HZ, 2), HZ)
    begin, stop = round(0.4 * len(data)), round(0.45 * len(data))
    (tmp_path / "a.mp3").write_bytes(data[:begin] + np.random.default_rng(1).bytes(stop - begin) + data[stop:])
    ranges: list[TimedRow] = [
        ("a.mp3", 1, 4),
        ("a.mp3", 3, 7),
        ("a.mp3", 7, 10),
        ("a.mp3", 7, None),
        ("a.mp3", 2, None),
    ]
    found = decoded(write_ranges(tmp_path / "m.csv", *ranges))
    told = {uri.partition("#t=")[2]: row["message"] or "" for uri, row in found.items()}
    assert {times for times, message in told.items() if "of this range" in message} == {"3,7", "2"}
    assert [told[times] for times in ("1,4", "7,10", "7")] == ["", "", ""]


def test_all_ranges_fail_if_their_recording_changes_while_read(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(5.0))
    manifest = write_ranges(tmp_path / "m.csv", ("a.wav", 0, 1), ("a.wav", 1, 2))
    [batch] = planned(manifest).batches.to_pylist()
    os.utime(path, ns=(1, 1))
    files = [file for row in decode(batch) for file in row["files"] or ()]
    assert [file["reason"] for file in files] == ["changed_while_reading"] * 2


def test_remote_recording_is_fetched_once(tmp_path: Path, flaky: str) -> None:
    urls = [put(f"{flaky}/{n}.wav", write_wav(tmp_path / "x", noise(20.0 + n, n)).read_bytes()) for n in range(3)]
    rows: list[TimedRow] = [(url, k, k + 1.5) for k in range(10) for url in urls]
    batches = planned(write_ranges(tmp_path / "m.csv", *rows)).batches.to_pylist()
    Flaky.calls.clear()
    assert len([row for batch in batches for row in decode(batch) if row["files"]]) == 30
    assert Flaky.calls["get_file"] == 3


def test_ranges_of_one_recording_are_packed_together(tmp_path: Path) -> None:
    for number in range(4):
        write_wav(tmp_path / f"{number}.wav", noise(1.0 + number))
    rows: list[TimedRow] = [(f"{k % 4}.wav", 60.0 * k, 60.0 * k + 50 + k % 3) for k in range(16)]
    plan = planned(write_ranges(tmp_path / "m.csv", *rows))
    batches = [[Path(audio["uris"][0]).name[0] for audio in row["audios"]] for row in plan.batches.to_pylist()]
    assert sorted(map("".join, batches)) == ["0000", "1111", "2222", "3333"]
    assert plan.seconds_to_decode == pytest.approx(sum(50 + k % 3 for k in range(16)))
    assert plan.bytes_to_decode == sum((tmp_path / f"{number}.wav").stat().st_size for number in range(4))


def test_long_ranges_and_recordings_come_first_and_alone(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(2.0))
    rows: list[TimedRow] = [("a.wav", k, k + 1) for k in range(40)]
    plan = planned(write_ranges(tmp_path / "m.csv", *rows, ("a.wav", 10, 2_000)))
    first, second = plan.batches.to_pylist()
    assert is_long(first)
    assert not is_long({"audios": second["audios"][:1]})
    assert len(second["audios"]) == 40
    assert estimate_seconds("a.wav", 150_000 * 60) == 60.0
    assert estimate_seconds("a.wav", 150_000 * 60, TimeRange(50.0)) == 10.0
    assert estimate_seconds("a.wav", path.stat().st_size, TimeRange(10.0, 12.5)) == 2.5


def test_recordings_are_read_once_for_the_plan_of_all_their_ranges(tmp_path: Path) -> None:
    """They are not read at all if no other recording has their size."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_wav(tmp_path / f"{name}.wav", noise(2.0, seed))
    write_wav(tmp_path / "d.wav", noise(3.0))
    rows: list[TimedRow] = [(f"{name}.wav", k / 10, 1) for k in range(5) for name in "abcd"]
    table = list_corpus([str(write_ranges(tmp_path / "m.csv", *rows))], CorpusConfig())
    hashed: list[str] = []

    def count(path: Any) -> str:
        hashed.append(Path(path).name)
        return hash_file(path)

    plan = plan_files(table, batch_s=9.0, hash_file=count)
    assert sorted(hashed) == ["a.wav", "b.wav"]
    groups = [audio["uris"] for batch in plan.batches.to_pylist() for audio in batch["audios"]]
    assert sorted(map(len, groups)) == [1] * 10 + [2] * 5
    assert all(len({split_uri(uri)[1] for uri in group}) == 1 for group in groups)


def test_planning_a_range_takes_few_calls(tmp_path: Path) -> None:
    """A million ranges are planned in half a minute: the test counts the calls for each."""
    n_ranges = 2_000
    (tmp_path / "a.wav").write_bytes(b"sound")
    rows: list[TimedRow] = [("a.wav", k + 0.5, k + 10) for k in range(n_ranges)]
    table = list_corpus([str(write_ranges(tmp_path / "m.csv", *rows))], CorpusConfig())
    with cProfile.Profile() as profile:
        plan = plan_files(table)
    assert plan.n_to_decode == n_ranges
    assert sum(entry.callcount for entry in profile.getstats()) < 200 * n_ranges


@pytest.mark.parametrize(("start_s", "end_s"), [(3.25, 29.5), (5.001, None), (4.0, 60.0)])
def test_parts_of_a_range_are_the_whole_range(tmp_path: Path, start_s: float, end_s: float | None) -> None:
    write_wav(tmp_path / "a.wav", noise(31.3))
    [batch] = planned(write_ranges(tmp_path / "m.csv", ("a.wav", start_s, end_s))).batches.to_pylist()
    parts = split_batch(batch, DecodeConfig(), GRID, PART_S if end_s else 0.5)
    assert len(parts) > 4
    assert [row for part in parts for row in decode(part)] == decode(batch)


@pytest.fixture
def corpus(tmp_path: Path) -> Any:
    """A manifest of ranges, and the configuration of their index."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_wav(tmp_path / f"{name}.wav", noise(6.0, seed))
    rows: list[TimedRow] = [("a.wav", None, None), ("a.wav", 1, 3), ("b.wav", 1, 3), ("a.wav", 2, 4), ("c.wav", 1, 3)]
    manifest = write_ranges(tmp_path / "m.csv", *rows)
    return configure(tmp_path, manifest)


def files(config: Any) -> dict[str, Row]:
    return {Path(row["uri"]).name: row for row in read(config.into, "files") if row["status"] == "indexed"}


def test_ranges_are_indexed_once_and_share_frames_with_equal_ones(tmp_path: Path, corpus: Any) -> None:
    progress = index_corpus(corpus, stages=in_place(WideEncoder()))
    assert (progress.n_indexed, progress.n_failed) == (5, 0)
    rows = files(corpus)
    assert sorted(rows) == ["a.wav", "a.wav#t=1,3", "a.wav#t=2,4", "b.wav#t=1,3", "c.wav#t=1,3"]
    assert rows["a.wav#t=1,3"]["audio_id"] == rows["b.wav#t=1,3"]["audio_id"]
    assert len({row["audio_id"] for row in rows.values()}) == 4
    assert len(read(corpus.into, "frames", ["frame"])) == 150 + 3 * 50
    ranges = [clip for clip in read(corpus.into, "clips") if "#t=" in clip["uri"]]
    assert {clip["duration_s"] for clip in ranges} == {2.0}
    assert (min(clip["start_s"] for clip in ranges), max(clip["end_s"] for clip in ranges)) == (0.0, 2.0)
    assert verify_index(corpus.into) == []
    assert compare(open_index(corpus.into).live, WideEncoder(), 5).findings == []
    encoder = WideEncoder()
    assert index_corpus(corpus, stages=in_place(encoder), request=RunRequest(check_content=True)).n_unchanged == 5
    assert encoder.n_windows == 0


def test_added_and_removed_ranges_are_added_and_deleted_files(tmp_path: Path, corpus: Any) -> None:
    index_corpus(corpus, stages=in_place(WideEncoder()))
    rows: list[TimedRow] = [("a.wav", 1, 3), ("a.wav", 2, 4.5), ("c.wav", 1, 3), ("d.wav", 1, 3), ("a.wav", 9, 10)]
    write_ranges(tmp_path / "m.csv", *rows)
    (tmp_path / "b.wav").rename(tmp_path / "d.wav")
    assert actions(corpus) == {
        "a.wav": "deleted",
        "a.wav#t=1,3": "unchanged",
        "a.wav#t=2,4": "deleted",
        "a.wav#t=2,4.5": "new",
        "a.wav#t=9,10": "new",
        "b.wav#t=1,3": "deleted",
        "c.wav#t=1,3": "unchanged",
        "d.wav#t=1,3": "moved",
    }
    index_corpus(corpus, stages=in_place(WideEncoder()))
    assert sorted(files(corpus)) == ["a.wav#t=1,3", "a.wav#t=2,4.5", "c.wav#t=1,3", "d.wav#t=1,3"]
    assert verify_index(corpus.into) == []
    assert index_corpus(corpus, stages=in_place(WideEncoder())).n_unchanged == 5


def test_changed_recording_changes_all_its_ranges(tmp_path: Path, corpus: Any) -> None:
    index_corpus(corpus, stages=in_place(WideEncoder()))
    write_wav(tmp_path / "a.wav", noise(7.0, 5))
    progress = index_corpus(corpus, stages=in_place(WideEncoder()))
    assert (progress.n_indexed, progress.n_unchanged) == (3, 2)
    assert verify_index(corpus.into) == []


def test_similar_takes_a_range_as_question(index: Path, tmp_path: Path) -> None:
    samples, opened = noise(30.0), open_with(index, Ear())
    path = str(write_wav(tmp_path / "a.wav", samples))
    wanted = opened.similar_to([samples[12 * HZ : 15 * HZ]])
    assert opened.similar_to_file(f"{path}#t=12,15") == wanted
    assert opened.similar_to_file(f"{path}#t=10,15", start_s=2.0) == wanted
    assert opened.similar_to_file(f"{path}#t=10,20", start_s=2.0, end_s=5.0) == wanted
    assert opened.similar_to_file(f"{path}#t=12", end_s=3.0) == wanted
    with pytest.raises(FileFailure, match=r"out_of_range: nothing from 40\.000 s on"):
        opened.similar_to_file(f"{path}#t=40,50")
    write_wav(tmp_path / "a.wav#t=12,15", samples)
    assert opened.similar_to_file(f"{path}#t=12,15") == opened.similar_to([samples])
