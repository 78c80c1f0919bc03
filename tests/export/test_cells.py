"""Cells of CSV: a spreadsheet computes none of them, and each can be read back."""

import csv
import datetime as dt
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export.cells import format_cell, format_json, format_row, read_cell
from pipeline.formulas import unguard


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(min_size=1).filter(lambda text: read_cell(text) == text)
)
def test_values_of_metadata_can_be_read_back(value: Any) -> None:
    found = read_cell(format_cell(value))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["007", "1,5", "1.50", "0x1", "1e5", "nan", "NaN", "--", "+49", "1_000", "٣"])
def test_text_that_only_looks_like_a_number_stays_text(text: str) -> None:
    assert read_cell(format_cell(text)) == text


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2))
def test_rows_are_csv_whatever_the_cells_hold(texts: list[str]) -> None:
    [row] = csv.reader(io.StringIO(format_row(texts), newline=""), strict=True)
    assert [unguard(cell) for cell in row] == texts


def test_json_is_one_line_of_standard_json() -> None:
    day = dt.date(2026, 1, 2)
    value = {
        "day": day,
        "at": dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC),
        "none": float("nan"),
        "raw": b"\x01",
        "é": "\u2028",
    }
    text = format_json({**value, "nested": [{"deep": day}]})
    assert len(text.splitlines()) == 1
    assert json.loads(text) == {
        "day": "2026-01-02",
        "at": "2026-01-02T03:00:00+00:00",
        "none": None,
        "raw": "01",
        "é": "\u2028",
        "nested": [{"deep": "2026-01-02"}],
    }
