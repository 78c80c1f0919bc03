"""Numbers of things and sizes in messages."""

import pytest

from pipeline.words import count, show_bytes


@pytest.mark.parametrize(("number", "said"), [(0, "0 files"), (1, "1 file"), (2_000, "2,000 files")])
def test_one_thing_is_no_plural(number: int, said: str) -> None:
    assert count(number, "file") == said


@pytest.mark.parametrize(
    ("n_bytes", "said"), [(0, "0 B"), (999, "999 B"), (1_536_000, "1.5 MB"), (2e9, "2.0 GB"), (3.2e12, "3.2 TB")]
)
def test_sizes_have_a_unit_that_fits(n_bytes: float, said: str) -> None:
    assert show_bytes(n_bytes) == said
