"""After corpus edits, crashes and reruns in any order, the live rows are those of one undisturbed run.

Planning, decoding, commits and recovery are the real ones, on Lance. Only Ray is left out, and the encoder is a cheap
one, so that thousands of steps take minutes.
"""

import contextlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pipeline.config import CorpusConfig
from pipeline.errors import EarshotError, UsageError
from pipeline.index import journal, vector_index
from pipeline.index.handle import find_index
from pipeline.index.maintenance import optimize_index
from pipeline.index.repair import restore_index
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.planning.plan import ACTIONS
from pipeline.planning.request import RunRequest
from pipeline.run.dispatch import Stages
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from pipeline.search import audit_index
from tests.helpers.building import make_here
from tests.helpers.contents import HASTY, LENGTHS_S, N_CONTENTS, KnownCorpus, check_whole, content, expect, live, read
from tests.helpers.damage import rewrite
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.vector_tables import check_index, read_ids

RUNS: Counter[str] = Counter()
"""How often each thing happened in all examples. It is printed at the end, and all must have happened."""

NAMES = ["a.wav", "b.wav", "c.wav", "sub/d.wav", "sub/e.wav"]

contents = st.integers(0, N_CONTENTS - 1)
names = st.sampled_from(NAMES)
some = st.integers(0, 99)


def check_vectors(into: str) -> None:
    """The vector indexes cover each live row once, or leave it to be scanned."""
    for name in ("clips", "pools"):
        table = find_index(into).live.open(name)
        check_index(table, set(read_ids(table)))


class Crash(Exception):
    pass


