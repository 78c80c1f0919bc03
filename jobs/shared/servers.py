"""Running servers: how commands find the one of an index, and talk to it. The standard library alone: this has to be
quick.

Each server notes its address and token in a file of its own, in a folder that only the user can read.
"""

import contextlib
import datetime as dt
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pipeline
from pipeline import storage
from pipeline.processes import has_ended
from pipeline.search.found import Event, Events, Hit

ALIVE, COMMAND = "/api/alive", "/api/command"
"""The addresses that only commands ask."""

ALIVE_S = 0.5
"""A server that takes longer to say that it is there is not asked."""

ANSWER_S = 600.0
"""An exact scan of a large index takes minutes."""

MAX_SENT_BYTES = 200_000_000
"""Of a sound that is sent to a server."""

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Running:
    """A server, as it notes itself."""

    index: str
    """An absolute path without symbolic links, or a URL."""
    address: str
    """Where this machine reaches it: ``http://127.0.0.1:8765``."""
    token: str | None
    pid: int
    version: str
    """Earshot's."""


class NoAnswer(Exception):
    """A server gave no answer, or a refusal; the message says which."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


# --- the files in which servers note themselves -----------------------------------------------------------------------


def name_index(path: str) -> str:
    """One name for an index, however it is written."""
    return path.rstrip("/") if storage.is_url(path) else os.path.realpath(os.path.expanduser(path))


def find_folder(*, create: bool = False) -> Path | None:
    """The user's folder for notes; None where there is none, or others could have written in it."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base, "earshot") if base else Path(tempfile.gettempdir(), f"earshot-{os.getuid()}")
    if create:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
    try:
        status = folder.lstat()
    except OSError:
        return None
    is_private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if is_private else None


@contextmanager
def noted(running: Running) -> Iterator[Path | None]:
    """Note a server while the context is open; None where there is no safe place for the note."""
    folder = find_folder(create=True)
    if folder is None:
        yield None
        return
    _remove_dead(folder)
    note = folder / f"{running.pid}-{os.urandom(4).hex()}.json"
    scratch = note.with_suffix(".part")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(running), file)
    scratch.rename(note)
    try:
        yield note
    finally:
        note.unlink(missing_ok=True)


def find_server(index: str) -> Running | None:
    """The server of this Earshot that noted itself for an index last; it may have died since."""
    name = name_index(index)
    found = [(note.stat().st_mtime, running) for note, running in _read_notes() if running.index == name]
    alive = [pair for pair in found if not has_ended(pair[1].pid, None) and pair[1].version == pipeline.__version__]
    return max(alive, key=lambda pair: pair[0])[1] if alive else None


def _read_notes() -> Iterator[tuple[Path, Running]]:
    folder = find_folder()
    for note in folder.glob("*.json") if folder else ():
        with contextlib.suppress(OSError, ValueError, TypeError):
            yield note, Running(**json.loads(note.read_text(encoding="utf-8")))


def _remove_dead(folder: Path) -> None:
    """Remove notes of servers that were killed."""
    for note, running in list(_read_notes()):
        if note.parent == folder and has_ended(running.pid, None):
            note.unlink(missing_ok=True)


# --- calls ------------------------------------------------------------------------------------------------------------


def call(running: Running, name: str, arguments: dict[str, Any], sound: Path | None = None) -> tuple[int, Any]:
    """Call a method of the server's index; returns the number of its state, and the result.

    Args:
        name: of a method of ``pipeline.search.client.Index``.
        sound: a file to send along, for ``similar_to_file``.

    Raises:
        NoAnswer: the server does not answer, or refuses.
    """
    asked = json.dumps({"name": name, "arguments": arguments})
    if sound is None:
        kind, parts = "application/json", [asked.encode()]
        n_bytes = len(parts[0])
        body: Iterable[bytes] = parts
    else:
        boundary = os.urandom(16).hex()
        kind = f"multipart/form-data; boundary={boundary}"
        head, tail = _frame(boundary, asked, sound)
        try:
            n_bytes = len(head) + sound.stat().st_size + len(tail)
        except OSError as error:
            raise NoAnswer(str(error)) from None
        body = _send(head, sound, tail)
    headers = {"Content-Type": kind, "Content-Length": str(n_bytes)}
    try:
        answer = json.loads(_request(running, "POST", COMMAND, body, headers))
        return int(answer["state"]), unpack(answer)
    except (ValueError, KeyError, TypeError):
        raise NoAnswer("another program has this address") from None


