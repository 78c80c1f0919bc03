"""Rows of CSV and JSON lines come with the line on which they begin."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.text_rows import decode, is_json, read_csv, read_json

CELLS = st.text(st.sampled_from('ab ,;"\n鳥'))


@given(st.lists(st.lists(CELLS, min_size=1), max_size=5), st.sampled_from(",;\t"), st.integers(0, 2))
def test_rows_of_csv_have_the_line_on_which_they_begin(rows: list[list[str]], separator: str, n_blank: int) -> None:
    text, expected = "", []
    for cells in rows:
        expected.append((text.count("\n") + 1, cells))
        written = io.StringIO()
        csv.writer(written, delimiter=separator, lineterminator="\n").writerow(cells)
        text += written.getvalue() + "\n" * n_blank
    assert list(read_csv("x.csv", text, separator)) == expected


def test_objects_have_their_line() -> None:
    text = '\n{"a": 1}\n \n{"a": "\u2028"}'
    assert is_json(text)
    assert list(read_json("x.jsonl", text)) == [(2, {"a": 1}), (4, {"a": "\u2028"})]


def test_byte_order_mark_is_no_text() -> None:
    assert decode("x.csv", "\ufeffuri,ä".encode()) == "uri,ä"
    with pytest.raises(UsageError, match=r"^x\.csv: line 2: is not UTF-8"):
        decode("x.csv", "uri\nä".encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "line"), [('a\n"b\nc', 2), ('a\n"b\nc"d\n', 2), ('a\n\n"b"c\n', 3), ("a\n" + "b" * 200_000, 2)]
)
def test_wrong_csv_is_refused_by_the_line_on_which_its_row_begins(text: str, line: int) -> None:
    with pytest.raises(UsageError, match=f"^x.csv: line {line}: is no CSV: ") as caught:
        list(read_csv("x.csv", text))
    assert "\n" not in str(caught.value)
