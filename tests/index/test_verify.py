"""Each defect is planted, found, and repaired by an ordinary run."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Config
from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.index.lease import Lease
from pipeline.index.repair import mark_damaged
from pipeline.index.verify import report_on_index, verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import live
from tests.helpers.damage import Defect, append, check_found_and_repaired, first, publish, rewrite
from tests.helpers.fakes import GRID
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.tables import write_index

DEFECTS: dict[str, Defect] = {
    "a ledger row is doubled": (lambda p: append(p, "files", "uri LIKE '%/a.wav'"), "files", "second row"),
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
    "a batch is unknown": (
        lambda p: table(p, "files").update({"batch_id": "'none'"}, "uri LIKE '%/c.wav'"),
        "files",
        "not in the journal",
    ),
}


def test_index_as_a_run_leaves_it_has_no_findings(whole: Config) -> None:
    assert verify_index(whole.into) == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found_and_repaired(config: Config, defect: str) -> None:
    check_found_and_repaired(config, *DEFECTS[defect])


def test_missing_scalar_index_is_found_and_created(config: Config) -> None:
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
def test_unreadable_scalar_index_is_found_and_created_again(config: Config, name: str, column: str) -> None:
    before = live(config.into)
    for file in Path(journal.table_uri(config.into, name), "_indices").rglob("*.lance"):
        file.unlink()
    findings = verify_index(config.into)
    assert (name, f"the index on {column} cannot be read") in {(finding.table, finding.what) for finding in findings}
    mark_damaged(config.into, findings)
    assert verify_index(config.into) == []
    assert live(config.into) == before


def scale(vectors: Any) -> Any:
    return vectors * 1.5


def change_one_number(vectors: Any) -> Any:
    vectors[-1, 0] *= 1.03
    return vectors


def swap_rows(vectors: Any) -> Any:
    return vectors[::-1]


@pytest.mark.parametrize("name", ["clips", "frames"])
@pytest.mark.parametrize("change", [scale, change_one_number, swap_rows])
def test_changed_vectors_are_found_and_repaired(config: Config, name: str, change: Callable[[Any], Any]) -> None:
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
def test_rotten_bytes_are_found_and_repaired(config: Config, name: str) -> None:
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


def test_rows_without_a_checksum_are_counted_and_no_findings(config: Config) -> None:
    assert report_on_index(open_index(config.into)).n_without_checksum == 0
    table(config.into, "files").update({"clips_checksum": "NULL"}, "uri LIKE '%/b.wav'")
    table(config.into, "files").update({"frames_checksum": "NULL"}, "uri LIKE '%/c.wav'")
    publish(config.into)
    assert [finding for finding in verify_index(config.into) if "the index on" not in finding.what] == []
    assert report_on_index(open_index(config.into)).n_without_checksum == 2


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
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
