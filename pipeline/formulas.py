"""Cells of CSV that a spreadsheet would compute: a text that begins with ``=``, ``+``, ``-`` or ``@``.

Names of files and texts of people may begin so, and quotes around a cell do not keep a spreadsheet from it. Such a text
is written with an apostrophe before it, and so is one that has apostrophes there already: every text can be read back.
"""

import re

_RISKY = re.compile(r"'*[=+\-@\t\r]")


def guard(text: str) -> str:
    """``text`` as a cell that no spreadsheet computes."""
    return f"'{text}" if _RISKY.match(text) else text


def unguard(cell: str) -> str:
    """The text that ``guard`` made this cell of; any other cell as it is."""
    return cell[1:] if cell.startswith("'") and _RISKY.match(cell) else cell
