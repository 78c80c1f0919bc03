"""Fonts that have the characters of a text, of those on this machine.

matplotlib brings DejaVu Sans: Latin, Greek, Cyrillic, Arabic, Hebrew and more. Where a text needs others, such as
Chinese, fonts of the system are looked for. Characters that no font has are shown as escapes, never as empty boxes.
"""

from collections.abc import Iterable
from functools import cache
from itertools import accumulate
from threading import Lock
from unicodedata import east_asian_width

from pipeline.pictures.missing import missing

try:
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
except ImportError as error:
    raise missing(error, "matplotlib") from None

_FIRST = "DejaVu Sans"
_PREFERRED = ("noto sans", "source han sans", "wenquanyi", "droid sans fallback", "liberation sans", "gnu unifont")
"""Families that are tried before others: plain ones with many characters."""

_EMPTY = "Last Resort"
"""A family with an empty box for every character."""

_lock = Lock()


def find_families(texts: Iterable[str]) -> tuple[list[str], frozenset[str]]:
    """The families that have the characters of texts, for matplotlib; and the characters that none here has."""
    needed = frozenset(char for text in texts for char in text if not char.isspace())
    with _lock:
        return _find_families(needed)


@cache
def _find_families(needed: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    families, left = [_FIRST], needed - _characters(findfont(FontProperties(family=[_FIRST])))
    fonts = [font for font in fontManager.ttflist if not font.name.startswith(_EMPTY)]
    candidates = sorted(fonts, key=lambda font: (_rank(font.name), font.style != "normal", font.fname))
    for font in candidates if left else ():
        if font.name not in families and (found := left & _characters(font.fname)):
            families.append(font.name)
            left -= found
        if not left:
            break
    return families, left


def _rank(family: str) -> int:
    """Smaller for families that are to be tried earlier."""
    name = family.lower()
    return next((number for number, begin in enumerate(_PREFERRED) if name.startswith(begin)), len(_PREFERRED))


@cache
def _characters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError):  # a damaged font
        return frozenset()


def show_text(text: str, lacking: frozenset[str] = frozenset()) -> str:
    """A text in one line, with escapes for characters that cannot be seen or that no font has."""
    if text.isprintable() and not lacking.intersection(text):
        return text
    shown = (char if char.isprintable() and char not in lacking else _escape(char) for char in text)
    return "".join(shown)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def shorten(text: str, n_columns: int) -> str:
    """A text without its middle, if it is wider than so many columns; Chinese characters and such take two.

    The end of a path tells more than its beginning: it keeps two thirds.
    """
    if _width(text) <= n_columns:
        return text
    room = n_columns - 1
    return _fit(text, room // 3) + "…" + _fit(text[::-1], room - room // 3)[::-1]


def _fit(text: str, n_columns: int) -> str:
    """As much of the beginning of a text as has room."""
    used = accumulate(map(_width, text))
    return text[: sum(1 for width in used if width <= n_columns)]


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
