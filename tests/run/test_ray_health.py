"""Whether Ray is dead, by its own processes or by the ports of a joined cluster; and how a run reports that."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config import Config
from pipeline.errors import RayDied
from pipeline.index import journal
from pipeline.index.verify import verify_index
from pipeline.planning.plan import Plan
from pipeline.run.dispatch import Workers
from pipeline.run.driver import index_corpus
from pipeline.run.progress import Progress
from pipeline.run.ray_health import GRACE_S, PROBE_S, RESTART_S, Deathwatch, RayHealth
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.progress import record_of
from tests.helpers.runs import WideEncoder, in_place


class Node:
    """The part of ``ray._private.node.Node`` that is checked."""

    gcs_address, node_ip_address, node_manager_port = "10.0.0.1:6379", "10.0.0.2", 4000

    def __init__(self, **codes: int | None) -> None:
        """The exit code of each process that it has started; None while it runs."""
        self._codes = codes
        self.all_processes = {
            name: [SimpleNamespace(process=SimpleNamespace(pid=7, poll=lambda code=code: code))]
            for name, code in codes.items()
        }

    def is_head(self) -> bool:
        return bool(self._codes)


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ({"gcs_server": None, "raylet": None, "dashboard": 1}, None),
        ({"gcs_server": -9, "raylet": None}, "Ray's control store has died (process 7, killed by signal 9)"),
        ({"gcs_server": None, "raylet": 1}, "Ray's raylet has died (process 7, exit code 1)"),
    ],
)
def test_death_of_a_started_ray_shows_in_its_processes(codes: dict[str, int | None], said: str) -> None:
    assert RayHealth(lambda: Node(**codes)).find_death() == said


def test_ray_that_was_not_started_is_not_dead() -> None:
    assert RayHealth(lambda: None).find_death() is None


class Ports:
    """The ports of a cluster, some of which may not answer, and a clock."""

    def __init__(self) -> None:
        self.now, self.away, self.n_probes = 0.0, set[int](), 0

    def probe(self, host: str, port: int) -> bool:
        assert (host, port) in (("10.0.0.1", 6379), ("10.0.0.2", 4000))
        self.n_probes += 1
        self.now += 0.5
        return port not in self.away

    def watch(self) -> RayHealth:
        return RayHealth(Node, self.probe, lambda: self.now)


def test_death_of_a_joined_cluster_shows_in_its_ports() -> None:
    ports = Ports()
    watch = ports.watch()

    def find(after_s: float) -> str:
        ports.now += after_s
        return watch.find_death() or "alive"

    assert find(0) == "alive"
    ports.away = {6379}
    assert find(PROBE_S) == find(RESTART_S - 10) == "alive"
    ports.away = set()  # restarted in time
    assert find(0) == "alive"
    ports.away = {6379}
    assert find(10 * RESTART_S) == "alive"  # not probed for long
    assert find(RESTART_S).startswith("Ray's control store at 10.0.0.1:6379 has not answered for 42 s")
    ports.away = {4000}
    assert find(0) == "alive"
    assert find(PROBE_S).startswith("Ray's raylet at 10.0.0.2:4000 has not answered for 4 s")


def test_ports_are_probed_rarely_while_all_is_well() -> None:
    ports = Ports()
    watch = ports.watch()
    for _ in range(100):
        assert watch.find_death() is None
    assert ports.n_probes == 2


def test_port_that_never_answered_proves_nothing() -> None:
    ports = Ports()
    watch = ports.watch()
    ports.away = {4000, 6379}
    for _ in range(10):
        ports.now += RESTART_S
        assert watch.find_death() is None


@pytest.mark.parametrize("then", ["silence", "error", "end"])
def test_run_whose_ray_dies_publishes_complete_batches_and_reports_it(tmp_path: Path, then: str) -> None:
    """The workers fall silent, Ray raises an error of its own, or Ray ends as if all were done. Counting blocks."""
    corpus = KnownCorpus(tmp_path, store={"checkpoint_s": 1e6})
    for number in range(6):
        corpus.put(f"{number}.wav", number)
    death: list[str] = []
    over = threading.Event()
    is_in_time: list[bool] = []

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        receipts = list(in_place(WideEncoder())(batches, config, frames_schema))
        last = receipts[-1]["batch_id"]
        yield from (receipt for receipt in receipts if receipt["batch_id"] != last)
        death.append("the raylet is dead")
        if then == "error":
            raise RuntimeError("The node was marked dead")
        if then == "silence":
            is_in_time.append(over.wait(60))

    def count(config: object) -> dict[str, float]:
        if death:
            is_in_time.append(over.wait(60))
        return {"decode": 1.0, "encode": 1.0, "write": 1.0}

    workers = Workers(stages, count, find_death=lambda: death[0] if death else None)
    with pytest.raises(RayDied, match="the raylet is dead; what was published stays, run again"):
        index_corpus(corpus.config, stages=workers)
    assert is_in_time == []  # the run has not waited for workers or for Ray
    over.set()
    record = record_of(corpus.config.into)
    assert (record.state, "the raylet is dead" in (record.error or "")) == ("failed", True)
    assert 0 < record.n_indexed < 6
    assert journal.read_journal(corpus.config.into)["kind"].to_pylist().count("index") > 0
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    assert live(corpus.config.into) == corpus.expected()
    assert verify_index(corpus.config.into) == []


def test_ray_that_dies_during_planning_ends_the_run(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path)
    corpus.put("1.wav", 1)
    dead, noted = threading.Event(), threading.Event()
    n_asked = 0

    def find_death() -> str | None:
        nonlocal n_asked
        if not dead.is_set():
            return None
        n_asked += 1
        if n_asked > 1:  # the first answer has been stored
            noted.set()
        return "the raylet is dead"

    def report(progress: Progress) -> None:
        if progress.stage == "planning":
            dead.set()
            assert noted.wait(60)

    def announce(plan: Plan) -> None:
        raise AssertionError("the plan was made nevertheless")

    workers = Workers(in_place(WideEncoder()), find_death=find_death)
    with pytest.raises(RayDied, match="the raylet is dead; what was published stays, run again"):
        index_corpus(corpus.config, report, announce, stages=workers)


def test_thread_reports_a_ray_that_dies_during_one_long_call(tmp_path: Path) -> None:
    """The call makes the indexes on ids. All files are published, so the run is done if the process goes on."""
    corpus = KnownCorpus(tmp_path)
    corpus.put("1.wav", 1)
    dead, told = threading.Event(), threading.Event()
    states = list[tuple[str, str | None]]()

    def call_long(step: str) -> None:
        if step == "index clips":
            dead.set()
            assert told.wait(60)

    def give_up(error: RayDied) -> None:
        record = record_of(corpus.config.into)
        states.append((record.state, record.error))
        told.set()

    workers = Workers(in_place(WideEncoder()), find_death=lambda: "the raylet is dead" if dead.is_set() else None)
    index_corpus(corpus.config, stages=workers, failpoint=call_long, give_up=give_up)
    said = f"{corpus.config.into}: the raylet is dead; what was published stays, run again to go on"
    assert states == [("failed", said)]
    record = record_of(corpus.config.into)
    assert record.state == "done"
    assert live(corpus.config.into) == corpus.expected()


def test_deathwatch_gives_nothing_up_after_its_context() -> None:
    """The thread is still in a check when the context is left, long after a death."""
    now, asked, may_answer = [0.0], threading.Event(), threading.Event()
    given_up: list[RayDied] = []
    n_asked = 0

    def find_death() -> str | None:
        nonlocal n_asked
        n_asked += 1
        if n_asked > 1:
            asked.set()
            assert may_answer.wait(60)
        return "the raylet is dead"

    with Deathwatch("index", find_death, given_up.append, lambda: now[0]) as death:
        assert asked.wait(60)
        now[0] += 2 * GRACE_S
    may_answer.set()
    death._polled._thread.join(60)
    assert not given_up


def test_run_is_given_up_even_if_its_record_cannot_be_made(tmp_path: Path) -> None:
    """The main thread may be changing the counts that the record is made of."""
    corpus = KnownCorpus(tmp_path)
    corpus.put("1.wav", 1)
    dead, told = threading.Event(), threading.Event()
    seen: list[Progress] = []

    def call_long(step: str) -> None:
        if step == "index clips":
            whole, seen[0].reasons = seen[0].reasons, None  # type: ignore[assignment]
            dead.set()
            assert told.wait(60)
            seen[0].reasons = whole

    workers = Workers(in_place(WideEncoder()), find_death=lambda: "the raylet is dead" if dead.is_set() else None)
    index_corpus(corpus.config, seen.append, stages=workers, failpoint=call_long, give_up=lambda error: told.set())
    assert told.is_set()
