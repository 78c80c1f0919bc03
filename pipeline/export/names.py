"""Names for exported files that any system can hold: Windows too, which forbids some characters and some names.

Names keep their script. Two recordings of the same name in different folders get different names.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from pipeline.credentials import without_credentials

MOST_BYTES = 120
"""Of a name without its extension: it leaves room for extensions, and for a folder within the 260 characters of
Windows."""

SLUG_BYTES = 40
"""Of a text within a name."""

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f]')
_RESERVED = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?:\.|$)", re.IGNORECASE
)
"""Devices of Windows, whatever extension follows."""


def make_safe(name: str, at_most_bytes: int = MOST_BYTES) -> str:
    """``name`` as a name of a file: forbidden and invisible characters become ``_``, what is too long is cut.

    A cut name ends in eight digits of a hash of the whole.
    """
    name = unicodedata.normalize("NFC", name)
    shown = "".join("_" if _FORBIDDEN.match(char) or not _is_shown(char) else char for char in name)
    shown = shown.strip(" ").rstrip(". ").lstrip(".") or "_"
    if _RESERVED.match(shown):
        shown = f"_{shown}"
    if len(shown.encode()) <= at_most_bytes:
        return shown
    tail = "~" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return _cut(shown, at_most_bytes - len(tail)).rstrip(". ") + tail


def _is_shown(char: str) -> bool:
    """Whether a character is visible, or joins letters as some scripts need it."""
    return char.isprintable() or char in "\u200c\u200d"


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")


def make_slug(text: str) -> str:
    """The letters, marks and digits of a text, the rest as hyphens; empty if it has none, cut where it is too long."""
    kept = (char if unicodedata.category(char)[0] in "LMN" else " " for char in unicodedata.normalize("NFC", text))
    return _cut("-".join("".join(kept).split()), SLUG_BYTES).strip("-")


def name_recordings(uris: Iterable[str]) -> dict[str, str]:
    """A name for each recording, from its path below the folder that all have in common.

    The same recordings always get the same names. Names differ also where upper and lower case are not told apart.
    """
    paths = name_relative(uris)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for uri, path in paths.items():
        stem = make_safe(path.replace("/", "_"))
        name, number = stem, 1
        while _key(name) in taken:
            number += 1
            name = f"{stem}~{number}"
        taken.add(_key(name))
        names[uri] = name
    return names


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def name_relative(uris: Iterable[str]) -> dict[str, str]:
    """The path of each file below the folder that all have in common, by uri in order; of a single file, its name."""
    ordered = sorted(set(uris))
    # A folder does not end within the name of a member or a range.
    folders = [uri.partition("#")[0].split("/")[:-1] for uri in ordered]
    n_common = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        n_common += 1
    return {uri: without_credentials("/".join(uri.split("/")[n_common:])) for uri in ordered}
