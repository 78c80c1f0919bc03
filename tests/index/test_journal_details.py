"""What a journal says is checked before anything is done with it: an index may come from anyone."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

import pipeline
from pipeline import schema
from pipeline.errors import IndexMismatch, IndexMissing
from pipeline.grid import Grid
from pipeline.index import journal
from pipeline.index.handle import find_index, open_index
from pipeline.index.tables import create_tables
from pipeline.run.prepare import read_config
from tests.helpers.tables import MODEL, write_index

SETTINGS: dict[str, Any] = {
    "clip_model": MODEL,
    "frame_model": MODEL,
    "window": {"length_s": 10.0, "overlap_s": 0.4},
    "decode": {"resampler": "HQ"},
    "frames": "all",
}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    audios = {"/a.wav": (np.zeros((10, 8), np.float16), np.zeros((1, 8), np.float16))}
    write_index(tmp_path / "index", audios, Grid())
    return tmp_path / "index"


def insert(path: Path, kind: str, detail: str) -> None:
    """Add a row to the journal, as nobody should."""
    newest = journal.read_published(path)
    row = journal.make_row(newest.seq + 1, "x", "x", kind, newest.versions) | {"detail": detail}
    journal.publish(journal.open_journal(path), [row])


def rewrite_first(path: Path, detail: str) -> None:
    """The row that an index begins with, with another ``detail``."""
    rows = journal.open_journal(path).to_table().to_pylist()
    table = pa.Table.from_pylist([{**row, "detail": detail if row["seq"] == 0 else row["detail"]} for row in rows])
    lance.write_dataset(table.cast(schema.BATCHES), journal.table_uri(path, "batches"), mode="overwrite")


def assert_refused(action: Any) -> None:
    with pytest.raises(IndexMismatch) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert "restore the index from a copy" in str(caught.value)


WRONG = ["../../../etc", "2", "x", "", 0, -1, 1, 1.5, 2.0, True, None, [2], {"2": 2}, 99, 10**30, 10**4000]


@pytest.mark.parametrize("generation", WRONG, ids=lambda value: str(value)[:20])
def test_generation_that_no_run_can_have_made_is_refused(index: Path, generation: object) -> None:
    insert(index, "switch", json.dumps({"generation": generation}))
    for action in (pipeline.open, find_index):
        assert_refused(lambda action=action: action(str(index)))


@pytest.mark.parametrize("detail", ["", "nonsense", "[]", "2", "null", "{}", "[" * 100_000, '{"generation": 2'])
def test_detail_that_is_no_mapping_is_refused(index: Path, detail: str) -> None:
    insert(index, "switch", detail)
    assert_refused(lambda: pipeline.open(str(index)))


@pytest.mark.parametrize("kind", ["migrate", "create"])
@pytest.mark.parametrize("detail", ["x", "{}", '{"format": "9"}', '{"format": null}', '{"format": true}'])
def test_format_that_is_no_number_is_refused(index: Path, kind: str, detail: str) -> None:
    insert(index, kind, detail)
    assert_refused(lambda: pipeline.open(str(index)))


@pytest.mark.parametrize("detail", ["x", "{}", '{"config": 7}', '{"config": null}'])
def test_configuration_that_is_no_mapping_is_refused(index: Path, detail: str) -> None:
    insert(index, "configure", detail)
    assert_refused(lambda: read_config(open_index(str(index))))


@pytest.mark.parametrize("detail", ["x", "[]", '{"encoded_s": "x"}', '{"encoded_s": null}'])
def test_history_row_with_invalid_detail_is_refused(index: Path, detail: str) -> None:
    newest = journal.read_published(index)
    row = journal.make_row(newest.seq + 1, "x", "x", "index", newest.versions, seconds=1.0, audio_s=1.0)
    journal.publish(journal.open_journal(index), [row | {"detail": detail}])
    assert_refused(pipeline.open(str(index)).history)


def change(key: str, value: object) -> dict[str, Any]:
    """The settings with another value, or without it; ``key`` may lead into a mapping."""
    settings = copy.deepcopy(SETTINGS)
    *outer, last = key.split(".")
    place = settings[outer[0]] if outer else settings
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *itertools.product(("clip_model", "frame_model", "window", "decode"), (..., "x", 7, [1])),
        *((key, None) for key in ("window", "decode", "frames")),
        *((f"clip_model.{key}", ...) for key in ("name", "checksum", "dimension", "logit_scale", "logit_bias")),
        ("clip_model.name", 7),
        ("frame_model.dimension", "8"),
        ("frame_model.logit_scale", None),
        ("window.length_s", "x"),
        ("window.length_s", -1),
        ("window.nonsense", 1),
        ("decode.resampler", "../x"),
    ],
)
def test_settings_that_no_run_can_have_written_are_refused(index: Path, key: str, value: object) -> None:
    detail = {"format": journal.FORMAT, "settings": change(key, value)}
    rewrite_first(index, json.dumps(detail))
    assert_refused(lambda: pipeline.open(str(index)))


def test_index_whose_creation_was_interrupted_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "was not found"
    (path / "batches.lance" / "_versions").mkdir(parents=True)
    with pytest.raises(IndexMissing):
        pipeline.open(str(path))
    (path / "batches.lance" / "_versions" / "1.manifest").write_bytes(b"")
    with pytest.raises(ValueError, match="Invalid range"):
        pipeline.open(str(path))
    create_tables(tmp_path / "other", SETTINGS, clip_dimension=8, frame_dimension=8)
    assert journal.exists(tmp_path / "other")
