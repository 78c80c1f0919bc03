"""Whether the Ray of this run is still alive.

When a part of Ray dies without which a driver cannot work, calls to Ray block, and 15 to 60 seconds later Ray's own
code ends the driver without a message. A driver that notices in time publishes what is complete, and reports the death.
"""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from pipeline.errors import RayDied
from pipeline.run.background import Polled

PARTS = {"gcs_server": "control store", "raylet": "raylet"}
"""The parts without which a driver cannot work: Ray's name of the process, and its name in messages."""

PROBE_S = 3.0
"""How long a connection may take, and the time between two tries while all is well."""

RESTART_S = 40.0
"""How long a cluster's control store may be away: Ray goes on if it is restarted within a minute."""

CHECK_EVERY_S = 1.0
"""The time between two checks during a run."""

GRACE_S = 6.0
"""How long the main thread may take to notice a death. Ray's own code ends the process about 15 s after it."""

Probe = Callable[[str, int], bool]
"""Whether a host takes connections at a port."""


class RayHealth:
    """Finds out which part of Ray has died.

    Args:
        node: returns Ray's ``ray._private.node.Node`` of this process; None if it has not started or joined a Ray.
    """

    def __init__(
        self,
        node: Callable[[], Any] = lambda: _find_node(),
        probe: Probe = lambda host, port: _answers(host, port),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._probe, self._clock = node, probe, clock
        self._answered: set[str] = set()
        self._silent_since: dict[str, float] = {}
        self._probed_at = float("-inf")
        self._lock = threading.Lock()

    def find_death(self) -> str | None:
        """Which part has died, in words; None while all is well.

        If this process has started Ray, Ray's processes are checked. If it has joined a cluster, ports are checked,
        except those that have never answered, for example behind a firewall.
        """
        node = self._node()
        if node is None:
            return None
        with self._lock:  # a thread and the main thread ask
            return self._find_dead_process(node) if node.is_head() else self._find_silent_port(node)

    def _find_dead_process(self, node: Any) -> str | None:
        for name in PARTS:
            for started in node.all_processes.get(name, []):
                if (code := started.process.poll()) is not None:
                    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
                    return f"Ray's {PARTS[name]} has died (process {started.process.pid}, {how})"
        return None

    def _find_silent_port(self, node: Any) -> str | None:
        if not self._silent_since and self._clock() - self._probed_at < PROBE_S:
            return None
        self._probed_at = self._clock()
        host, _, port = node.gcs_address.rpartition(":")
        places = {"gcs_server": (host.strip("[]"), int(port)), "raylet": (node.node_ip_address, node.node_manager_port)}
        for name, (host, port) in places.items():
            if silent_s := self._measure_silence(name, host, port):
                return f"Ray's {PARTS[name]} at {host}:{port} has not answered for {silent_s:.0f} s"
        return None

    def _measure_silence(self, name: str, host: str, port: int) -> float | None:
        """Seconds since a part stopped answering, if longer than allowed; else None."""
        asked_at = self._clock()
        if self._probe(host, port):
            self._answered.add(name)
            self._silent_since.pop(name, None)
            return None
        if name not in self._answered:
            return None
        silent_s = self._clock() - self._silent_since.setdefault(name, asked_at)
        # The raylet of this machine is never restarted, and Ray waits 15 s for it.
        return silent_s if silent_s > (RESTART_S if name == "gcs_server" else PROBE_S) else None


class Deathwatch:
    """A thread that checks Ray every ``CHECK_EVERY_S`` while the context is open. ``check`` raises what it found.

    Args:
        path: of the index, for the message.
        find_death: says which part has died; None while all is well.
        give_up: called once, in the thread, if the main thread has not left the context ``GRACE_S`` after a death: it
            is in one long call, to Lance for example. Ray will soon end the process, so this is the last chance to
            report.
    """

    def __init__(
        self,
        path: str,
        find_death: Callable[[], str | None],
        give_up: Callable[[RayDied], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._find_death, self._give_up, self._clock = path, find_death, give_up, clock
        self._polled = Polled(self._look, None, CHECK_EVERY_S)
        self._found_at: float | None = None
        self._is_over = False
        """The main thread has left the context, or has been given up."""

    def __enter__(self) -> "Deathwatch":
        self._polled.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._polled.__exit__()

    def check(self, *, now: bool = False) -> None:
        """Raise if Ray has died.

        Args:
            now: also check again, where the thread has found nothing yet.

        Raises:
            RayDied: a part of Ray has died.
        """
        death = self._polled.answer or (self._find_death() if now else None)
        if death is not None:
            raise self._error(death)

    def _error(self, death: str) -> RayDied:
        return RayDied(f"{self._path}: {death}; what was published stays, run again to go on")

    def _look(self) -> str | None:
        death = self._find_death()
        if death is None:
            self._found_at = None
            return None
        if self._found_at is None:
            self._found_at = self._clock()
        elif self._clock() - self._found_at >= GRACE_S and not self._is_over:
            self._is_over = True
            self._give_up(self._error(death))
        return death


def owns_ray() -> bool:
    """Whether this process has started a Ray that is still there."""
    node = _find_node()
    return node is not None and bool(node.is_head())


def remove_spilled() -> None:
    """Delete what a Ray that this process started has spilled to disk: for processes that leave without ending Ray."""
    if owns_ray():
        with contextlib.suppress(Exception):
            _find_node().destroy_external_storage()


def _find_node() -> Any:
    worker = sys.modules.get("ray._private.worker")
    return worker and worker._global_node


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PROBE_S):
            return True
    except OSError:
        return False
