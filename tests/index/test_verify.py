"""Each defect is planted, found, and mended by an ordinary run."""

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.config import Config, make_config
from pipeline.errors import EarshotError
from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.index.lease import Lease
from pipeline.index.repair import give_up_fragments, mark_damaged
from pipeline.index.tables import latest_version, open_published
from pipeline.index.verify import report_on_index, verify_index
from pipeline.index.verify_deep import Stored, compare
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from tests.helpers.contents import SECTIONS, KnownBucket, live
from tests.helpers.fakes import GRID, noise, write_wav
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.tables import write_index

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


def publish(path: str) -> None:
    """What is in the tables now becomes what the journal names."""
    versions = {name: latest_version(path, name) for name in journal.DATA_TABLES}
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
    assert verify_index(whole.into) == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_and_mended(config: Config, defect: str) -> None:
    before = live(config.into)
    plant, where, said = DEFECTS[defect]
    plant(config.into)
    publish(config.into)
    findings = verify_index(config.into)
    assert any(finding.table == where and said in finding.what for finding in findings), findings
    mark_damaged(config.into, findings)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
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
    mark_damaged(config.into, verify_index(config.into))
    index_corpus(moved, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []


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
    findings = verify_index(config.into)
    assert any(finding.table == name for finding in findings)
    mark_damaged(config.into, findings)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
    assert live(config.into) == before


def test_rows_that_no_index_covers_are_found_and_covered(config: Config) -> None:
    uri = first(config.into, "files", "uri", "status = 'failed'")
    table(config.into, "files").delete(f"uri = '{uri}'")
    publish(config.into)
    index = table(config.into, "clips")
    index.drop_index("clip_id_idx")
    publish(config.into)
    with Lease(config.into, "a run, which makes indexes at its end"):
        assert verify_index(config.into) == []
    assert [finding.what for finding in verify_index(config.into)] == ["no index on clip_id"]
    mark_damaged(config.into, verify_index(config.into))
    assert verify_index(config.into) == []


@pytest.mark.parametrize(("name", "column"), [("files", "file_id"), ("clips", "audio_id"), ("frames", "audio_id")])
def test_an_index_that_cannot_be_read_is_found_and_made_anew(config: Config, name: str, column: str) -> None:
    before = live(config.into)
    for file in Path(journal.table_uri(config.into, name), "_indices").rglob("*.lance"):
        file.unlink()
    findings = verify_index(config.into)
    assert (name, f"the index on {column} cannot be read") in {(finding.table, finding.what) for finding in findings}
    mark_damaged(config.into, findings)
    assert verify_index(config.into) == []
    assert live(config.into) == before


def rewrite(path: str, name: str, where: str, change: Callable[[Any], Any]) -> None:
    """Write rows anew in their place, their vectors (n, D) changed, and publish that."""
    rows = table(path, name).to_table(filter=where)
    field = rows.schema.field("vector")
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1).copy()
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(change(vectors).astype(np.float16).reshape(-1)), field.type.list_size
    )
    changed = rows.set_column(rows.schema.get_field_index("vector"), field, column)
    table(path, name).delete(where)
    lance.write_dataset(changed, journal.table_uri(path, name), mode="append")
    publish(path)


def scale(vectors: Any) -> Any:
    return vectors * 1.5


def change_one_number(vectors: Any) -> Any:
    vectors[-1, 0] *= 1.03
    return vectors


def swap_rows(vectors: Any) -> Any:
    return vectors[::-1]


@pytest.mark.parametrize("name", ["clips", "frames"])
@pytest.mark.parametrize("change", [scale, change_one_number, swap_rows])
def test_vectors_that_are_not_those_that_were_written_are_found_and_mended(
    config: Config, name: str, change: Callable[[Any], Any]
) -> None:
    before = live(config.into)
    [owner] = {row["audio_id"] for row in table(config.into, "files").to_table(filter="uri LIKE '%/c.wav'").to_pylist()}
    rewrite(config.into, name, f"audio_id = '{owner}'", change)
    findings = verify_index(config.into)
    rotten = [finding for finding in findings if finding.audio_id is not None]
    assert [(finding.table, finding.audio_id) for finding in rotten] == [(name, owner)]
    assert "checksum" in rotten[0].what
    mark_damaged(config.into, findings)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
    assert live(config.into) == before


