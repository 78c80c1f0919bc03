"""Pictures are kept within a limit, those that were wanted last the longest."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.serve.sounds import make_key
from jobs.serve.tile_cache import TileCache, find_cache_folder


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_picture_is_found_again_also_by_another_server(tmp_path: Path) -> None:
    key = make_key("a", 1.5)
    TileCache(tmp_path).keep(key, b"picture")
    assert TileCache(tmp_path).find(key) == b"picture"
    assert TileCache(tmp_path).find(make_key("a", 1.25)) is None


def test_limit_holds_and_what_was_wanted_last_stays(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, max_bytes=1_000)
    keys = [make_key(number) for number in range(30)]
    for key in keys:
        cache.keep(key, bytes(100))
        assert cache.find(keys[0]) is not None
        assert on_disk(tmp_path) <= 1_000
    assert cache.find(keys[-1]) is not None
    assert cache.find(keys[1]) is None


def test_limit_counts_what_a_former_server_has_left(tmp_path: Path) -> None:
    keys = [make_key(number) for number in range(12)]
    former = TileCache(tmp_path)
    for age, key in enumerate(keys[:10]):
        former.keep(key, bytes(100))
        os.utime(tmp_path / key[:2] / key, (age, age))
    cache = TileCache(tmp_path, max_bytes=1_000)
    cache.keep(keys[10], bytes(100))
    assert on_disk(tmp_path) <= 1_000
    assert cache.find(keys[0]) is None
    assert cache.find(keys[9]) is not None


def test_servers_share_the_limit(tmp_path: Path) -> None:
    """Each may be ahead of what it knows of the others by a twentieth of the limit."""
    caches = [TileCache(tmp_path, max_bytes=2_000) for _ in range(3)]
    for number in range(400):
        caches[number % 3].keep(make_key(number), bytes(20))
        assert on_disk(tmp_path) <= 2_000 + 3 * (100 + 20)
    kept = [number for number in range(400) if caches[0].find(make_key(number))]
    assert kept == list(range(kept[0], 400)), "the oldest are gone, whoever drew them"


def test_threads_share_it(tmp_path: Path) -> None:
    cache = TileCache(tmp_path, max_bytes=5_000)

    def use(number: int) -> bool:
        key = make_key(number % 40)
        cache.keep(key, number.to_bytes(4, "big") * 50)
        found = cache.find(key)
        return found is None or len(found) == 200

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(800)))
    assert on_disk(tmp_path) <= 5_000
    assert not [path for path in tmp_path.rglob("*.*") if path.is_file()]


def test_disk_that_fails_costs_no_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TileCache(tmp_path / "file")
    cache.keep(make_key(1), b"x")
    assert cache.find(make_key(1)) is None


def test_folder_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_cache_folder() == tmp_path / "earshot" / "spectrograms"
    monkeypatch.setenv("XDG_CACHE_HOME", "not absolute")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert find_cache_folder() == tmp_path / "home" / ".cache" / "earshot" / "spectrograms"
