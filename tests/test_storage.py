"""Files in object stores: sizes and times as stores tell them, reading that is tried again."""

import datetime as dt
import io
import shutil
import threading
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline import heartbeat, storage
from pipeline.audio.source import hash_file, probe_file
from pipeline.storage import FILES_AT_ONCE, chunked, map_in_threads
from tests.helpers.contents import content
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky


def test_pauses_grow() -> None:
    assert all(later > 2 * earlier > 0 for earlier, later in pairwise(storage.PAUSES_S))


@pytest.mark.parametrize(
    ("info", "seconds"),
    [
        ({"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}, 784_111_777),  # as HTTP servers write it
        ({"LastModified": dt.datetime(2024, 5, 1, tzinfo=dt.UTC)}, 1_714_521_600),
        ({"updated": "2024-05-01T00:00:00Z"}, 1_714_521_600),
        ({"mtime": 12.7}, 12),
        ({}, 0),
    ],
)
def test_times_are_read_in_every_form_that_stores_write(info: dict[str, Any], seconds: int) -> None:
    assert storage.stat_of({"size": 5, **info}) == (5, seconds * 10**9)


@pytest.mark.parametrize(
    "time",
    [
        dt.datetime.max.replace(tzinfo=dt.UTC),
        dt.datetime.min.replace(tzinfo=dt.UTC),
        dt.datetime.min,
        "9999-12-31T23:59:59Z",
        "some day",
        1e300,
        -1e300,
        float("inf"),
        float("nan"),
    ],
)
def test_times_out_of_range_become_the_nearest_that_fits(time: Any) -> None:
    """Versions of such a time still differ. A text that is no time counts as a missing one."""
    one, other = (storage.stat_of({"size": 5, "LastModified": time, "ETag": tag})[1] for tag in ("a", "b"))
    assert one != other
    assert -(2**63) <= min(one, other) <= max(one, other) < 2**63
    assert storage.stat_of({"size": 5, "LastModified": time, "ETag": "a"})[1] == one


def test_big_files_are_read_in_place_and_retried(flaky: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = put(f"{flaky}/a.wav", content(5).read_bytes())
    with storage.fetched(url) as file:
        assert not isinstance(file, str)
        fetched = file.read()
    assert Flaky.calls["get_file"] == 1
    monkeypatch.setattr(storage, "FETCH_BYTES", 1000)
    Flaky.calls.clear()
    Flaky.errors["read"] = [OSError("reset")] * 3
    with storage.fetched(url) as file:
        assert not isinstance(file, str)
        assert file.read() == fetched
        file.seek(-3, io.SEEK_END)
        assert (file.read(2), file.tell()) == (fetched[-3:-1], len(fetched) - 1)
    assert Flaky.calls["get_file"] == 0
    assert hash_file(url) == hash_file(content(5))
    assert probe_file(url) == probe_file(content(5))


# --- many files at the same time --------------------------------------------------------------------------------------


def test_results_come_in_order_from_several_threads() -> None:
    meeting = threading.Barrier(2)

    def read(number: int) -> int:
        if number < 2:
            meeting.wait(60)  # the first two are read at the same time
        return -number

    assert list(map_in_threads(read, range(100))) == [-number for number in range(100)]


def test_items_are_taken_as_results_are() -> None:
    taken: list[int] = []

    def items() -> object:
        for number in range(10_000):
            taken.append(number)
            yield number

    assert list(islice(map_in_threads(str, items()), 3)) == ["0", "1", "2"]  # type: ignore[arg-type]
    assert len(taken) <= 4 * FILES_AT_ONCE


def test_errors_reach_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda number: 1 // number, [1, 0]))


@pytest.mark.parametrize(("n_items", "sizes"), [(0, []), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_chunks_hold_all_items(n_items: int, sizes: list[int]) -> None:
    chunks = list(chunked(range(n_items), 4))
    assert list(map(len, chunks)) == sizes
    assert [item for chunk in chunks for item in chunk] == list(range(n_items))


def test_free_bytes_are_those_of_the_disk_that_a_new_folder_will_lie_on(tmp_path: Path) -> None:
    free = storage.count_free_bytes(str(tmp_path / "not" / "there"))
    assert free is not None
    assert 0 < free <= shutil.disk_usage(tmp_path).total
    assert storage.count_free_bytes("s3://bucket/index") is None


def test_files_that_arrive_tell_the_watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("memory://arrives/a.wav", b"RIFF")
    for read in (
        lambda: storage.fetch("memory://arrives/a.wav", str(tmp_path / "a.wav")),
        lambda: storage.read_bytes("memory://arrives/a.wav", 0, 4),
    ):
        monkeypatch.setattr(heartbeat, "_last", float("-inf"))
        read()
        assert heartbeat.find_silence_s() < float("inf")