@pytest.mark.parametrize("name", ["clips", "frames"])
def test_bytes_that_rot_on_the_disk_are_found_and_mended(config: Config, name: str) -> None:
    before = live(config.into)
    [owner] = {row["audio_id"] for row in table(config.into, "files").to_table(filter="uri LIKE '%/c.wav'").to_pylist()}
    rows = table(config.into, name).to_table(filter=f"audio_id = '{owner}'")
    needle = np.array(rows["vector"][1].as_py(), np.float16).tobytes()  # vectors are not compressed
    files = Path(journal.table_uri(config.into, name), "data").iterdir()
    [file] = [each for each in files if needle in each.read_bytes()]
    data = bytearray(file.read_bytes())
    at = data.index(needle)
    for place in range(at, at + 64):
        data[place] ^= 1
    file.write_bytes(data)
    findings = verify_index(config.into)
    assert {(finding.table, finding.audio_id) for finding in findings} == {(name, owner)}
    mark_damaged(config.into, findings)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
    assert live(config.into) == before


def damage(file: Path, how: str) -> None:
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.write_bytes(b"\xff" * file.stat().st_size)


@pytest.mark.parametrize("name", ["files", "clips", "frames"])
@pytest.mark.parametrize("how", ["gone", "cut", "overwritten"])
def test_a_lost_data_file_is_found_and_what_was_in_it_made_anew(config: Config, name: str, how: str) -> None:
    before = live(config.into)
    folder = Path(config.into).parent / "more"
    folder.mkdir()
    write_wav(folder / "later.wav", noise(1.1, seed=7))
    both = config.model_copy(update={"sources": (*config.sources, str(folder))})
    index_corpus(both, stages=in_place(WideEncoder()))
    before = live(config.into)
    published = open_published(config.into, name)
    fragment = max(published.get_fragments(), key=lambda each: each.count_rows())
    [data_file] = fragment.data_files()
    damage(Path(journal.table_uri(config.into, name), "data", data_file.path), how)
    findings = verify_index(config.into)
    lost = [finding for finding in findings if finding.fragment is not None]
    assert [(finding.table, finding.fragment) for finding in lost] == [(name, fragment.fragment_id)]
    assert data_file.path in lost[0].what
    assert give_up_fragments(config.into, findings) == 1
    findings = verify_index(config.into)
    assert findings
    assert all(finding.fragment is None for finding in findings)
    mark_damaged(config.into, findings)
    index_corpus(both, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
    assert live(config.into) == before


def test_rows_without_a_checksum_are_counted_and_not_called_damaged(config: Config) -> None:
    assert report_on_index(config.into).n_without_checksum == 0
    table(config.into, "files").update({"clips_checksum": "NULL"}, "uri LIKE '%/b.wav'")
    table(config.into, "files").update({"frames_checksum": "NULL"}, "uri LIKE '%/c.wav'")
    publish(config.into)
    assert [finding for finding in verify_index(config.into) if "the index on" not in finding.what] == []
    assert report_on_index(config.into).n_without_checksum == 2


def test_the_memory_that_an_audit_takes_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((8 * 1_000 + 2, 8)).astype(np.float16)
    clips = rng.standard_normal((1_000, 8)).astype(np.float16)
    peaks = []
    for n_files in (12, 48):
        into = str(tmp_path / str(n_files))
        write_index(Path(into), {f"{number}.wav": (frames, clips) for number in range(n_files)}, GRID)
        tracemalloc.start()
        try:
            assert verify_index(into) == []
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_vectors_of_another_sound_are_found_by_encoding_again(config: Config) -> None:
    whole = compare(config.into, WideEncoder())
    assert (whole.findings, whole.n_compared, whole.n_indexed) == ([], 4, 4)
    clip_id = first(config.into, "clips", "clip_id", "uri LIKE '%/a.wav'")
    rewrite(config.into, "clips", f"clip_id = '{clip_id}'", lambda vectors: -vectors)
    (finding,) = compare(config.into, WideEncoder()).findings
    assert "200.00% of its length away" in finding.what
    assert str(finding.uri).endswith("/a.wav")


@pytest.mark.parametrize(("precision", "is_found"), [("float32", True), ("bfloat16", False)])
def test_how_far_a_vector_may_be_away_depends_on_the_precision(config: Config, precision: str, is_found: bool) -> None:
    class Encoder(WideEncoder):
        pass

    Encoder.precision = precision
    clip_id = first(config.into, "clips", "clip_id", "uri LIKE '%/a.wav'")
    rewrite(config.into, "clips", f"clip_id = '{clip_id}'", lambda vectors: vectors * 1.02)
    assert bool(compare(config.into, Encoder()).findings) == is_found


def test_a_sample_is_another_one_each_time_and_all_is_all(config: Config) -> None:
    clip_id = first(config.into, "clips", "clip_id", "uri LIKE '%/a.wav'")
    rewrite(config.into, "clips", f"clip_id = '{clip_id}'", lambda vectors: -vectors)
    samples = [compare(config.into, WideEncoder(), 1, seed) for seed in range(20)]
    assert {sample.n_compared for sample in samples} == {1}
    assert {len(sample.findings) for sample in samples} == {0, 1}
    everything = compare(config.into, WideEncoder(), None)
    assert (everything.n_compared, everything.n_indexed, len(everything.findings)) == (4, 4, 1)


def test_what_cannot_be_read_is_not_counted_as_compared(config: Config) -> None:
    folder = Path(config.into).parent / "in"
    shutil.copytree(Path(first(config.into, "files", "uri")).parent, folder)
    elsewhere = config.model_copy(update={"sources": (str(folder),)})
    index_corpus(elsewhere, request=RunRequest(), stages=in_place(WideEncoder()))
    (folder / "c.wav").unlink()
    compared = compare(config.into, WideEncoder(), None)
    assert (compared.n_compared, compared.n_indexed) == (3, 4)
    assert [str(finding.uri).rsplit("/", 1)[1] for finding in compared.findings] == ["c.wav"]


def test_a_data_file_that_is_lost_in_an_object_store_is_found_and_mended(bucket: str, tmp_path: Path) -> None:
    corpus = KnownBucket(f"{bucket}/lost", tmp_path)
    corpus.put("a.wav", 3)
    corpus.put("b.wav", 5)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    assert verify_index(corpus.config.into) == []
    data = f"{journal.table_uri(corpus.config.into, 'frames')}/data"
    corpus.store.rm_file(sorted(corpus.store.ls(data, detail=False))[0])
    findings = verify_index(corpus.config.into)
    assert [finding.table for finding in findings if finding.fragment is not None] == ["frames"]
    give_up_fragments(corpus.config.into, findings)
    mark_damaged(corpus.config.into, verify_index(corpus.config.into))
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    assert verify_index(corpus.config.into) == []
    assert live(corpus.config.into) == corpus.expected()


def test_stored_vectors_are_read_a_stretch_at_a_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((8 * 30 + 2, 8)).astype(np.float16)
    clips = rng.standard_normal((30, 8)).astype(np.float16)
    write_index(tmp_path / "index", {"a.wav": (frames, clips), "b.wav": (frames[::-1], clips[::-1])}, GRID)
    state = open_index(str(tmp_path / "index")).live
    [row] = state.read_files().filter(pc.field("uri") == "b.wav").to_pylist()
    for name, where, order, truth in (
        ("frames", f"audio_id = '{row['audio_id']}'", "frame", frames[::-1]),
        ("clips", f"file_id = '{row['file_id']}'", "start_s", clips[::-1]),
    ):
        for n_held in (1, 7, 1_000):
            stored = Stored(state, name, where, order, n_held)
            spans = [(first, min(first + 9, len(truth))) for first in range(0, len(truth), 8)]
            assert all((stored.read(first, stop) == truth[first:stop]).all() for first, stop in spans)
            assert len(stored.read(len(truth) + 5, len(truth) + 9)) == 0
