"""One writer per index: who is refused, who takes over, and which files stay; on a disk and in an object store."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.errors import CommitConflict, IndexBusy
from pipeline.index.lease import Lease, is_held
from pipeline.index.lease_files import STALE_S, Clock, LeaseFiles
from tests.helpers.leases import holder, leases, leases_of, write_lease
from tests.helpers.waiting import wait_until


def test_holds_while_open_and_leaves_nothing(place: str) -> None:
    with Lease(place, "a"):
        assert holder(place) == "a"
    assert leases(place) == {}


def test_second_holder_is_refused_and_told_by_whom_and_since_when(place: str) -> None:
    with Lease(place, "a"):
        [values] = leases(place).values()
        with pytest.raises(IndexBusy) as refused, Lease(place, "b"):
            pass
        assert holder(place) == "a"
    text = str(refused.value)
    for part in (place, str(os.getpid()), socket.gethostname(), values["since"]):
        assert part in text
    assert "\n" not in text
    with Lease(place, "b"):
        assert holder(place) == "b"


def test_released_when_the_run_fails(place: str) -> None:
    with pytest.raises(ZeroDivisionError), Lease(place, "a"):
        raise ZeroDivisionError
    assert leases(place) == {}


def test_dead_process_is_taken_over_at_once(place: str, dead_pid: int) -> None:
    write_lease(place, pid=dead_pid)
    with Lease(place, "a"):
        assert list(leases(place)) == [8]
        assert holder(place) == "a"
    assert leases(place) == {}


@pytest.mark.parametrize("age_s", [STALE_S / 2, STALE_S * 2])
def test_other_host_is_judged_by_its_heartbeat(place: str, dead_pid: int, age_s: float) -> None:
    write_lease(place, host="elsewhere", processes="another", pid=dead_pid, age_s=age_s)
    if age_s < STALE_S:
        with pytest.raises(IndexBusy, match="elsewhere, since 2026-01-02 03:04:05 UTC"), Lease(place, "a"):
            pass
        assert holder(place) == "other"
    else:
        with Lease(place, "a"):
            assert holder(place) == "a"


def test_late_clock_does_not_cost_a_live_holder_its_index(place: str) -> None:
    other: dict[str, Any] = {"host": "elsewhere", "processes": "another"}
    write_lease(place, age_s=STALE_S * 9, beat_s=30.0, **other)  # how long it is watched
    beat = threading.Timer(0.3, write_lease, (place, 8), {"age_s": STALE_S * 9, **other})
    beat.start()
    with pytest.raises(IndexBusy, match="elsewhere"), Lease(place, "a"):
        pass
    beat.join()


def test_clock_that_was_ahead_does_not_lock_the_index(place: str) -> None:
    write_lease(place, host="elsewhere", processes="another", age_s=-86_400)
    with Lease(place, "a"):
        assert holder(place) == "a"


def test_run_in_another_container_is_not_taken_for_dead(place: str, dead_pid: int) -> None:
    """Its name may be that of this one, and its process numbers are others."""
    write_lease(place, pid=dead_pid, processes="another")
    with pytest.raises(IndexBusy), Lease(place, "a"):
        pass


def test_later_run_gives_way(place: str) -> None:
    """It saw no lease, and others came and went before it made its own."""

    class Late(LeaseFiles):
        def create(self, number: int, values: dict[str, Any]) -> bool:
            write_lease(place, 7)
            return super().create(number, values)

    with pytest.raises(IndexBusy), Lease(place, "a", leases=leases_of(place, Late)):
        pass
    assert list(leases(place)) == [7]


def test_holder_that_renews_its_lease_meanwhile_is_named(place: str) -> None:
    """Between being listed and being read, the lease became the next one."""
    write_lease(place, 7)

    class Renewed(LeaseFiles):
        def read(self, number: int) -> Any:
            if number == 7 and 7 in self.list():
                write_lease(place, 8)
                self.remove(7)
            return super().read(number)

    named = rf"process {os.getpid()} on"
    with pytest.raises(IndexBusy, match=named), Lease(place, "a", leases=leases_of(place, Renewed)):
        pass


class Flaky(LeaseFiles):
    """A store whose answers to some puts are others than they should be.

    ``answers`` has one for each put to come: an error or False to be answered with, and whether the put is carried out
    before. Later puts are answered as they should be.
    """

    answers: list[tuple[Exception | bool, bool]]

    def create(self, number: int, values: dict[str, Any]) -> bool:
        if not self.answers:
            return super().create(number, values)
        answer, is_done = self.answers.pop(0)
        if is_done:
            assert super().create(number, values)
        if isinstance(answer, Exception):
            raise answer
        return answer


def flaky(place: str, *answers: tuple[Exception | bool, bool]) -> Flaky:
    made = Flaky(*storage.find_store(place))
    made.answers = list(answers)
    return made


DOWN = (RuntimeError("no connection"), False)
LOST = (TimeoutError(), True)
EXISTS = (False, True)
"""The answer was lost, and a driver that put it once more was told that there is one."""


def test_heartbeat_goes_on_when_the_store_answers_again_or_its_answers_were_lost(place: str) -> None:
    at_first = (True, True)
    store = flaky(place, at_first, DOWN, LOST, EXISTS, DOWN, EXISTS, LOST)
    with Lease(place, "a", beat_s=0.05, leases=store) as held:
        first = max(leases(place))
        wait_until(lambda: max(leases(place), default=0) >= first + 7)
        assert not store.answers
        assert not held.lost
        held.check()
    assert leases(place) == {}


@pytest.mark.parametrize("answer", [LOST, EXISTS])
def test_first_lease_whose_answer_was_lost_is_held(place: str, dead_pid: int, answer: tuple[Any, bool]) -> None:
    write_lease(place, pid=dead_pid)
    with Lease(place, "a", leases=flaky(place, answer)):
        assert list(leases(place)) == [8]
        assert holder(place) == "a"
    assert leases(place) == {}


def test_failed_first_lease_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no connection"), Lease(tmp_path, "a", leases=flaky(str(tmp_path), DOWN)):
        pass
    assert leases(str(tmp_path)) == {}


def test_lease_that_could_not_be_removed_is_removed_later(place: str) -> None:
    kept: set[int] = set()

    class Keeping(LeaseFiles):
        def remove(self, number: int) -> None:
            if len(kept) < 3 and number not in kept:
                kept.add(number)
                raise OSError("no answer")
            super().remove(number)

    write_lease(place, age_s=2 * STALE_S, processes="another")
    with Lease(place, "a", beat_s=0.05, leases=leases_of(place, Keeping)):
        wait_until(lambda: min(leases(place), default=0) > 10)
    assert leases(place) == {}


def test_run_whose_index_was_taken_over_learns_by_whom(place: str) -> None:
    with Lease(place, "a", beat_s=0.05) as held:
        for later in range(20, 40):  # the newest lease counts, whichever the heart has come to
            write_lease(place, later)
        wait_until(lambda: held.lost)
        with pytest.raises(CommitConflict, match=rf"process {os.getpid()} on .*since 2026-01-02 .*stops") as said:
            held.check()
        assert place in str(said.value)
    assert {values["run_id"] for values in leases(place).values()} == {"other"}


def test_lease_that_was_removed_by_force_is_created_again(place: str) -> None:
    fs, root = storage.find_store(place)
    with Lease(place, "a", beat_s=0.05) as held:
        wait_until(lambda: bool(leases(place)))
        for name in fs.glob(f"{root}/claim-*.json"):
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(name)
        wait_until(lambda: bool(leases(place)))
        assert not held.lost


def test_process_id_of_a_dead_run_given_to_another_process_does_not_lock_the_index(place: str) -> None:
    for pid in (1, os.getpid()):  # 1 belongs to another user where tests are not run by root
        write_lease(place, pid=pid, age_s=STALE_S * 2)
        with Lease(place, "a"):
            assert holder(place) == "a"


def test_of_two_runs_that_reach_for_a_dead_holders_index_one_gets_it(place: str, dead_pid: int) -> None:
    """Both have read who held it before either of them writes."""
    write_lease(place, pid=dead_pid)
    both, refused, got = threading.Barrier(2), threading.Event(), list[str]()
    waited = set[str]()

    class Slow(LeaseFiles):
        def create(self, number: int, values: dict[str, Any]) -> bool:
            if values["run_id"] not in waited:  # the first lease, and no heartbeat
                waited.add(values["run_id"])
                both.wait()
            return super().create(number, values)

    def enter(name: str) -> None:
        try:
            with Lease(place, name, leases=leases_of(place, Slow)):
                got.append(name)
                refused.wait(60)
        except IndexBusy as error:
            got.append(str(error))
            refused.set()

    threads = [threading.Thread(target=enter, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner, refusal = sorted(got, key=len)
    assert winner in ("a", "b")
    assert refusal.endswith("another run is starting here; wait for it, or stop it")


class Hands:
    """A clock that is turned by waiting; what happens meanwhile is given."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.passed_s = 0.0
        self._meanwhile = meanwhile
        self.clock = Clock(lambda: time.time() + self.passed_s, lambda: self.passed_s, self._wait)

    def _wait(self, pause_s: float) -> None:
        self.passed_s += pause_s
        self._meanwhile()


