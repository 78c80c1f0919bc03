"""Tables that are made to fill memory take hardly more of it than harmless ones of the same size on disk."""

import json
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.bench.hostile_tables import (
    MIB,
    make_audio,
    write_arrow,
    write_json_row,
    write_large_page,
    write_long_name_json,
    write_many_rows,
    write_nested_json,
    write_repeated_uris,
    write_shared_sound,
    write_sparse_json,
    write_wide_csv,
    write_wide_list,
)
from pipeline.corpus import table_limits, text_limits
from pipeline.corpus.audio_rows import read_row
from pipeline.corpus.audio_tables import list_rows
from pipeline.corpus.table_columns import Memory, read_columns
from pipeline.corpus.table_files import read_table_file
from pipeline.errors import CorpusError
from tests.helpers.processes import measure_peak
from tests.helpers.shards import TABLES, write_table

MOST_RATIO = 1.5
"""A process that has imported pyarrow takes 80 to 130 MB, and each attack at least as much more where it is read."""

LIST = """
import sys
from pipeline.corpus.discover import list_corpus
print(list_corpus(sys.argv[1:]).num_rows)
"""

READ = """
import sys
from pipeline.corpus.audio_rows import read_row
try:
    print(sum(len(read_row(sys.argv[1], number)) for number in range(int(sys.argv[2]))))
except Exception as error:
    print(error)
"""

READ_MANIFEST = """
import sys
from pipeline.corpus.table_files import read_table_file
try:
    print(read_table_file(sys.argv[1]).num_rows)
except Exception as error:
    print(error)
"""


