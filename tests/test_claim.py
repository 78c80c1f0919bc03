"""One writer per index: who is refused, who takes over, and what is left behind; on a disk and in an object store."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline import claim, processes
from pipeline.claim import STALE_S, Claim
from pipeline.errors import IndexBusy


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an index may lie."""
    if request.param == "disk":
        return str(tmp_path)
    bucket: str = request.getfixturevalue("bucket")
    return f"{bucket}/{tmp_path.name}/index"


def leases(place: str) -> dict[int, dict[str, Any]]:
    """What is there: number -> content."""
    fs, root = fsspec.url_to_fs(place, use_listings_cache=False)
    found = {}
    for name in fs.glob(f"{root}/claim-*.json"):
        with contextlib.suppress(FileNotFoundError):  # renewed meanwhile
            found[int(name[-14:-5])] = json.loads(fs.cat_file(name))
    return found


def holder(place: str) -> str:
    [values] = leases(place).values()
    return str(values["run_id"])


def write_lease(place: str, number: int = 7, *, age_s: float = 0.0, **changes: Any) -> None:
    """A lease that another process left: by default a live one on this machine."""
    values = {"run_id": "other", "host": socket.gethostname(), "pid": os.getpid(), "since": "2026-01-02 03:04:05 UTC"}
    values |= {"beat_s": 0.1, "at": time.time() - age_s, "processes": processes.name_processes()}
    with fsspec.open(f"{place}/claim-{number:09d}.json", "w") as file:
        file.write(json.dumps(values | changes))


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_holds_while_open_and_leaves_nothing(place: str) -> None:
    with Claim(place, "a"):
        assert holder(place) == "a"
    assert leases(place) == {}


def test_second_holder_is_refused_and_told_by_whom_and_since_when(place: str) -> None:
    with Claim(place, "a"):
        [values] = leases(place).values()
        with pytest.raises(IndexBusy) as refused, Claim(place, "b"):
            pass
        assert holder(place) == "a"
    text = str(refused.value)
    for part in (place, str(os.getpid()), socket.gethostname(), values["since"]):
        assert part in text
    assert "\n" not in text
    with Claim(place, "b"):
        assert holder(place) == "b"


def test_released_when_the_run_fails(place: str) -> None:
    with pytest.raises(ZeroDivisionError), Claim(place, "a"):
        raise ZeroDivisionError
    assert leases(place) == {}


def test_dead_process_is_taken_over_at_once(place: str, dead_pid: int) -> None:
    write_lease(place, pid=dead_pid)
    with Claim(place, "a"):
        assert list(leases(place)) == [8]
        assert holder(place) == "a"
    assert leases(place) == {}


@pytest.mark.parametrize("age_s", [STALE_S / 2, STALE_S * 2])
def test_other_host_is_judged_by_its_heartbeat(place: str, dead_pid: int, age_s: float) -> None:
    write_lease(place, host="elsewhere", processes="another", pid=dead_pid, age_s=age_s)
    if age_s < STALE_S:
        with pytest.raises(IndexBusy, match="elsewhere, since 2026-01-02 03:04:05 UTC"), Claim(place, "a"):
            pass
        assert holder(place) == "other"
    else:
        with Claim(place, "a"):
            assert holder(place) == "a"


def test_a_clock_that_is_late_does_not_cost_a_live_holder_its_index(place: str) -> None:
    other: dict[str, Any] = {"host": "elsewhere", "processes": "another"}
    write_lease(place, age_s=STALE_S * 9, beat_s=1.0, **other)
    beat = threading.Timer(0.3, write_lease, (place, 8), {"age_s": STALE_S * 9, **other})
    beat.start()
    with pytest.raises(IndexBusy, match="elsewhere"), Claim(place, "a"):
        pass
    beat.join()


def test_a_clock_that_was_ahead_does_not_lock_the_index_until_then(place: str) -> None:
    write_lease(place, host="elsewhere", processes="another", age_s=-86_400)
    with Claim(place, "a"):
        assert holder(place) == "a"


def test_a_run_in_another_container_is_not_taken_for_dead(place: str, dead_pid: int) -> None:
    """Its name may be that of this one, and its process numbers are others."""
    write_lease(place, pid=dead_pid, processes="another")
    with pytest.raises(IndexBusy), Claim(place, "a"):
        pass


