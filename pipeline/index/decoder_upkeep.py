"""Rows of ``files`` that no correction of decoding concerns get the newest version, so that no plan judges them again.

A row tells by itself whether a correction may concern its file (``decoder_versions``): those that a run could not read
or examine keep their version, and the next plan finds them.
"""

from itertools import islice
from typing import Any

from pipeline.audio.decoder_versions import COLUMNS, DECODER, find_correction
from pipeline.index.changes import after
from pipeline.index.findings import FILES_AT_ONCE
from pipeline.index.journal import Published
from pipeline.index.tables import among
from pipeline.index.writer import Writer

MOST_CONCERNED = 10_000
"""If more files are still to be examined, their ids would make a large condition: all rows keep their version then."""

_OLDER = f"""(decoder IS NULL OR decoder < {DECODER})
    AND (status = 'indexed' OR (status = 'failed' AND stage IN ('decode', 'encode')))"""


def raise_decoder(writer: Writer) -> Published:
    """Give the rows of decoded files that no correction concerns the newest version, in one publication if any do."""
    with writer.changes() as changes:
        files = changes.open("files")
        n_older = files.count_rows(_OLDER)
        concerned = _find_concerned(files) if n_older else set()
        if n_older == len(concerned) or len(concerned) > MOST_CONCERNED:
            return writer.published
        where = f"{_OLDER} AND NOT {among('file_id', concerned)}" if concerned else _OLDER
        changes.make("judge", "files", lambda table: after(table, table.update, {"decoder": str(DECODER)}, where))
        return writer.publish("decoder", changes, {"decoder": DECODER})


def _find_concerned(files: Any) -> set[str]:
    """The ids of the older files that a correction may concern; of very many, one more than ``MOST_CONCERNED``."""
    pieces = files.to_batches(["file_id", *COLUMNS], _OLDER, batch_size=FILES_AT_ONCE)
    rows = (row for piece in pieces for row in piece.to_pylist())
    return set(islice((row["file_id"] for row in rows if find_correction(row) is not None), MOST_CONCERNED + 1))