def write_noise(path: Path, size_bytes: int) -> Path:
    """A harmless table of about ``size_bytes``, with audio."""
    draw = np.random.default_rng(1)
    n_rows = max(1, size_bytes // MIB)
    sounds = [draw.bytes(size_bytes // n_rows) for _ in range(n_rows)]
    return write_table(path, pa.table({"audio": make_audio(sounds)}), row_group_size=10)


def compare(program: str, attack: Path, harmless: Path, *arguments: object) -> tuple[str, str]:
    """What a program prints about both, if its peak of memory is about the same."""
    (said, peak), (said_of_harmless, usual) = (measure_peak(program, one, *arguments) for one in (attack, harmless))
    assert peak < MOST_RATIO * usual
    assert attack.stat().st_size < 1.1 * harmless.stat().st_size
    return said, said_of_harmless


# --- Arrow ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_arrow_is_listed_batch_by_batch(tmp_path: Path, codec: str) -> None:
    """Its 142 MB are within its limit, which is eight times the size of the file."""
    draw = np.random.default_rng(1)
    sounds = [*(draw.bytes(MIB) for _ in range(18)), *[bytes(10 * MIB)] * 12]
    attack = write_arrow(tmp_path / "a.arrow", pa.table({"audio": make_audio(sounds)}), codec, 1)
    assert compare(LIST, attack, write_noise(tmp_path / "b.arrow", 19 * MIB))[0] == "30"


def test_compressed_tables_are_listed_one_after_another(tmp_path: Path) -> None:
    """Sixteen threads list tables, and a batch of each may be 64 MB."""
    paths = []
    for kind, n_bytes in (("attack", 50 * MIB), ("harmless", 6_000)):
        table = pa.table({"audio": make_audio([bytes(n_bytes)])})
        paths.append([write_arrow(tmp_path / f"{kind}{k}.arrow", table, "zstd", 1) for k in range(8)])
    (said, peak), (_, usual) = (measure_peak(LIST, *some) for some in paths)
    assert said == "8"
    assert peak < 2.5 * usual


def test_rows_of_compressed_arrow_are_read_in_any_order(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    sounds = [draw.bytes(1_000 + number) + bytes(1_000) for number in range(12)]
    table = pa.table({"label": pa.array(["a", "b", "c"] * 4).dictionary_encode(), "audio": make_audio(sounds)})
    path = write_arrow(tmp_path / "a.arrow", table, "zstd", 5)
    for number in (0, 1, 7, 3, 11, 10, 11, 0):
        assert read_row(str(path), number) == sounds[number]
    assert [(row.name, row.size_bytes) for row in list_rows(str(path))] == [
        (f"{number}.wav", len(sound)) for number, sound in enumerate(sounds)
    ]
    assert read_columns(str(path), lambda column: True, Memory())[0]["label"].to_pylist() == ["a", "b", "c"] * 4


def move_offsets(path: Path, n_rows: int, width: int) -> None:
    """Let all texts of a column lie a gigabyte behind their beginning, by the offsets of texts of ``width`` letters."""
    offsets = [width * number for number in range(n_rows + 1)]
    data = path.read_bytes()
    known, moved = (struct.pack(f"<{n_rows + 1}i", *(add + each for each in offsets)) for add in (0, 2**30))
    assert data.count(known) == 1
    path.write_bytes(data.replace(known, moved))


@pytest.mark.parametrize("column", ["names", "bytes", "title"])
def test_values_outside_the_table_end_no_process(tmp_path: Path, column: str) -> None:
    n_rows = 100
    widths = {"names": 6, "bytes": 7, "title": 8}
    audio = pa.array([{"bytes": b"x" * widths["bytes"], "path": f"{k:0>6}"} for k in range(n_rows)])
    table = pa.table({"audio": audio, "title": [f"{k:0>8}" for k in range(n_rows)]})
    path = write_table(tmp_path / "file.arrow", table)
    move_offsets(path, n_rows, widths[column])
    program = (
        "import sys; from pipeline.corpus.audio_tables import list_rows\n"
        "from pipeline.corpus.audio_rows import read_row\n"
        "from pipeline.corpus.table_columns import Memory, read_columns\n"
        "for read in (lambda path: list(list_rows(path)), lambda path: read_row(path, 50)):\n"
        "    try: read(sys.argv[1])\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print(len(read_columns(sys.argv[1], lambda column: True, Memory())[1]))\n"
    )
    said, _ = measure_peak(program, path)
    assert said.split() == (["1"] if column == "title" else ["ArrowInvalid", "ArrowInvalid", "0"])


# --- Parquet with audio -----------------------------------------------------------------------------------------------


def write_large_dictionary(path: Path) -> Path:
    values = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), [bytes(100 * MIB)])
    names = pa.array(["a.wav"])
    table = pa.table({"audio": pa.StructArray.from_arrays([values, names], ["bytes", "path"])})
    return write_table(path, table, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**30)


@pytest.mark.parametrize("write", [write_large_page, write_large_dictionary])
def test_large_pages_of_audio_are_refused(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    attack = write(tmp_path / "a.parquet")
    said, _ = compare(READ, attack, write_noise(tmp_path / "b.parquet", MIB), 1)
    assert said.startswith("a page of 104,857,6")
    assert said.endswith("bytes; 67,108,864 are read")


def test_rows_that_share_a_value_are_read_one_by_one(tmp_path: Path) -> None:
    """Rows of the same 8 MB take a few kilobytes on disk."""
    n_rows = 40
    options = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 2**30}
    attack = write_shared_sound(tmp_path / "a.parquet", n_rows)
    harmless = write_table(tmp_path / "b.parquet", pa.table({"audio": make_audio([bytes(8 * MIB)] * 2)}), **options)
    (said, peak), (_, usual) = measure_peak(READ, attack, n_rows), measure_peak(READ, harmless, 2)
    assert said == str(n_rows * 8 * MIB)
    assert peak < MOST_RATIO * usual


def test_audio_in_pages_of_any_size_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers of pages lie anywhere in the blocks that are read."""
    monkeypatch.setattr(table_limits, "LITTLE_BYTES", 1)
    draw = np.random.default_rng(1)
    sounds = [draw.bytes(int(size)) for size in draw.integers(1, 300_000, 60)]
    for number, page_bytes in enumerate((1, 100_000, 10**9)):
        options = {"data_page_size": page_bytes, "write_batch_size": 1, "row_group_size": 25, "compression": "zstd"}
        path = write_table(tmp_path / f"{number}.parquet", pa.table({"audio": make_audio(sounds)}), **options)
        assert [read_row(str(path), row) for row in range(60)] == sounds


def test_damaged_page_of_audio_fails_alone(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    sounds = [draw.bytes(100_000) for _ in range(9)]
    options = {"use_dictionary": False, "compression": "none", "row_group_size": 3}
    path = write_table(tmp_path / "a.parquet", pa.table({"audio": make_audio(sounds)}), **options)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset : chunk.data_page_offset + 8] = b"\xff" * 8
    path.write_bytes(data)
    assert read_row(str(path), 2) == sounds[2]
    with pytest.raises(CorpusError, match="an invalid page at byte"):
        read_row(str(path), 4)
    assert read_row(str(path), 6) == sounds[6]


# --- manifests --------------------------------------------------------------------------------------------------------


NO_OBJECT = "line 1 is not one whole object: JSON lines have an object on each line"


def rewrite(path: Path, old: str, new: str, count: int = -1) -> Path:
    """A file of text with some of it replaced."""
    path.write_text(path.read_text().replace(old, new, count))
    return path


MANIFESTS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "repeated uris": (".parquet", write_repeated_uris, "over 1,073,741,824 bytes in memory, with its column `uri`"),
    "many rows": (".parquet", write_many_rows, "5,000,000 rows in a file of"),
    "wide list": (".parquet", write_wide_list, "over 1,073,741,824 bytes in memory, with its column `x`"),
    "sparse rows": (".jsonl", write_sparse_json, "columns for 200,002 rows: leave out those that few rows have"),
    "nested rows": (".jsonl", write_nested_json, "columns for 200,002 rows: leave out those that few rows have"),
    "long name": (".jsonl", write_long_name_json, "columns for 200,002 rows: leave out those that few rows have"),
    "rows that span lines": (".jsonl", lambda path: rewrite(write_sparse_json(path), "{", "{\n", 1), NO_OBJECT),
    "rows on one line": (".jsonl", lambda path: rewrite(write_sparse_json(path), "\n", " "), NO_OBJECT),
    "wide row": (".csv", write_wide_csv, "over 10,000 columns"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifests_that_would_fill_memory_are_refused(tmp_path: Path, kind: str) -> None:
    suffix, write, expected = MANIFESTS[kind]
    attack = write(tmp_path / f"attack{suffix}")
    harmless = tmp_path / f"harmless{suffix}"
    n_rows = 10 + attack.stat().st_size // 9
    uris = [f"{number:0>8}" for number in range(n_rows)]
    if suffix == ".parquet":
        pq.write_table(pa.table({"uri": uris, "n": range(n_rows)}), harmless)
    else:
        harmless.write_text(
            "".join(f'{{"uri":"{uri}"}}\n' for uri in uris) if suffix == ".jsonl" else "\n".join(["uri", *uris])
        )
    said, _ = compare(READ_MANIFEST, attack, harmless)
    assert said.startswith(f"{attack}: ")
    assert expected in said
    assert "\n" not in said


DEEP = "[" * 600 + "]" * 600
DEEP_OBJECTS = '{"y":' * 600 + "1" + "}" * 600


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f'{{"uri":"{"x" * 200_000}"}}', "a row of over 150,000 bytes: JSON lines have an object on each line"),
        (json.dumps({"uri": "a.wav"} | {f"k{number}": 1 for number in range(10_001)}), "over 10,000 columns for "),
        (f'{{"uri":"a.wav","x":{DEEP}}}', "a row of over 500 lists and objects in each other"),
        (
            f'{{"uri":"a.wav","x":{DEEP_OBJECTS}}}',
            "a row of over 500 lists and objects",
        ),
        (f'{{"uri":"a.wav","x":[{"0," * 50_000}0]}}', "a row of over 50,000 values"),
        (
            f'{{"n":{"9" * 5_000},{json.dumps({f"k{number}": 1 for number in range(10_001)})[1:]}',
            "over 10,000 columns for ",
        ),
    ],
)
@pytest.mark.parametrize("n_before", [0, 3])
def test_single_rows_of_json_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, said: str, n_before: int
) -> None:
    monkeypatch.setattr(text_limits, "MOST_ROW_BYTES", 150_000)
    monkeypatch.setattr(text_limits, "MOST_ROW_VALUES", 50_000)
    path = tmp_path / "a.jsonl"
    for end in ("\n", "", '\n{"uri":"b.wav"}'):
        path.write_text('{"uri":"c.wav"}\n' * n_before + row + end)
        with pytest.raises(CorpusError, match=rf"a\.jsonl: {re.escape(said)}"):
            read_table_file(str(path))


@pytest.mark.parametrize("begin", ["null\n", ' \n null, {"uri": "a.wav"}\n', "\ufeffnull", "lists"])
def test_json_that_its_parser_does_not_survive_ends_no_process(tmp_path: Path, begin: str) -> None:
    lists = '{"uri":"a.wav","x":' + "[\n" * 20_000 + "]" * 20_000 + "}\n"
    (tmp_path / "a.jsonl").write_text((lists if begin == "lists" else begin) + '{"uri": "a.wav"}\n')
    said, _ = measure_peak(READ_MANIFEST, tmp_path / "a.jsonl")
    line = 2 if begin.startswith(" ") else 1
    assert said.endswith(f"a.jsonl: line {line} is not one whole object: JSON lines have an object on each line")


@pytest.mark.parametrize(
    "line",
    [
        '{"uri":"a.wav"} {"uri":"b.wav"}',
        '{"uri":"a.wav"},',
        '[{"uri":"a.wav"}]',
        "null",
        "1",
        '"{}"',
        '{"uri":',
        '"a.wav"}',
        '{"uri":"a.wav}',
        '{"uri":["a.wav"}',
        '{"uri":[[[["a.wav"]]]]} {}',
        '{"uri":[[[["a.wav"]]]}',
        "\ufeff{}",
    ],
)
def test_each_line_of_json_is_one_object(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"uri":"a.wav"}\n\n' + line + '\n{"uri":"b.wav"}\n')
    with pytest.raises(CorpusError, match=r"a\.jsonl: line 3 is not one whole object"):
        read_table_file(str(tmp_path / "a.jsonl"))


VALUES = st.recursive(
    st.none() | st.integers() | st.text('a"\\[]{},:\n\u2028\u00e9', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab[}"', max_size=2), inner, max_size=3),
    max_leaves=20,
)


@given(rows=st.lists(st.fixed_dictionaries({"x": VALUES}), min_size=1, max_size=4), end=st.sampled_from(["\n", "\r\n"]))
def test_honest_rows_of_json_pass(rows: list[dict[str, Any]], end: str) -> None:
    """Whatever they hold, with blank lines, a byte order mark, and a last line without its end."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    for text in (end.join(lines), "\ufeff" + end.join(lines) + end, f"{end} \t{end}".join(lines) + 2 * end):
        text_limits.check_json(text.encode())
    with pytest.raises(CorpusError, match=f"line {len(rows)} is not one whole object"):
        text_limits.check_json(end.join([*lines[:-1], 2 * lines[-1]]).encode())
    with pytest.raises(CorpusError, match=f"line {len(rows)} is not one whole object"):
        text_limits.check_json(end.join([*lines[:-1], lines[-1][:-1]]).encode())


def test_rows_of_json_that_look_alike_are_parsed_once() -> None:
    """Beside many rows, few names count: 20,000 rows of 4 names are looked at, but not one by one."""
    rows = (f'{{"uri":"{k}.wav","x":{{"y":[{k}],"\\"}}":"{{\\"a\\":1}}"}}}}\n' for k in range(20_000))
    data = "".join(rows).encode()
    assert count_calls(lambda: text_limits.check_json(data)) < 1_000


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_honest_rows_of_json_are_read(tmp_path: Path, end: str) -> None:
    rows = [{"uri": f"{number}.wav", "x": {"y": [[{"z": '"]}'}]]}} for number in range(5)]
    lines = [json.dumps(row) for row in rows]
    for text in (end.join(lines), "\ufeff" + end.join(lines) + end, f" {end}{end}\t".join(lines) + 2 * end):
        (tmp_path / "a.jsonl").write_bytes(text.encode())
        assert read_table_file(str(tmp_path / "a.jsonl")).to_pylist() == rows


def test_texts_of_json_may_look_deep(tmp_path: Path) -> None:
    rows = [{"uri": f"{number}.wav", "x": '\\"[{' * 400} for number in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_table_file(str(tmp_path / "a.jsonl")).to_pylist() == rows


def test_json_without_lines_is_not_read_whole(tmp_path: Path) -> None:
    """It is sparse: only its beginning lies on the disk."""
    write_json_row(tmp_path / "a.jsonl", 3 * 2**30)
    said, peak = measure_peak(READ_MANIFEST, tmp_path / "a.jsonl")
    assert "a row of over 67,108,864 bytes: JSON lines have an object on each line" in said
    assert peak < 600 * MIB


def test_honest_tables_have_room(tmp_path: Path) -> None:
    """Texts that repeat, and columns that few rows have."""
    n_rows = 60_000
    table = pa.table({"uri": [f"{k}.wav" for k in range(n_rows)], "place": ["somewhere far away"] * n_rows})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert measure_peak(READ_MANIFEST, tmp_path / "a.parquet")[0] == str(n_rows)
    rows = (f'{{"uri":"{number}.wav","only{number % 100}":"{{\\"a\\": 1}}"}}\n' for number in range(n_rows))
    (tmp_path / "a.jsonl").write_text("".join(rows))
    assert measure_peak(READ_MANIFEST, tmp_path / "a.jsonl")[0] == str(n_rows)


def test_footer_with_invalid_columns_ends_no_process(tmp_path: Path) -> None:
    """Of the last group, counts of levels have another length than the column has levels."""
    table = pa.table({"uri": ["a.wav", None, "b.wav"] * 4, "x": pa.array([[1], None, [2, 3]] * 4)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3, compression="none")
    data = (tmp_path / "a.parquet").read_bytes()
    footer = data[: -8 - int.from_bytes(data[-8:-4], "little")], data[-8 - int.from_bytes(data[-8:-4], "little") :]
    counts = b"\x26\x02\x04"  # a list of two integers: 1 null, 2 values
    at = footer[1].rfind(counts)
    assert at > 0
    broken = footer[1][:at] + b"\x16\x02" + footer[1][at + 3 : -8]
    (tmp_path / "a.parquet").write_bytes(footer[0] + broken + len(broken).to_bytes(4, "little") + b"PAR1")
    said, _ = measure_peak(READ_MANIFEST, tmp_path / "a.parquet")
    assert "histogram size mismatch" in said


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    uris = pa.StringArray.from_buffers(2, *pa.array([b"a.wav", b"\xff.wav"]).buffers()[1:])
    pq.write_table(pa.table({"uri": uris}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet: cannot be read as a table: .*UTF8"):
        read_table_file(str(tmp_path / "a.parquet"))


def test_columns_of_one_name_are_few(tmp_path: Path) -> None:
    names = ["uri"] + ["n"] * 11
    pq.write_table(pa.table([["a.wav"]] * len(names), names=names), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet: 11 columns `n`; 10 of one name are read"):
        read_table_file(str(tmp_path / "a.parquet"))
    pq.write_table(pa.table([[str(number)] for number in range(10)], names=names[-10:]), tmp_path / "a.parquet")
    assert [column.to_pylist() for column in read_table_file(str(tmp_path / "a.parquet")).columns] == [
        [str(number)] for number in range(10)
    ]


def count_calls(work: Callable[[], object]) -> int:
    """Calls of functions, of Python and of C: unlike time, the same on each machine."""
    n_calls = 0

    def count(*_: object) -> None:
        nonlocal n_calls
        n_calls += 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return n_calls


@pytest.mark.parametrize("holds_audio", [True, False])
def test_many_columns_take_time_in_proportion(tmp_path: Path, holds_audio: bool) -> None:
    path = tmp_path / "a.parquet"

    def work(n_columns: int) -> int:
        columns: dict[str, Any] = {f"c{number}": ["x"] * 4 for number in range(n_columns)}
        columns |= {"audio": make_audio([b"x"] * 4)} if holds_audio else {}
        pq.write_table(pa.table(columns), path, row_group_size=2)
        if holds_audio:
            return count_calls(lambda: read_columns(str(path), lambda column: True, Memory()))
        return count_calls(lambda: read_table_file(str(path)))

    work(10)  # imports
    assert work(1_200) < 4 * work(400)


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_audio_with_too_many_columns_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_limits, "MOST_COLUMNS", 7)
    columns: dict[str, Any] = {"audio": make_audio([b"x"])} | {f"c{number}": [1] for number in range(8)}
    path = write_table(tmp_path / name, pa.table(columns))
    with pytest.raises(CorpusError, match=r"\d+ columns; 7 are read"):
        list(list_rows(str(path)))
    assert len(list(list_rows(str(write_table(path, pa.table(columns).drop_columns(["c5", "c6", "c7"])))))) == 1
