"""What has become of an indexed file: it is there, has other bytes, or is gone."""

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.audio.source import hash_file
from pipeline.search.presence import Presence, Presences
from tests.helpers.shards import write_shard

HERE, CHANGED, GONE = Presence(), Presence(is_changed=True), Presence(is_gone=True)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(bytes(range(250)) * 100)
    return tmp_path / "a.wav"


def row_of(path: Path) -> dict[str, Any]:
    """What the ledger says of a file."""
    size_bytes, modified_ns = storage.stat_file(str(path))
    row = {"uri": str(path), "size_bytes": size_bytes, "modified_ns": modified_ns}
    return {**row, "content_hash": hash_file(path)}


def test_file_that_was_only_touched_or_copied_has_not_changed(sound: Path) -> None:
    row, presences = row_of(sound), Presences()
    assert presences.find(row) == HERE
    os.utime(sound, ns=(1, 1))
    assert presences.find(row) == HERE
    assert presences.find(row | {"uri": f"{sound}#t=0.1,0.2"}) == HERE


def test_many_threads_hash_a_file_once(sound: Path) -> None:
    n_hashed = list[str]()

    def hash_slowly(place: Any) -> str:
        n_hashed.append(str(place))
        time.sleep(0.1)
        return hash_file(place)

    row, presences = row_of(sound), Presences(hash_slowly)
    os.utime(sound, ns=(1, 1))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(presences.find, [row] * 4)) == [HERE] * 4
    assert len(n_hashed) == 1


def test_file_does_not_wait_while_another_one_is_hashed(sound: Path) -> None:
    begun, go = threading.Event(), threading.Event()
    other = sound.with_name("b.wav")
    other.write_bytes(sound.read_bytes())

    def hash_slowly(place: Any) -> str:
        if str(place) == str(sound):
            begun.set()
            assert go.wait(60)
        return hash_file(place)

    rows, presences = [row_of(path) | {"modified_ns": 0} for path in (sound, other)], Presences(hash_slowly)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(presences.find, rows[0])
        assert begun.wait(60)
        try:
            assert pool.submit(presences.find, rows[1]).result(60) == HERE
            assert presences.glance(rows[1]) == HERE
            assert presences.glance(rows[0]) is None
        finally:
            go.set()
        assert slow.result(60) == HERE


def test_glance_hashes_nothing(sound: Path) -> None:
    def refuse(place: Any) -> str:
        raise AssertionError(place)

    row, presences = row_of(sound), Presences(refuse)
    assert presences.glance(row) == HERE
    assert presences.glance(row | {"modified_ns": 0}) is None
    assert presences.glance(row | {"size_bytes": 1}) == CHANGED
    assert presences.glance(row | {"uri": str(sound) + "x"}) == GONE


def test_file_of_other_bytes_has_changed_whatever_its_size(sound: Path) -> None:
    row, data, presences = row_of(sound), sound.read_bytes(), Presences()
    for number, other in enumerate((data[:-1] + b"\1", data + b"\0", data[:-2])):
        sound.write_bytes(other)
        os.utime(sound, ns=(number, number))
        assert presences.find(row) == CHANGED
    sound.write_bytes(data)
    assert presences.find(row) == HERE


def test_file_without_a_known_hash_counts_as_it_is(sound: Path) -> None:
    assert Presences().find(row_of(sound) | {"modified_ns": 0, "content_hash": None}) == HERE


def test_file_that_is_gone_is_told(sound: Path) -> None:
    row, presences = row_of(sound), Presences()
    sound.unlink()
    assert presences.find(row) == GONE
    assert presences.find(row | {"uri": f"{sound}/deeper.wav"}) == GONE


def test_members_of_shards_are_compared_by_themselves(tmp_path: Path) -> None:
    data = b"the bytes of a member"
    shard = write_shard(tmp_path / "s.tar", [("x.wav", b"another"), ("y.wav", data)])
    row = {"uri": f"{shard}#y.wav", "size_bytes": len(data), "content_hash": hash_file(io.BytesIO(data))}
    row |= {"modified_ns": storage.stat_file(str(shard))[1]}
    assert Presences().find(row) == HERE
    assert Presences().find(row | {"modified_ns": 0}) == HERE
    assert Presences().find(row | {"modified_ns": 0, "content_hash": "0" * 64}) == CHANGED
    assert Presences().find(row | {"modified_ns": 0, "uri": f"{shard}#z.wav"}) == GONE
