"""Every step of the commit protocol, as a run goes through it: dying there, being overtaken there, reading there."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from pipeline import schema
from pipeline.config import Config, CorpusConfig
from pipeline.errors import EarshotError
from pipeline.grid import Grid
from pipeline.index import journal, vector_index
from pipeline.index.handle import find_index
from pipeline.index.repair import give_up_fragments, mark_damaged, restore, restore_index
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.index.writer import Writer
from pipeline.planning.request import RunRequest
from pipeline.search import audit_index
from pipeline.search.clips import find_clips
from pipeline.search.tables import open_table
from tests.helpers.contents import HASTY, KnownCorpus, check_whole, expect, live, read
from tests.helpers.damage import damage_vector_index, largest_file
from tests.helpers.protocol import (
    Act,
    change,
    die_at,
    edit,
    edit_again,
    fill,
    index,
    make_anew,
    optimize,
    rebuild,
    tidy,
)
from tests.helpers.runs import DIMENSION
from tests.helpers.vector_tables import nearest

Situation = Callable[[KnownCorpus], Act]
"""Makes the corpus and the index as they are before a run; returns the run."""


def go_back(config: Config, failpoint: journal.Failpoint = lambda step: None) -> object:
    """To what was published before the newest batch, through the writer that ``restore_index`` uses. Where the recall
    was measured after that batch, the tables are those of the batch."""
    writer = Writer(config.into, "9" * 32, failpoint=failpoint)
    rows = journal.read_journal(writer.path).to_pylist()
    newest = max(row["seq"] for row in rows if row["kind"] != "tune")
    return restore(writer, newest - 1)


def begin(corpus: KnownCorpus) -> Act:
    fill(corpus)
    return index


def change_again(corpus: KnownCorpus) -> Act:
    change(corpus)(corpus.config, lambda step: None)
    edit_again(corpus)
    return index


def recover(corpus: KnownCorpus) -> Act:
    """After a run that died just before it would have published."""
    act = change(corpus)
    die_at("publish", 3, act, corpus.config)
    return act


def make_anew_again(corpus: KnownCorpus) -> Act:
    change(corpus)(corpus.config, lambda step: None)
    rebuild(corpus.config)
    return rebuild


def undo(corpus: KnownCorpus) -> Act:
    change(corpus)(corpus.config, lambda step: None)
    return go_back


def bring_up(corpus: KnownCorpus) -> Act:
    """From the format before."""
    act = change(corpus)
    make_format_2(corpus.config.into)
    return act


def bring_up_and_pool(corpus: KnownCorpus) -> Act:
    """From the format before, by ``optimize``, which makes the pools."""
    bring_up(corpus)
    return optimize


def lose(corpus: KnownCorpus) -> Act:
    """A data file of each table is missing: its rows are taken out and encoded again."""
    fill(corpus)
    index(corpus.config)
    for name in TABLES:
        largest_file(corpus.config.into, name).unlink()

    def mend(config: Config, failpoint: journal.Failpoint = lambda step: None) -> None:
        give_up_fragments(config.into, verify_index(config.into), failpoint)
        mark_damaged(config.into, verify_index(config.into))
        index(config)

    return mend


def lose_vectors(corpus: KnownCorpus) -> Act:
    """The files of each vector index are missing."""
    act = change(corpus)
    for name in ("clips", "pools"):
        damage_vector_index(corpus.config.into, name)
    return act


def describe(corpus: KnownCorpus) -> Act:
    """A sidecar that gives one column more, and another one in a wider type."""
    fill(corpus)
    sidecar = corpus.root / "about.csv"
    sidecar.write_text("uri,take\nin/a.wav,1\nin/sub/d.wav,2\n")
    corpus.config = corpus.config.model_copy(update={"corpus": CorpusConfig(metadata=str(sidecar))})
    index(corpus.config)
    sidecar.write_text("uri,take,mic\nin/a.wav,1.5,H5\nin/b.wav,2,\n")
    return index


TABLES = journal.DATA_TABLES


def of_each_table(*steps: str) -> list[str]:
    return [f"{step} {name}" for step in steps for name in TABLES]


DEATHS: dict[Situation, list[str]] = {
    begin: [*of_each_table("create"), "create batches", "vectors clips", "vectors pools"],
    change: [*of_each_table("delete", "append", "index"), "publish", "tag"],
    recover: of_each_table("recover"),
    tidy: [*of_each_table("compact", "clean"), "compact batches", "clean batches"],
    make_anew: ["switch"],
    make_anew_again: ["retire"],
    undo: of_each_table("restore"),
    bring_up: ["migrate batches", "migrate files", "judge files"],
    bring_up_and_pool: ["begin frames", "make pools"],
    lose_vectors: ["drop index clips", "drop index pools", "vectors clips", "publish"],
    describe: [f"{step} {name}" for step in ("columns", "widen") for name in ("files", "clips")],
}
"""All steps of runs, each where a run comes to it again after it died there."""

GIVING_UP = of_each_table("give up")
"""The steps of what ``lose`` needs beside a run."""


def make_format_2(path: str) -> None:
    """Take out what came later: columns of ``files``, ``frames`` and the journal, and the table ``pools``."""
    files = lance.dataset(journal.table_uri(path, "files"), version=journal.read_published(path).versions["files"])
    files.restore()
    files.drop_columns(list(schema.FILES_SINCE[3]))
    batches = journal.open_journal(path)
    created = batches.to_table(filter="kind = 'create'").to_pylist()[0]["detail"]
    older = created.replace(f'"format": {journal.FORMAT}', '"format": 2')
    batches.update({"detail": f"'{older}'"}, where="kind = 'create'")
    batches.drop_columns(["pools_version"])
    shutil.rmtree(journal.table_uri(path, "pools"))
    frames = lance.dataset(journal.table_uri(path, "frames"))
    frames.drop_columns([schema.BEGINS])
    before = journal.read_published(path)
    versions = before.versions | {"files": files.version, "frames": frames.version}
    row = journal.make_row(before.seq + 1, schema.make_batch_id("2", 0), "0" * 32, "maintain", versions)
    journal.publish(journal.open_journal(path), [row])


@pytest.fixture(autouse=True, scope="module")
def few_vectors() -> Iterator[None]:
    """The indexes of these tests have a vector index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_index, "VECTORS_TO_INDEX", 3)
        patch.setattr(audit_index, "N_QUESTIONS", 3)  # each of the many builds is measured
        yield


