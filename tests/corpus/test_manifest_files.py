"""The files and time ranges that a manifest names are looked up, many objects of one folder at once."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.audio.source import resolve_uri
from pipeline.corpus import manifest_files
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.manifest_files import list_manifest
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import CorpusError, FileFailure
from tests.helpers.corpora import TimedRow, list_rows, write_ranges
from tests.helpers.shards import write_shard
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky


def test_folder_with_far_more_objects_is_not_listed_to_its_end(
    flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_files, "MANY", 2)
    monkeypatch.setattr(manifest_files, "SEEN_PER_WANTED", 3)
    for k in range(10):
        put(f"{flaky}/{k}.wav", b"a")
    (tmp_path / "m.csv").write_text(f"uri\n{flaky}/2.wav\n{flaky}/8.wav\n")
    Flaky.calls.clear()
    rows = list_corpus([str(tmp_path / "m.csv")]).to_pylist()
    assert [(row["size_bytes"], row["reason"]) for row in rows] == [(1, None)] * 2
    assert Flaky.calls["info"] == 1  # of the one that had not come after six


@pytest.mark.parametrize("kind", ["flaky", "s3"])
def test_many_objects_of_a_folder_are_looked_up_by_listing_it(
    kind: str, flaky: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue("bucket") if kind == "s3" else flaky
    uris = [f"{base}/many/{k}.wav" for k in range(manifest_files.MANY)] + [f"{base}/few/{k}.wav" for k in range(3)]
    for uri in uris:
        fsspec.filesystem(kind).pipe_file(uri, uri.encode())
    manifest = tmp_path / "corpus.csv"
    manifest.write_text("\n".join(["uri", *uris, f"{base}/many/gone.wav"]))
    asked: list[str] = []

    def stat_file(path: str) -> tuple[int, int]:
        asked.append(path)
        return storage.stat_file(path)

    rows = {row["uri"]: row for row in list_manifest(str(manifest), stat_file)}
    assert len(asked) == 4  # the few, and the one that is missing
    assert rows[storage.absolute(f"{base}/many/gone.wav")]["reason"] == "vanished"
    for uri in uris:
        row = rows[storage.absolute(uri)]
        assert (row["size_bytes"], row["modified_ns"]) == storage.stat_file(uri)
    for n_errors, error in ((4, OSError("no")), (1, PermissionError("forbidden"))):  # then each is asked for
        Flaky.errors["ls"] = [error] * n_errors
        if kind == "flaky":
            assert list_corpus([str(manifest)]).num_rows == len(rows)
            assert not Flaky.errors["ls"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_with_times_are_time_ranges(tmp_path: Path, suffix: str) -> None:
    """Overlapping ranges and the whole recording are listed side by side, equal ranges once."""
    (tmp_path / "a.wav").write_bytes(b"sound")
    (tmp_path / "b#t=1.wav").write_bytes(b"other")
    rows: list[TimedRow] = [
        ("a.wav", 10, 20.5),
        ("a.wav", None, None),
        ("a.wav", 0, 20),
        ("b#t=1.wav", 0.1, None),
        ("a.wav", 15, 25),
        ("./a.wav", 10.0, 20.5),
        ("a.wav", 0, None),
        ("gone.wav", 1, 2),
    ]
    found = list_rows(write_ranges(tmp_path / f"list.{suffix}", *rows))
    assert [(Path(row["uri"]).name, row["start_s"], row["end_s"], row["reason"]) for row in found] == [
        ("a.wav", None, None, None),
        ("a.wav#t=,20", None, 20.0, None),
        ("a.wav#t=10,20.5", 10.0, 20.5, None),
        ("a.wav#t=15,25", 15.0, 25.0, None),
        ("b#t=1.wav#t=0.1", 0.1, None, None),
        ("gone.wav#t=1,2", 1.0, 2.0, "vanished"),
    ]
    assert {row["size_bytes"] for row in found} == {5, 0}


def test_times_are_read_from_any_number_type_and_text(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    for number, kind in enumerate([pa.int8(), pa.float32(), pa.float64(), pa.string(), pa.decimal128(9, 3)]):
        values = [1, 2] if kind == pa.int8() else ["1.1", "2.3"]
        columns = {name: pa.array([value]).cast(kind) for name, value in zip(("start_s", "end_s"), values, strict=True)}
        pq.write_table(pa.table({"uri": ["a.wav"], **columns}), tmp_path / f"{number}.parquet")
        [row] = list_rows(tmp_path / f"{number}.parquet")
        assert row["uri"].endswith("a.wav#t=1,2" if kind == pa.int8() else "a.wav#t=1.1,2.3")
    nothing = pa.table({"uri": ["a.wav"], "start_s": pa.nulls(1), "end_s": pa.nulls(1)})
    pq.write_table(nothing, tmp_path / "none.parquet")
    assert [row["uri"] for row in list_rows(tmp_path / "none.parquet")] == [str(tmp_path / "a.wav")]


def test_members_and_objects_have_time_ranges(tmp_path: Path, flaky: str) -> None:
    shard = write_shard(tmp_path / "s.tar", [("a.wav", b"sound"), ("b.wav#t=1,2", b"other")])
    url = storage.absolute(put(f"{flaky}/c.wav", b"third"))
    rows: list[TimedRow] = [
        ("s.tar#a.wav", 1, 2),
        ("s.tar#a.wav", None, None),
        (url, 3, None),
        ("s.tar#none.wav", 1, 2),
    ]
    manifest = write_ranges(tmp_path / "m.jsonl", *rows, ("s.tar#b.wav#t=1,2", 5, 6))
    found = {row["uri"]: row for row in list_rows(manifest)}
    assert {uri: row["reason"] for uri, row in found.items()} == {
        f"{shard}#a.wav": None,
        f"{shard}#a.wav#t=1,2": None,
        f"{shard}#b.wav#t=1,2#t=5,6": None,
        f"{shard}#none.wav#t=1,2": "vanished",
        f"{url}#t=3": None,
    }
    assert found[f"{shard}#a.wav"]["offset"] == found[f"{shard}#a.wav#t=1,2"]["offset"] is not None
    place, part, _ = resolve_uri(f"{shard}#a.wav#t=1,2")
    assert (place, part) == (resolve_uri(f"{shard}#a.wav")[0], TimeRange(1.0, 2.0))
    assert resolve_uri(f"{shard}#b.wav#t=1,2")[1] == TimeRange()
    with pytest.raises(FileFailure, match="no such member"):
        resolve_uri(f"{shard}#none.wav#t=1,2")


def test_uris_of_an_index_make_a_manifest(tmp_path: Path) -> None:
    """A name that no file has is read as that of a time range."""
    shard = write_shard(tmp_path / "s.tar", [("a.wav", b"sound")])
    for name in ("a.wav", "b.wav#t=1"):
        (tmp_path / name).write_bytes(b"sound")
    uris = ["a.wav#t=1,2", "a.wav#t=2.0", "b.wav#t=1", "b.wav#t=1#t=,5", f"{shard}#a.wav#t=3", "gone.wav#t=1"]
    table = pa.table({"uri": [*uris, "a.wav#t=1,2"], "end_s": [*[None] * len(uris), 3.0]})
    pq.write_table(table, tmp_path / "list.parquet")
    found = list_rows(tmp_path / "list.parquet")
    assert {Path(row["uri"]).name: (row["start_s"], row["end_s"], row["reason"]) for row in found} == {
        "a.wav#t=1,2": (1.0, 2.0, None),
        "a.wav#t=1,2#t=,3": (None, 3.0, "vanished"),
        "a.wav#t=2": (2.0, None, None),
        "b.wav#t=1": (None, None, None),
        "b.wav#t=1#t=,5": (None, 5.0, None),
        "s.tar#a.wav#t=3": (3.0, None, None),
        "gone.wav#t=1": (1.0, None, "vanished"),
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.wav,x,", "row 2: start_s is x, and should be seconds from 0 on, or empty"),
        ("a.wav,1,nan", "row 2: end_s is nan, and should be seconds"),
        ("a.wav,1,inf", "row 2: end_s is inf, and should be seconds"),
        ("a.wav,-0.5,", "row 2: start_s is -0.5, and should be seconds"),
        ("a.wav,2,1.5", "row 2: end_s (1.5) is not after start_s (2.0)"),
        ("a.wav,2,2", "row 2: end_s (2.0) is not after start_s (2.0)"),
        ("a.wav,,0", "row 2: end_s (0.0) is not after start_s (0.0)"),
        ("s.tar,1,2", "row 2: s.tar is a shard: give ranges of the files in it"),
    ],
)
def test_wrong_range_is_an_error_of_one_line(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "m.csv").write_text(f"uri,start_s,end_s\na.wav,1,2\n{row}\n")
    with pytest.raises(CorpusError) as raised:
        list_rows(tmp_path / "m.csv")
    assert f"m.csv: {said}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_times_of_other_types_are_refused(tmp_path: Path) -> None:
    for column, said in ((pa.array([True]), "row 1: start_s is true"), (pa.array([{"a": 1}]), "column start_s is str")):
        pq.write_table(pa.table({"uri": ["a.wav"], "start_s": column}), tmp_path / "m.parquet")
        with pytest.raises(CorpusError, match=said):
            list_rows(tmp_path / "m.parquet")


def test_file_named_like_a_listed_range_is_refused(tmp_path: Path) -> None:
    for name in ("a.wav", "a.wav#t=1,2"):
        (tmp_path / name).write_bytes(b"sound")
    manifest = write_ranges(tmp_path / "m.csv", ("a.wav", 1, 2))
    assert len(list_rows(manifest)) == 1
    for other in (tmp_path / "a.wav#t=1,2", write_ranges(tmp_path / "n.csv", ("a.wav#t=1,2", None, None))):
        with pytest.raises(CorpusError, match=r"a\.wav#t=1,2: the name of a file, and of a range"):
            list_rows(manifest, other)


def test_name_that_no_file_can_have_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    pq.write_table(pa.table({"uri": ["a.wav", "b\0c.wav"]}), tmp_path / "m.parquet")
    rows = {Path(row["uri"]).name: row["reason"] for row in list_rows(tmp_path / "m.parquet")}
    assert rows == {"a.wav": None, "b\0c.wav": "bad_name"}
