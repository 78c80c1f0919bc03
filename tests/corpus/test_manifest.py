"""Manifests: the files that a table names are the corpus, on disks, in shards and in object stores."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import CorpusConfig, make_config
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.table_files import read_table_file
from pipeline.errors import CorpusError
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import SECTIONS, content, live
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.shards import sounds, write_shard


def write(path: Path, uris: list[str], **columns: list[Any]) -> Path:
    """The same table, in the format that the name of ``path`` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"uri": uris, **columns})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix in (".csv", ".tsv"):
        names, mark = table.column_names, "," if path.suffix == ".csv" else "\t"
        quoted = [[f'"{value}"'.replace("\n", "\n") for value in row.values()] for row in table.to_pylist()]
        path.write_text("\n".join([mark.join(names), *(mark.join(row) for row in quoted)]) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


def reasons(*sources: Path | str, **settings: Any) -> dict[str, str | None]:
    rows = list_corpus(list(map(str, sources)), CorpusConfig(**settings)).to_pylist()
    return {row["uri"]: row["reason"] for row in rows}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".CSV"])
def test_the_files_that_it_names_are_taken_whatever_they_are_called(tmp_path: Path, suffix: str) -> None:
    if suffix == ".CSV":
        pytest.importorskip("pyarrow.csv")
    names = ["a.wav", "sub/b.dat", "ü, 'c'.wav", "line\nbreak.wav", "NA", "null", "007"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"sound")
    elsewhere = tmp_path / "d.wav"
    elsewhere.write_bytes(b"sound")
    uris = [*names, str(elsewhere), "../d.wav", "a.wav", "gone.wav"]
    manifest = write(tmp_path / "in" / f"list{suffix.lower()}", uris, label=["x"] * len(uris))
    manifest = manifest.rename(manifest.with_suffix(suffix))
    expected: dict[str, str | None] = {str(tmp_path / "in" / name): None for name in names}
    expected |= {str(elsewhere): None, str(tmp_path / "in" / "gone.wav"): "vanished"}
    assert reasons(manifest) == reasons(tmp_path / "in" / f"*{suffix}") == expected


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_only_what_is_named_is_a_manifest(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "in" / f"list.{suffix}", ["gone.wav"])
    (tmp_path / "in" / "a.wav").write_bytes(b"sound")
    assert reasons(tmp_path / "in") == {str(tmp_path / "in" / "a.wav"): None}
    assert len(reasons(tmp_path / "in", extensions=["*"])) == 2


def test_members_and_objects_may_be_named(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3, 5))
    store = fsspec.filesystem("memory")
    store.pipe_file("memory:///named/b.wav", b"sound")
    uris = ["s.tar#1.wav", "s.tar#none.wav", "gone.tar#1.wav", "memory://named/b.wav", "memory://named/gone.wav"]
    found = reasons(write(tmp_path / "list.jsonl", [*uris, "s.tar#5.wav"]))
    assert found == {
        f"{shard}#1.wav": None,
        f"{shard}#5.wav": None,
        f"{shard}#none.wav": "vanished",
        f"{tmp_path}/gone.tar#1.wav": "unreadable",
        "memory:///named/b.wav": None,
        "memory:///named/gone.wav": "vanished",
    }
    store.put_file(str(write(tmp_path / "there.csv", ["b.wav"])), "memory:///named/there.csv")
    assert reasons("memory://named/there.csv") == reasons("memory://named/*.csv") == {"memory:///named/b.wav": None}


def test_a_corpus_of_all_kinds_at_once_is_indexed(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", sounds(1, 3))
    fsspec.filesystem("memory").pipe_file("memory:///mixture/4.wav", content(4).read_bytes())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "5.wav").write_bytes(content(5).read_bytes())
    (tmp_path / "2.wav").write_bytes(content(2).read_bytes())
    manifest = write(tmp_path / "list.parquet", ["2.wav", "s.tar#1.wav"])
    sources = [str(manifest), str(shard), "memory://mixture", str(tmp_path / "in")]
    config = make_config({"sources": sources, "into": str(tmp_path / "index"), **SECTIONS})
    index_corpus(config, stages=in_place(WideEncoder()))
    files = [Path(row[0]).name for row in live(config.into)["files"] if row[2] is None]
    assert sorted(files) == ["2.wav", "4.wav", "5.wav", "s.tar#1.wav", "s.tar#3.wav"]
    assert verify_index(config.into) == []
    encoder = WideEncoder()
    index_corpus(config, stages=in_place(encoder))
    assert encoder.n_windows == 0