def check_alive(running: Running) -> None:
    """Raises ``NoAnswer`` unless the server answers at once."""
    try:
        index = json.loads(_request(running, "GET", ALIVE, timeout_s=ALIVE_S))["index"]
    except (ValueError, KeyError, TypeError):
        raise NoAnswer("another program has this address") from None
    if index != running.index:
        raise NoAnswer("another server has this address")


def _request(
    running: Running,
    method: str,
    path: str,
    body: Iterable[bytes] | None = None,
    headers: dict[str, str] | None = None,
    *,
    timeout_s: float = ANSWER_S,
) -> bytes:
    from http.client import HTTPConnection, HTTPException  # with ssl, which takes a while to import

    host, _, port = running.address.partition("://")[2].rpartition(":")
    sent = dict(headers or {}) | ({"Authorization": f"Bearer {running.token}"} if running.token else {})
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=ALIVE_S)
    try:
        connection.connect()
        connection.sock.settimeout(timeout_s)
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        data = answer.read()
    except (OSError, HTTPException) as error:
        raise NoAnswer(
            f"{running.address} does not answer ({' '.join(str(error).split()) or 'no reason given'})"
        ) from None
    finally:
        connection.close()
    if answer.status != 200:
        raise NoAnswer(f"{running.address} answered {answer.status}", answer.status)
    return data


def _frame(boundary: str, asked: str, sound: Path) -> tuple[bytes, bytes]:
    """What comes before and after the bytes of a sound in a form."""
    name = f"sound{sound.suffix}" if sound.suffix.isascii() and '"' not in sound.suffix else "sound"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="call"\r\n\r\n{asked}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    )
    return head.encode(), f"\r\n--{boundary}--\r\n".encode()


def _send(head: bytes, sound: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with sound.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
    yield tail


# --- results as JSON, exactly -----------------------------------------------------------------------------------------


def pack(found: "list[Hit] | Events | int") -> dict[str, Any]:
    """A result as JSON that ``unpack`` turns into an equal one."""
    if isinstance(found, int):
        return {"kind": "count", "found": found}
    rows = [vars(each) | {"metadata": {name: _pack(value) for name, value in each.metadata.items()}} for each in found]
    if isinstance(found, Events):
        return {"kind": "events", "found": rows, "is_cut": found.is_cut}
    return {"kind": "clips", "found": rows}


def unpack(packed: dict[str, Any]) -> Any:
    """The result: clips, events or a number."""
    if packed["kind"] == "count":
        return int(packed["found"])
    make: Any = Event if packed["kind"] == "events" else Hit
    rows = (
        make(**row | {"metadata": {name: _unpack(value) for name, value in row["metadata"].items()}})
        for row in packed["found"]
    )
    return Events(rows, is_cut=packed["is_cut"]) if packed["kind"] == "events" else list(rows)


def _pack(value: Any) -> Any:
    """Dates, times and numbers that JSON does not have become a mapping; metadata has no mappings."""
    if isinstance(value, dt.datetime):
        return {"time": value.isoformat()}
    if isinstance(value, dt.date):
        return {"date": value.isoformat()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}
    return value


def _unpack(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, text)] = value.items()
    if kind == "number":
        return float(text)
    return dt.datetime.fromisoformat(text) if kind == "time" else dt.date.fromisoformat(text)
