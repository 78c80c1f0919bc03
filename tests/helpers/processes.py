"""Fresh processes that run code or commands, and the sockets on which processes listen."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_python(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python from the root of the project, with more environment variables."""
    command, environment = [sys.executable, *map(str, arguments)], {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment, check=False)


def print_of(code: str, *arguments: object, **variables: str) -> str:
    """What code prints that ends well."""
    done = run_python("-c", code, *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure_peak(code: str, *arguments: object) -> tuple[str, int]:
    """What code prints that ends well, and the most memory of its process in bytes."""
    # Not by getrusage: its peak includes that of the process that started this one.
    also = "\nprint(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    printed, _, peak_kib = print_of(code + also, *arguments).rstrip().rpartition("\n")
    return printed, 1024 * int(peak_kib)


def find_listeners(pids: set[int]) -> set[tuple[int, str, int]]:
    """Process id, local address in hexadecimal, and port of each TCP socket on which one of the processes listens."""
    owners = {}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                owners[os.readlink(link)] = pid
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    sockets = [(f"socket:[{fields[9]}]", fields) for fields in map(str.split, lines) if fields[3] == "0A"]
    places = [(owners[name], fields[1].split(":")) for name, fields in sockets if name in owners]
    return {(pid, place[0], int(place[1], 16)) for pid, place in places}


LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
"""127.0.0.1, the same as an IPv6 address, and ::1."""
