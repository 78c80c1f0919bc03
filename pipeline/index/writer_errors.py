"""Turns an error that stops a writer of an index into one line that says what to do."""

import errno
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import EarshotError
from pipeline.index import engine_errors

COLOURS = re.compile(r"\x1b\[[0-9;]*m|\^{3,}")
"""What Ray and Python add to tracebacks for terminals."""
_STAYS = "what was published stays"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_TEXT_OF_DISK_FULL = re.compile(rf"OSError: \[Errno (?:{errno.ENOSPC}|{errno.EDQUOT})\] ")
"""How the text of an error from another process begins."""


@contextmanager
def plain_errors(path: str) -> Iterator[None]:
    """Turn whatever stops a writer of the index at ``path`` into an ``EarshotError`` of one line: a full disk, a folder
    that cannot be written, a damaged index."""
    try:
        yield
    except EarshotError:
        raise
    except Exception as error:
        raise EarshotError(f"{path}: {describe_stop(path, error)}") from error


def describe_stop(path: str, error: Exception, *, is_workers: bool = False) -> str:
    """What stopped the writer, and what to do. The type and the number of the error decide.

    A ``RuntimeError`` may hold the text of an error in another process; then the beginning of that text decides.

    Args:
        is_workers: another process raised the error.
    """
    text = " ".join(COLOURS.sub("", str(error)).split())
    is_text = type(error) is RuntimeError
    is_engines = engine_errors.is_failure(error) or (
        (is_text or error.__traceback__ is None) and engine_errors.is_message(text)
    )
    trouble = engine_errors.diagnose(text) if is_engines else None
    number = error.errno if isinstance(error, OSError) else None
    if number in _DISK_FULL or trouble == "disk_full" or (is_text and _TEXT_OF_DISK_FULL.match(text)):
        return f"the disk is full; {_STAYS}, make room and run again"
    if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
        what = f"{error.filename or 'a file of a worker'} cannot be used" if is_workers else "cannot be written"
        return f"{what}: {error.strerror or text}"
    said = text if is_text else f"{type(error).__name__}: {text}".removesuffix(": ")
    if trouble is not None:
        said = engine_errors.tidy(text)
    if trouble == "damage":
        return (
            f"the run stopped, as the index is damaged: {said[:300]}; {_STAYS};"
            f" `earshot verify {shlex.quote(path)} --repair` finds the damage and encodes those"
            " files again, or restore its folder from a copy"
        )
    if isinstance(error, MemoryError) or trouble == "memory":
        return f"the run stopped: there is not enough memory: {said[:300]}; {_STAYS}, free some and run again"
    return f"the run stopped: {said[:500]}; {_STAYS}, run again"
