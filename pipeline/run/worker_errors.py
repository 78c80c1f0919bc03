"""Turns an error that stops a run into one line that says what to do. Workers' errors arrive wrapped by Ray."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import EarshotError
from pipeline.index import engine_errors
from pipeline.index.writer_errors import COLOURS, describe_stop, plain_errors

_NO_EARSHOT = re.compile(
    r"^(?:(?:System error|ModuleNotFoundError): )+No module named 'pipeline(?:\.\w+)*'$", re.MULTILINE
)
"""A line of Ray's message about a worker that could not start."""


@contextmanager
def plain_run_errors(path: str) -> Iterator[None]:
    """Like ``plain_errors``, also for an error of a worker, which Ray has wrapped."""
    with plain_errors(path):
        try:
            yield
        except EarshotError:
            raise
        except Exception as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, EarshotError):
                raise cause from error
            if _lacks_earshot(error, cause):
                raise EarshotError(
                    f"{path}: the run stopped: workers of this cluster have no Earshot: install it in the Python of"
                    " every node, or submit with --ship"
                ) from error
            if cause is error:
                raise
            raise EarshotError(f"{path}: {describe_stop(path, cause, is_workers=True)}") from error


def _lacks_earshot(error: Exception, cause: Exception) -> bool:
    if isinstance(cause, ModuleNotFoundError):
        return (cause.name or "").split(".")[0] == "pipeline"
    return _is_rays(error) and _NO_EARSHOT.search(COLOURS.sub("", str(cause))) is not None


def _is_rays(error: Exception) -> bool:
    is_its_type = any(kind.__module__.split(".")[0] == "ray" for kind in type(error).__mro__)
    return is_its_type or engine_errors.is_of(error, ("ray",))
