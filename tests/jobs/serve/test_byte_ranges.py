"""Ranges of bytes, as RFC 9110 defines them."""

import pytest

from jobs.serve.byte_ranges import OutOfRange, applies, read_range


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("", None),
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=99-", (99, 100)),
        ("bytes=50-1000", (50, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes = 1 - 2", (1, 3)),
        *[(header, None) for header in ("bytes=-", "bytes=5-2", "bytes=0-1,3-4", "items=0-1", "bytes=a-b", "bytes=1")],
        (f"bytes={'9' * 30}-", None),
    ],
)
def test_range_is_read(header: str | None, part: tuple[int, int] | None) -> None:
    assert read_range(header, 100) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_range_out_of_bounds_is_none_of_the_bytes(header: str) -> None:
    with pytest.raises(OutOfRange):
        read_range(header, 100)


def test_range_counts_only_for_the_same_answer() -> None:
    assert applies(None, '"a"')
    assert applies('"a"', '"a"')
    assert not applies('"b"', '"a"')
    assert not applies("Sat, 29 Oct 2026 19:43:31 GMT", '"a"')