class Settings:
    """Each situation made once, and copied whenever it is needed."""

    def __init__(self, root: Path, **sections: Any) -> None:
        self._root, self._sections = root, sections
        self._made: dict[Situation, tuple[KnownCorpus, Act]] = {}

    def make(self, situation: Situation) -> tuple[KnownCorpus, Act]:
        kept = self._root / f"{situation.__name__}-kept"
        if situation not in self._made:
            corpus = KnownCorpus(self._root / situation.__name__, **self._sections)
            self._made[situation] = (corpus, situation(corpus))
            if Path(corpus.config.into).exists():
                shutil.copytree(corpus.config.into, kept)
        corpus, act = self._made[situation]
        shutil.rmtree(corpus.config.into, ignore_errors=True)
        if kept.exists():
            shutil.copytree(kept, corpus.config.into)
        return corpus, act


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(tmp_path_factory.mktemp("hasty"), store=HASTY)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Old versions stay as long as others may be reading them."""
    return Settings(tmp_path_factory.mktemp("patient"))


def check_completed(corpus: KnownCorpus) -> None:
    """The next run leaves what an undisturbed one would have written."""
    index(corpus.config)
    assert live(corpus.config.into) == corpus.expected()
    if corpus.config.corpus.metadata is not None:
        said = {Path(row["uri"]).name: (row["take"], row["mic"]) for row in read(corpus.config.into, "files")}
        assert said == dict.fromkeys(said, (None, None)) | {"a.wav": (1.5, "H5"), "b.wav": (2.0, None)}
    assert verify_index(corpus.config.into) == []


@pytest.mark.parametrize(("situation", "step"), [(each, step) for each in DEATHS for step in DEATHS[each]])
def test_dying_twice_at_any_step_costs_nothing(hasty: Settings, situation: Situation, step: str) -> None:
    corpus, act = hasty.make(situation)
    for _ in range(2):
        assert die_at(step, 1, act, corpus.config)
        check_whole(corpus.config.into)
    check_completed(corpus)


@pytest.mark.parametrize("step", GIVING_UP)
def test_dying_while_lost_files_are_given_up_costs_nothing(hasty: Settings, step: str) -> None:
    corpus, mend = hasty.make(lose)
    for _ in range(2):
        assert die_at(step, 1, mend, corpus.config)
    mend(corpus.config, lambda step: None)
    check_completed(corpus)


@pytest.mark.slow
@pytest.mark.parametrize("situation", [*DEATHS, change_again])
def test_dying_before_any_publication_costs_nothing(hasty: Settings, situation: Situation) -> None:
    n_deaths = 0
    while True:
        corpus, act = hasty.make(situation)
        if not die_at("publish", n_deaths + 1, act, corpus.config):
            break
        n_deaths += 1
        check_whole(corpus.config.into)
        check_completed(corpus)
    assert n_deaths


def test_no_step_is_left_out(hasty: Settings) -> None:
    known = {step for steps in DEATHS.values() for step in steps} | set(GIVING_UP)
    taken: set[str] = set()
    for situation in (*DEATHS, change_again, lose):
        corpus, act = hasty.make(situation)
        act(corpus.config, taken.add)
    assert taken == known


@pytest.mark.parametrize(
    ("situation", "steps"),
    [
        (change, ["delete clips", "append frames", "append files", "index clips", "publish", "tag"]),
        (tidy, ["compact files", "index files", "publish", "clean files"]),
        (make_anew, ["publish", "switch"]),
    ],
)
def test_two_runs_that_write_at_once_lose_and_double_nothing(
    patient: Settings, situation: Situation, steps: list[str]
) -> None:
    """The lease of the first run is removed by force at a step, and another run finishes before the first continues."""
    for step in steps:
        corpus, act = patient.make(situation)
        waiting = [step]

        def overtake(name: str, corpus: KnownCorpus = corpus, waiting: list[str] = waiting) -> None:
            if waiting == [name]:
                waiting.clear()
                for lease in Path(corpus.config.into).glob("claim-*"):
                    lease.unlink()
                index(corpus.config)

        told = ""
        try:
            act(corpus.config, overtake)
        except EarshotError as error:
            told = str(error)
        assert not waiting, step
        if step.split()[0] in ("delete", "append", "index", "publish", "switch"):  # it had more to write
            assert "another run" in told, step
        check_whole(corpus.config.into)
        check_completed(corpus)
        seqs = journal.read_journal(find_index(corpus.config.into).live.path)["seq"].to_pylist()
        assert seqs == list(range(len(seqs)))


@pytest.mark.parametrize(
    "situation", [change, make_anew, *(pytest.param(each, marks=pytest.mark.slow) for each in (change_again, recover))]
)
def test_readers_see_the_state_before_or_after_a_batch(patient: Settings, situation: Situation) -> None:
    """At every step: those who open the index, and those who have it open from before."""
    corpus, act = patient.make(situation)
    into, grid = corpus.config.into, corpus.config.window.grid
    earlier = find_index(into).live.path
    before = journal.read_published(earlier)
    pools_before = find_pools(earlier, before)
    seen: list[dict[str, Any]] = []
    states: dict[tuple[str, int], Any] = {}

    def look(step: str) -> None:
        check_whole(into)
        tables = find_index(into).live.path
        published = journal.read_published(tables)
        seen.append(hits(tables, published))
        assert hits(earlier, before) == seen[0]
        assert find_pools(earlier, before) == pools_before
        check_pooled(find_pools(tables, published), {audio_id for audio_id, _ in seen[-1].values()}, grid)
        # What a batch has published never changes, whatever is half done behind it.
        now = live(into)
        assert states.setdefault((tables, published.seq), now) == now

    act(corpus.config, look)
    look("the end")
    assert find_index(into).live.path == (earlier if situation is not make_anew else f"{into}/generation-2")
    assert all(vector_index.read_index(find_index(into).live.open(name)) for name in ("clips", "pools"))
    possible = {expect(number, grid)["audio_id"] for number in range(9)}
    for found in seen:
        assert {audio_id for audio_id, _ in found.values()} <= possible
    assert len({str(found) for found in seen}) >= 2


def find_pools(tables: str, published: journal.Published) -> dict[str, list[tuple[int, int]]]:
    """The first frames and sizes of the pools of each audio, found through their vector index."""
    pools = open_published(tables, "pools", published)
    found: dict[str, list[tuple[int, int]]] = {}
    sizes = {f"{row['audio_id']} {row['first_frame']}": row["n_frames"] for row in pools.to_table().to_pylist()}
    for name in nearest(pools, np.ones(DIMENSION, np.float32)):
        audio_id, first_frame = name.split()
        found.setdefault(audio_id, []).append((int(first_frame), sizes[name]))
    return {audio_id: sorted(of_audio) for audio_id, of_audio in found.items()}


def check_pooled(found: dict[str, list[tuple[int, int]]], audio_ids: set[str], grid: Grid) -> None:
    """The pools of exactly these audios were found, and hold each of their frames once."""
    known = {(known := expect(number, grid))["audio_id"]: len(known["frames"]) for number in range(9)}
    assert found.keys() == audio_ids
    for audio_id, pools in found.items():
        ends = [first + n_frames for first, n_frames in pools]
        assert [first for first, _ in pools] == [0, *ends[:-1]]
        assert ends[-1] == known[audio_id]


def hits(tables: str, published: journal.Published) -> dict[str, Any]:
    """What a search for everything finds through the vector index: uri -> its content, and its vectors, which must be
    all of that content's."""
    clips = open_table(tables, "clips", published.versions["clips"])
    settings = SearchSettings()
    found = find_clips(clips, np.ones(DIMENSION, np.float32), k=1_000, all_windows=True, settings=settings)
    ids = {row["clip_id"]: row for row in open_published(tables, "clips", published).to_table().to_pylist()}
    rows: dict[str, list[Any]] = {}
    for hit in found:
        row = ids[hit.clip_id]
        vector = np.array(row["vector"], np.float16).tobytes()
        rows.setdefault(hit.uri, []).append((row["audio_id"], hit.start_s, vector))
    content = {}
    for uri, clips_of in rows.items():
        [audio_id] = {audio_id for audio_id, _, _ in clips_of}
        content[uri] = (audio_id, [vector for _, _, vector in sorted(clips_of, key=lambda clip: clip[1])])
    return content


