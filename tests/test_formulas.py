"""Text in CSV: a spreadsheet computes none of it, and each can be read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formulas import guard, unguard

FORMULAS = ("=", "+", "-", "@", "\t", "\r")


@given(st.text() | st.text("'=+-@\t\rab"))
def test_no_guarded_text_begins_like_a_formula_and_each_can_be_read_back(text: str) -> None:
    cell = guard(text)
    assert not cell.startswith(FORMULAS)
    assert unguard(cell) == text


@pytest.mark.parametrize("text", ["", "a bell", "'tis", "12", "/sounds/=.wav", "é=", "鳥"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert guard(text) == text