def test_a_manifest_whose_files_are_all_gone_stops_the_run(tmp_path: Path) -> None:
    for number in (3, 5):
        (tmp_path / f"{number}.wav").write_bytes(content(number).read_bytes())
    manifest = write(tmp_path / "list.csv", ["3.wav", "5.wav"])
    config = make_config({"sources": [str(manifest)], "into": str(tmp_path / "index"), **SECTIONS})
    index_corpus(config, stages=in_place(WideEncoder()))
    before = live(config.into)
    for number in (3, 5):
        (tmp_path / f"{number}.wav").rename(tmp_path / f"{number}.hidden")
    for said in (r"none of the 2 files that it names can be read \(there is no such file\): is", r"csv: names no file"):
        with pytest.raises(CorpusError, match=said):
            index_corpus(config, stages=in_place(WideEncoder()))
        write(manifest, [])
    assert live(config.into) == before


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.csv", "path\na.wav\n", "m.csv: a manifest needs a column `uri`, and this has only path"),
        ("m.csv", "uri,label\na.wav,1\n,2\n", "m.csv: row 2 has no uri"),
        ("m.csv", "uri,label\na.wav\n", "m.csv: cannot be read as a table: CSV parse error"),
        ("m.jsonl", '{"uri": 1}\n', "m.jsonl: column `uri` is int64, and should be text"),
        ("m.jsonl", "no json\n", "m.jsonl: cannot be read as a table: JSON parse error"),
        ("m.jsonl", "", "m.jsonl: cannot be read as a table"),
        ("m.parquet", "no parquet", "m.parquet: cannot be read as a table"),
    ],
)
def test_a_manifest_that_is_none_is_told_in_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError) as raised:
        reasons(tmp_path / name)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_row_is_told_by_its_number_however_far_down_it_is(tmp_path: Path) -> None:
    n_rows = 10_001
    uris = ["a.wav"] * n_rows + ["s3://key:secret@bucket/a.wav"]
    with pytest.raises(CorpusError, match=rf"m.jsonl: row {n_rows + 1}: .* credentials belong in the environment"):
        reasons(write(tmp_path / "m.jsonl", uris))
    with pytest.raises(CorpusError, match=rf"m.csv: row {n_rows + 1}: start_s is x, and should be seconds"):
        reasons(write(tmp_path / "m.csv", ["a.wav"] * (n_rows + 1), start_s=["1"] * n_rows + ["x"]))


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
def test_text_that_is_not_utf_8_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    text, where = LATIN[name]
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(CorpusError) as raised:
        reasons(tmp_path / name)
    assert str(raised.value) == f"{tmp_path / name}: {where} is not UTF-8: save the table as UTF-8"


def test_text_of_all_letters_is_taken_wherever_a_piece_of_it_ends(tmp_path: Path) -> None:
    """With the mark at its beginning that spreadsheets write, too."""
    names = [f"{'x' * k}\u00e9\U0001f600.wav" for k in range(8)]
    for begin in ("", "\ufeff"):
        for shift in range(8):
            padding = "uri\n" + "a" * (2**20 - 20 + shift)
            (tmp_path / "m.csv").write_text(begin + padding + "\n" + "\n".join(names) + "\n", encoding="utf-8")
            assert read_table_file(str(tmp_path / "m.csv"))["uri"].to_pylist()[1:] == names


def test_a_manifest_that_a_folder_also_has_is_no_audio(tmp_path: Path) -> None:
    audio, manifest = tmp_path / "a.wav", tmp_path / "m.csv"
    audio.write_bytes(b"sound")
    manifest.write_text(f"uri\n{audio}\n")
    table = list_corpus([str(manifest), str(tmp_path)], CorpusConfig(extensions=["*"]))
    assert table["uri"].to_pylist() == [str(audio)]


# --- quotes -----------------------------------------------------------------------------------------------------------


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
def test_a_quote_that_is_not_closed_is_told_by_its_line(tmp_path: Path, name: str) -> None:
    """It would take the rows behind it for text."""
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
def test_what_is_closed_is_read_as_it_is_meant(tmp_path: Path, name: str) -> None:
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
def test_what_a_writer_quotes_comes_back(cells: list[tuple[str, str]], suffix: str) -> None:
    """Every cell in quotes, as Python's own writer puts it; in tab-separated text, without rows in a cell."""
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
def test_no_row_is_lost_of_tabs(text: str) -> None:
    """A table is refused, or has a row for each line; for fewer only where a cell in quotes has line breaks in it."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "m.tsv").write_bytes(f"uri\tx\n{text}".encode())
        try:
            table = read_table_file(str(path), ["uri", "x"])
        except CorpusError:
            return
    lines = [line for line in text.split("\n") if line]
    n_within = sum((value or "").count("\n") for row in table.to_pylist() for value in row.values())
    assert table.num_rows >= len(lines) - n_within


# --- names of columns -------------------------------------------------------------------------------------------------

HEADERS = ["uri,start_s,end_s", "uri, start_s, end_s", ' uri ,"start_s", "end_s" ', '\ufeff"uri",\tstart_s\t,end_s ']


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_blanks_around_the_names_of_columns_do_not_matter(tmp_path: Path, header: str, suffix: str) -> None:
    """Ranges would be whole files."""
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


def test_names_that_are_the_same_without_blanks_are_there_twice(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,start_s, start_s\na.wav,1,2\n")
    with pytest.raises(CorpusError, match=r"m\.csv: column `start_s` occurs twice"):
        reasons(tmp_path / "m.csv")


def test_a_row_of_json_that_is_none_is_told_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"uri": "a.wav"}\n{"uri": "b.wav}\n')
    with pytest.raises(CorpusError, match=r"m\.jsonl: cannot be read as a table: JSON parse error: .* in row 2$"):
        reasons(tmp_path / "m.jsonl")