def test_reader_in_another_thread_sees_whole_batches(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path)
    fill(corpus)
    index(corpus.config)
    into, grid = corpus.config.into, corpus.config.window.grid
    known = {(known := expect(n, grid))["audio_id"]: known["clips"] for n in range(9)}
    stop, looks = threading.Event(), list[int]()

    def look() -> None:
        while not stop.is_set():
            tables = find_index(into).live.path
            published = journal.read_published(tables)
            found = hits(tables, published)
            assert all(vectors == known[audio_id] for audio_id, vectors in found.values())
            check_pooled(find_pools(tables, published), {audio_id for audio_id, _ in found.values()}, grid)
            looks.append(1)

    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look)
        try:
            for number in range(6):
                for name in list(corpus.held):
                    corpus.put(name, (corpus.held[name] + number) % 6)
                index(corpus.config, request=RunRequest(full=number % 2 == 0))
            rebuild(corpus.config)
        finally:
            stop.set()
        looking.result()
    assert len(looks) > 5


def test_restoring_under_a_lease_and_reindexing_gives_the_corpus_again(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path)
    fill(corpus)
    index(corpus.config)
    first, seq = live(corpus.config.into), journal.read_published(corpus.config.into).seq
    edit(corpus)
    index(corpus.config)
    restore_index(corpus.config.into, seq)
    assert live(corpus.config.into) == first
    assert {row["uri"] for row in read(corpus.config.into, "files")} == {row[0] for row in first["files"]}
    check_completed(corpus)
