"""A rebuild writes a new generation and switches readers to it in one step; what maintenance may delete."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

import pipeline
from pipeline.config import Config, StoreConfig, make_config
from pipeline.encoder.encoder import NonFiniteError
from pipeline.errors import CorpusError, EarshotError, IndexMismatch, UsageError
from pipeline.index import journal
from pipeline.index.clip_rows import clip_rows
from pipeline.index.frame_rows import frame_rows
from pipeline.index.handle import delete_folder, find_index, open_index
from pipeline.index.maintenance import optimize_index
from pipeline.index.repair import restore_index
from pipeline.index.tables import open_published, read_files, write_rows
from pipeline.index.verify import verify_index
from pipeline.index.writer import Batch, Writer
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus, read_config
from pipeline.run.progress import Progress, find_shortfall
from pipeline.schema import Row
from tests.helpers.contents import SECTIONS, KnownCorpus, live, read
from tests.helpers.older import create_older
from tests.helpers.protocol import die_at, rebuild
from tests.helpers.runs import WideEncoder, in_place

NAMES = ("a.wav", "b.wav", "c.wav", "sub/d.wav", "sub/e.wav")


@pytest.fixture
def corpus(tmp_path: Path) -> KnownCorpus:
    """Indexed; one file has been deleted since."""
    made = KnownCorpus(tmp_path, store=SECTIONS["store"])
    for number, name in enumerate((*NAMES, "deleted.wav")):
        made.put(name, number)
    index(made.config)
    made.delete("deleted.wav")
    index(made.config)
    return made


def index(config: Config, **others: Any) -> int:
    """Run; returns how many windows were encoded."""
    encoder = WideEncoder()
    index_corpus(config, stages=in_place(encoder), **others)
    return encoder.n_windows


def make_hasty(config: Config) -> StoreConfig:
    """No reader holds an old version."""
    return config.store.model_copy(update={"keep_hours": 1e-6})


def with_windows(config: Config, length_s: float) -> Config:
    return make_config({**config.model_dump(mode="json"), "window": {"length_s": length_s, "overlap_s": 0.2}})


@pytest.fixture
def older(corpus: KnownCorpus, tmp_path: Path) -> Config:
    """The configuration of an index from before there was a choice: its settings name no rule for last windows."""
    return create_older(corpus.config.model_copy(update={"into": str(tmp_path / "older")}))


def clips_by_rule(config: Config) -> dict[str, list[tuple[float, float]]]:
    """When the clips of all files begin and end, by each rule."""
    files = [row for row in read_files(open_index(config.into).live.path).to_pylist() if row["status"] == "indexed"]
    grids = {tail: replace(config.window.grid, tail=tail) for tail in ("fit", "back")}
    return {
        tail: sorted((row["start_s"], row["end_s"]) for file in files for row in clip_rows(file, grid))
        for tail, grid in grids.items()
    }


def clips_of(config: Config) -> list[tuple[float, float]]:
    rows = pipeline.open(config.into).to_arrow("clips", ["start_s", "end_s"]).to_pylist()
    return sorted((row["start_s"], row["end_s"]) for row in rows)


def test_older_index_keeps_its_rule_until_it_is_rebuilt(older: Config) -> None:
    index(older)
    assert clips_of(older) == clips_by_rule(older)["back"] != clips_by_rule(older)["fit"]
    assert index(older) == 0
    assert index(read_config(open_index(older.into))) == 0
    assert plan_corpus(older).batches.num_rows == 0
    assert verify_index(older.into) == []

    index(read_config(open_index(older.into)), rebuild=True)
    assert open_index(older.into).live.settings["window"]["tail"] == "fit"
    assert clips_of(older) == clips_by_rule(older)["fit"] != clips_by_rule(older)["back"]
    assert index(older) == 0


def test_rebuild_that_was_begun_before_there_was_a_choice_continues(older: Config) -> None:
    other, begun = with_windows(older, 1.2), f"{older.into}/generation-2"
    index(older)
    create_older(other, begun)
    assert die_at("publish", 3, rebuild, other)
    n_done = len(read_tables(begun, "files"))
    assert 0 < n_done < len(NAMES)
    assert plan_corpus(other, rebuild=True).n_unchanged == n_done
    named = other.model_copy(update={"window": other.window.model_copy(update={"tail": "fit"})})
    with pytest.raises(IndexMismatch, match=r"unfinished rebuild has .*'back'.*not .*'fit'"):
        plan_corpus(named, rebuild=True)

    index(other, rebuild=True)
    assert open_index(older.into).live.path == begun
    assert clips_of(other) == clips_by_rule(other)["back"] != clips_by_rule(other)["fit"]
    assert verify_index(older.into) == []
    assert index(other) == 0
    index(other, rebuild=True)
    assert clips_of(other) == clips_by_rule(other)["fit"]


def test_rule_that_is_named_is_that_of_the_index_or_refused(corpus: KnownCorpus, older: Config) -> None:
    def named(config: Config, tail: str) -> Config:
        values = config.model_dump(mode="json")
        return make_config({**values, "window": {**values["window"], "tail": tail}})

    index(named(older, "back"))
    with pytest.raises(IndexMismatch, match=r"'tail': 'back'.*not .*'tail': 'fit'.*--rebuild"):
        index(named(older, "fit"))
    assert index(named(corpus.config, "fit")) == 0
    with pytest.raises(IndexMismatch, match=r"'tail': 'fit'.*not .*'tail': 'back'.*--rebuild"):
        index(named(corpus.config, "back"))
    index(named(corpus.config, "back"), rebuild=True)
    assert clips_of(corpus.config) == clips_by_rule(corpus.config)["back"]


def test_other_settings_are_refused_and_rebuild_is_named(corpus: KnownCorpus) -> None:
    other = with_windows(corpus.config, 1.2)
    before = live(corpus.config.into)
    with pytest.raises(IndexMismatch, match=r"built with window .*length_s': 0\.8.*not .*length_s': 1\.2.*--rebuild"):
        index(other)
    with pytest.raises(IndexMismatch, match="--rebuild"):
        plan_corpus(other)
    assert live(corpus.config.into) == before


def test_readers_see_the_old_generation_until_the_new_one_is_complete(corpus: KnownCorpus) -> None:
    other = with_windows(corpus.config, 1.2)
    into, old = corpus.config.into, live(corpus.config.into)
    planned = plan_corpus(other, rebuild=True)
    assert (planned.n_to_decode, planned.n_unchanged) == (5, 0)
    seen: list[tuple[str, bool]] = []
    index(other, rebuild=True, failpoint=lambda step: seen.append((step, live(into) == old)))
    assert seen[-1] == ("switch", True)
    assert all(same for _, same in seen)
    assert live(into) == corpus.expected(other) != old
    assert verify_index(into) == []
    opened = pipeline.open(into)
    assert opened.tables == f"{into}/generation-2"
    assert opened.describe()["files"] == 5
    deleted = [row for row in read(into, "files") if row["status"] == "deleted"]
    assert [row["uri"] for row in deleted] == [corpus.uri("deleted.wav")]
    assert read_config(open_index(into)).window == other.window
    assert index(other) == 0
    with pytest.raises(IndexMismatch):
        index(corpus.config)
    assert index(corpus.config, rebuild=True) > 0
    assert find_index(into).live.path == f"{into}/generation-3"
    assert live(into) == old


def test_a_stopped_rebuild_continues(corpus: KnownCorpus) -> None:
    other = with_windows(corpus.config, 1.2)
    into, old = corpus.config.into, live(corpus.config.into)
    whole = index(other, rebuild=True)
    delete_folder(f"{into}/generation-2")
    lance.dataset(journal.table_uri(into, "batches")).delete("kind = 'switch'")
    assert live(into) == old

    assert die_at("publish", 4, rebuild, other)  # after create, configure and one batch of files
    assert live(into) == old
    n_done = len(read_tables(f"{into}/generation-2", "files"))
    assert n_done > 0
    said = pipeline.open(into).describe()["unfinished_rebuild"]
    assert said.startswith(f"{n_done} files done; `--rebuild` goes on")
    assert plan_corpus(other, rebuild=True).n_unchanged == n_done
    assert plan_corpus(corpus.config).n_unchanged == 5  # runs go on with the old one meanwhile
    corpus.put("new.wav", 1)
    index(corpus.config)
    assert live(into) == corpus.expected()
    n_before = len(read_tables(f"{into}/generation-2", "clips"))
    assert 0 < n_before < whole
    assert index(other, rebuild=True) == whole - n_before  # new.wav is a copy of b.wav
    assert live(into) == corpus.expected(other)


def read_tables(tables: str, name: str) -> list[Row]:
    rows: list[Row] = open_published(tables, name).to_table().to_pylist()
    return rows


def test_an_unfinished_rebuild_with_other_settings_is_not_deleted(corpus: KnownCorpus) -> None:
    assert die_at("switch", 1, rebuild, with_windows(corpus.config, 1.2))
    other = with_windows(corpus.config, 1.6)
    for run in (index, plan_corpus):
        with pytest.raises(IndexMismatch, match=r"unfinished rebuild has .*1\.2.*not .*1\.6.*generation-2"):
            run(other, rebuild=True)
    assert read_config(open_index(corpus.config.into), rebuild=True).window.length_s == 1.2
    assert read_config(open_index(corpus.config.into)).window.length_s == 0.8
    delete_folder(f"{corpus.config.into}/generation-2")
    index(other, rebuild=True)
    assert live(corpus.config.into) == corpus.expected(other)


def test_remains_of_a_generation_are_no_obstacle(corpus: KnownCorpus) -> None:
    """Its creation or its deletion was interrupted."""
    other = with_windows(corpus.config, 1.2)

    assert die_at("switch", 1, rebuild, other)
    delete_folder(f"{corpus.config.into}/generation-2/batches.lance/_versions")
    assert plan_corpus(other, rebuild=True).n_to_decode == 5
    assert die_at("create frames", 1, rebuild, other)
    index(other, rebuild=True)
    assert live(corpus.config.into) == corpus.expected(other)


def test_a_rebuild_stops_where_a_folder_cannot_be_listed(corpus: KnownCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    real, before = os.scandir, live(corpus.config.into)

    def refuse(path: Any) -> Any:
        if str(path).endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(CorpusError, match=r"sub: .*the index has 2 files in it"):
            index(with_windows(corpus.config, 1.2), rebuild=True)
    assert live(corpus.config.into) == before


def test_a_rebuild_with_unpublished_files_does_not_replace_the_old_generation(corpus: KnownCorpus) -> None:
    """Files that change under a rebuild are left for the next run; until then the old tables answer."""
    other, into = with_windows(corpus.config, 1.2), corpus.config.into
    other = other.model_copy(update={"run": other.run.model_copy(update={"batch_s": 0.1})})
    before = live(into)

    def doubled(batches: Any, config: Config, frames_schema: Any) -> Any:
        for receipt in in_place(WideEncoder())(batches, config, frames_schema):
            if receipt["batch_id"] == batches["batch_id"][0].as_py():
                receipt = {**receipt, "files": receipt["files"] * 2}
            yield receipt

    assert index_corpus(other, stages=doubled, rebuild=True).unpublished
    assert live(into) == before
    index(other, rebuild=True)
    assert live(into) == corpus.expected(other)


def test_a_generation_of_failures_is_not_put_in_place(corpus: KnownCorpus) -> None:
    before = live(corpus.config.into)

    class Deaf(WideEncoder):
        def encode(self, windows: Any) -> Any:
            raise NonFiniteError(list(range(len(windows))), len(windows))

    with pytest.raises(EarshotError, match="no file could be indexed anew"):
        index_corpus(with_windows(corpus.config, 1.2), stages=in_place(Deaf()), rebuild=True)
    assert live(corpus.config.into) == before


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_newer_format_is_left_alone(corpus: KnownCorpus, rebuild: bool) -> None:
    into = corpus.config.into
    newer = journal.FORMAT + 1
    before = journal.read_published(into)
    row = journal.make_row(before.seq + 1, "x", "x", "migrate", before.versions, detail={"format": newer})
    journal.publish(journal.open_journal(into), [row])
    for run in (index, plan_corpus):
        with pytest.raises(IndexMismatch, match=f"index format {newer}, this version reads up to {journal.FORMAT}"):
            run(corpus.config, rebuild=rebuild)
    with pytest.raises(IndexMismatch):
        Writer(into, "x")
    assert {path.name for path in Path(into).iterdir()} == {
        "run.json",
        *(f"{n}.lance" for n in (*journal.DATA_TABLES, "batches")),
    }


@pytest.mark.parametrize("rebuild_first", [False, True])
def test_either_a_rebuild_or_another_run_wins(corpus: KnownCorpus, rebuild_first: bool) -> None:
    index(corpus.config, rebuild=True)
    into = corpus.config.into
    assert find_index(into).live.path.endswith("generation-2")
    corpus.put("new.wav", 2)
    corpus.put("newer.wav", 4)
    waiting = ["append files"]

    def overtake(name: str) -> None:
        if waiting == [name]:
            waiting.clear()
            for lease in Path(into).glob("claim-*"):
                lease.unlink()
            corpus.put("newest.wav", 1)
            index(corpus.config, rebuild=not rebuild_first)

    with pytest.raises(EarshotError, match="another run"):
        index(corpus.config, rebuild=rebuild_first, failpoint=overtake)
    assert live(into) == corpus.expected()
    index(corpus.config)
    assert live(into) == corpus.expected()
    assert verify_index(into) == []


def test_a_run_whose_index_was_made_meanwhile_with_other_settings_stops(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path)
    corpus.put("a.wav", 3)
    other = with_windows(corpus.config, 1.2)

    def meanwhile(progress: Progress) -> None:
        if progress.stage == "checking models" and not journal.exists(corpus.config.into):
            os.makedirs(corpus.config.into)
            index(other)

    with pytest.raises(EarshotError, match="another run has written to this index meanwhile"):
        index_corpus(corpus.config, meanwhile, stages=in_place(WideEncoder()))
    assert live(corpus.config.into) == corpus.expected(other)
    assert verify_index(corpus.config.into) == []


def test_every_command_keeps_as_many_versions(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path, store={"optimize_every": 1_000})
    into = corpus.config.into
    for number in range(4):
        corpus.put("a.wav", number % 2)
        index(corpus.config)
    assert len(lance.dataset(journal.table_uri(into, "files")).tags.list()) == 3
    optimize_index(into, 0.0)
    restore_index(into, journal.read_published(into).seq - 1)
    assert len(lance.dataset(journal.table_uri(into, "files")).tags.list()) == 3


def test_a_lost_generation_is_not_recreated(corpus: KnownCorpus) -> None:
    index(corpus.config, rebuild=True)
    delete_folder(find_index(corpus.config.into).live.path)
    for act in (index, plan_corpus):
        with pytest.raises(IndexMismatch, match="generation-2: is missing"):
            act(corpus.config)


def test_rebuilding_a_missing_index_creates_it(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path)
    corpus.put("a.wav", 2)
    index(corpus.config, rebuild=True)
    assert find_index(corpus.config.into).live.path == corpus.config.into
    assert live(corpus.config.into) == corpus.expected()


def test_a_former_generation_is_deleted_when_no_reader_can_hold_it(corpus: KnownCorpus) -> None:
    into = corpus.config.into
    for length_s in (1.2, 1.6):
        index(with_windows(corpus.config, length_s), rebuild=True)
    expected = corpus.expected(with_windows(corpus.config, 1.6))
    index(with_windows(corpus.config, 1.6))
    optimize_index(into, 24.0)
    assert {path.name for path in Path(into).iterdir()} == {
        *(f"{name}.lance" for name in (*journal.DATA_TABLES, "batches")),
        "generation-2",
        "generation-3",
        "run.json",
    }
    hasty = with_windows(corpus.config, 1.6).model_copy(update={"store": make_hasty(corpus.config)})
    assert index(hasty) == 0  # a run does it too
    assert {path.name for path in Path(into).iterdir()} == {"batches.lance", "generation-3", "run.json"}
    assert live(into) == expected
    assert index(with_windows(corpus.config, 1.2), rebuild=True) > 0
    optimize_index(into, 0.0)
    assert {path.name for path in Path(into).iterdir()} == {"batches.lance", "generation-4", "run.json"}


# --- maintenance ------------------------------------------------------------------------------------------------------


def count_fragments(tables: str) -> int:
    return sum(len(lance.dataset(journal.table_uri(tables, name)).get_fragments()) for name in journal.DATA_TABLES)


def test_runs_do_maintenance_and_merge_fragments(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path, store={"checkpoint_rows": 1, "optimize_every": 4})
    for number in range(12):
        corpus.put(f"{number}.wav", number % 6)
        index(corpus.config)
    rows = journal.read_journal(corpus.config.into).to_pylist()
    assert [row["kind"] for row in rows].count("optimize") == 3
    assert count_fragments(corpus.config.into) <= 4 * 5
    assert len(lance.dataset(journal.table_uri(corpus.config.into, "batches")).get_fragments()) < 12
    assert live(corpus.config.into) == corpus.expected()
    assert verify_index(corpus.config.into) == []


def test_optimizing_deletes_old_versions_but_nothing_published_or_pending(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path, store={"optimize_every": 1_000})
    into = corpus.config.into
    for number in range(6):
        corpus.put("a.wav", number)
        index(corpus.config)
    published = [row for row in journal.read_journal(into).to_pylist() if row["kind"] == "index"]
    opened = pipeline.open(into)
    # A worker has written a fragment, and its batch is not committed yet.
    arrow_schema = open_published(into, "frames").schema
    vectors = np.ones((7, arrow_schema.field("vector").type.list_size), np.float16)
    fragments = write_rows(into, "frames", [frame_rows("f" * 32, "b" * 32, 0, vectors, arrow_schema)])
    done = optimize_index(into, 0.0)
    assert done.n_bytes_deleted > 0
    assert done.n_fragments <= 4
    assert live(into) == corpus.expected()
    assert verify_index(into) == []
    assert opened.describe()["files"] == 1  # opened before, and among the newest
    with pytest.raises(UsageError, match=f"batch {published[0]['seq']} can no longer be restored"):
        restore_index(into, published[0]["seq"])
    newest = journal.read_published(into).seq
    restore_index(into, newest - 1)
    assert live(into) == corpus.expected()
    writer = Writer(into, "c" * 32)
    files, clips = (
        open_published(into, name).schema.empty_table().drop_columns(["batch_id"]) for name in ("files", "clips")
    )
    pending = Batch("b" * 32, files, clips, fragments)
    writer.commit([pending])
    assert len([row for row in read(into, "frames") if row["audio_id"] == "f" * 32]) == 7


def test_young_versions_stay_without_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.index.writer.KEEP_VERSIONS", 1)
    corpus = KnownCorpus(tmp_path)
    corpus.put("a.wav", 3)
    index(corpus.config)
    opened = pipeline.open(corpus.config.into)
    before = live(corpus.config.into)["clips"]
    for number in (1, 2):
        corpus.put("a.wav", number)
        index(corpus.config)
    optimize_index(corpus.config.into, 24.0)
    assert opened.to_arrow("clips").num_rows == len(before)


def test_an_impossible_age_is_refused(corpus: KnownCorpus) -> None:
    for hours in (float("nan"), float("inf"), -1.0, 1e12):
        with pytest.raises(UsageError, match=r"keep_hours .*: expected 0 to 1,000,000"):
            optimize_index(corpus.config.into, hours)


def test_unpublished_versions_are_deleted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.index.writer.KEEP_VERSIONS", 1)
    corpus = KnownCorpus(tmp_path)
    for number in range(4):
        corpus.put("a.wav", number)
        index(corpus.config)
    optimize_index(corpus.config.into, 24.0)
    rows = journal.read_journal(corpus.config.into)
    for name in journal.DATA_TABLES:
        published = set(rows[f"{name}_version"].to_pylist())
        assert len(published) > 3
        table = lance.dataset(journal.table_uri(corpus.config.into, name))
        assert {each["version"] for each in table.versions()} == published
    assert live(corpus.config.into) == corpus.expected()


def test_unreferenced_files_are_deleted_after_a_week(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path)
    into = Path(corpus.config.into)
    for number in (3, 4, 5):
        corpus.put("a.wav", number)
        index(corpus.config)
    stray = []
    for n_days in (6, 8):
        stray.append(into / "frames.lance" / "data" / f"{n_days}.lance")
        stray[-1].write_bytes(b"of a run that died")
        os.utime(stray[-1], times=(time.time() - n_days * 86_400,) * 2)
    optimize_index(str(into), 24.0)
    assert [path.exists() for path in stray] == [True, False]


def test_a_rebuild_with_too_many_failures_says_that_the_former_tables_stay(corpus: KnownCorpus) -> None:
    corpus.put("broken.wav", 7)
    limits = corpus.config.run.model_copy(update={"max_failed_fraction": 0.05})
    config = corpus.config.model_copy(update={"run": limits})
    for n_left in (1, 0):
        progress = index_corpus(config, stages=in_place(WideEncoder()), rebuild=True)
        said = find_shortfall(progress, 0.05)
        assert progress.held_back == bool(n_left)
        if n_left:
            assert said is not None
            assert said.endswith("so the former tables stay in their place; solve that and run with --rebuild again")
            assert find_index(config.into).live.path == config.into
            corpus.delete("broken.wav")
    assert find_index(config.into).live.path == f"{config.into}/generation-2"
