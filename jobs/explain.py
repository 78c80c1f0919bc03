"""An error that no one foresaw, in one line: the index, the object store, Ray, the disk, or a fault of Earshot."""

import re
import traceback
from collections.abc import Collection

ENGINES = ("lance", "lancedb")
OURS = ("pipeline", "jobs", "__main__")

_STORE = re.compile(r"(?:(?:[\w ()]|N/A)+: )*Generic (?!Local\b|memory\b)\w+ error: (?:.*? - )?(.*?)(?:, /\S+\.rs|$)")
"""What Lance says at the beginning of a message, before any path, where an object store does not answer."""

_REFUSED = re.compile(r"\((os error (?!2\))\d+)\)")
"""An error of the operating system, but for a file that is not there: that is damage."""


def explain(error: Exception) -> str:
    """What happened and what to do, without a line break."""
    said = " ".join(str(error).split())
    if _is_of(error, ENGINES):
        if answer := _STORE.match(said):
            code = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", answer[1])
            told = f"{code[1]}: {code[2]}" if code else answer[1]
            return (
                f"the object store does not give the index: {told[:300]}; check its URL, the store's address and"
                " region, and the credentials in the environment"
            )
        if _REFUSED.search(said):
            return f"the index cannot be read or written: {said[:300]}"
        return (
            f"the index is damaged: {said[:300]}; `earshot verify INDEX --repair` says of what and has it made anew, or"
            " restore its folder from a copy"
        )
    if _is_of(error, ("ray",)):
        return f"Ray gave up: {said[:300]}; what was published stays, run again"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    place = _name_place(error)
    return (
        f"this is a fault of Earshot: {type(error).__name__}: {said[:300]} ({place}); please report it, with what"
        " EARSHOT_DEBUG=1 adds"
    )


def _is_of(error: BaseException, packages: Collection[str]) -> bool:
    """Whether one of these packages raised it: their types are Python's own, and their messages hold paths of any name.

    They were called where the last of our functions on the way to the error was left for one of theirs.
    """
    modules = [frame.f_globals.get("__name__", "").split(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)]
    of_others = modules[max((at for at, module in enumerate(modules) if module in OURS), default=-1) + 1 :]
    return any(module in packages for module in of_others)


def _name_place(error: BaseException) -> str:
    """The module and line of ours that the error passed last."""
    places = [
        f"{frame.f_globals['__name__']}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").split(".")[0] in OURS
    ]
    return places[-1] if places else "outside of it"
