"""What exports are written to: single files, and folders that an interrupted export goes on with.

A file appears whole, under its name, once all of it is written: it is written beside itself before, and renamed. In an
object store, it is sent once all of it is there.

A folder that is not finished holds a folder ``.earshot-export`` with what was asked for, what is to be written, and a
note of each step that is done. The same request goes on there: it writes what an undisturbed export would.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import UsageError

STATE = ".earshot-export"
PART = ".part"
"""Behind the name of a file that is being written."""

_PLAN = "plan.json"

Failpoint = Callable[[str], None]
"""Called with the name of each step just before it: tests stop an export there."""


def write_file(path: str, pieces: Iterable[bytes]) -> int:
    """Write a file, local or in an object store, in the place of one of this name; returns its size in bytes.

    Raises:
        OSError: it cannot be written. Exception: whatever the driver of the store raises.
    """
    if storage.is_url(path):
        with tempfile.NamedTemporaryFile(prefix="earshot-") as local:
            n_bytes = sum(map(local.write, pieces))
            local.flush()
            store, name = storage.find_store(path)
            storage.retried(store.put_file, local.name, name)
        return n_bytes
    beside = f"{path}{PART}"
    Path(beside).parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(beside, "wb") as file:
            n_bytes = sum(map(file.write, pieces))
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    return n_bytes


class Folder:
    """A folder that is exported to, a path or a URL.

    Args:
        failpoint: see ``Failpoint``.
    """

    def __init__(self, path: str, failpoint: Failpoint = lambda step: None) -> None:
        self.path = path
        self._failpoint = failpoint

    def begin(self, request: dict[str, Any], make_plan: Callable[[], Any]) -> Any:
        """The plan of this export, JSON: a former one, if this request was interrupted here; else a new one.

        Args:
            request: what was asked for, JSON. make_plan: called if there is no former plan.

        Raises:
            UsageError: the folder holds anything else.
        """
        request = json.loads(json.dumps(request))
        if self._has(f"{STATE}/{_PLAN}"):
            former = json.loads(self._read(f"{STATE}/{_PLAN}"))
            self._check_same(former["request"], request)
            return former["plan"]
        if left := [name for name in self.list_names() if name != STATE]:
            raise UsageError(f"{self.path}: is not empty, it holds {left[0]}: give a new folder")
        plan = make_plan()
        self.write(f"{STATE}/{_PLAN}", [json.dumps({"request": request, "plan": plan}).encode()])
        return plan

    def _check_same(self, former: dict[str, Any], request: dict[str, Any]) -> None:
        names = sorted({*former, *request})
        if others := [name for name in names if former.get(name) != request.get(name)]:
            was, now = (json.dumps(each.get(others[0]), ensure_ascii=False) for each in (former, request))
            raise UsageError(
                f"{self.path}: holds an unfinished export that differs in {others[0]} ({was}, not {now}): finish that"
                " one by its own command, or give a new folder"
            )

    def find_note(self, step: int) -> Any | None:
        """What was noted of a step that is done; None if it is not done."""
        name = f"{STATE}/{step:06d}.json"
        return json.loads(self._read(name)) if self._has(name) else None

    def note(self, step: int, note: Any) -> None:
        """Note, as JSON, that a step is done, and what it found."""
        self.write(f"{STATE}/{step:06d}.json", [json.dumps(note).encode()])

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a file of the folder whole."""
        self._failpoint(f"write {name}")
        write_file(storage.join(self.path, name), pieces)

    def finish(self) -> None:
        """Forget the plan: the export is complete."""
        self._failpoint("finish")
        state = storage.join(self.path, STATE)
        if storage.is_url(self.path):
            store, name = storage.find_store(state)
            plan = f"{name}/{_PLAN}"
            others = [each for each in store.find(name) if each != plan]
            if others:
                store.rm(others)
            store.rm(plan)
            return
        for each in Path(self.path).glob(f"*{PART}"):  # a killed attempt began them
            each.unlink()
        for each in Path(state).iterdir():
            if each.name != _PLAN:
                each.unlink()
        self._failpoint("forget the plan")
        shutil.rmtree(state)

    def list_names(self) -> list[str]:
        """The names of all that the folder holds; none if there is no such folder."""
        store, name = storage.find_store(self.path)
        try:
            found = storage.retried(store.ls, name, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(each).rstrip("/").rpartition("/")[2] for each in found)

    def _has(self, name: str) -> bool:
        return storage.exists(storage.join(self.path, name))

    def _read(self, name: str) -> bytes:
        with storage.fetched(storage.join(self.path, name)) as source:
            return Path(source).read_bytes() if isinstance(source, str) else source.read()