@pytest.mark.parametrize("off_s", [3600.0, -3600.0])
def test_run_whose_clock_is_off_holds_the_index_while_it_renews_its_lease(place: str, off_s: float) -> None:
    def beat() -> None:
        if hands.passed_s > 15 and 7 in leases(place):
            write_lease(place, 8, age_s=off_s, beat_s=10.0, processes="elsewhere")
            LeaseFiles(*storage.find_store(place)).remove(7)

    write_lease(place, 7, age_s=off_s, beat_s=10.0, processes="elsewhere")
    hands = Hands(beat)
    assert is_held(place, clock=hands.clock)
    assert 15 < hands.passed_s <= 20


@pytest.mark.parametrize("beat_s", [10.0, 1e9])
def test_lease_that_looks_old_is_watched_before_it_counts_as_dead(place: str, beat_s: float) -> None:
    write_lease(place, age_s=3600.0, beat_s=beat_s, processes="elsewhere")
    hands = Hands()
    assert not is_held(place, clock=hands.clock)
    assert 2 * min(beat_s, STALE_S) <= hands.passed_s < 2 * min(beat_s, STALE_S) + 2


def test_held_is_answered_at_once_where_nothing_has_to_be_watched(place: str, dead_pid: int) -> None:
    hands = Hands()
    assert not is_held(place, clock=hands.clock)
    with Lease(place, "a"):
        assert is_held(place, clock=hands.clock)
    for age_s in (0.0, 3600.0):
        write_lease(place, 7, age_s=age_s, pid=dead_pid)
        assert not is_held(place, clock=hands.clock)
    write_lease(place, 8, processes="elsewhere")
    assert is_held(place, clock=hands.clock)
    assert hands.passed_s == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}'])
def test_unreadable_lease_gets_time_to_be_written(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "claim-000000003.json"
    file.write_text(text)  # as on a disk without links, between making the file and writing into it
    values = {"run_id": "x", "host": "elsewhere", "processes": "y", "pid": 1, "since": "now", "beat_s": 1}
    values["at"] = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda pause_s: file.write_text(json.dumps(values)))
        with pytest.raises(IndexBusy, match="elsewhere"), Lease(tmp_path, "a"):
            pass
    file.write_text(text)
    with Lease(tmp_path, "a"):
        assert holder(str(tmp_path)) == "a"


def test_lease_that_was_taken_over_is_not_removed_by_its_former_holder(place: str) -> None:
    with Lease(place, "a"):
        [number] = leases(place)
        write_lease(place, number)
    assert holder(place) == "other"
