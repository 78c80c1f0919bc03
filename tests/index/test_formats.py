"""An index of format 2, as it was written before ``files`` had its newest columns: read, and brought up by a run."""

import tarfile
from pathlib import Path
from typing import Any

import fsspec
import lance
import pytest

import pipeline
from pipeline import schema
from pipeline.config import Config
from pipeline.encoder.encoder import load_encoder
from pipeline.errors import IndexMismatch
from pipeline.index import journal
from pipeline.index.handle import find_index, open_index
from pipeline.index.repair import restore_index
from pipeline.index.tables import latest_version, read_files
from pipeline.index.verify import report_on_index, verify_index
from pipeline.index.verify_deep import compare
from pipeline.index.writer import Writer
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus, read_config
from tests.helpers.runs import WideEncoder, in_place

KEPT = Path(__file__).parents[1] / "data" / "format-2.tar.gz"
"""``sounds``: two recordings, a copy of one, a broken file and a table that says where each microphone stood;
``index``: of these and of a file that was deleted, as runs of format 2 wrote it from ``memory:///format-2``."""

pytestmark = pytest.mark.filterwarnings("ignore:Deprecated call to `pkg_resources:DeprecationWarning")


@pytest.fixture
def index(tmp_path: Path) -> str:
    with tarfile.open(KEPT) as tar:
        tar.extractall(tmp_path, filter="data")
    memory = fsspec.filesystem("memory")
    for file in (tmp_path / "format-2" / "sounds").iterdir():
        memory.pipe_file(f"/format-2/{file.name}", file.read_bytes())
    return str(tmp_path / "format-2" / "index")


def read(index: str) -> list[dict[str, Any]]:
    files = read_files(index).sort_by("uri").to_pylist()
    return [{name: row[name] for name in ("uri", "status", "audio_id", "n_clips", "n_frames", "mic")} for row in files]


def columns(index: str) -> list[str]:
    return list(lance.dataset(journal.table_uri(index, "files")).schema.names)


def config_of(index: str) -> Config:
    return read_config(open_index(index))


def test_index_of_format_2_answers_queries(index: str) -> None:
    version = latest_version(index, "files")
    opened = pipeline.open(index)
    assert (opened.describe()["with_note"], opened.notes().column_names) == (0, ["uri", "note"])
    assert opened.search("a bell ringing", 1)[0].uri == "memory:///format-2/bell.ogg"
    [siren] = opened.locate("an ambulance siren", 1)
    assert (siren.uri, siren.metadata) == ("memory:///format-2/siren.ogg", {"mic": "south"})
    assert siren.start_s == pytest.approx(4.0, abs=0.2)
    assert siren.end_s == pytest.approx(7.0, abs=0.2)
    assert opened.describe()["indexed"] == 3
    assert verify_index(index) == []
    assert report_on_index(open_index(index)).n_without_checksum == 3
    assert latest_version(index, "files") == version
    assert columns(index)[: len(schema.FILES.names) - 4] == schema.FILES.names[:-4]
    assert not set(columns(index)) & set(schema.FILES_SINCE[3])


def test_next_run_migrates_to_the_newest_format_and_encodes_nothing(index: str) -> None:
    before = read(index)
    plan = plan_corpus(config_of(index))
    assert (plan.n_unchanged, plan.n_to_decode) == (4, 0)
    stages = in_place(WideEncoder(), lambda number: pytest.fail("nothing to decode"))
    progress = index_corpus(config_of(index), stages=stages)
    assert (progress.n_unchanged, progress.n_failed_before, progress.n_deleted) == (4, 1, 0)
    assert set(columns(index)) >= set(schema.FILES.names)
    assert read(index) == before
    assert verify_index(index) == []
    kinds = journal.read_journal(index)["kind"].to_pylist()
    assert kinds.count("migrate") == 1
    index_corpus(config_of(index), stages=stages)
    assert journal.read_journal(index)["kind"].to_pylist().count("migrate") == 1


def test_files_that_are_encoded_again_have_checksums(index: str) -> None:
    encoder = load_encoder(config_of(index).encode, output="float16")
    before = read(index)
    index_corpus(config_of(index), stages=in_place(encoder), request=RunRequest(full=True))
    assert read(index) == before
    assert report_on_index(open_index(index)).n_without_checksum == 0
    assert verify_index(index) == []
    compared = compare(open_index(index).live, encoder, None)
    assert (compared.findings, compared.n_compared, compared.n_indexed) == ([], 3, 3)


def test_batches_published_before_the_migration_can_be_restored(index: str) -> None:
    before = read(index)
    index_corpus(config_of(index), stages=in_place(WideEncoder()))
    batches = journal.read_journal(index).to_pylist()
    [migrated] = [row["seq"] for row in batches if row["kind"] == "migrate"]
    restore_index(index, max(row["seq"] for row in batches if row["kind"] == "index" and row["seq"] < migrated))
    assert set(columns(index)) >= set(schema.FILES.names)
    assert read(index) == before
    assert index_corpus(config_of(index), stages=in_place(WideEncoder())).n_unchanged == 4
    assert verify_index(index) == []


def test_rebuild_has_the_newest_format(index: str) -> None:
    config = config_of(index)
    index_corpus(config, stages=in_place(load_encoder(config.encode, output="float16")), rebuild=True)
    live = find_index(index).live.path
    assert live.endswith("generation-2")
    assert set(columns(live)) >= set(schema.FILES.names)
    assert report_on_index(open_index(index)).n_without_checksum == 0
    assert verify_index(index) == []
    assert {row["uri"].rsplit("/", 1)[1]: row["status"] for row in read_files(live).to_pylist()} == {
        "bell.ogg": "indexed",
        "copy of bell.ogg": "indexed",
        "siren.ogg": "indexed",
        "broken.wav": "failed",
        "gone.ogg": "deleted",
    }


def test_metadata_column_named_like_a_new_column_is_refused(index: str) -> None:
    files = lance.dataset(journal.table_uri(index, "files"))
    files.add_columns({"note": "'quiet'"})
    published = journal.read_published(index)
    versions = published.versions | {"files": files.version}
    row = journal.make_row(published.seq + 1, "f" * 32, "f" * 32, "columns", versions)
    journal.publish(journal.open_journal(index), [row])
    with pytest.raises(IndexMismatch, match=r"has a column `note`, .* rename it in your table"):
        index_corpus(config_of(index), stages=in_place(WideEncoder()))
    assert pipeline.open(index).search("a bell ringing", 1)[0].uri == "memory:///format-2/bell.ogg"


def test_first_format_is_refused(index: str) -> None:
    batches = lance.dataset(journal.table_uri(index, "batches"))
    [created] = batches.to_table(filter="kind = 'create'").to_pylist()
    older = created["detail"].replace('"format": 2', '"format": 1')
    batches.update({"detail": f"'{older}'"}, where="kind = 'create'")
    for use in (pipeline.open, lambda path: Writer(path, "0" * 32)):
        with pytest.raises(IndexMismatch, match="index format 1 was never released"):
            use(index)
