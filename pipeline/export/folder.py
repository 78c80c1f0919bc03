"""What exports are written to: single files, and folders that an interrupted export goes on with.

A file appears whole, under its name, once all of it is on the disk: it is written beside itself before, under a name
that no other writer uses, and renamed. In an object store, it is sent once all of it is there.

A folder that is not finished holds a folder ``.earshot-export`` with what was asked for, what is to be written, and a
note of each step that is done. The same request goes on there: it writes what an undisturbed export would. On a disk,
the process that writes holds a lock until it ends, and another one is refused.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import UsageError

STATE = ".earshot-export"
PART = ".part"
"""At the end of the name of a file that is being written."""

_PLAN, _LOCK = "plan.json", "lock"

Failpoint = Callable[[str], None]
"""Called with the name of each step just before it: tests stop an export there."""


def write_file(path: str, pieces: Iterable[bytes]) -> int:
    """Write a file, local or in an object store, in the place of one of this name; returns its size in bytes.

    What a killed process has left lies beside it as ``PATH.*.part``.

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
    beside = f"{path}.{secrets.token_hex(4)}{PART}"
    Path(beside).parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(beside, "xb") as file:
            n_bytes = sum(map(file.write, pieces))
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave an empty file under the name
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
        self._unlock: Callable[[], object] = lambda: None

    def begin(self, request: dict[str, Any], make_plan: Callable[[], Any]) -> Any:
        """The plan of this export, JSON: a former one, if this request was interrupted here; else a new one.

        Args:
            request: what was asked for, JSON. make_plan: called if there is no former plan.

        Raises:
            UsageError: the folder holds anything else, or another process exports into it now.
        """
        request = json.loads(json.dumps(request))
        plan = None if self._has_plan() else make_plan()  # a wrong request leaves no folder behind
        if not storage.is_url(self.path):
            self._take_lock()
        try:
            is_begun = self._has_plan()
        except UsageError:  # another process has finished meanwhile
            self._unlock()
            shutil.rmtree(Path(self.path, STATE), ignore_errors=True)
            raise
        if is_begun:
            former = json.loads(self._read(f"{STATE}/{_PLAN}"))
            self._check_same(former["request"], request)
            return former["plan"]
        plan = plan or make_plan()  # another process may have finished meanwhile, with nothing to write
        self.write(f"{STATE}/{_PLAN}", [json.dumps({"request": request, "plan": plan}).encode()])
        self._persist(STATE)
        return plan

    def _has_plan(self) -> bool:
        """Whether an unfinished export is here.

        Raises:
            UsageError: there is something else.
        """
        if self._has(f"{STATE}/{_PLAN}"):
            return True
        if left := [name for name in self.list_names() if name != STATE]:
            raise UsageError(f"{self.path}: is not empty, it holds {left[0]}: give a new folder")
        return False

    def _take_lock(self) -> None:
        """Keep other processes out until this one ends or finishes, unless the disk has no locks.

        Raises:
            UsageError: another process exports into this folder.
        """
        path = Path(self.path, STATE, _LOCK)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        self._unlock = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UsageError(
                    f"{self.path}: another process exports into this folder: wait for it, or give another folder"
                ) from None

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
        self._persist()
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
        self._persist()
        for each in Path(state).iterdir():
            if each.name not in (_PLAN, _LOCK):
                each.unlink()
        self._failpoint("forget the plan")
        Path(state, _PLAN).unlink()
        self._unlock()  # an NFS server keeps an open file, and with it the folder
        shutil.rmtree(state)

    def _persist(self, name: str = "") -> None:
        """See to it that the names of written files outlive a power cut: what is noted as done must be there."""
        if storage.is_url(self.path):
            return
        descriptor = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
                raise
        finally:
            os.close(descriptor)

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
