"""Exported vectors: those of the index with their times, in files that other programs read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.export.exporting import Exported, export_all_vectors, export_label_vectors
from pipeline.export.folder import Folder
from pipeline.export.labels import Label
from pipeline.export.sources import complete_labels
from pipeline.export.vectors import Precision, State, Table, VectorTable
from pipeline.grid import FRAME_S
from pipeline.index.handle import open_index
from pipeline.index.tables import to_matrix
from pipeline.search.client import Index
from tests.helpers.ears import GRID
from tests.helpers.exports import die_at_every_step, read_folder
from tests.helpers.tables import add_failed_file, create_empty, draw_vectors, write_index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files and a copy, with a column of the user."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("vectors") / "index"
    audios = {
        f"/{name}.wav": draw_vectors(rng, n_frames, GRID) for name, n_frames in (("a", 10), ("b", 700), ("c", 30))
    }
    said = pa.table({"uri": ["/a.wav", "/b.wav"], "place": ["Ærø", "yard"]})
    write_index(path, audios, GRID, copies={"/copy.wav": "/a.wav"}, metadata=said)
    return path


def table_of(index: Path | str, name: Table, precision: Precision = "float32") -> VectorTable:
    live = open_index(index).live
    return VectorTable(State(live.path, live.seq, live.versions, live.settings), name, precision)


def read(folder: Path, name: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob(f"{name}-*.parquet"))])


@pytest.mark.parametrize("name", ["clips", "frames"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_whole_table_is_what_the_index_holds(index: Path, tmp_path: Path, name: Table, precision: Precision) -> None:
    exported = export_all_vectors(Folder(str(tmp_path)), {}, table_of(index, name, precision))
    found, stored = read(tmp_path, name), Index(str(index)).to_arrow(name)
    assert found.schema.field("vector").type == pa.list_(pa.from_numpy_dtype(np.dtype(precision)), 8)
    assert exported.n_rows == found.num_rows == stored.num_rows
    assert np.array_equal(to_matrix(found["vector"]).astype(np.float16), to_matrix(stored["vector"]))
    for column in set(found.column_names) - {"vector", "end_s"}:
        assert found[column].to_pylist() == stored[column].to_pylist()
    if name == "frames":
        spans = np.array(found["end_s"]) - np.array(found["start_s"])
        assert np.allclose(spans, FRAME_S)
    assert sorted(exported.names) == sorted(read_folder(tmp_path))


def test_pandas_joins_frames_to_their_files(index: Path, tmp_path: Path) -> None:
    export_all_vectors(Folder(str(tmp_path)), {}, table_of(index, "frames"))
    frames = pd.concat(pd.read_parquet(file) for file in tmp_path.glob("frames-*.parquet"))
    files = pd.read_parquet(tmp_path / "files.parquet")
    assert files["uri"].tolist() == ["/a.wav", "/b.wav", "/c.wav", "/copy.wav"]
    assert files["place"].tolist()[:2] == ["Ærø", "yard"]
    joined = frames.merge(files, on="audio_id")
    assert joined.groupby("uri").size().to_dict() == {"/a.wav": 10, "/b.wav": 700, "/c.wav": 30, "/copy.wav": 10}
    assert len(joined["vector"].iloc[0]) == 8


@pytest.mark.parametrize(("name", "n_rows"), [("clips", 3), ("frames", 700)])
def test_where_selects_by_the_columns_of_files(index: Path, tmp_path: Path, name: Table, n_rows: int) -> None:
    export_all_vectors(Folder(str(tmp_path)), {}, table_of(index, name), "place = 'yard'")
    assert read(tmp_path, name).num_rows == n_rows
    assert pq.read_table(tmp_path / "files.parquet")["uri"].to_pylist() == ["/b.wav"]


@pytest.mark.parametrize("name", ["clips", "frames"])
@pytest.mark.parametrize("where", [None, "uri = 'none'"])
def test_nothing_is_a_file_with_columns_and_no_rows(
    tmp_path: Path, index: Path, name: Table, where: str | None
) -> None:
    path = index if where else create_empty(tmp_path / "empty")
    export_all_vectors(Folder(str(tmp_path / "out")), {}, table_of(path, name), where)
    found = pq.read_table(tmp_path / "out" / f"{name}-00000.parquet")
    assert found.num_rows == 0
    assert found.column_names[-1] == "vector"


@pytest.mark.parametrize("name", ["clips", "frames"])
def test_file_says_which_model_made_its_vectors(index: Path, tmp_path: Path, name: Table) -> None:
    export_all_vectors(Folder(str(tmp_path)), {}, table_of(index, name))
    said = json.loads(pq.read_schema(next(tmp_path.glob(f"{name}-*.parquet"))).metadata[b"earshot"])
    assert said["model"]["name"] == "none"
    assert said["model"]["logit_scale"] == 2.0
    assert said["seq"] == open_index(index).live.seq


def label(uri: str, start_s: float, end_s: float, **values: Any) -> Label:
    return Label(uri, start_s, end_s, "a bell", **values)


@pytest.mark.parametrize(
    ("start_s", "end_s", "frames"),
    [
        (0.0, 0.04, [0]),
        (0.04, 0.12, [1, 2]),
        (0.05, 0.1201, [1, 2, 3]),
        (27.9, 28.0, [697, 698, 699]),
        (1.0, 1.001, [25]),
    ],
)
def test_frames_of_a_label_are_those_that_its_time_touches(
    index: Path, tmp_path: Path, start_s: float, end_s: float, frames: list[int]
) -> None:
    labels = complete_labels(Index(str(index)), [label("/b.wav", start_s, end_s, rank=7)])
    export_label_vectors(Folder(str(tmp_path)), {}, lambda: labels, table_of(index, "frames"))
    found = read(tmp_path, "frames")
    assert found["frame"].to_pylist() == frames
    assert set(found["uri"].to_pylist()) == {"/b.wav"}
    assert set(found["rank"].to_pylist()) == {7}
    stored = Index(str(index)).to_arrow("frames", where=f"audio_id = '{labels[0].audio_id}'")
    assert np.array_equal(to_matrix(found["vector"]), to_matrix(stored["vector"])[frames].astype(np.float32))


def test_clips_of_a_label_are_those_of_its_own_file_that_overlap_it(index: Path, tmp_path: Path) -> None:
    opened = Index(str(index))
    labels = complete_labels(
        opened, [label("/b.wav", 9.7, 9.9), label("/copy.wav", 0.0, 0.1), label("/new.wav", 0.0, 1.0)]
    )
    exported = export_label_vectors(Folder(str(tmp_path)), {}, lambda: labels, table_of(index, "clips"))
    found = read(tmp_path, "clips")
    assert found["uri"].to_pylist() == ["/b.wav", "/b.wav", "/copy.wav"]
    assert found["label_start_s"].to_pylist() == [9.7, 9.7, 0.0]
    assert [(problem.uri, problem.reason) for problem in exported.problems] == [("/new.wav", "vanished")]


def test_export_that_dies_at_every_step_ends_like_an_undisturbed_one(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.export.exporting.LABELS_AT_ONCE", 2)
    opened = Index(str(index))
    labels = complete_labels(
        opened, [label(uri, 0.0, 0.2) for uri in ("/a.wav", "/b.wav", "/no.wav", "/c.wav", "/b.wav")]
    )

    def of_labels(folder: Folder) -> Exported:
        return export_label_vectors(folder, {}, lambda: labels, table_of(index, "frames"))

    def of_all(folder: Folder) -> Exported:
        return export_all_vectors(folder, {}, table_of(index, "frames"), "n_frames > 10")

    for number, export in enumerate((of_labels, of_all)):
        undisturbed, out = tmp_path / f"undisturbed{number}", tmp_path / f"out{number}"
        expected = export(Folder(str(undisturbed)))
        assert die_at_every_step(out, export) == expected
        assert read_folder(out) == read_folder(undisturbed)
        assert len(read_folder(out)) == len(expected.names)


def test_export_goes_on_in_the_state_that_it_began_with(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(1), tmp_path / "index"
    write_index(path, {"/a.wav": draw_vectors(rng, 30, GRID)}, GRID)
    before = table_of(path, "frames")
    undisturbed = export_all_vectors(Folder(str(tmp_path / "undisturbed")), {}, before)

    def stop(step: str) -> None:
        if step.startswith("write frames"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_all_vectors(Folder(str(tmp_path / "out"), stop), {}, before)
    add_failed_file(path)
    after = table_of(path, "frames")
    assert after.state.seq > before.state.seq
    assert export_all_vectors(Folder(str(tmp_path / "out")), {}, after) == undisturbed
    assert read_folder(tmp_path / "out") == read_folder(tmp_path / "undisturbed")


def test_state_that_is_gone_is_told(index: Path) -> None:
    live = open_index(index).live
    state = State(live.path, live.seq, dict.fromkeys(live.versions, 10_000), live.settings)
    with pytest.raises(UsageError, match=r"its state \d+, which this export began with, can no longer be read"):
        state.open("clips")


def test_index_without_frames_has_no_vectors_of_frames(tmp_path: Path) -> None:
    create_empty(tmp_path / "index", frames="none")
    with pytest.raises(UsageError, match="was built without frames"):
        export_all_vectors(Folder(str(tmp_path / "out")), {}, table_of(tmp_path / "index", "frames"))
