"""Whether the Ray that works for this process is still there.

When a part of Ray dies that a driver cannot do without, calls to Ray wait, and after a quarter of a minute or a whole
one Ray's own code ends the driver without a word. Looked at in time, the driver can publish what is complete, and say
what has happened.
"""

import contextlib
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

PARTS = {"gcs_server": "control store", "raylet": "raylet"}
"""What a driver cannot do without, by Ray's names of the processes, and how it is called here."""

PROBE_S = 3.0
"""How long a connection may take, and how often one is tried while all is well."""

RESTART_S = 40.0
"""How long a cluster's control store may be away: Ray goes on with one that is restarted within a minute."""

Probe = Callable[[str, int], bool]
"""Whether a host takes connections at a port."""


class Watch:
    """Looks at Ray from time to time.

    Args:
        node: what Ray knows of itself in this process, a ``ray._private.node.Node``; None: nothing was started.
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

    def find_death(self) -> str | None:
        """What has died, in words; None while all is well.

        Processes that this one has started are looked at. Those of a cluster that it has joined are connected to; one
        that has never answered, behind a firewall say, is not judged by that.
        """
        node = self._node()
        if node is None:
            return None
        started = {name: node.all_processes.get(name, []) for name in PARTS}
        if node.is_head():
            for name, processes in started.items():
                for each in processes:
                    if (code := each.process.poll()) is not None:
                        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
                        return f"Ray's {PARTS[name]} has died (process {each.process.pid}, {how})"
            return None
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
        """Seconds since a part was first found not to answer, when it has had the time that is left to it."""
        asked_at = self._clock()
        if self._probe(host, port):
            self._answered.add(name)
            self._silent_since.pop(name, None)
            return None
        if name not in self._answered:
            return None
        silent_s = self._clock() - self._silent_since.setdefault(name, asked_at)
        # The raylet of this machine is never started again, and Ray waits a quarter of a minute for it.
        return silent_s if silent_s > (RESTART_S if name == "gcs_server" else PROBE_S) else None


def owns_ray() -> bool:
    """Whether this process has started a Ray of its own, which is still there."""
    node = _find_node()
    return node is not None and bool(node.is_head())


def remove_spilled() -> None:
    """Delete what a Ray that this process has started, and ended without its help, had put on the disk."""
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
