"""Each defect is planted, found, and mended by an ordinary run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipeline import journal, store
from pipeline.audit import audit, compare
from pipeline.claim import Claim
from pipeline.config import Config, make_config
from pipeline.errors import EarshotError
from pipeline.run import index_corpus
from pipeline.upkeep import mark_damaged
from tests.contents import SECTIONS, live
from tests.fakes import noise, write_wav
from tests.test_run import WideEncoder, in_place

Plant = Callable[[str], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("audit")
    (root / "in").mkdir()
    for name, length_s in (("a", 0.3), ("b", 1.7), ("c", 2.5)):
        write_wav(root / "in" / f"{name}.wav", noise(length_s, seed=int(10 * length_s)))
    shutil.copyfile(root / "in" / "b.wav", root / "in" / "copy of b.wav")
    (root / "in" / "broken.wav").write_text("no sound")
    config = make_config({"sources": [str(root / "in")], "into": str(root / "index"), **SECTIONS})
    index_corpus(config, stages=in_place(WideEncoder()))
    return config


@pytest.fixture
def config(whole: Config, tmp_path: Path) -> Config:
    shutil.copytree(whole.into, tmp_path / "index")
    return whole.model_copy(update={"into": str(tmp_path / "index")})


def table(path: str, name: str) -> Any:
    return lance.dataset(journal.table_uri(path, name))


def publish(path: str) -> None:
    """What is in the tables now becomes what the journal names."""
    versions = {name: store.latest_version(path, name) for name in journal.DATA_TABLES}
    seq = journal.read_published(path).seq + 1
    journal.publish(journal.open_journal(path), [journal.make_row(seq, "f" * 32, "f" * 32, "maintain", versions)])


def append(path: str, name: str, where: str, **changes: Any) -> None:
    rows = table(path, name).to_table(filter=where)
    for column, value in changes.items():
        at = rows.schema.get_field_index(column)
        values = pa.array([value] * len(rows), rows.schema.field(column).type)
        rows = rows.set_column(at, rows.schema.field(column), values)
    lance.write_dataset(rows, journal.table_uri(path, name), mode="append")


def append_instead(path: str, name: str, where: str, **changes: Any) -> None:
    rows = table(path, name).to_table(filter=where)
    append(path, name, where, **changes)
    [column] = changes
    table(path, name).delete(f"{where} AND {column} = {rows[column][0].as_py()}")


def first(path: str, name: str, column: str, where: str = "true") -> str:
    return str(table(path, name).to_table(columns=[column], filter=where)[column][0].as_py())


DEFECTS: dict[str, tuple[Plant, str, str]] = {
    "a ledger row is lost": (lambda p: table(p, "files").delete("uri LIKE '%/a.wav'"), "clips", "of no file"),
    "a ledger row is doubled": (lambda p: append(p, "files", "uri LIKE '%/a.wav'"), "files", "second row"),
    "a clip is lost": (
        lambda p: table(p, "clips").delete(f"clip_id = '{first(p, 'clips', 'clip_id')}'"),
        "clips",
        "demands",
    ),
    "a clip is doubled": (
        lambda p: append(p, "clips", f"clip_id = '{first(p, 'clips', 'clip_id')}'"),
        "clips",
        "demands",
    ),
    "a clip has another time": (
        lambda p: table(p, "clips").update(
            {"start_s": "start_s + 0.04"}, f"clip_id = '{first(p, 'clips', 'clip_id')}'"
        ),
        "clips",
        "demands",
    ),
    "a frame is lost": (lambda p: table(p, "frames").delete("frame = 7"), "frames", "0 to 6, 8 to"),
    "a frame is doubled": (lambda p: append(p, "frames", "frame = 7"), "frames", "are due, once"),
    "frames of no file": (lambda p: append(p, "frames", "frame < 5", audio_id="e" * 32), "frames", "of no file"),
    "all frames of an audio are lost": (
        lambda p: table(p, "frames").delete(f"audio_id = '{first(p, 'frames', 'audio_id')}'"),
        "frames",
        "frames none where",
    ),
    "frames have other times": (
        lambda p: table(p, "frames").update({"start_s": "9.0"}, "true"),
        "frames",
        "time",
    ),
    "a count is wrong": (
        lambda p: table(p, "files").update({"n_frames": "5"}, "status = 'indexed'"),
        "files",
        "n_frames is 5",
    ),
    "a failure has no reason": (
        lambda p: table(p, "files").update({"reason": "NULL"}, "status = 'failed'"),
        "files",
        "without a stage or a reason",
    ),
    "a ledger row is doubled with another content": (
        lambda p: append(p, "files", "uri LIKE '%/b.wav'", uri=first(p, "files", "uri", "uri LIKE '%/a.wav'")),
        "files",
        "second row",
    ),
    "a duration is missing": (
        lambda p: table(p, "files").update({"duration_s": "NULL"}, "uri LIKE '%/c.wav'"),
        "files",
        "duration_s is None",
    ),
    "a duration is no number": (
        lambda p: append_instead(p, "files", "uri LIKE '%/c.wav'", duration_s=float("nan")),
        "files",
        "duration_s is nan",
    ),
    "a duration is beyond belief": (
        lambda p: table(p, "files").update({"duration_s": "1e300"}, "uri LIKE '%/c.wav'"),
        "files",
        "duration_s is 1e+300",
    ),
    "clips are of no batch": (
        lambda p: table(p, "clips").update({"batch_id": "'none'"}, "uri LIKE '%/b.wav'"),
        "clips",
        "not in the journal",
    ),
    "frames are of no batch": (
        lambda p: table(p, "frames").update({"batch_id": "'none'"}, "frame = 3"),
        "frames",
        "not in the journal",
    ),
    "a batch is unknown": (
        lambda p: table(p, "files").update({"batch_id": "'none'"}, "uri LIKE '%/c.wav'"),
        "files",
        "not in the journal",
    ),
}


def test_an_index_as_a_run_leaves_it_is_well(whole: Config) -> None:
    assert audit(whole.into) == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_and_mended(config: Config, defect: str) -> None:
    before = live(config.into)
    plant, where, said = DEFECTS[defect]
    plant(config.into)
    publish(config.into)
    findings = audit(config.into)
    assert any(finding.table == where and said in finding.what for finding in findings), findings
    mark_damaged(config.into, findings)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert audit(config.into) == []
    assert live(config.into) == before


def test_clips_that_are_damaged_are_not_copied(config: Config) -> None:
    uri = first(config.into, "files", "uri", "uri LIKE '%/c.wav'")
    table(config.into, "clips").delete(f"uri = '{uri}' AND start_s = 0.0")
    publish(config.into)
    folder = Path(config.into).parent / "in"
    shutil.copytree(Path(uri).parent, folder)
    (folder / "c.wav").rename(folder / "moved.wav")
    moved = config.model_copy(update={"sources": (str(folder),)})
    with pytest.raises(EarshotError, match=r"moved\.wav are damaged; mend that by `earshot verify"):
        index_corpus(moved, stages=in_place(WideEncoder()))
    mark_damaged(config.into, audit(config.into))
    index_corpus(moved, stages=in_place(WideEncoder()))
    assert audit(config.into) == []


@pytest.mark.parametrize("name", ["clips", "frames"])
def test_a_vector_that_is_not_finite_is_found_and_mended(config: Config, name: str) -> None:
    before = live(config.into)
    where = f"clip_id = '{first(config.into, 'clips', 'clip_id')}'" if name == "clips" else "frame = 2"
    rows = table(config.into, name).to_table(filter=where)
    size = rows.schema.field("vector").type.list_size
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.full(size * len(rows), np.nan, np.float16)), size)
    spoilt = rows.set_column(rows.schema.get_field_index("vector"), rows.schema.field("vector"), values)
    table(config.into, name).delete(where)
    lance.write_dataset(spoilt, journal.table_uri(config.into, name), mode="append")
    publish(config.into)
    findings = audit(config.into)
    assert any(finding.table == name for finding in findings)
    mark_damaged(config.into, findings)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert audit(config.into) == []
    assert live(config.into) == before


def test_rows_that_no_index_covers_are_found_and_covered(config: Config) -> None:
    uri = first(config.into, "files", "uri", "status = 'failed'")
    table(config.into, "files").delete(f"uri = '{uri}'")
    publish(config.into)
    index = table(config.into, "clips")
    index.drop_index("clip_id_idx")
    publish(config.into)
    with Claim(config.into, "a run, which makes indexes at its end"):
        assert audit(config.into) == []
    assert [finding.what for finding in audit(config.into)] == ["no index on clip_id"]
    mark_damaged(config.into, audit(config.into))
    assert audit(config.into) == []


def test_vectors_of_another_sound_are_found_by_encoding_again(config: Config) -> None:
    assert compare(config.into, 10, WideEncoder()) == []
    clip_id = first(config.into, "clips", "clip_id", "uri LIKE '%/a.wav'")
    rows = table(config.into, "clips").to_table(filter=f"clip_id = '{clip_id}'")
    turned = [[-value for value in rows["vector"][0].as_py()]]
    column = pa.array(turned, rows.schema.field("vector").type)
    turned_rows = rows.set_column(rows.schema.get_field_index("vector"), rows.schema.field("vector"), column)
    table(config.into, "clips").delete(f"clip_id = '{clip_id}'")
    lance.write_dataset(turned_rows, journal.table_uri(config.into, "clips"), mode="append")
    publish(config.into)
    (finding,) = compare(config.into, 10, WideEncoder())
    assert "cosine" in finding.what
    assert str(finding.uri).endswith("/a.wav")
