"""Indexes of older formats, as they were written then: read, and brought up by a run."""

import tarfile
from pathlib import Path
from typing import Any

import fsspec
import lance
import pytest

import pipeline
from pipeline import schema
from pipeline.audio.decoder_versions import DECODER
from pipeline.config import Config
from pipeline.encoder.encoder import load_encoder
from pipeline.errors import IndexMismatch, UsageError
from pipeline.index import journal
from pipeline.index.handle import find_index, open_index
from pipeline.index.maintenance import optimize_index
from pipeline.index.repair import restore_index
from pipeline.index.tables import latest_version, read_files
from pipeline.index.verify import report_on_index, verify_index
from pipeline.index.verify_deep import compare
from pipeline.index.writer import Writer
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus, read_config
from tests.helpers.contents import check_pools
from tests.helpers.runs import WideEncoder, in_place

KEPT = Path(__file__).parents[1] / "data"
"""``format-N``: ``index``, as runs of format N wrote it from ``memory:///format-N``. It is of ``sounds``, which lie
beside that of format 2, and of a file that was deleted. The sounds are two recordings, a copy of one, a broken file and
a table that says where each microphone stood."""

pytestmark = pytest.mark.filterwarnings("ignore:Deprecated call to `pkg_resources:DeprecationWarning")


def extract(number: int, folder: Path) -> str:
    for each in {2, number}:
        with tarfile.open(KEPT / f"format-{each}.tar.gz") as tar:
            tar.extractall(folder, filter="data")
    memory = fsspec.filesystem("memory")
    for file in (folder / "format-2" / "sounds").iterdir():
        memory.pipe_file(f"/format-{number}/{file.name}", file.read_bytes())
    return str(folder / f"format-{number}" / "index")


@pytest.fixture(params=[2, 3])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return extract(request.param, tmp_path)


@pytest.fixture
def format_2(tmp_path: Path) -> str:
    return extract(2, tmp_path)


def format_of(index: str) -> int:
    return int(Path(index).parent.name.removeprefix("format-"))


AS_DECODED = RunRequest(keep_decoder=True)
"""A file that an older version could not decode is not tried again."""


def read(index: str) -> list[dict[str, Any]]:
    files = read_files(index).sort_by("uri").to_pylist()
    return [{name: row[name] for name in ("uri", "status", "audio_id", "n_clips", "n_frames", "mic")} for row in files]


def tables(index: str, name: str) -> Any:
    return open_index(index).live.open(name)


def columns(index: str) -> list[str]:
    return list(lance.dataset(journal.table_uri(index, "files")).schema.names)


def config_of(index: str) -> Config:
    return read_config(open_index(index))


def test_index_of_an_older_format_answers_queries(index: str) -> None:
    version, number = latest_version(index, "files"), format_of(index)
    opened = pipeline.open(index)
    assert (opened.describe()["with_note"], opened.notes().column_names) == (0, ["uri", "note"])
    assert opened.search("a bell ringing", 1)[0].uri == f"memory:///format-{number}/bell.ogg"
    [siren] = opened.locate("an ambulance siren", 1)
    assert (siren.uri, siren.metadata) == (f"memory:///format-{number}/siren.ogg", {"mic": "south"})
    assert siren.start_s == pytest.approx(4.0, abs=0.2)
    assert siren.end_s == pytest.approx(7.0, abs=0.2)
    assert opened.describe()["indexed"] == 3
    assert opened.describe()["written_by"] is None
    assert verify_index(index) == []
    assert report_on_index(open_index(index)).n_without_checksum == (3 if number == 2 else 0)
    assert open_index(index).live.versions.keys() == {"files", "clips", "frames"}
    assert (open_index(index).live.format, latest_version(index, "files")) == (number, version)
    since = {name for later, names in schema.FILES_SINCE.items() if later > number for name in names}
    assert set(schema.FILES.names) - set(columns(index)) == since


def test_next_run_migrates_to_the_newest_format_and_encodes_nothing(index: str) -> None:
    before = read(index)
    plan = plan_corpus(config_of(index), AS_DECODED)
    assert (plan.n_unchanged, plan.n_to_decode) == (4, 0)
    stages = in_place(WideEncoder(), lambda number: pytest.fail("nothing to decode"))
    progress = index_corpus(config_of(index), stages=stages, request=AS_DECODED)
    assert (progress.n_unchanged, progress.n_failed_before, progress.n_deleted) == (4, 1, 0)
    assert set(columns(index)) >= set(schema.FILES.names)
    assert read(index) == before
    assert verify_index(index) == []
    kinds = journal.read_journal(index)["kind"].to_pylist()
    assert kinds.count("migrate") == 1
    index_corpus(config_of(index), stages=stages, request=AS_DECODED)
    assert journal.read_journal(index)["kind"].to_pylist().count("migrate") == 1