class Corpus(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.corpus = KnownCorpus(Path(tempfile.mkdtemp()), store=HASTY)
        self.sidecar = self.corpus.root / "about.csv"
        described = CorpusConfig(metadata=str(self.sidecar))
        self.config = self.corpus.config.model_copy(update={"corpus": described})
        self.said: dict[str, float] = {}
        self.ever: set[str] = set()
        for number, name in enumerate(NAMES[:4]):
            self.corpus.put(name, number + 1)
        self.check(RunRequest())

    def teardown(self) -> None:
        if hasattr(self, "corpus"):
            self.check(RunRequest())
            shutil.rmtree(self.corpus.root, ignore_errors=True)

    # --- edits

    def pick(self, which: int) -> str:
        """One of the files that are there."""
        return sorted(self.corpus.held)[which % len(self.corpus.held)]

    @rule(name=names, number=contents)
    def put(self, name: str, number: int) -> None:
        self.corpus.put(name, number)

    @rule(which=some)
    def touch(self, which: int) -> None:
        self.corpus.touch(self.pick(which))

    @rule(which=some)
    def delete(self, which: int) -> None:
        if len(self.corpus.held) > 1:
            self.corpus.delete(self.pick(which))

    @rule(which=some, new=names)
    def move(self, which: int, new: str) -> None:
        old = self.pick(which)
        if old != new:
            self.corpus.move(old, new)

    @rule(which=some)
    def swap(self, which: int) -> None:
        one, other = self.pick(which), self.pick(which + 1)
        if one != other:
            self.corpus.swap(one, other)

    @rule(which=some, take=st.sampled_from([1, 2, 2.5]))
    def describe(self, which: int, take: float) -> None:
        self.said[self.pick(which)] = take

    def take_of(self, name: str) -> float:
        """What the sidecar says of a file."""
        return self.said.get(name, 1)

    def write_sidecar(self) -> None:
        self.sidecar.write_text("uri,take\n" + "".join(f"in/{n},{self.take_of(n)}\n" for n in self.corpus.held))

    @rule(which=some, is_other=st.booleans())
    def decode_as_before(self, which: int, is_other: bool) -> None:
        """Give a file the rows of an older version, which must be examined, and which perhaps heard another sound."""
        self.check(RunRequest())  # what a crashed run left unfinished must not be published
        name = self.pick(which)
        if self.corpus.held[name] >= len(LENGTHS_S):
            return
        path, where = find_index(self.config.into).live.path, f"uri = '{self.corpus.uri(name)}'"
        duration_s = "duration_s - 0.001" if is_other else "duration_s"
        # Compressed wav was longer once.
        table(path, "files").update({"decoder": "2", "codec": "'ima_adpcm'", "duration_s": duration_s}, where)
        rewrite(path, "clips", where, lambda vectors: vectors / (2 if is_other else 1))

    # --- runs

    @rule()
    def reindex(self) -> None:
        self.check(RunRequest())

    @rule(
        request=st.sampled_from([RunRequest(check_content=True), RunRequest(retry_failed=True), RunRequest(full=True)])
    )
    def reindex_otherwise(self, request: RunRequest) -> None:
        self.check(request)

    @rule()
    def rebuild(self) -> None:
        is_lost = all(expect(number, self.config.window.grid)["reason"] for number in self.corpus.held.values())
        if is_lost and any(row["status"] == "indexed" for row in read(self.config.into, "files", ["status"])):
            self.write_sidecar()
            with pytest.raises(EarshotError, match="no file could be indexed anew"):
                index_corpus(self.config, stages=in_place(WideEncoder()), rebuild=True, vectors=VectorUpkeep(make_here))
            RUNS["refused"] += 1
        else:
            self.check(RunRequest(), rebuild=True)

    @rule()
    def optimize(self) -> None:
        optimize_index(self.config.into, keep_hours=0.0, vectors=VectorUpkeep(make_here))
        RUNS["optimized"] += 1

    def check(self, request: RunRequest, *, rebuild: bool = False) -> None:
        """Run to the end, and compare with what an undisturbed run would have written."""
        RUNS["finished"] += 1
        self.write_sidecar()
        encoder = WideEncoder()
        planned = plan_corpus(self.config, request, rebuild=rebuild)
        for _, action, _ in planned.actions:
            RUNS[action] += 1
        uris = {self.corpus.uri(name) for name in self.corpus.held}
        vectors = VectorUpkeep(make_here)
        progress = index_corpus(
            self.config, stages=in_place(encoder), request=request, rebuild=rebuild, vectors=vectors
        )
        assert not vectors.problems
        RUNS.update(done.done for done in vectors.done)
        check_vectors(self.config.into)
        assert sorted(uri for uri, _, _ in planned.actions) == sorted(uris | {row["uri"] for row in planned.deleted})
        assert progress.n_files == progress.n_done == len(uris)
        assert live(self.config.into) == self.corpus.expected()
        takes = {self.corpus.uri(name): self.take_of(name) for name in self.corpus.held}
        for row in (*read(self.config.into, "files"), *read(self.config.into, "clips")):
            assert row.get("status") == "deleted" or row["take"] == takes[row["uri"]]
        ledger = read(self.config.into, "files", ["uri"])
        assert len(ledger) == len({row["uri"] for row in ledger})
        assert {row["uri"] for row in ledger} >= self.ever | uris
        self.remember()
        if not request.full:
            again = plan_corpus(self.config)
            assert again.n_unchanged == len(uris)
            assert not again.metadata_changed
            assert not again.deleted

    @rule(name=names, number=contents, at=st.integers(0, 30), rebuild=st.booleans())
    def crash_before_a_step(self, name: str, number: int, at: int, rebuild: bool) -> None:
        """Crash a run before one of the steps of its commits, if it has so many; equal ones in a row count as one."""
        self.corpus.put(name, number)
        reached: list[str] = []

        def failpoint(step: str) -> None:
            if step not in reached[-1:]:
                reached.append(step)
            if len(reached) > at:
                RUNS[f"crash: {step}"] += 1
                raise Crash(step)

        self.run_into_crash(in_place(WideEncoder()), failpoint, rebuild=rebuild)

    @rule(name=names, number=contents, at=st.integers(0, 2), rebuild=st.booleans())
    def crash_while_encoding(self, name: str, number: int, at: int, rebuild: bool) -> None:
        self.corpus.put(name, number)

        def before(batch: int) -> None:
            if batch == at:
                RUNS["crash: encoding"] += 1
                raise Crash("while encoding")

        self.run_into_crash(in_place(WideEncoder(), before), rebuild=rebuild)

    def run_into_crash(
        self, stages: Stages, failpoint: journal.Failpoint = lambda step: None, *, rebuild: bool = False
    ) -> None:
        self.write_sidecar()
        with contextlib.suppress(EarshotError):  # unless there was too little to do
            vectors = VectorUpkeep(make_here)
            index_corpus(self.config, stages=stages, failpoint=failpoint, rebuild=rebuild, vectors=vectors)
        self.remember()

    @rule(back=st.integers(1, 3))
    def restore(self, back: int) -> None:
        if journal.exists(self.config.into):
            seq = max(0, journal.read_published(find_index(self.config.into).live.path).seq - back)
            with contextlib.suppress(UsageError):  # cleaned up
                restore_index(self.config.into, seq)
                RUNS["restored"] += 1
            self.ever = set()
            self.remember()

    @invariant()
    def readers_see_whole_files(self) -> None:
        if hasattr(self, "corpus"):
            check_whole(self.config.into)

    def remember(self) -> None:
        """Note the files in the ledger: a stopped run may have got to any of them."""
        if journal.exists(self.config.into):
            self.ever |= {row["uri"] for row in read(self.config.into, "files", ["uri"])}


def explore(n_examples: int) -> None:
    RUNS.clear()
    checks = settings(
        deadline=None, max_examples=n_examples, stateful_step_count=25, suppress_health_check=list(HealthCheck)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_index, "VECTORS_TO_INDEX", 3)
        patch.setattr(audit_index, "N_QUESTIONS", 3)  # each of the many builds is measured
        run_state_machine_as_test(Corpus, settings=checks)
    print(dict(RUNS))


def test_any_edits_crashes_and_reruns_end_as_one_undisturbed_run() -> None:
    explore(3)
    assert RUNS["finished"] >= 3 * 2  # at the beginning and at the end of each


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_thousands_of_edits_crashes_and_reruns_end_as_one_undisturbed_run() -> None:
    explore(56)
    possible = {*ACTIONS} - {"redecoded"}  # only where files of one content were decoded by several versions
    assert RUNS.keys() >= {"finished", "optimized", "restored", "crash: encoding", *possible}
    assert RUNS["built"] > 50
    assert RUNS["extended"] > 10
    steps = {happened for happened in RUNS if happened.startswith("crash: ")} - {"crash: encoding"}
    assert sum(RUNS[step] for step in steps) > 20
    assert len(steps) > 5  # which of them is chance; ``test_protocol`` tries each


def test_a_file_that_became_a_copy_during_the_run_leaves_the_original_alone(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path, run={"batch_s": 100.0})
    corpus.put("x.wav", 3)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    corpus.put("new.wav", 5)
    corpus.put("y.wav", 2)

    def overwrite(batch: int) -> None:
        shutil.copyfile(content(3), corpus.folder / "y.wav")

    index_corpus(corpus.config, stages=in_place(WideEncoder(), overwrite))
    check_whole(corpus.config.into)
    corpus.put("y.wav", 3)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    assert live(corpus.config.into) == corpus.expected()
