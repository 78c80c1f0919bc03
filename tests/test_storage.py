"""Files in object stores: sizes and times as stores tell them, reading that is tried again."""

import datetime as dt
import io
from itertools import pairwise
from typing import Any

import pytest

from pipeline import storage
from pipeline.audio.source import hash_file, probe_file
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