def test_files_that_older_versions_decoded_are_examined_and_keep_their_vectors(index: str) -> None:
    before, vectors = read(index), tables(index, "clips").to_table().sort_by("clip_id")
    actions = {uri.rsplit("/", 1)[1]: action for uri, action, _ in plan_corpus(config_of(index)).actions}
    assert {actions[name] for name in ("bell.ogg", "copy of bell.ogg", "siren.ogg")} == {"examined"}
    encoder = WideEncoder()
    progress = index_corpus(config_of(index), stages=in_place(encoder))
    assert (encoder.n_windows, progress.n_indexed, progress.n_unchanged + progress.n_failed) == (0, 0, 4)
    assert read(index) == before
    assert tables(index, "clips").to_table().sort_by("clip_id") == vectors
    assert {row["decoder"] for row in read_files(index).to_pylist() if row["status"] == "indexed"} == {DECODER}
    assert verify_index(index) == []
    assert plan_corpus(config_of(index)).n_examined == 0


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
    index_corpus(config_of(index), stages=in_place(WideEncoder()), request=AS_DECODED)
    batches = journal.read_journal(index).to_pylist()
    [migrated] = [row["seq"] for row in batches if row["kind"] == "migrate"]
    restore_index(index, max(row["seq"] for row in batches if row["kind"] == "index" and row["seq"] < migrated))
    assert set(columns(index)) >= set(schema.FILES.names)
    assert read(index) == before
    again = index_corpus(config_of(index), stages=in_place(WideEncoder()), request=AS_DECODED)
    assert again.n_unchanged == 4
    assert verify_index(index) == []


def test_runs_write_no_pools_until_they_are_made(index: str) -> None:
    config, encoder = config_of(index), load_encoder(config_of(index).encode, output="float16")
    before = tables(index, "frames")
    index_corpus(config, stages=in_place(encoder), request=RunRequest(full=True))
    assert "pools" not in open_index(index).live.versions
    assert tables(index, "frames").schema == before.schema
    with pytest.raises(UsageError, match="'pools': expected files, clips, frames or batches"):
        pipeline.open(index).to_arrow("pools")
    check_pools(index)
    seq = journal.read_published(index).seq

    optimize_index(index)
    found = pipeline.open(index).to_arrow("pools")
    assert found.num_rows > 10
    check_pools(index)
    assert verify_index(index) == []
    rows = journal.read_journal(index).to_pylist()
    assert [row["kind"] for row in rows if row["seq"] > seq] == ["pools", "optimize"]
    assert [row["pools_version"] is None for row in rows] == [row["seq"] <= seq for row in rows]
    index_corpus(config, stages=in_place(encoder), request=RunRequest(full=True))  # replaces them
    check_pools(index)
    assert verify_index(index) == []
    optimize_index(index)
    assert journal.read_journal(index)["kind"].to_pylist().count("pools") == 1


def test_states_without_and_with_pools_can_be_restored(index: str) -> None:
    Writer(index, "0" * 32)
    without = journal.read_published(index).seq
    before = read(index)
    for _ in range(2):
        optimize_index(index)
        pooled = journal.read_published(index)
        check_pools(index)
        restore_index(index, without)
        assert "pools" not in open_index(index).live.versions
        check_pools(index)
        assert verify_index(index) == []
    restore_index(index, pooled.seq)
    assert "pools" in open_index(index).live.versions
    check_pools(index)
    assert (verify_index(index), read(index)) == ([], before)


def test_run_that_ends_with_many_frames_makes_pools(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run.driver.FRAMES_TO_POOL", 700)
    stages = in_place(WideEncoder())
    index_corpus(config_of(index), stages=stages)
    assert "pools" not in open_index(index).live.versions
    monkeypatch.setattr("pipeline.run.driver.FRAMES_TO_POOL", 100)
    index_corpus(config_of(index), stages=stages)
    assert "pools" in open_index(index).live.versions
    check_pools(index)
    assert verify_index(index) == []


def test_rebuild_has_the_newest_format(index: str) -> None:
    config = config_of(index)
    index_corpus(config, stages=in_place(load_encoder(config.encode, output="float16")), rebuild=True)
    live = find_index(index).live.path
    assert live.endswith("generation-2")
    assert set(columns(live)) >= set(schema.FILES.names)
    assert report_on_index(open_index(index)).n_without_checksum == 0
    assert verify_index(index) == []
    check_pools(index)
    assert {row["uri"].rsplit("/", 1)[1]: row["status"] for row in read_files(live).to_pylist()} == {
        "bell.ogg": "indexed",
        "copy of bell.ogg": "indexed",
        "siren.ogg": "indexed",
        "broken.wav": "failed",
        "gone.ogg": "deleted",
    }


def test_metadata_column_named_like_a_new_column_is_refused(format_2: str) -> None:
    index = format_2
    files = lance.dataset(journal.table_uri(index, "files"))
    files.add_columns({"note": "'quiet'"})
    published = journal.read_published(index)
    versions = published.versions | {"files": files.version}
    row = journal.make_row(published.seq + 1, "f" * 32, "f" * 32, "columns", versions)
    journal.publish(journal.open_journal(index), [row])
    with pytest.raises(IndexMismatch, match=r"has a column `note`, .* rename it in your table"):
        index_corpus(config_of(index), stages=in_place(WideEncoder()))
    assert pipeline.open(index).search("a bell ringing", 1)[0].uri == "memory:///format-2/bell.ogg"


def test_first_format_is_refused(format_2: str) -> None:
    index = format_2
    batches = lance.dataset(journal.table_uri(index, "batches"))
    [created] = batches.to_table(filter="kind = 'create'").to_pylist()
    older = created["detail"].replace('"format": 2', '"format": 1')
    batches.update({"detail": f"'{older}'"}, where="kind = 'create'")
    for use in (pipeline.open, lambda path: Writer(path, "0" * 32)):
        with pytest.raises(IndexMismatch, match="index format 1 was never released"):
            use(index)
