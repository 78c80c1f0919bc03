"""The marks that count, each with where its content is now."""

from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.grid import count_frames, frames_to_seconds, seconds_to_samples
from pipeline.index.handle import Generation
from pipeline.index.tables import among
from pipeline.marks.contents import FEW, Holders, explain_missing, find_files, find_holders
from pipeline.marks.mark import TAKEN_BACK, Mark
from pipeline.marks.table import read_rows
from pipeline.schema import Row

KEY = ["audio_id", "first_frame", "stop_frame", "text"]
"""What a judgement is about. The newest one about the same counts."""

_COUNTED = [*KEY, "verdict", "marked_at", "mark_id"]
"""The columns that tell which rows count."""


def list_marks(live: Generation, uri: str | None = None, *, history: bool = False) -> list[Mark]:
    """The marks of an index, by uri, time and text.

    Args:
        live: the tables that tell where a content is.
        uri: only the marks of this file: of the content that it has, and those made of it when it had another one.
        history: all that were ever made, oldest first, also those that were replaced or taken back.

    Raises:
        UsageError: there is no file ``uri`` in the index, nor a mark of one.
    """
    rows = read_rows(live.index) if uri is None else _read_file(live, uri)
    rows = sort(rows) if history else drop_taken_back(find_newest(rows))
    marks = to_marks(live, rows.to_pylist())
    return marks if history else sorted(marks, key=attrgetter("uri", "first_frame", "stop_frame", "text"))


def count_marks(index: str) -> int:
    """How many marks of an index count: fewer than rows, where one was replaced or taken back."""
    return int(drop_taken_back(find_newest(read_rows(index, columns=_COUNTED))).num_rows)


def find_named(index: str, uris: set[str]) -> set[str]:
    """Those of these names that rows of marks have, whether these count or not."""
    if not uris:
        return set()
    where = among("uri", uris) if len(uris) <= FEW else None
    return uris & set(read_rows(index, where, ["uri"])["uri"].to_pylist())


def to_marks(live: Generation, rows: list[Row]) -> list[Mark]:
    """Rows of MARKS, with the files that hold their contents in the tables ``live``."""
    holders = find_holders(live, {row["audio_id"] for row in rows})
    return [_to_mark(row, holders.get(row["audio_id"])) for row in rows]


def _to_mark(row: Row, holders: Holders | None) -> Mark:
    uris = holders.uris if holders else ()
    return Mark(
        uri=row["uri"] if row["uri"] in uris or not uris else uris[0],
        start_s=frames_to_seconds(row["first_frame"]),
        end_s=_end_of(row["stop_frame"], holders),
        text=row["text"],
        verdict=row["verdict"],
        score=row["score"],
        who=row["who"],
        marked_at=row["marked_at"],
        status="here" if uris else "gone",
        uris=uris,
        audio_id=row["audio_id"],
        first_frame=row["first_frame"],
        stop_frame=row["stop_frame"],
    )


def _end_of(stop_frame: int, holders: Holders | None) -> float:
    """The time at which frames end: the end of the file if the last of them is its last one, which may be partial."""
    if holders and stop_frame == count_frames(seconds_to_samples(holders.duration_s)):
        return holders.duration_s
    return frames_to_seconds(stop_frame)


def _read_file(live: Generation, uri: str) -> pa.Table:
    """The rows about the content of a file, and about those that it had."""
    row = find_files(live, [uri]).get(uri)
    where = among("uri", {uri, row["uri"] if row else uri})
    if row and row["status"] == "indexed":
        where += f" OR {among('audio_id', [row['audio_id']])}"
    rows = read_rows(live.index, where)
    if row is None and not rows.num_rows:
        raise UsageError(explain_missing(live, uri))
    return rows


# --- which rows count -------------------------------------------------------------------------------------------------


def sort(rows: pa.Table) -> pa.Table:
    """Oldest first. Rows of the same time are in the same order for every reader."""
    return rows.sort_by([("marked_at", "ascending"), ("mark_id", "ascending")])


def find_newest(rows: pa.Table) -> pa.Table:
    """The newest row about each thing, oldest first. A row that is there twice counts once."""
    rows = sort(rows)
    places = rows.append_column("place", pa.array(range(rows.num_rows), pa.int64()))
    last = places.group_by(KEY).aggregate([("place", "max")])["place_max"]
    return rows.take(last.combine_chunks().sort())


def drop_taken_back(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.not_equal(rows["verdict"], TAKEN_BACK))
