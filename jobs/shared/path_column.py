"""Paths in a column of a table: where there is no room for them, their common folder is said once, above the table, and
the middle of the longer ones is left out."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len

CUT = "…"


def fit_paths(paths: Sequence[str], room: int) -> tuple[str, list[str]]:
    """The common folder of ``paths``, empty where all fit with it, and the rest of each in at most ``room`` cells."""
    if all(cell_len(path) <= room for path in paths):
        return "", list(paths)
    folder = find_common_folder(paths)
    rests = [path.removeprefix(folder) for path in paths]
    return folder, _tell_apart(rests, [shorten(rest, room) for rest in rests], room)


def _tell_apart(paths: list[str], shown: list[str], room: int) -> list[str]:
    """Where different paths look alike, what they have in common gives way to what tells them apart."""
    alike: dict[str, set[str]] = {}
    for path, short in zip(paths, shown, strict=True):
        alike.setdefault(short, set()).add(path)
    better: dict[str, str] = {}
    for same in alike.values():
        n_common = len(os.path.commonprefix([*same])) if len(same) > 1 else 0  # noqa: RUF071 - by characters
        better |= {path: shorten(CUT + path[n_common:], room) for path in same if n_common}
    return [better.get(path, short) for path, short in zip(paths, shown, strict=True)]


def find_common_folder(paths: Sequence[str]) -> str:
    """The innermost folder that holds all of several paths, with its slash at the end; empty if there is none."""
    if len(paths) < 2:
        return ""
    # A folder does not end within the name of a member or a range.
    folders = [path.partition("#")[0].split("/")[:-1] for path in paths]
    folder = "/".join(os.path.commonprefix(folders))  # noqa: RUF071 - lists are compared item by item
    return "" if not folder or folder.endswith((":", "/")) else f"{folder}/"


def shorten(path: str, room: int) -> str:
    """``path`` in at most ``room`` cells: the name of the file stays, and as much of the folders' beginning as fits."""
    if cell_len(path) <= room:
        return path
    before, slash, name = path.rpartition("/")
    if slash and cell_len(name) + 2 * len(CUT) + 1 <= room:
        tail = f"{CUT}/{name}"
        head = _take(before, room - cell_len(tail))
        return (head.rpartition("/")[0] + "/" if "/" in head else head) + tail
    # Of a long name, the end tells the files of a series apart.
    end = _take(path[::-1], (room - 1) * 2 // 3)[::-1]
    return _take(path, room - 1 - cell_len(end)) + CUT + end


def _take(text: str, room: int) -> str:
    """The longest beginning of ``text`` in ``room`` cells."""
    while cell_len(text) > room:
        text = text[: max(0, min(len(text) - 1, room))] if len(text) > room else text[:-1]
    return text


def find_link(uri: str) -> str | None:
    """The ``file:`` URI of a local file, or of the file that holds a range or member; None for others."""
    for path in (uri, uri.partition("#")[0]):
        if os.path.isabs(path) and os.path.exists(path):
            return Path(path).as_uri()
    return None
