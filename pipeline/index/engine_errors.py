"""What an error of the engine means. Lance and lancedb raise Python's own types for a damaged file, a full disk and a
store that does not answer. Only the beginning and the end of the message tell which: between them lie paths, and a path
may contain any words.
"""

import re
import traceback
from collections.abc import Collection
from typing import Literal

ENGINES = ("lance", "lancedb")
OURS = ("pipeline", "jobs", "__main__")

Trouble = Literal["memory", "disk_full", "disk", "store", "conflict", "damage"]

_PREFIX = r"(?:(?:[\w ()]|N/A)+: )*?"
"""``lance error: LanceError(IO): Wrapped error: ``: before any path."""
_MEMORY = re.compile(rf"{_PREFIX}(?:Resources exhausted|Memory exhausted|Out of memory)\b", re.IGNORECASE)
_STORE = re.compile(rf"{_PREFIX}Generic (?!Local\w* |(?:In)?Memory )\w+ error: (?:.*? - )?(.*)", re.IGNORECASE)
_SHORT_OBJECT = re.compile(r"[\w -]+: 416 |[^/]*<Code>InvalidRange</Code>")
"""A store's answer where an object is shorter than its table says."""
_CONFLICT = re.compile(rf"{_PREFIX}(?:Retryable |Incompatible )?(?:Commit conflict|Too many concurrent)", re.IGNORECASE)
_FILTERED_VALUE = re.compile(
    r"(?:lance error: |External error: )*Query Execution error: Error applying filter expression to batch: Arrow error"
)
_OS_ERROR = re.compile(r"\(os error (\d+)\)(?=$|[,;:)\]])")
_FULL, _MISSING = ("28", "122"), "2"
"""Linux's numbers for a full disk or quota, and for a missing file, which is damage."""

_SOURCE_PLACE = re.compile(r",? /\S+\.rs:\d+(?::\d+)?")
_WRAPPING = re.compile(
    r"(?:\w+Error: )?(?:lance error: |LanceError\(\w+\): |(?:External|Wrapped|Generic N/A|Generic memory) error: )+"
)
_FROM_LANCE = re.compile(r"(?:\w+: )?(?:External error: )?(?:lance error: |LanceError\(\w+\): )")


def _flatten(text: str) -> str:
    """One line, without the places in Rust's sources."""
    return _SOURCE_PLACE.sub("", " ".join(text.split()))


def tidy(text: str) -> str:
    """A message of Lance in one line, without its wrapping and the places in the Rust source where it arose."""
    said = _flatten(text)
    return said[layers.end() :] if (layers := _WRAPPING.match(said)) else said


def diagnose(text: str) -> Trouble:
    """The trouble that a message of Lance is about; damage where it names nothing else."""
    said = _flatten(text)
    if _MEMORY.match(said):
        return "memory"
    if _CONFLICT.match(said):
        return "conflict"
    if (answer := _STORE.match(said)) is not None:
        return "damage" if _SHORT_OBJECT.match(answer[1]) else "store"
    numbers = _OS_ERROR.findall(said)
    if not numbers or numbers[-1] == _MISSING:
        return "damage"
    return "disk_full" if numbers[-1] in _FULL else "disk"


def is_conflict(text: str) -> bool:
    """Whether a message is about a commit that another one prevented. The paths in it come later."""
    return _CONFLICT.match(text) is not None


def is_about_a_value(text: str) -> bool:
    """Whether a message is about a filter that is valid, and failed on a value: a name cast to a number."""
    return _FILTERED_VALUE.match(text) is not None


def find_answer(text: str) -> str:
    """The answer of an object store in a message of Lance."""
    answer = _STORE.match(_flatten(text))
    said = answer[1] if answer else tidy(text)
    code = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", said)
    return f"{code[1]}: {code[2]}" if code else said


def is_message(text: str) -> bool:
    """Whether Lance wrote this text, which another process sent, maybe with the name of a type before it."""
    return _FROM_LANCE.match(text) is not None


def is_failure(error: BaseException) -> bool:
    """Whether the engine raised this error about its files.

    A TypeError or an ImportError raised there is a fault of the code, and an error with a number is the system's. A
    damaged page makes Lance's own code panic, which is no ``Exception``.
    """
    is_its_type = isinstance(error, OSError | ValueError | RuntimeError) or is_panic(error)
    is_other = isinstance(error, NotImplementedError | RecursionError) or getattr(error, "errno", None) is not None
    return is_its_type and not is_other and is_of(error, ENGINES)


def is_damage(error: BaseException) -> bool:
    """Whether the engine raised this error because a file of it is lost or damaged, or for a reason that it does not
    tell."""
    return is_failure(error) and diagnose(str(error)) == "damage"


def is_panic(error: BaseException) -> bool:
    """Whether Rust code has panicked."""
    return type(error).__name__ == "PanicException"


def is_of(error: BaseException, packages: Collection[str]) -> bool:
    """Whether one of these packages raised the error. Its type and message cannot tell: the types are Python's own, and
    messages contain paths. The traceback tells: after the last function of ours comes one of theirs.
    """
    modules = [frame.f_globals.get("__name__", "").split(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)]
    theirs = modules[max((at for at, module in enumerate(modules) if module in OURS), default=-1) + 1 :]
    return any(module in packages for module in theirs)
