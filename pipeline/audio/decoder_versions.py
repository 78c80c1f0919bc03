"""The corrections to decoding, version by version: they tell which files of an index decode differently now.

``files.decoder`` holds the version that decoded a file (none: 1). A later version that concerns the file makes the
next run decode and encode it again, though its bytes are the same. To correct how some files decode, change the decoder
and add a line to ``MENDS``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.corpus.raw_formats import RAW_FORMATS, raw_format_of
from pipeline.corpus.time_ranges import split_uri


@dataclass(frozen=True)
class Mend:
    """A correction that changes the samples of some files."""

    version: int
    what: str
    """The correction, with the files as subject: "G.722 without a header are read by their extension"."""
    concerns: Callable[[Mapping[str, Any]], bool]
    """Whether it changes a file that an older version decoded; takes the ``COLUMNS`` of its ledger row."""


COLUMNS = ("uri", "status", "stage", "reason", "codec", "decoder")
"""The columns of a ledger row that ``concerns`` may use."""

_MAY_BE_RAW = re.compile("|".join(rf"\.{extension}" for extension in RAW_FORMATS), re.IGNORECASE)


def _has_no_header(row: Mapping[str, Any]) -> bool:
    """Whether the name of a file says how to read it. The URI may name a range of the file."""
    if not _MAY_BE_RAW.search(row["uri"]):  # rules out nearly all of millions
        return False
    return any(raw_format_of(recording) for recording in (row["uri"], split_uri(row["uri"])[0]))


MENDS: tuple[Mend, ...] = (Mend(2, "G.722 and GSM without a header are read by their extension", _has_no_header),)
"""By version, ascending."""

DECODER = max((mend.version for mend in MENDS), default=1)
"""The version that this code decodes with."""


def find_mend(row: Mapping[str, Any], mends: Sequence[Mend] = MENDS) -> Mend | None:
    """The newest correction that concerns the file of a ledger row and is newer than its decoder, if there is one."""
    version = row["decoder"] or 1
    return next((mend for mend in reversed(mends) if mend.version > version and mend.concerns(row)), None)
