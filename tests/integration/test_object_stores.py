"""Corpora and indexes in object stores: runs read in spite of errors, and publish exactly once."""

from pathlib import Path
from typing import Any

import fsspec
import pytest

import pipeline
from pipeline import storage
from pipeline.config import make_config
from pipeline.index import journal, vector_build, vector_index
from pipeline.index.handle import find_index, open_index
from pipeline.index.maintenance import optimize_index
from pipeline.index.repair import restore_index
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.index.verify import verify_index
from pipeline.planning.request import RunRequest
from pipeline.run.decode_stage import decode_batch
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import read_config
from pipeline.search import audit_index
from tests.helpers import dying_build
from tests.helpers.building import make_here
from tests.helpers.contents import HASTY, PATIENT, KnownBucket, check_whole, content, live
from tests.helpers.corpora import actions, configure
from tests.helpers.fakes import GRID
from tests.helpers.protocol import Died, Dying, change, die_at, edit, edit_again, fill, make_anew, tidy
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky
from tests.helpers.vector_tables import check_index, read_ids


def failures(index: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pipeline.open(index).to_arrow("files", where="status = 'failed'").to_pylist()
    return rows


def test_requests_that_fail_for_a_while_are_retried(flaky: str, tmp_path: Path) -> None:
    put(f"{flaky}/a.wav", content(3).read_bytes())
    put(f"{flaky}/b.wav", content(4).read_bytes())  # of equal size: both are probed
    for name in ("ls", "info", "get_file", "cat_file"):
        Flaky.errors[name] = [OSError("please slow down"), TimeoutError(), ConnectionResetError("reset")]
    progress = index_corpus(configure(tmp_path, flaky), stages=in_place(WideEncoder()))
    assert (progress.n_indexed, progress.n_failed) == (2, 0)
    assert not any(Flaky.errors.values())
    assert (Flaky.calls["cat_file"], Flaky.calls["open"]) == (2 * 3 + 3, 2)  # three small requests tell them apart


@pytest.mark.parametrize(
    ("error", "reason", "n_calls"),
    [
        (FileNotFoundError("gone"), "vanished", 1),
        (PermissionError("Forbidden"), "unreadable", 1),
        (OSError("please slow down"), "unreadable", 4),
        (RuntimeError("the driver's own"), "unreadable", 4),
    ],
)
def test_object_that_cannot_be_read_is_a_failure_row(
    flaky: str, tmp_path: Path, error: Exception, reason: str, n_calls: int
) -> None:
    put(f"{flaky}/a.wav", content(3).read_bytes())
    put(f"{flaky}/good.wav", content(5).read_bytes())
    config = configure(tmp_path, flaky)

    def stages(batches: Any, config: Any, frames_schema: Any) -> Any:
        Flaky.calls.clear()
        Flaky.errors["get_file"] = [error] * n_calls
        return in_place(WideEncoder())(batches, config, frames_schema)

    progress = index_corpus(config, stages=stages)
    assert (progress.n_indexed, progress.n_failed, progress.reasons) == (1, 1, {reason: 1})
    assert Flaky.calls["get_file"] == n_calls + 1
    assert [row["stage"] for row in failures(config.into)] == ["read"]


def test_object_that_changes_while_it_is_read_fails(bucket: str) -> None:
    """The change happens within one second and keeps the size: the ETag differs."""
    url, store = f"{bucket}/changing/a.wav", fsspec.filesystem("s3")
    store.pipe_file(url, content(5).read_bytes())
    size_bytes, modified_ns = storage.stat_file(url)
    audio = {"content_hash": None, "size_bytes": size_bytes, "uris": [url], "modified_ns": [modified_ns]}
    for overwrite in (False, True):
        blocks = decode_batch(
            {"batch_id": "b", "audios": [audio]}, make_config({"sources": "x", "into": "y"}).decode, GRID, 1
        )
        next(blocks)
        if overwrite:
            data = content(5).read_bytes()
            store.pipe_file(url, data[:-1] + bytes([data[-1] ^ 1]))
        [row] = [file for block in blocks for row in block["files"].to_pylist() if row for file in row]
        assert row["reason"] == ("changed_while_reading" if overwrite else None)


@pytest.fixture
def known(bucket: str, tmp_path: Path) -> KnownBucket:
    return KnownBucket(f"{bucket}/{tmp_path.name}", tmp_path, store=HASTY)


@pytest.fixture(autouse=True)
def few_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The indexes of these tests have a vector index."""
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 3)
    monkeypatch.setattr(audit_index, "N_QUESTIONS", 3)


def run(corpus: KnownBucket, **others: Any) -> WideEncoder:
    """Index to the end: the rows are right, and each vector index covers them."""
    encoder, vectors = WideEncoder(), VectorUpkeep(make_here)
    index_corpus(corpus.config, stages=in_place(encoder), vectors=vectors, **others)
    assert not vectors.problems
    for name in ("clips", "pools"):
        table = find_index(corpus.config.into).live.open(name)
        check_index(table, set(read_ids(table)))
    assert live(corpus.config.into) == corpus.expected()
    assert verify_index(corpus.config.into) == []
    return encoder


def test_index_in_a_bucket_follows_a_corpus_in_a_bucket(known: KnownBucket) -> None:
    for name, number in (("a.wav", 3), ("b.wav", 4), ("sub/d.wav", 5)):
        known.put(name, number)
    run(known)
    known.put("a.wav", 5)
    known.move("b.wav", "sub/b.wav")
    known.put("new.wav", 7)
    assert actions(known.config) == {"a.wav": "duplicate", "b.wav": "moved", "d.wav": "unchanged", "new.wav": "new"}
    assert run(known).n_windows == 0
    assert read_config(open_index(known.config.into)).sources == known.config.sources
    assert not [name for name in known.store.ls(known.config.into, detail=False) if "claim" in name]


@pytest.mark.slow
def test_restore_rebuild_and_optimize_work_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    known = KnownBucket(f"{bucket}/{tmp_path.name}", tmp_path, store=PATIENT)
    into = known.config.into
    fill(known)
    run(known)
    seq = journal.read_published(into).seq
    edit(known)
    run(known)
    edit_again(known)
    run(known, request=RunRequest(check_content=True))
    restore_index(into, seq)
    run(known)
    run(known, rebuild=True)
    optimize_index(into, 0.0)
    assert find_index(into).live.path == f"{into}/generation-2"
    assert live(into) == known.expected()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("situation", "step"),
    [
        (change, "append frames"),
        (change, "publish"),
        (change, "vectors clips"),
        (change, "vectors pools"),
        (change, "tag"),
        (tidy, "clean files"),
        (make_anew, "switch"),
    ],
)
def test_crash_at_any_step_loses_nothing_in_a_bucket(known: KnownBucket, situation: Any, step: str) -> None:
    act = situation(known)
    assert die_at(step, 1, act, known.config)
    check_whole(known.config.into)
    run(known)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["build shard", "commit shards"])
def test_vector_index_that_a_dead_run_left_in_a_bucket_is_begun_anew(
    known: KnownBucket, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_build, "ROWS_PER_SHARD", dying_build.ROWS_PER_SHARD)
    monkeypatch.setattr(vector_index, "PARTITIONS", 500)
    fill(known)
    vectors = VectorUpkeep(Dying("clips", step, 1))
    with pytest.raises(Died):
        index_corpus(known.config, stages=in_place(WideEncoder()), vectors=vectors)
    assert vector_index.read_index(find_index(known.config.into).live.open("clips")) is None
    run(known)
    assert vector_index.read_index(find_index(known.config.into).live.open("clips")) is not None
    assert not [path for path in known.store.find(f"{known.config.into}/clips.lance") if vector_build._PART in path]
