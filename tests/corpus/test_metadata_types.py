"""Types of metadata: each is stored as one of a few, and two tables agree on one that holds the values of both."""

import math
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any

import pyarrow as pa
import pytest

from pipeline.corpus.metadata_types import common_type, example, normalize, store_as, stored_type
from pipeline.errors import CorpusError

STORED = [pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.date32()]
STORED += [pa.timestamp("us"), pa.timestamp("us", tz="UTC")]


@pytest.mark.parametrize("kind", STORED)
def test_stored_types_are_stored_as_they_are(kind: pa.DataType) -> None:
    assert stored_type(kind) == kind


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        *[(kind, pa.int64()) for kind in (pa.int8(), pa.uint32(), pa.uint64())],
        *[(kind, pa.float64()) for kind in (pa.float16(), pa.float32(), pa.decimal128(9, 3))],
        *[(kind, pa.string()) for kind in (pa.large_string(), pa.string_view(), pa.time32("s"))],
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string()),
        (pa.date64(), pa.date32()),
        (pa.timestamp("ns", tz="Europe/Rome"), pa.timestamp("us", tz="UTC")),
        *[(kind, None) for kind in (pa.binary(), pa.list_(pa.int8()), pa.struct([("a", pa.int8())]))],
    ],
)
def test_other_types_are_stored_as_a_wide_one_or_not_at_all(kind: pa.DataType, stored: pa.DataType | None) -> None:
    assert stored_type(kind) == stored


@pytest.mark.parametrize(("one", "other"), list(combinations_with_replacement(STORED, 2)))
def test_two_types_agree_on_one_in_either_order(one: pa.DataType, other: pa.DataType) -> None:
    common = common_type(one, other)
    assert common == common_type(other, one)
    if one == other or pa.types.is_null(other):
        assert common == one
    wider = {pa.int64(): pa.float64(), pa.date32(): pa.timestamp("us")}
    if wider.get(one) == other:
        assert common == other


def test_nan_is_stored_as_null() -> None:
    column = normalize("a.csv", "x", pa.chunked_array([pa.array([1.5, math.nan, None], pa.float32())]))
    assert column.type == pa.float64()
    assert column.to_pylist() == [1.5, None, None]


class Huge:
    """A column whose values do not fit into memory."""

    type = pa.int8()

    def cast(self, kind: pa.DataType, safe: bool) -> pa.ChunkedArray:
        raise pa.ArrowMemoryError("malloc of size 999999999999 failed")


HUGE: Any = Huge()


@pytest.mark.parametrize(
    "act", [lambda: normalize("a.parquet", "x", HUGE), lambda: store_as(pa.int64(), "a.parquet", "x", HUGE)]
)
def test_column_that_takes_more_memory_than_there_is_is_named(act: Callable[[], object]) -> None:
    """Beside the audio of a shard, such a column is left out; it does not end the run."""
    with pytest.raises(CorpusError, match=r"^a.parquet: column `x`: it takes more memory than there is$"):
        act()


def test_values_and_types_that_cannot_be_stored_are_named() -> None:
    with pytest.raises(CorpusError, match=r"a.csv: column `x` is binary \(.*b.*\), which cannot be stored: give text"):
        normalize("a.csv", "x", pa.chunked_array([pa.array([b"b"])]))
    with pytest.raises(CorpusError, match=r"a.csv: column `x` \(uint64\) cannot be stored as int64"):
        store_as(pa.int64(), "a.csv", "x", pa.chunked_array([pa.array([2**63], pa.uint64())]))


def test_an_example_is_the_first_value_and_short() -> None:
    assert example(pa.chunked_array([pa.array([None, "a", "b"])])) == " ('a')"
    assert example(pa.chunked_array([pa.array(["x" * 99])])) == f" ('{'x' * 39}…')"
    assert example(pa.chunked_array([pa.nulls(2)])) == ""
