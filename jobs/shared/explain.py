"""An unforeseen error in one line: is it the index, the object store, Ray, the disk, or a bug of Earshot?"""

import re
import traceback
from collections.abc import Collection

from pipeline.index import engine_errors

_VECTOR_INDEX = re.compile(r"\.lance/_indices/[0-9a-f-]{36}/(index|auxiliary)\.idx\b")
"""A file of the vector index of a table."""

_MARKS = re.compile(r"/marks\.lance/(?:data|_versions)/")
"""A file of the table of marks."""

_SEARCHES = ("pipeline.search.clips", "pipeline.search.candidates")
"""The modules that search vectors."""


def explain(error: BaseException) -> str:
    """What happened and what to do, in one line."""
    text = " ".join(str(error).split())
    is_rays = engine_errors.is_of(error, ("ray",))
    if isinstance(error, OSError) and error.errno is not None and not (is_rays and not error.filename):
        detail = error.strerror or text
        return f"{error.filename}: {detail}" if error.filename else detail
    if isinstance(error, MemoryError):
        return _explain_memory(text)
    if engine_errors.is_failure(error):
        return _explain_engine(text, is_search=_has_passed(error, _SEARCHES))
    if is_rays:
        return f"Ray gave up: {text[:300]}; what was published stays, run again"
    place = _name_place(error)
    return (
        f"this is a bug of Earshot: {type(error).__name__}: {text[:300]} ({place}); please report it, with"
        " the output of EARSHOT_DEBUG=1"
    )


def _explain_engine(text: str, *, is_search: bool) -> str:
    """An error of Lance, and what to do.

    Args:
        is_search: a search of vectors met it. Some messages do not name the file.
    """
    trouble, detail = engine_errors.diagnose(text), engine_errors.tidy(text)[:300]
    if trouble == "memory":
        return _explain_memory(detail)
    if trouble == "store":
        return (
            f"the index cannot be reached in its object store: {engine_errors.find_answer(text)[:300]}; check its"
            " URL, the store's address and region, and the credentials in the environment"
        )
    if trouble == "disk_full":
        return f"the disk is full: {detail}; make room and try again"
    if trouble == "disk":
        return f"the index cannot be read or written: {detail}"
    if trouble == "conflict":
        return f"another run changed the index at the same time: {detail}; try again"
    if _MARKS.search(text):
        return f"the marks of the index are damaged: {detail}; restore the folder marks.lance from a copy"
    if _VECTOR_INDEX.search(text):
        return (
            f"the index is damaged: {detail}; this is a file of a vector index, which `earshot verify INDEX --repair`"
            " or `earshot optimize INDEX` builds anew; `--exact` answers without it"
        )
    return (
        f"the index is damaged: {detail}; `earshot verify INDEX --repair` finds the damage and encodes those files"
        " again, or restore its folder from a copy"
        + ("; if only a vector index is damaged, `--exact` answers" if is_search else "")
    )


def _has_passed(error: BaseException, modules: Collection[str]) -> bool:
    """Whether a function of one of these modules has passed the error on."""
    return any(frame.f_globals.get("__name__") in modules for frame, _ in traceback.walk_tb(error.__traceback__))


def _explain_memory(text: str) -> str:
    return f"there is not enough memory{f': {text[:300]}' if text else ''}; free some and try again"


def _name_place(error: BaseException) -> str:
    """The last module and line of Earshot that the error passed."""
    places = [
        f"{frame.f_globals['__name__']}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").split(".")[0] in engine_errors.OURS
    ]
    return places[-1] if places else "outside Earshot"
