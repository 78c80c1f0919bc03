"""Tables of users are read in all their formats; a fault in one is told by its line."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.discover import list_corpus
from pipeline.corpus.table_files import read_table_file
from pipeline.errors import CorpusError
from tests.helpers.corpora import list_rows

LATIN = {
    "value.csv": ("uri,mic\na.wav,H5\nb.wav,caf\u00e9 noir\n", "line 3: 'caf\\xe9 noir'"),
    "uri.csv": ("uri,mic\ncaf\u00e9.wav,H5\n", "line 2: 'caf\\xe9.wav'"),
    "name.csv": ("uri,caf\u00e9\na.wav,H5\n", "line 1: 'caf\\xe9'"),
    "tabs.tsv": ("uri\tmic\na.wav\tun caf\u00e9, noir\n", "line 2: 'un caf\\xe9'"),
    "value.jsonl": ('{"uri": "a.wav", "mic": "caf\u00e9"}\n', "line 1: 'caf\\xe9'"),
    "late.csv": ("uri\n" + "a.wav\n" * 200_000 + "caf\u00e9", "line 200002: 'caf\\xe9'"),
    "long.csv": ("uri,mic\na.wav," + "x" * 99 + "\u00e9" + "y" * 99, f"line 2: '{'x' * 30}\\xe9{'y' * 29}'"),
}


@pytest.mark.parametrize("name", LATIN)
def test_text_that_is_not_utf8_is_told_with_line_and_cell(tmp_path: Path, name: str) -> None:
    text, where = LATIN[name]
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(CorpusError) as raised:
        list_rows(tmp_path / name)
    assert str(raised.value) == f"{tmp_path / name}: {where} is not UTF-8: save the table as UTF-8"


def test_utf8_is_accepted_across_piece_boundaries(tmp_path: Path) -> None:
    """A byte order mark, as spreadsheets write it, is accepted."""
    names = [f"{'x' * k}\u00e9\U0001f600.wav" for k in range(8)]
    for begin in ("", "\ufeff"):
        for shift in range(8):
            padding = "uri\n" + "a" * (2**20 - 20 + shift)
            (tmp_path / "m.csv").write_text(begin + padding + "\n" + "\n".join(names) + "\n", encoding="utf-8")
            assert read_table_file(str(tmp_path / "m.csv"))["uri"].to_pylist()[1:] == names


HEADERS = ["uri,start_s,end_s", "uri, start_s, end_s", ' uri ,"start_s", "end_s" ', '\ufeff"uri",\tstart_s\t,end_s ']


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_blanks_around_column_names_do_not_matter(tmp_path: Path, header: str, suffix: str) -> None:
    """Otherwise time ranges would become whole files."""
    (tmp_path / "a.wav").write_bytes(b"sound")
    manifest = tmp_path / f"m{suffix}"
    names = header.replace("\t", " ").split(",")
    if suffix in (".csv", ".tsv"):
        text = f"{header.replace(chr(9), ' ')}\na.wav, 0.10, 2\na.wav,, \n"
        manifest.write_text(text if suffix == ".csv" else text.replace(",", "\t"))
    else:
        values = [dict(zip(names, row, strict=True)) for row in (["a.wav", 0.1, 2], ["a.wav", None, None])]
        if suffix == ".jsonl":
            manifest.write_text("".join(json.dumps(row) + "\n" for row in values))
        else:
            pq.write_table(pa.Table.from_pylist(values), manifest)
    expected = [f"{tmp_path}/a.wav", f"{tmp_path}/a.wav#t=0.1,2"]
    assert list_corpus([str(manifest)])["uri"].to_pylist() == expected


def test_names_that_differ_in_blanks_are_duplicates(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,start_s, start_s\na.wav,1,2\n")
    with pytest.raises(CorpusError, match=r"m\.csv: column `start_s` occurs twice"):
        list_rows(tmp_path / "m.csv")


def test_faulty_json_row_is_told_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "a.wav"}\n{"uri": b.wav}\n')
    with pytest.raises(CorpusError, match=r"m\.jsonl: cannot be read as a table: JSON parse error: .* in row 2$"):
        list_rows(tmp_path / "m.jsonl")
