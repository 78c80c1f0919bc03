"""How much memory is left, from Linux's ``/proc`` and the control groups that containers and batch systems set up."""

from collections.abc import Iterator
from pathlib import Path

_FILE_PAGES = ("inactive_file", "active_file")
"""Pages of files, which the system drops where a process needs memory."""


def find_available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The bytes that this process may still take: what the machine has left, or less where a control group limits it.
    None where the system does not say."""
    return min((*_left_on_machine(proc), *_left_in_groups(proc, groups)), default=None)


def _left_on_machine(proc: Path) -> Iterator[int]:
    for name, value in _read_pairs(proc / "meminfo"):
        if name == "MemAvailable:":
            yield int(value) * 1024


def _left_in_groups(proc: Path, groups: Path) -> Iterator[int]:
    """Of the group of this process and of those above it, as far as they have limits (cgroups(7))."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        most, used, prefix = ("memory.max", "memory.current", "")
        if controllers:
            most, used, prefix = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        # In a container, the path may be one outside of it; the group at the root is then that of the container.
        folder = root / path.lstrip("/")
        for group in (folder, *(each for each in folder.parents if each.is_relative_to(root))):
            limit, taken = _read(group / most).strip(), _read(group / used).strip()
            if limit.isdecimal() and taken.isdecimal():
                pages = {name: int(value) for name, value in _read_pairs(group / "memory.stat") if value.isdecimal()}
                yield max(0, int(limit) - int(taken) + sum(pages.get(prefix + name, 0) for name in _FILE_PAGES))


def _read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """The first two words of each line."""
    for line in _read(path).splitlines():
        words = line.split()
        if len(words) > 1:
            yield words[0], words[1]


def _read(path: Path) -> str:
    """A file of the system; nothing where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
