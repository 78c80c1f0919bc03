"""Numbers of things in messages."""

import pytest

from pipeline.words import count


@pytest.mark.parametrize(("number", "said"), [(0, "0 files"), (1, "1 file"), (2_000, "2,000 files")])
def test_one_thing_is_no_plural(number: int, said: str) -> None:
    assert count(number, "file") == said
