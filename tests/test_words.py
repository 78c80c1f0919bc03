"""Numbers of things, sizes and paths in messages."""

from pathlib import Path

import pytest

from pipeline.words import count, show_bytes, show_path


@pytest.mark.parametrize(("number", "said"), [(0, "0 files"), (1, "1 file"), (2_000, "2,000 files")])
def test_one_thing_is_no_plural(number: int, said: str) -> None:
    assert count(number, "file") == said


@pytest.mark.parametrize(
    ("n_bytes", "said"), [(0, "0 B"), (999, "999 B"), (1_536_000, "1.5 MB"), (2e9, "2.0 GB"), (3.2e12, "3.2 TB")]
)
def test_sizes_have_a_unit_that_fits(n_bytes: float, said: str) -> None:
    assert show_bytes(n_bytes) == said


def test_paths_below_the_current_folder_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert show_path(str(tmp_path / "sub" / "a.wav")) == "sub/a.wav"
    for elsewhere in (str(tmp_path), f"{tmp_path}-2/a.wav", "s3://bucket/a.wav", "a.wav"):
        assert show_path(elsewhere) == elsewhere
