"""Metadata: columns of manifests, sidecars and tables with audio become typed columns of ``files`` and ``clips``."""

import datetime as dt
import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jobs.bench import many
from pipeline import schema
from pipeline.config import Config, CorpusConfig, make_config
from pipeline.corpus import metadata
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.metadata import CorpusMetadata, read_metadata
from pipeline.errors import CorpusError
from pipeline.index import journal
from pipeline.index.handle import find_index, open_index
from pipeline.index.maintenance import ROWS_TO_INDEX, optimize_index, refresh_indexes
from pipeline.index.repair import mark_damaged, restore_index
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.index.writer import Batch, Writer, after
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus, read_config
from pipeline.run.progress import Progress
from pipeline.search.tables import open_table, read_rows
from tests.helpers.audio_tables import write_rows
from tests.helpers.batches import create
from tests.helpers.contents import SECTIONS, content
from tests.helpers.protocol import die_at
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.shards import write_shard


def fill(folder: Path, *names: str) -> Path:
    """Files of known contents: a.wav has content 0, b.wav 1, and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names or ("a.wav", "b.wav", "c.wav")):
        shutil.copyfile(content(number), folder / name)
    return folder


def configure(tmp_path: Path, *sources: Path, **corpus: Any) -> Config:
    values = {"sources": [str(source) for source in sources], "into": str(tmp_path / "index"), "corpus": corpus}
    return make_config({**SECTIONS, **values})


def index(config: Config, **options: Any) -> Progress:
    progress = index_corpus(config, stages=in_place(options.pop("encoder", None) or WideEncoder()), **options)
    assert verify_index(config.into) == []
    return progress


def columns(config: Config, name: str = "files") -> dict[str, pa.DataType]:
    """Names and types of the metadata columns of a table."""
    table = find_index(config.into).live.open(name).schema
    return {column.name: column.type for column in schema.metadata_columns(table)}


def values(config: Config, name: str = "files", status: str | None = None) -> dict[str, dict[str, Any]]:
    """The metadata of each file, by its name, as ``files`` or ``clips`` have it."""
    table = find_index(config.into).live.open(name).to_table()
    wanted = list(columns(config, name))
    found: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        if status is None or row["status"] == status:
            known = {column: row[column] for column in wanted}
            assert found.setdefault(Path(row["uri"]).name, known) == known
    return found


def everything(config: Config) -> dict[str, list[str]]:
    """Published rows without the batches that wrote them."""
    tables = {name: find_index(config.into).live.open(name).to_table() for name in journal.DATA_TABLES}
    return {name: sorted(map(str, table.drop_columns(["batch_id"]).to_pylist())) for name, table in tables.items()}


def given(config: Config) -> CorpusMetadata:
    """The metadata of the sources, for an index without any."""
    manifests: list[str] = []
    listed = list_corpus(config.sources, config.corpus, manifests=manifests)
    return read_metadata(listed, manifests, config.corpus, pa.schema([]))


ALL_TYPES = {
    "mic": (["MKH 50", None, "H5"], pa.string()),
    "take": ([1, 2, None], pa.int64()),
    "gain": ([0.5, None, -3.0], pa.float64()),
    "indoors": ([True, False, None], pa.bool_()),
    "day": ([dt.date(2024, 5, 1), None, dt.date(1970, 1, 1)], pa.date32()),
    "at": ([dt.datetime(2024, 5, 1, 12, 30), None, dt.datetime(1969, 12, 31)], pa.timestamp("us")),
}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_of_a_manifest_come_in_their_types(tmp_path: Path, suffix: str) -> None:
    folder = fill(tmp_path / "in")
    manifest = folder / f"list.{suffix}"
    table = pa.table({"uri": ["a.wav", "b.wav", "c.wav"], **{k: pa.array(v, t) for k, (v, t) in ALL_TYPES.items()}})
    if suffix == "parquet":
        pq.write_table(table, manifest)
    elif suffix == "csv":
        from pyarrow import csv

        csv.write_csv(table, manifest)
    else:
        manifest.write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))
    config = configure(tmp_path, manifest)
    index(config)
    expected = {name: kind for name, (_, kind) in ALL_TYPES.items()}
    if suffix == "jsonl":
        expected["day"] = pa.timestamp("us")  # JSON knows no dates
    assert columns(config) == columns(config, "clips") == expected
    rows = [dict(zip(ALL_TYPES, row, strict=True)) for row in zip(*(v for v, _ in ALL_TYPES.values()), strict=True)]
    if suffix == "jsonl":
        for row in rows:
            row["day"] = row["day"] and dt.datetime.combine(row["day"], dt.time())
    assert values(config) == values(config, "clips") == dict(zip(["a.wav", "b.wav", "c.wav"], rows, strict=True))


def test_metadata_table_covers_files_in_folders_and_shards(tmp_path: Path) -> None:
    """Relative uris start from its folder. The index remembers the table, and notes its rows without a file."""
    folder = fill(tmp_path / "in")
    shard = write_shard(tmp_path / "in" / "s.tar", [("x/d.wav", content(3).read_bytes())])
    sidecar = tmp_path / "about.csv"
    sidecar.write_text(f"uri,mic\nin/a.wav,H5\n{folder}/c.wav,\nin/s.tar#x/d.wav,MKH\ngone.wav,?\n")
    config = configure(tmp_path, folder, shard, metadata=str(sidecar))
    progress = index(config)
    assert values(config) == {
        "a.wav": {"mic": "H5"},
        "b.wav": {"mic": None},
        "c.wav": {"mic": None},
        "d.wav": {"mic": "MKH"},
    }
    said = "1 row belongs to no file of the corpus; the first one is"
    assert progress.notes == (f"{sidecar}: {said} {tmp_path}/gone.wav",)
    assert read_config(open_index(config.into)).corpus.metadata == str(sidecar)


def test_blanks_around_column_names_do_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.wav").write_bytes(content(1).read_bytes())
    sidecar = tmp_path / "about.csv"
    sidecar.write_text('uri, mic, "take" , at\nin/a.wav,007,12,12:30\n')
    manifest = tmp_path / "list.tsv"
    manifest.write_text("uri\t mic\nin/a.wav\tH5\n")
    config = configure(tmp_path, folder, manifest, metadata=str(sidecar), columns=["mic", "take", "at"])
    index(config)
    assert columns(config) == {"mic": pa.string(), "take": pa.int64(), "at": pa.string()}
    assert values(config) == {"a.wav": {"mic": "007", "take": 12, "at": "12:30"}}
    pq.write_table(pa.table({" mic ": ["H6"], "audio": [content(3).read_bytes()]}), tmp_path / "t.parquet")
    config = configure(tmp_path / "other", tmp_path / "t.parquet")
    index(config)
    assert values(config) == {"t.parquet#0": {"mic": "H6"}}


def test_metadata_table_of_other_files_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in")
    sidecar = folder / "about.csv"
    sidecar.write_text("uri,mic\nin/a.wav,H5\n")
    with pytest.raises(CorpusError, match=r"about.csv: none of its 1 rows belongs to a file .* is .*/in/in/a.wav"):
        index(configure(tmp_path, folder, metadata=str(sidecar)))
    assert not (tmp_path / "index").exists()


def test_metadata_table_precedes_manifests_in_source_order(tmp_path: Path) -> None:
    """Where one table has no value, the next one is asked. Of several rows in a table, the first one counts."""
    folder = fill(tmp_path / "in")
    tables = {
        "side.csv": "uri,mic\na.wav,side\nb.wav,\n",
        "one.csv": "uri,mic,take\na.wav,one,1\nb.wav,one,\nb.wav,late,2\n",
        "two.csv": "uri,mic,take\na.wav,two,9\nb.wav,two,9\nc.wav,two,3\n",
    }
    for name, text in tables.items():
        (folder / name).write_text(text)
    config = configure(tmp_path, folder / "one.csv", folder / "two.csv", metadata=str(folder / "side.csv"))
    progress = index(config)
    assert values(config) == {
        "a.wav": {"mic": "side", "take": 1},
        "b.wav": {"mic": "one", "take": 2},
        "c.wav": {"mic": "two", "take": 3},
    }
    assert progress.notes == (
        f"column `mic`: 2 files have several values; the first one counts: 'side' for {folder}/a.wav",
        f"column `take`: 2 files have several values; the first one counts: '1' for {folder}/a.wav",
    )


def test_time_ranges_have_their_own_metadata(tmp_path: Path) -> None:
    """Rows name them by columns or by uri, however the numbers are written."""
    folder = fill(tmp_path / "in", *"abcdef")
    manifest = folder / "list.csv"
    manifest.write_text("uri,start_s,end_s,word\nf,0,1,one\nf,1.0,2,two\nf,1.5,,three\nf,,,all\n")
    sidecar = folder / "about.csv"
    sidecar.write_text('uri,start_s,end_s,by\nf,1,2.0,Ana\n"f#t=0.0,1.00",,,Ben\n')
    config = configure(tmp_path, manifest, metadata=str(sidecar))
    assert index(config).notes == ()
    assert values(config, "clips") == {
        "f#t=,1": {"word": "one", "by": "Ben"},
        "f#t=1,2": {"word": "two", "by": "Ana"},
        "f#t=1.5": {"word": "three", "by": None},
        "f": {"word": "all", "by": None},
    }


def test_changed_metadata_costs_no_encoding(tmp_path: Path) -> None:
    """Failed files and files whose mtime changed, too. Vectors stay bit for bit; plan and history tell the change."""
    folder = fill(tmp_path / "in", *"abcde")
    (folder / "broken.wav").write_text("no sound")
    sidecar = tmp_path / "about.csv"
    rows = [f"in/{name},H5\n" for name in ("a", "b", "c", "broken.wav")]
    sidecar.write_text("uri,mic\n" + "".join(rows))
    config = configure(tmp_path, folder, metadata=str(sidecar), extensions=["*"])
    index(config)
    frames = everything(config)["frames"]
    versions = journal.read_published(config.into).versions
    sidecar.write_text("uri,mic,take\n" + "in/a,H5,\nin/b,MKH,\nin/broken.wav,MKH,\nin/d,,7\n")
    os.utime(folder / "b")
    os.utime(folder / "e")
    expected = {
        "a": "unchanged",
        "b": "metadata",
        "c": "metadata",
        "d": "metadata",
        "e": "unchanged",
        "broken.wav": "failed",
    }
    assert {Path(uri).name: action for uri, action, _ in plan_corpus(config).actions} == expected
    encoder = WideEncoder()
    progress = index(config, encoder=encoder)
    assert (encoder.n_windows, progress.n_unchanged, progress.n_metadata, progress.n_indexed) == (0, 6, 4, 0)
    assert values(config) == {
        "a": {"mic": "H5", "take": None},
        "b": {"mic": "MKH", "take": None},
        "broken.wav": {"mic": "MKH", "take": None},
        "c": {"mic": None, "take": None},
        "d": {"mic": None, "take": 7},
        "e": {"mic": None, "take": None},
    }
    assert everything(config)["frames"] == frames
    assert journal.read_published(config.into).versions["frames"] == versions["frames"]
    kinds = [(row["kind"], row["n_files"]) for row in journal.read_journal(config.into).to_pylist()]
    assert ("metadata", 4) in kinds
    afresh = configure(tmp_path, folder, metadata=str(sidecar), extensions=["*"]).model_copy(
        update={"into": str(tmp_path / "afresh")}
    )
    index(afresh)
    assert everything(config) == everything(afresh)
    assert index(config, encoder=encoder).n_metadata == 0
    assert encoder.n_windows == 0


def test_copies_have_the_metadata_of_their_own_uris(tmp_path: Path) -> None:
    """This covers moved files and copies from one run and from two. Deleted files keep their metadata."""
    folder = fill(tmp_path / "in", "a", "b")
    shutil.copyfile(folder / "a", folder / "twin")
    sidecar = tmp_path / "about.csv"
    sidecar.write_text("uri,mic\n" + "".join(f"in/{name},{name}\n" for name in ("a", "b", "twin")))
    config = configure(tmp_path, folder, metadata=str(sidecar), extensions=["*"])
    index(config)
    assert values(config, "clips") == {name: {"mic": name} for name in ("a", "b", "twin")}
    (folder / "b").rename(folder / "moved")
    shutil.copyfile(folder / "a", folder / "later")
    sidecar.write_text("uri,mic\nin/later,later\nin/a,other\nin/moved,moved\n")
    encoder = WideEncoder()
    index(config, encoder=encoder)
    assert encoder.n_windows == 0
    names = {"a": "other", "later": "later", "moved": "moved", "twin": None}
    assert values(config, "clips") == {name: {"mic": mic} for name, mic in names.items()}
    assert values(config, status="deleted") == {"b": {"mic": "b"}}


def test_column_that_sources_no_longer_have_stays(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a", "b")
    manifest = folder / "list.csv"
    manifest.write_text("uri,mic,take\na,H5,1\nb,,2\n")
    config = configure(tmp_path, manifest)
    index(config)
    shutil.copyfile(content(3), folder / "a")
    shutil.copyfile(content(4), folder / "c")
    manifest.write_text("uri,take\na,1\nb,3\nc,4\n")
    index(config)
    assert values(config) == {
        "a": {"mic": "H5", "take": 1},
        "b": {"mic": None, "take": 3},
        "c": {"mic": None, "take": 4},
    }
    manifest.write_text("uri,mic\na,\nb,\nc,\n")
    assert index(config).n_metadata == 1  # it is given, and empty
    assert values(config)["a"] == {"mic": None, "take": 1}
    manifest.write_text("uri\na\nb\nc\n")
    assert index(config).n_metadata == 0
    assert values(config)["b"] == {"mic": None, "take": 3}
    index(config, rebuild=True)
    assert columns(config) == {}


def test_new_columns_cost_no_encoding(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a", "b")
    manifest = folder / "list.csv"
    manifest.write_text("uri,mic,Take No,empty\na,H5,1,\nb,,2,\n")
    bare = configure(tmp_path, manifest, columns=[])
    index(bare)
    assert columns(bare) == {}
    n_batches = journal.read_journal(bare.into).num_rows
    config = configure(tmp_path, manifest)
    encoder = WideEncoder()
    assert index(config, encoder=encoder).n_metadata == 2
    assert encoder.n_windows == 0
    assert columns(config) == {"mic": pa.string(), "Take No": pa.int64()}  # nothing is known of `empty`
    restore_index(config.into, n_batches - 1)
    assert columns(config) == {}
    index(config)
    optimize_index(config.into, 0.0)
    assert verify_index(config.into) == []
    assert values(config, "clips") == {"a": {"mic": "H5", "Take No": 1}, "b": {"mic": None, "Take No": 2}}


def test_rebuild_keeps_metadata_of_deleted_files(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a", "b", "c")
    manifest = folder / "list.csv"
    manifest.write_text("uri,mic,take\na,H5,1\nb,MKH,x\nc,,3\n")
    config = configure(tmp_path, manifest)
    index(config)
    manifest.write_text("uri,mic,take\na,H5,1\nc,,3\n")
    (folder / "b").unlink()
    assert index(config, rebuild=True).n_indexed == 2
    assert columns(config) == {"mic": pa.string(), "take": pa.int64()}
    assert values(config) == {
        "a": {"mic": "H5", "take": 1},
        "b": {"mic": "MKH", "take": None},
        "c": {"mic": None, "take": 3},
    }


def test_stopped_rebuild_continues_after_a_column_became_wider(tmp_path: Path) -> None:
    """Files that were deleted before keep their metadata, in the wider type."""
    folder = fill(tmp_path / "in", "a", "b", "c", "d")
    manifest = folder / "list.csv"
    manifest.write_text("uri,take,mic\na,1,H5\nb,2,H6\nc,3,\nd,4,\n")
    config = configure(tmp_path, manifest)
    index(config)
    manifest.write_text("uri,take,mic\na,1,H5\nc,3,\nd,4,\n")
    (folder / "b").unlink()
    assert die_at("publish", 4, lambda config, failpoint: index(config, failpoint=failpoint, rebuild=True), config)
    manifest.write_text("uri,take,mic\na,1,7\nc,3.5,\nd,4,8\n")  # and text looks like numbers now
    index(config, rebuild=True)
    assert columns(config) == {"take": pa.float64(), "mic": pa.string()}
    takes = {name: (row["take"], row["mic"]) for name, row in values(config).items()}
    assert takes == {"a": (1.0, "7"), "b": (2.0, "H6"), "c": (3.5, None), "d": (4.0, "8")}


def test_whole_numbers_become_floats_if_one_has_a_fraction(tmp_path: Path) -> None:
    """Likewise, dates become times. Values stay, and files without other changes are not written again."""
    folder = fill(tmp_path / "in", "a", "b", "c")
    manifest = folder / "list.csv"
    manifest.write_text("uri,gain dB,at\na,1,2024-05-01\nb,2,2024-05-02\nc,,\n")
    config = configure(tmp_path, manifest)
    index(config)
    assert columns(config) == {"gain dB": pa.int64(), "at": pa.date32()}
    manifest.write_text("uri,gain dB,at\na,1,2024-05-01\nb,2.5,2024-05-02\nc,,2024-05-02 10:30\n")
    assert index(config).n_metadata == 2
    assert columns(config) == columns(config, "clips") == {"gain dB": pa.float64(), "at": pa.timestamp("us")}
    days = [dt.datetime(2024, 5, day) for day in (1, 2)]
    assert values(config) == values(config, "clips")
    assert values(config) == {
        "a": {"gain dB": 1.0, "at": days[0]},
        "b": {"gain dB": 2.5, "at": days[1]},
        "c": {"gain dB": None, "at": dt.datetime(2024, 5, 2, 10, 30)},
    }
    manifest.write_text("uri,gain dB,at\na,1,2024-05-01\nb,2,2024-05-02\nc,,\n")
    assert index(config).n_metadata == 2  # and there is no way back
    assert columns(config) == {"gain dB": pa.float64(), "at": pa.timestamp("us")}


def test_numbers_in_csv_are_text_if_the_column_is_text(tmp_path: Path) -> None:
    """Another table of the same run, or the index, makes the column text."""
    folder = fill(tmp_path / "in", "a", "b")
    (folder / "one.csv").write_text("uri,id\na,007\n")
    (folder / "two.csv").write_text("uri,id\nb,X8\n")
    config = configure(tmp_path, folder / "*.csv")
    index(config)
    assert values(config) == {"a": {"id": "007"}, "b": {"id": "X8"}}
    (folder / "two.csv").write_text("uri,id\nb,08\n")
    index(config)
    assert values(config) == {"a": {"id": "007"}, "b": {"id": "08"}}


def test_type_that_the_index_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a", "b")
    manifest = folder / "list.csv"
    manifest.write_text("uri,take\na,1\nb,2\n")
    config = configure(tmp_path, manifest)
    index(config)
    before = everything(config)
    manifest.write_text("uri,take\na,1\nb,two\n")
    said = r"list.csv: column `take` is string \('1'\), and in the index it is int64: .* --rebuild"
    for run in (index, plan_corpus):
        with pytest.raises(CorpusError, match=said):
            run(config)
    assert everything(config) == before
    index(config, rebuild=True)
    assert values(config) == {"a": {"take": "1"}, "b": {"take": "two"}}


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


def test_types_of_other_programs_become_stored_types(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a")
    zone = dt.timezone(dt.timedelta(hours=2))
    instant = dt.datetime(2024, 5, 1, 12, tzinfo=zone)
    arrays = {
        "small": (pa.array([3], pa.uint8()), pa.int64(), 3),
        "half": (pa.array([0.5], pa.float32()), pa.float64(), 0.5),
        "price": (pa.array(["9.50"]).cast(pa.decimal128(6, 2)), pa.float64(), 9.5),
        "nan": (pa.array([float("nan")], pa.float64()), pa.float64(), None),
        "kind": (pa.array(["x"]).dictionary_encode(), pa.string(), "x"),
        "long": (pa.array(["y"], pa.large_string()), pa.string(), "y"),
        "at": (pa.array([instant], pa.timestamp("ns", tz="+02:00")), pa.timestamp("us", tz="UTC"), instant),
        "time": (pa.array([dt.time(9, 30)]), pa.string(), "09:30:00.000000"),
        "nothing": (pa.nulls(1), None, None),
        "__index_level_0__": (pa.array([5]), None, None),
    }
    pq.write_table(pa.table({"uri": ["a"], **{k: v for k, (v, _, _) in arrays.items()}}), folder / "list.parquet")
    config = configure(tmp_path, folder / "list.parquet")
    index(config)
    assert columns(config) == {name: kind for name, (_, kind, _) in arrays.items() if kind}
    assert values(config)["a"] == {name: value for name, (_, kind, value) in arrays.items() if kind}
    (folder / "list.csv").write_text("uri,time,id\na,9:30,x\n")
    assert given(configure(tmp_path, folder / "list.csv")).table["time"].to_pylist() == ["9:30"]
    pq.write_table(pa.table({"uri": ["a"], "n": pa.array([2**64 - 1], pa.uint64())}), folder / "list.parquet")
    with pytest.raises(CorpusError, match=r"column `n` \(uint64\) cannot be stored as int64: .* 18446744073709551615"):
        given(config)


def test_whole_numbers_too_large_for_floats_are_refused_beside_floats(tmp_path: Path) -> None:
    """Those in the index already are rounded, as its tables round them."""
    folder, long = fill(tmp_path / "in", "a", "b", "c"), 2**60 + 1
    (folder / "1.csv").write_text(f"uri,n\na,{long}\nc,1\n")
    (folder / "2.csv").write_text("uri,n\nb,0.5\n")
    with pytest.raises(CorpusError, match=rf"1.csv: column `n` \(int64\) cannot be stored as double: .* {long} not in"):
        given(configure(tmp_path, folder / "*.csv"))
    index(configure(tmp_path, folder / "1.csv"))
    config = configure(tmp_path, folder / "2.csv", folder)
    for name in ("a", "c"):
        (folder / name).rename(folder / f"{name}.wav")
    index(config)
    kept = {name: row["n"] for name, row in values(config).items()}
    assert kept == {"a": float(long), "a.wav": None, "b": 0.5, "c": 1.0, "c.wav": None}


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


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_columns_beside_audio_become_metadata(tmp_path: Path, suffix: str) -> None:
    """Columns that cannot be stored are left out. ``corpus.metadata`` comes first."""
    table = tmp_path / f"t{suffix}"
    arrow = pa.table(
        {
            "audio": [{"bytes": content(number).read_bytes(), "path": f"{number}.wav"} for number in (2, 3, 4)],
            "label": [1, 2, None],
            "text": ["one", "two", "three"],
            "codec": ["x"] * 3,
            "parts": [[1], [2], [3]],
        }
    )
    if suffix == ".parquet":
        pq.write_table(arrow, table, row_group_size=2)
    else:
        with pa.ipc.new_file(str(table), arrow.schema) as file:
            file.write_table(arrow, max_chunksize=2)
    sidecar = tmp_path / "about.csv"
    sidecar.write_text(f"uri,text\nt{suffix}#3.wav,zwei\n")
    config = configure(tmp_path, table, metadata=str(sidecar))
    index(config)
    expected = [{"label": 1, "text": "one"}, {"label": 2, "text": "zwei"}, {"label": None, "text": "three"}]
    found = values(config)
    for number, row in zip((2, 3, 4), expected, strict=True):
        assert found[f"t{suffix}#{number}.wav"] == row
    assert values(config, "clips") == found


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
        if made.suffix == ".parquet":
            pq.write_table(table, tmp_path / name)
        else:
            with pa.ipc.new_stream(tmp_path / name, table.schema) as file:
                file.write_table(table)
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
        path = tmp_path / f"t.{suffix}"
        if suffix == "parquet":
            pq.write_table(table, path)
        else:
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table)
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


def test_metadata_columns_of_large_tables_are_indexed(tmp_path: Path) -> None:
    n_rows = ROWS_TO_INDEX
    create(tmp_path)
    writer = Writer(tmp_path, "run")
    writer.add_columns(pa.schema([("few", pa.string()), ("Many of them", pa.int64()), ("yes", pa.bool_())]))
    numbers = np.arange(n_rows)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n_rows * 4, np.float16)), 4)
    clips = schema.clips_schema(4).empty_table().drop_columns(["batch_id"])
    ids = pa.array([f"{number:032d}" for number in numbers])
    values = {"few": [f"v{number % 7}" for number in numbers], "Many of them": numbers, "yes": numbers % 2 == 0}
    zeros = {name: np.zeros(n_rows) for name in ("start_s", "end_s", "duration_s")}
    ones = {name: pa.array(np.ones(n_rows), pa.int32()) for name in ("sample_rate_hz", "channels")}
    names = {"clip_id": ids, "file_id": ids, "audio_id": ids, "uri": ids, "codec": pa.array(["wav"] * n_rows)}
    full = pa.table({**names, **zeros, **ones, "vector": vectors, **values})
    assert set(clips.column_names) < set(full.column_names)
    files = schema.FILES.empty_table().drop_columns(["batch_id"])
    writer.commit([Batch("0" * 32, files, full)])
    refresh_indexes(writer)
    table = open_published(tmp_path, "clips")
    kinds = {index.name: index.index_type.upper() for index in table.describe_indices()}
    assert {name: kind for name, kind in kinds.items() if "id_idx" not in name} == {
        "few_idx": "BITMAP",
        "Many of them_idx": "BTREE",
        "yes_idx": "BITMAP",
    }
    for where, expected in (("`Many of them` = 77", 1), ("few = 'v3'", n_rows // 7 + 1), ("yes", n_rows // 2)):
        found = read_rows(open_table(str(tmp_path), "clips"), ["clip_id"], where).num_rows
        assert abs(found - expected) <= 1, where
        assert "ScalarIndexQuery" in table.scanner(columns=["clip_id"], filter=where).explain_plan(True), where
    writer.add_columns(pa.schema([("Many of them", pa.float64())]))
    refresh_indexes(writer)
    assert "Many of them_idx" in {index.name for index in open_published(tmp_path, "clips").describe_indices()}


@pytest.mark.parametrize("what", many.What)
def test_unchanged_metadata_changes_nothing(tmp_path: Path, what: many.What) -> None:
    """``look`` checks it, for each way of naming files and each kind of metadata."""
    source = str(many.WRITERS[what](tmp_path, 250))
    for _ in ("first index", "nothing new"):
        assert many.look(source, str(tmp_path / "ledger.arrow"))["planned_s"] > 0
    known = schema.metadata_columns(pa.ipc.open_file(tmp_path / "ledger.arrow").schema).names
    assert bool(known) == (what in many.SAY_MUCH)


def test_verify_finds_clips_whose_metadata_differs_from_their_file(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", "a", "b")
    (folder / "list.csv").write_text("uri,mic\na,H5\nb,H5\n")
    config = configure(tmp_path, folder / "list.csv")
    index(config)
    writer = Writer(config.into, "x")
    with writer.changes() as changes:
        changes.make(
            "update", "clips", lambda clips: after(clips, clips.update, {"mic": "'MKH'"}, f"uri = '{folder}/a'")
        )
        writer.publish("index", changes)
    found = [finding for finding in verify_index(config.into) if finding.file_id is not None]
    assert [(finding.table, finding.uri) for finding in found] == [("clips", f"{folder}/a")]
    assert "mic: not all are those of its ledger row" in found[0].what
    mark_damaged(config.into, found)
    assert values(config)["a"] == {"mic": "H5"}
    index(config)
    assert values(config, "clips") == {"a": {"mic": "H5"}, "b": {"mic": "H5"}}


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
