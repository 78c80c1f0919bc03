"""Paths that are shown where there is little room."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from jobs.shared.path_column import find_common_folder, find_link, fit_paths, shorten

FOLDERS = ["/data/field recordings/2024/north/a.wav", "/data/field recordings/2024/south/b.wav"]


def test_paths_that_fit_stay_as_they_are() -> None:
    assert fit_paths(["a/b.wav", "a/c.wav"], 7) == ("", ["a/b.wav", "a/c.wav"])


def test_common_folder_is_said_once() -> None:
    assert fit_paths(FOLDERS, 20) == ("/data/field recordings/2024/", ["north/a.wav", "south/b.wav"])


@pytest.mark.parametrize(
    ("paths", "folder"),
    [
        (["/a/b.wav"], ""),
        (["/a/b.wav", "/c/d.wav"], ""),
        (["s3://one/a.wav", "s3://two/b.wav"], ""),
        (["s3://one/x/a.wav", "s3://one/x/b.wav"], "s3://one/x/"),
        (["/a/x1/b.wav", "/a/x2/b.wav"], "/a/"),
        (["/a/s.tar#x/1.wav", "/a/s.tar#x/2.wav"], "/a/"),
        (["/a/b.wav#t=0,5", "/a/b.wav#t=5,10"], "/a/"),
    ],
)
def test_common_folder_is_whole(paths: list[str], folder: str) -> None:
    assert find_common_folder(paths) == folder


def test_name_of_the_file_stays() -> None:
    assert shorten("/data/field recordings/2024/north/bell.wav", 24) == "/data/…/bell.wav"
    assert shorten("recording-of-the-whole-night-0001.wav", 20) == "recordi…ght-0001.wav"


def test_different_files_never_look_alike_if_there_is_room() -> None:
    paths = ["2021/r1/audio.wav", "2022/r1/audio.wav", "2022/r2/audio.wav", "2021/r1/audio.wav"]
    _, shown = fit_paths(paths, 15)
    assert len(set(shown)) == 3
    assert shown[0] == shown[3]
    assert all(cell_len(path) <= 15 for path in shown)


@given(st.text("aé雨/.-", max_size=60), st.integers(5, 40))
def test_short_path_fits(path: str, room: int) -> None:
    shown = shorten(path, room)
    assert cell_len(shown) <= room
    assert shown == path or "…" in shown


def test_link_leads_to_the_file_that_holds_a_range(tmp_path: Path) -> None:
    file = tmp_path / "a b.wav"
    file.touch()
    assert find_link(f"{file}#t=1,2") == find_link(str(file)) == file.as_uri()
    assert find_link(str(tmp_path / "none.wav")) is None
    assert find_link("s3://bucket/a.wav") is None
