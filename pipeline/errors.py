"""The exceptions of the project, and ``FileFailure``, which describes a file that cannot be indexed.

    EarshotError               a line that a person can act on             exit code 1
    |-- UsageError             a wrong call or configuration               exit code 2
    |   |-- ConfigError        unknown key, value out of range
    |   |-- CorpusError        a source that does not exist or cannot be listed
    |   |   `-- EmptyCorpus    sources without a file of audio           exit code 1
    |   |-- ModelError         a model that cannot be found or loaded exactly
    |   |-- IndexMissing       no index at this path
    |   |-- IndexMismatch      settings that would mix incompatible vectors
    |   `-- JobMissing         no job of this name on the cluster
    |-- IndexBusy              another run holds the index
    |-- CommitConflict         another writer published first
    |-- MarkedSince            a mark that was to be corrected is not the newest any more
    |-- ClusterError           a cluster that cannot be reached, or refuses
    |-- RayDied                a part of Ray has died under a run
    `-- FileFailure            one file could not be indexed: becomes a row, never a crash

This module imports nothing heavy, so that every other may use it. Messages are cleaned of credentials.
"""

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Literal

from pipeline.credentials import without_credentials

Stage = Literal["list", "read", "decode", "encode", "write"]

REASONS = (
    *("bad_name", "vanished", "unreadable", "changed_while_reading", "damaged"),
    *("empty", "not_audio", "no_audio_stream", "unsupported", "decode_error", "too_short", "too_long"),
    *("truncated", "out_of_range", "not_finite", "crashed"),
)
"""Why files fail. A ``truncated`` file is indexed as far as it goes."""

TOO_LARGE = "it takes more memory than there is"
"""Why a file, or a column of a table, cannot be read."""


_LONGEST_COMPARED, _MOST_COMPARED = 100, 1_000
"""Characters of a name, and names: comparing takes time with the product of the lengths."""


def suggest(given: str, known: Iterable[str]) -> str:
    """``, did you mean codec?`` with the known name that is most like the given one; empty if none is.

    Names of more than 100 characters are like none, and of many known names the first 1,000 are compared.
    """
    if len(given) > _LONGEST_COMPARED:
        return ""
    by_lower = {name.lower(): name for name in islice(known, _MOST_COMPARED) if len(name) <= _LONGEST_COMPARED}
    close = difflib.get_close_matches(given.lower(), by_lower, n=1)
    return f", did you mean {by_lower[close[0]]}?" if close else ""


def one_line(error: BaseException, at_most: int | None = None) -> str:
    """The message of an error on one line, never empty, cut after ``at_most`` characters."""
    text = " ".join((getattr(error, "strerror", None) or str(error)).split())
    return text[:at_most] or type(error).__name__


class EarshotError(Exception):
    """An error that a person can act on, in one line."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(without_credentials(message))


class UsageError(EarshotError):
    """The call or the configuration is wrong: nothing was started."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key is unknown or its value is out of range."""


class CorpusError(UsageError):
    """A source does not exist, or nothing in it can be listed."""


class EmptyCorpus(CorpusError):
    """The sources exist, but hold no audio file."""

    exit_code = 1


class ModelError(UsageError):
    """A model cannot be found, or its checkpoint does not load exactly."""


class IndexMissing(UsageError):
    """There is no index at the path given."""


class IndexMismatch(UsageError):
    """The index was built with settings that would mix incompatible vectors."""


class JobMissing(UsageError):
    """There is no job of this name on the cluster."""


class ClusterError(EarshotError):
    """A cluster cannot be reached, or refuses a request."""


class RayDied(EarshotError):
    """A part of Ray that a run needs has died. Ray will soon end this process itself."""


class IndexBusy(EarshotError):
    """Another run holds the index."""


class CommitConflict(EarshotError):
    """Another writer changed the index during this run, which stops."""


class MarkedSince(EarshotError):
    """A mark that was to be corrected is not the newest any more: someone has marked the same since."""


class FileFailure(EarshotError):
    """One file cannot be indexed. It becomes a ``files`` row with these three values.

    Args:
        stage: where it failed: ``list``, ``read``, ``decode``, ``encode`` or ``write``.
        reason: one snake_case word to group by, for example ``not_audio``.
        message: one line for a person.
    """

    def __init__(self, stage: Stage, reason: str, message: str) -> None:
        message = " ".join(message.split())
        super().__init__(f"{reason}: {message}")
        self.stage: Stage = stage
        self.reason = reason
        self.message = without_credentials(message)

    def __reduce__(self) -> tuple[type["FileFailure"], tuple[str, str, str]]:
        return type(self), (self.stage, self.reason, self.message)
