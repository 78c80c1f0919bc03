"""Lease files: those of an index, and ones written by hand."""

import contextlib
import json
import os
import socket
import time
from typing import Any

import fsspec

from pipeline import processes, storage
from pipeline.index.lease_files import LeaseFiles


def leases(place: str) -> dict[int, dict[str, Any]]:
    """What is there: number -> content."""
    fs, root = fsspec.url_to_fs(place, use_listings_cache=False)
    found = {}
    for name in fs.glob(f"{root}/claim-*.json"):
        with contextlib.suppress(FileNotFoundError):  # renewed meanwhile
            found[int(name[-14:-5])] = json.loads(fs.cat_file(name))
    return found


def leases_of(place: str, kind: type[LeaseFiles] = LeaseFiles) -> LeaseFiles:
    """The lease files of an index, or a kind of them that misbehaves."""
    return kind(*storage.find_store(place))


def holder(place: str) -> str:
    [values] = leases(place).values()
    return str(values["run_id"])


def write_lease(place: str, number: int = 7, *, age_s: float = 0.0, **changes: Any) -> None:
    """A lease that another process left: by default a live one on this machine."""
    values = {"run_id": "other", "host": socket.gethostname(), "pid": os.getpid(), "since": "2026-01-02 03:04:05 UTC"}
    values |= {"beat_s": 0.1, "at": time.time() - age_s, "processes": processes.name_processes()}
    with fsspec.open(f"{place}/claim-{number:09d}.json", "w") as file:
        file.write(json.dumps(values | changes))
