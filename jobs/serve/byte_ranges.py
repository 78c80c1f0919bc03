"""Parts of an answer that a client asks for by their bytes (RFC 9110, section 14)."""

import re

_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)", re.IGNORECASE)
MAX_DIGITS = 18


class OutOfRange(Exception):
    """The answer has no such bytes."""


def read_range(header: str | None, n_bytes: int) -> tuple[int, int] | None:
    """The bytes ``first`` .. ``stop - 1`` that a Range header asks for, of ``n_bytes``.

    None for the whole answer: there is no header, or one that a server may ignore, such as that of several ranges.

    Raises:
        OutOfRange: none of these bytes exist.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or not any(found.groups()) or max(map(len, found.groups())) > MAX_DIGITS:
        return None
    begin, end = found.groups()
    if not begin:  # the last bytes
        first, stop = max(0, n_bytes - int(end)), n_bytes
    else:
        first, stop = int(begin), min(n_bytes, int(end) + 1 if end else n_bytes)
        if end and int(end) < first:
            return None
    if first >= stop:
        raise OutOfRange
    return first, stop


def applies(if_range: str | None, tag: str) -> bool:
    """Whether a range counts although the answer may have changed since the client got its first part."""
    return if_range is None or if_range.strip() == tag
