"""Columns of metadata tables, manifests and tables with audio become typed columns of ``files`` and ``clips``."""

import datetime as dt
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import CorpusError
from pipeline.index import journal
from pipeline.index.changes import after
from pipeline.index.handle import open_index
from pipeline.index.maintenance import optimize_index
from pipeline.index.repair import mark_damaged, restore_index
from pipeline.index.verify import verify_index
from pipeline.index.writer import Writer
from pipeline.run.prepare import plan_corpus, read_config
from tests.helpers.contents import content
from tests.helpers.corpora import actions
from tests.helpers.metadata import columns, configure, everything, fill, given, index, values
from tests.helpers.protocol import die_at
from tests.helpers.runs import WideEncoder
from tests.helpers.shards import write_shard, write_table

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
    with pytest.raises(CorpusError, match=r"about.csv: none of its rows \(1\) belongs to a file .* is .*/in/in/a.wav"):
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
    assert actions(config) == expected
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
    write_table(table, arrow, row_group_size=2)
    sidecar = tmp_path / "about.csv"
    sidecar.write_text(f"uri,text\nt{suffix}#3.wav,zwei\n")
    config = configure(tmp_path, table, metadata=str(sidecar))
    index(config)
    expected = [{"label": 1, "text": "one"}, {"label": 2, "text": "zwei"}, {"label": None, "text": "three"}]
    found = values(config)
    for number, row in zip((2, 3, 4), expected, strict=True):
        assert found[f"t{suffix}#{number}.wav"] == row
    assert values(config, "clips") == found


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
