"""Quotes in CSV and TSV files: no row is lost behind one that is not closed."""

import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.corpus.table_files import read_table_file
from pipeline.errors import CorpusError


def rows_of(path: Path, text: str) -> list[dict[str, Any]]:
    path.write_text(text)
    rows: list[dict[str, Any]] = read_table_file(str(path), ["uri"]).to_pylist()
    return rows


UNCLOSED = {
    "to the end.tsv": ('uri\ttitle\na.wav\t"Heroes\nb.wav\tx\nc.wav\ty\n', 2, '"Heroes'),
    "to another one.tsv": ('uri\ttitle\na.wav\tx\nb.wav\t"Heroes\nc.wav\t"Low\nd.wav\tz\n', 3, '"Heroes'),
    "to the end of a cell.tsv": ('uri\ttitle\na.wav\t"Heroes\nb.wav\tx\nc.wav\tsay "yes"\n', 2, '"Heroes'),
    "to a last letter.tsv": ('uri\ttitle\na.wav\t"Heroes\nb.wav\tx\nc.wav\t12"\n', 2, '"Heroes'),
    "inches.tsv": ('uri\tsize\na.wav\t"\nb.wav\t"12"\n', 2, '"'),
    "first.tsv": ('"uri\ttitle\na.wav\tx\n', 1, '"uri'),
    "among others.tsv": ('uri\ttitle\na.wav\t"Yes," he said\nb.wav\t"No\n', 3, '"No'),
    "to the end.csv": ('uri,title\na.wav,"Heroes\nb.wav,x\nc.wav,y\n', 2, '"Heroes'),
    "to another one.csv": ('uri,title\na.wav,x\nb.wav,"Heroes\nc.wav,"Low"\nd.wav,z\n', 3, '"Heroes'),
    "last.csv": ('uri,title\na.wav,"x, y"\nb.wav,"', 3, '"'),
    "in windows.csv": ('uri,title\r\na.wav,"Heroes\r\nb.wav,"x"\r\n', 2, '"Heroes'),
}


@pytest.mark.parametrize("name", UNCLOSED)
def test_unclosed_quote_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    """Otherwise it would swallow the rows behind it."""
    text, line, cell = UNCLOSED[name]
    with pytest.raises(CorpusError) as raised:
        rows_of(tmp_path / name, text)
    assert str(raised.value).startswith(
        f"{tmp_path / name}: line {line}: the cell '{cell}' begins with a quote that is"
    )
    assert "\n" not in str(raised.value)


TITLES: dict[str, tuple[str, list[str | None]]] = {
    "quoted.tsv": (
        '"Heroes"\t"a ""b"" c"\t""\t"line\nbreak"\t"a\ttab"\t12"',
        ["Heroes", 'a "b" c', None, "line\nbreak", "a\ttab", '12"'],
    ),
    "not.tsv": ('"Yes," he said\t"Heroes"\t12"\tsay "no"', ['"Yes," he said', '"Heroes"', '12"', 'say "no"']),
    "quoted.csv": (
        '"Heroes","a ""b"" c","","line\nbreak","a, b",12"',
        ["Heroes", 'a "b" c', None, "line\nbreak", "a, b", '12"'],
    ),
}


@pytest.mark.parametrize("name", TITLES)
def test_closed_quotes_are_read_as_meant(tmp_path: Path, name: str) -> None:
    cells, expected = TITLES[name]
    mark = "," if name.endswith(".csv") else "\t"
    for begin in ("", "\ufeff"):
        header = begin + mark.join(["uri", *(f"x{k}" for k in range(len(expected)))])
        text = f"{header}\n{mark.join(['a.wav', cells])}\n{mark.join(['b.wav', *'x' * len(expected)])}"
        first, second = rows_of(tmp_path / name, text)
        assert list(first.values()) == ["a.wav", *expected]
        assert list(second.values()) == ["b.wav", *"x" * len(expected)]


letters = st.text(st.sampled_from('ab" ,\t\n\r'), max_size=6)


@given(st.lists(st.tuples(letters, letters), min_size=1, max_size=6), st.sampled_from([".csv", ".tsv"]))
def test_cells_quoted_by_a_writer_come_back(cells: list[tuple[str, str]], suffix: str) -> None:
    """Python's own writer quotes every cell. In TSV, no cell holds a line break beside a tab."""
    if suffix == ".tsv":
        cells = [(one.replace("\t", " "), other.replace("\t", " ")) for one, other in cells]
    text = io.StringIO()
    csv.writer(text, delimiter="\t" if suffix == ".tsv" else ",", quoting=csv.QUOTE_ALL).writerows(
        [("uri", "x"), *cells]
    )
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / f"m{suffix}").write_bytes(text.getvalue().encode())
        table = read_table_file(str(path), ["uri", "x"])
    assert [(row["uri"] or "", row["x"] or "") for row in table.to_pylist()] == cells


@given(st.text(st.sampled_from('ab"\t\n'), max_size=30))
def test_no_row_of_a_tsv_file_is_lost(text: str) -> None:
    """A table is refused, or has a row for each line, unless quoted cells hold line breaks."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "m.tsv").write_bytes(f"uri\tx\n{text}".encode())
        try:
            table = read_table_file(str(path), ["uri", "x"])
        except CorpusError:
            return
    lines = [line for line in text.split("\n") if line]
    n_within = sum((value or "").count("\n") for row in table.to_pylist() for value in row.values())
    assert table.num_rows >= len(lines) - n_within
