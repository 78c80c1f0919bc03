"""Metadata is read from users' tables: types agree, the first value counts, faults are told in one line."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.config import CorpusConfig
from pipeline.corpus import metadata
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.metadata import read_metadata
from pipeline.errors import CorpusError
from pipeline.run.prepare import plan_corpus
from tests.helpers.metadata import configure, fill, given
from tests.helpers.shards import write_rows, write_table

WRONG: dict[str, tuple[str, str]] = {
    "reserved": ("uri,Codec\na,x\n", r"column `Codec` \('x'\): Earshot's own tables have a column of this name"),
    "nameless": ("uri,\na,x\n", r"column `` \('x'\): a name that no `--where` can use"),
    "dotted": ("uri,a.b\na,x\n", r"column `a.b` \('x'\): a name that no"),
    "twice": ("uri,a,A\na,x,y\n", r"column `A` \('y'\): another column has this name"),
    "engine": ("uri,_rowid\na,1\n", r"column `_rowid` \('1'\): Earshot's own tables have"),
}


@pytest.mark.parametrize("case", WRONG)
def test_column_name_that_sql_cannot_use_is_refused(tmp_path: Path, case: str) -> None:
    text, said = WRONG[case]
    folder = fill(tmp_path / "in", "a")
    (folder / "list.csv").write_text(text)
    with pytest.raises(CorpusError, match=f"list.csv: {said}.*: rename it, or name the columns to keep in"):
        given(configure(tmp_path, folder / "list.csv"))
    config = configure(tmp_path, folder / "list.csv", columns=["other"])
    assert given(config).table.column_names == ["uri"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"uri": "a", "x": [1, 2]}], r"column `x` is list<.*> \('\[1, 2\]'\), which cannot be stored: give text, "),
        ([{"uri": "a", "x": {"y": 1}}], r"column `x` is struct<y: int64> .* which cannot be stored"),
        (
            [{"uri": "a", "x": 1}, {"uri": "b", "x": "two"}],
            r"row 2: column `x` is 'two', string where the rows before have number",
        ),
    ],
)
def test_values_that_cannot_be_stored_are_refused(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    folder = fill(tmp_path / "in", "a", "b")
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CorpusError, match=f"list.jsonl: {said}"):
        given(configure(tmp_path, folder / "list.jsonl"))


def test_manifests_with_contradicting_types_are_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a", "b")
    (folder / "1.jsonl").write_text('{"uri": "a", "x": 1}\n')
    (folder / "2.jsonl").write_text('{"uri": "b", "x": "two"}\n')
    with pytest.raises(CorpusError, match=r"2.jsonl: column `x` is string \('two'\), and in /.*/1.jsonl it is int64"):
        given(configure(tmp_path, folder / "*.jsonl"))
    (folder / "2.jsonl").write_text('{"uri": "b", "X": 2}\n')
    with pytest.raises(
        CorpusError, match=r"2.jsonl: column `X` is int64 \('2'\), and /.*/1.jsonl has `x`, the same name in SQL"
    ):
        given(configure(tmp_path, folder / "*.jsonl"))


def test_types_fit_all_rows(tmp_path: Path) -> None:
    """Not only the rows of the first megabyte count."""
    folder = fill(tmp_path / "in", "a")
    n_rows = 60_000
    uris = ["a", *(f"gone-{number:030d}" for number in range(n_rows - 1))]
    numbers = [*range(n_rows - 1), "last"]
    (folder / "list.csv").write_text("uri,n\n" + "".join(f"{u},{n}\n" for u, n in zip(uris, numbers, strict=True)))
    assert given(configure(tmp_path, folder / "list.csv")).table.schema.field("n").type == pa.string()
    halves = [*range(n_rows - 1), 0.5]
    lines = (json.dumps({"uri": u, "n": n}) for u, n in zip(uris, halves, strict=True))
    (folder / "list.jsonl").write_text("\n".join(lines))
    assert given(configure(tmp_path, folder / "list.jsonl")).table.schema.field("n").type == pa.float64()


def say(*tables: Path | str, **corpus: Any) -> dict[str, list[Any]]:
    """The metadata of some sources: name of a file -> its values, in the order of columns."""
    said = given(configure(Path("/none"), *map(Path, tables), **corpus)).table.to_pylist()
    return {str(row.pop("uri")).rsplit("/", 1)[-1]: list(row.values()) for row in said}


def test_rows_of_audio_tables_have_their_own_values(tmp_path: Path) -> None:
    """Table names share a prefix, files lie between them in the order of uris, and a manifest picks rows and ranges."""
    for number, name in enumerate(("t.parquet", "t.parquet.arrow", "t2.parquet", "T.PARQUET")):
        named = [(f"{(k * 7) % 5}.wav", b"x") for k in range(5)]
        made = write_rows(tmp_path / f"{number}{Path(name).suffix.lower()}", named)
        table = pq.read_table(made) if made.suffix == ".parquet" else pa.ipc.open_stream(made).read_all()
        table = table.set_column(1, "label", pa.array([10 * number + k for k in range(5)]))
        write_table(tmp_path / name, table)
    fill(tmp_path, "t.parquet!")
    (tmp_path / "m.csv").write_text(
        "uri,start_s,end_s\nt2.parquet#1.wav,,\nt2.parquet#1.wav,1,2\nt2.parquet#3.wav,3,\nt.parquet!,,\n"
    )
    found = say(*(tmp_path / name for name in ("t.parquet", "t.parquet.arrow", "T.PARQUET", "m.csv")))
    expected = {f"t.parquet#{(k * 7) % 5}.wav": [k] for k in range(5)}
    expected |= {f"t.parquet.arrow#{(k * 7) % 5}.wav": [10 + k] for k in range(5)}
    expected |= {f"T.PARQUET#{(k * 7) % 5}.wav": [30 + k] for k in range(5)}
    expected |= {"t2.parquet#1.wav": [23], "t2.parquet#1.wav#t=1,2": [23], "t2.parquet#3.wav#t=3": [24]}
    assert found == expected


def test_corpus_is_scanned_once_for_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand tables of a thousand rows are a million look-ups, not a thousand million."""
    n_rows, n_handled = 512, 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal n_handled
            given = [*arguments, *options.values()]
            n_handled += sum(len(one) for one in given if isinstance(one, pa.Array | pa.ChunkedArray))
            return function(*arguments, **options)

        return call

    def count(n_tables: int) -> int:
        nonlocal n_handled
        for number in range(n_tables):
            named = [(f"{k}.wav", b"x") for k in range(n_rows // n_tables)]
            write_rows(tmp_path / str(n_tables) / f"{number}.parquet", named)
        config = configure(tmp_path, tmp_path / str(n_tables) / "*.parquet")
        listed = list_corpus(config.sources, config.corpus)
        n_handled = 0
        assert len(read_metadata(listed, [], config.corpus, pa.schema([])).table) == listed.num_rows == n_rows
        return n_handled

    for name in ("is_in", "index_in", "starts_with", "match_substring", "equal", "invert", "and_", "extract_regex"):
        monkeypatch.setattr(pc, name, counted(getattr(pc, name)))
    few, many = count(2), count(64)
    assert n_rows <= many < 2 * few


class Meeting(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store that opens no file before two are requested."""

    protocol = "meeting"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    together: ClassVar[threading.Barrier | None] = None

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if self.together is not None:
            self.together.wait(10)
        return super()._open(path, mode, **options)


def test_tables_in_a_store_are_read_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("meeting", Meeting, clobber=True)
    for name in ("a.parquet", "b.parquet"):
        path = write_rows(tmp_path / name, [(f"{name}.wav", b"x")])
        fsspec.filesystem("meeting").pipe_file(f"meeting://in/{name}", path.read_bytes())
    listed = list_corpus(["meeting://in/*.parquet"])
    monkeypatch.setattr(Meeting, "together", threading.Barrier(2))
    said = read_metadata(listed, [], CorpusConfig(), pa.schema([]))
    assert (said.notes, said.table["label"].to_pylist()) == ((), [0, 0])


def test_unstorable_columns_beside_audio_are_left_out(tmp_path: Path) -> None:
    """Of columns with the same name, the first one counts."""
    audio = pa.array([{"bytes": b"x", "path": "a.wav"}])
    for suffix in ("parquet", "arrow"):
        names = ["audio", "hash", "label", "label", "mic"]
        columns = [audio, pa.array([2**64 - 1], pa.uint64()), pa.array([1]), pa.array(["two"]), pa.array(["H5"])]
        table = pa.Table.from_arrays(columns, names=names)
        path = write_table(tmp_path / f"t.{suffix}", table)
        config = configure(tmp_path, path)
        [note] = given(config).notes
        assert note.startswith(f"{path}: column `hash` (uint64) cannot be stored as int64: ")
        assert note.endswith(": left out")
        assert say(path) == {f"t.{suffix}#a.wav": [1, "H5"]}


def test_number_of_notes_is_bounded(tmp_path: Path) -> None:
    for number in range(metadata.MOST_NOTES + 5):
        path = write_rows(tmp_path / f"{number:02d}.parquet", [("a.wav", b"x")])
        table = pq.read_table(path)
        pq.write_table(table.set_column(1, "hash", pa.array([2**64 - 1], pa.uint64())), path)
    notes = given(configure(tmp_path, tmp_path / "*.parquet")).notes
    assert len(notes) == metadata.MOST_NOTES
    assert notes[-1] == "and 6 more such lines"


def test_first_of_several_values_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result equals a loop over the rows, for any order, type and chunks."""
    monkeypatch.setattr(metadata, "ROWS_AT_ONCE", 3)
    rng = random.Random(5)
    for n_rows in (2, 3, 5, 40, 40, 40):
        rows = [(f"/{rng.randrange(8)}", rng.choice([None, "x", "y"]), rng.choice([None, 1, 2])) for _ in range(n_rows)]
        by_hand: dict[str, list[Any]] = {}
        several: list[dict[str, Any]] = [{}, {}]
        for uri, *row in rows:
            held = by_hand.setdefault(uri, [None, None])
            for k, value in enumerate(row):
                if held[k] is None:
                    held[k] = value
                elif value not in (None, held[k]):
                    several[k][uri] = held[k]
        kinds = pa.schema([("uri", pa.string()), ("word", pa.string()), ("n", pa.int64())])
        tables = [pa.Table.from_pylist([dict(zip(kinds.names, row, strict=True))], schema=kinds) for row in rows]
        table, notes = metadata._first_values(pa.concat_tables(tables))
        assert table.schema == kinds
        assert table.to_pylist() == [{"uri": uri, "word": word, "n": number} for uri, (word, number) in by_hand.items()]
        for name, those in zip(("word", "n"), several, strict=True):
            have = "1 file has" if len(those) == 1 else f"{len(those)} files have"
            said = [note for note in notes if note.startswith(f"column `{name}`: {have} several")]
            assert len(said) == bool(those)
            first = next((uri for uri in by_hand if uri in those), "")
            assert all(note.endswith(f"the first one counts: '{those[first]}' for {first}") for note in said)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["uri", "start_s", "mic"])
@pytest.mark.parametrize("role", ["manifest", "sidecar"])
def test_duplicate_column_is_refused(tmp_path: Path, suffix: str, name: str, role: str) -> None:
    folder = fill(tmp_path / "in", "a.wav")
    names = ["uri", name, name] if name != "uri" else ["uri", "uri"]
    values = {"uri": "a.wav", "start_s": 1, "mic": "H5"}
    path = folder / f"list.{suffix}"
    if suffix == "jsonl":
        path.write_text("{" + ", ".join(f'"{n}": {json.dumps(values[n])}' for n in names) + "}\n")
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_arrays([pa.array([values[n]]) for n in names], names=names), path)
    else:
        mark = "," if suffix == "csv" else "\t"
        path.write_text(f"{mark.join(names)}\n{mark.join(str(values[n]) for n in names)}\n")
    config = configure(tmp_path, folder, metadata=str(path)) if role == "sidecar" else configure(tmp_path, path)
    with pytest.raises(CorpusError) as raised:
        given(config)
    where = f"{path}: row 1" if suffix == "jsonl" else path
    assert str(raised.value) == (f"{where}: column `{name}` occurs twice: rename or remove one of them")


def test_columns_without_name_and_values_are_left_out(tmp_path: Path) -> None:
    """Spreadsheets leave such columns at the side."""
    folder = fill(tmp_path / "in", "a.wav")
    (folder / "list.csv").write_text("uri,mic,,\na.wav,H5,,\n")
    assert say(folder / "list.csv") == {"a.wav": ["H5"]}
    (folder / "list.csv").write_text("uri,mic,n,n\na.wav,H5,1,2\n")
    assert say(folder / "list.csv", columns=["mic"]) == {"a.wav": ["H5"]}


def test_tsv_is_read_like_csv(tmp_path: Path) -> None:
    """This covers texts that look like numbers, and times of day."""
    folder = fill(tmp_path / "in", "a.wav", "b.wav")
    (folder / "one.tsv").write_text("uri\tid\tat\tremark\na.wav\t007\t9:30\tloud, near\n")
    (folder / "two.csv").write_text("uri,id\nb.wav,X8\n")
    (folder / "about.tsv").write_text("uri\tmic\na.wav\tH5\n")
    found = say(folder / "*e.tsv", folder / "two.csv", metadata=str(folder / "about.tsv"))
    assert found == {"a.wav": ["H5", "007", "9:30", "loud, near"], "b.wav": [None, "X8", None, None]}


def test_metadata_table_is_known_by_its_extension(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a.wav")
    (folder / "about.json").write_text('[{"uri": "a.wav"}]')
    with pytest.raises(
        CorpusError, match=r"about.json: is no table by its name: give CSV .* \(.jsonl, .ndjson: an obj"
    ):
        given(configure(tmp_path, folder, metadata=str(folder / "about.json")))


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ("uri,start,end", {"start": "metadata", "end": "metadata"}),
        ("uri,start s,end-s", {"start s": "metadata", "end-s": "metadata"}),
        ("uri,Begin_Time,stop_ms", {"Begin_Time": "metadata", "stop_ms": "metadata"}),
        ("uri,offset_s,duration", {"offset_s": "metadata"}),
        ("uri,start_s,end", {"end": "metadata"}),
        ("uri,start_s,end_s", {}),
        ("uri,gender,starter", {}),
    ],
)
def test_columns_like_start_and_end_are_noted(tmp_path: Path, header: str, meant: dict[str, str]) -> None:
    folder = fill(tmp_path / "in", "a.wav")
    table = folder / "list.csv"
    table.write_text(f"{header}\na.wav,0.1,0.5\n")
    for config in (configure(tmp_path, table), configure(tmp_path, folder, metadata=str(table))):
        if "start_s" in header and config.corpus.metadata:
            continue  # ranges, and the folder has none
        notes = plan_corpus(config).notes
        end = "a range is given by `start_s` and `end_s`"
        assert list(notes) == [f"{table}: column `{name}` is {what}; {end}" for name, what in meant.items()]


def test_columns_like_start_left_out_by_choice_are_noted(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a.wav")
    (table := folder / "list.csv").write_text("uri,start,End_s\na.wav,0.1,0.5\n")
    notes = plan_corpus(configure(tmp_path, table, columns=["start"])).notes
    assert list(notes) == [f"{table}: column `End_s` is left out; a range is given by `start_s` and `end_s`"]


def test_column_start_s_in_capitals_is_refused_with_advice(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a.wav")
    (table := folder / "list.csv").write_text("uri,Start_s\na.wav,0.1\n")
    with pytest.raises(CorpusError, match=r"`Start_s` \('0\.1'\): .*: rename it, to `start_s` if it gives time"):
        plan_corpus(configure(tmp_path, table))
