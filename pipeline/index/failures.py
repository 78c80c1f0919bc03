"""Whatever stops a writer of an index in, one line that says what to do out."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import EarshotError
from pipeline.index import engine_errors

_STAYS = "what was published stays"
_NO_EARSHOT = re.compile(
    r"^(?:(?:System error|ModuleNotFoundError): )+No module named 'pipeline(?:\.\w+)*'$", re.MULTILINE
)
"""A line of what Ray tells of a worker that could not start."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORKERS_DISK_FULL = re.compile(rf"OSError: \[Errno (?:{errno.ENOSPC}|{errno.EDQUOT})\] ")
"""How the text of a worker's error begins."""


@contextmanager
def plain_errors(path: str) -> Iterator[None]:
    """What stops a run, in one line: a full disk, a place that cannot be written, a damaged index, a worker's own
    error."""
    try:
        yield
    except EarshotError:
        raise
    except Exception as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, EarshotError):
            raise cause from error
        raise EarshotError(f"{path}: {_tell(path, error, cause)}") from error


def _tell(path: str, error: Exception, cause: Exception) -> str:
    """What stopped the run into ``path``: judged by types and numbers, and by how a text begins that has no other."""
    plain = re.sub(r"\x1b\[[0-9;]*m|\^{3,}", "", str(cause))
    text = " ".join(plain.split())
    if isinstance(cause, ModuleNotFoundError):
        lacks_earshot = (cause.name or "").split(".")[0] == "pipeline"
    else:
        lacks_earshot = _is_of_ray(error) and _NO_EARSHOT.search(plain) is not None
    if lacks_earshot:
        return (
            "the run stopped: workers of this cluster have no Earshot: install it in the Python of every node, or"
            " submit with --ship"
        )
    is_workers = type(cause) is RuntimeError  # the text is its error's, with the name of the type
    is_lances = engine_errors.is_failure(cause) or (
        (is_workers or cause.__traceback__ is None) and engine_errors.is_message(text)
    )
    trouble = engine_errors.diagnose(text) if is_lances else None
    number = cause.errno if isinstance(cause, OSError) else None
    if number in _DISK_FULL or trouble == "disk_full" or (is_workers and _WORKERS_DISK_FULL.match(text)):
        return f"the disk is full; {_STAYS}, make room and run again"
    if isinstance(cause, PermissionError | NotADirectoryError | FileExistsError):
        what = "cannot be written" if cause is error else f"{cause.filename or 'a file of a worker'} cannot be used"
        return f"{what}: {cause.strerror or text}"
    said = text if is_workers else f"{type(cause).__name__}: {text}".removesuffix(": ")
    if trouble is not None:
        said = engine_errors.tidy(text)
    if trouble == "damage":
        return (
            f"the run stopped, as the index is damaged: {said[:300]}; {_STAYS}; `earshot verify {path} --repair` says"
            " of what and makes it anew, or restore its folder from a copy"
        )
    if isinstance(cause, MemoryError) or trouble == "memory":
        return f"the run stopped: there is not enough memory: {said[:300]}; {_STAYS}, free some and run again"
    return f"the run stopped: {said[:500]}; {_STAYS}, run again"


def _is_of_ray(error: Exception) -> bool:
    return any(kind.__module__.split(".")[0] == "ray" for kind in type(error).__mro__) or engine_errors.is_of(
        error, ("ray",)
    )