def test_one_that_was_late_gives_way(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw no lease, and others came and went before it made its own."""
    create = claim._Leases.create

    def late(leases: Any, number: int, values: dict[str, Any]) -> bool:
        write_lease(place, 7)
        return create(leases, number, values)

    monkeypatch.setattr(claim._Leases, "create", late)
    with pytest.raises(IndexBusy), Claim(place, "a"):
        pass
    assert list(leases(place)) == [7]


def test_a_holder_whose_lease_is_renewed_meanwhile_is_named(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between being listed and being read, the lease became the next one."""
    write_lease(place, 7)
    read = claim._Leases.read

    def renewed(leases: Any, number: int) -> Any:
        if number == 7 and 7 in leases.list():
            write_lease(place, 8)
            leases.remove(7)
        return read(leases, number)

    monkeypatch.setattr(claim._Leases, "read", renewed)
    with pytest.raises(IndexBusy, match=rf"process {os.getpid()} on"), Claim(place, "a"):
        pass


def test_what_a_killed_starter_left_on_a_disk_goes(tmp_path: Path) -> None:
    old, young = (tmp_path / f"claim-000000007.json.{number}.1" for number in (1, 2))
    for path in (old, young):
        path.write_text("{")
    os.utime(old, times=(time.time() - 2 * STALE_S,) * 2)
    with Claim(tmp_path, "a"):
        assert (old.exists(), young.exists()) == (False, True)


def test_whether_an_index_is_held_is_told_without_waiting(place: str, dead_pid: int) -> None:
    assert not claim.is_held(place)
    with Claim(place, "a"):
        assert claim.is_held(place)
    assert not claim.is_held(place)
    for pid, age_s in ((dead_pid, 0.0), (os.getpid(), 2 * STALE_S)):
        write_lease(place, pid=pid, age_s=age_s)
        assert not claim.is_held(place)


def test_the_heart_beats_on_when_the_store_answers_again(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create, failures = claim._Leases.create, [RuntimeError("no connection"), TimeoutError()]
    with Claim(place, "a", beat_s=0.05):
        first = max(leases(place))

        def flaky(leases: Any, number: int, values: dict[str, Any]) -> bool:
            if failures:
                raise failures.pop()
            return create(leases, number, values)

        monkeypatch.setattr(claim._Leases, "create", flaky)
        until = time.monotonic() + 20
        while max(leases(place), default=0) < first + 3 and time.monotonic() < until:
            time.sleep(0.02)
        assert max(leases(place), default=first + 3) >= first + 3
    assert not failures


def test_number_of_a_dead_run_given_to_another_process_does_not_lock_for_ever(place: str) -> None:
    for pid in (1, os.getpid()):  # 1 belongs to another user where tests are not run by root
        write_lease(place, pid=pid, age_s=STALE_S * 2)
        with Claim(place, "a"):
            assert holder(place) == "a"


def test_of_two_that_reach_for_a_dead_holders_index_one_gets_it(place: str, dead_pid: int) -> None:
    """Both have read who held it before either of them writes."""
    write_lease(place, pid=dead_pid)
    both, got = threading.Barrier(2), list[str]()

    class Slow(Claim):
        def _refuse_if_held(self, number: int) -> None:
            super()._refuse_if_held(number)
            both.wait()

    def enter(name: str) -> None:
        try:
            with Slow(place, name):
                got.append(name)
                time.sleep(1.0)
        except IndexBusy as error:
            got.append(str(error))

    threads = [threading.Thread(target=enter, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner, refusal = sorted(got, key=len)
    assert winner in ("a", "b")
    assert refusal.endswith("another run is starting here; wait for it, or stop it")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}'])
def test_unreadable_lease_is_given_time_to_be_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "claim-000000003.json"
    file.write_text(text)  # as on a disk without links, between making the file and writing into it
    values = {"run_id": "x", "host": "elsewhere", "processes": "y", "pid": 1, "since": "now", "beat_s": 1}
    values["at"] = time.time()
    writing = threading.Timer(claim.UNWRITTEN_S / 2, lambda: file.write_text(json.dumps(values)))
    writing.start()
    with pytest.raises(IndexBusy, match="elsewhere"), Claim(tmp_path, "a"):
        pass
    writing.join()
    file.write_text(text)
    with Claim(tmp_path, "a"):
        assert holder(str(tmp_path)) == "a"


def test_a_disk_without_links_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Claim(tmp_path, "a"):
        with pytest.raises(IndexBusy), Claim(tmp_path, "b"):
            pass
        assert holder(str(tmp_path)) == "a"
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_was_taken_over_is_not_removed_by_its_former_holder(place: str) -> None:
    with Claim(place, "a"):
        [number] = leases(place)
        write_lease(place, number)
    assert holder(place) == "other"


def test_heartbeat_renews_its_own_lease_and_stops_at_anothers(place: str) -> None:
    with Claim(place, "a", beat_s=0.1) as held:
        first, until = max(leases(place), default=0), time.monotonic() + 20
        while max(leases_now := leases(place), default=0) < first + 3 and time.monotonic() < until:
            time.sleep(0.01)
        number = max(leases_now)
        assert number >= first + 3
        assert leases_now[number]["run_id"] == "a"
        for later in range(number + 1, number + 20):  # whichever comes next
            write_lease(place, later)
        while held._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        assert not held._thread.is_alive()
    left = leases(place)
    assert {values["run_id"] for values in left.values()} <= {"a", "other"}
    assert left[max(left)]["run_id"] == "other"
