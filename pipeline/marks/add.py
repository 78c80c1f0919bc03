"""Judgements of people in, rows of the table ``marks`` out. Each is checked; if one is wrong, nothing is written."""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from pipeline.errors import MarkedSince
from pipeline.grid import count_frames, frames_to_seconds, seconds_to_samples, span_to_frames
from pipeline.index.handle import Generation
from pipeline.index.tables import among
from pipeline.marks.contents import FEW, explain_missing, explain_status, find_files, find_holders
from pipeline.marks.mark import TAKEN_BACK, Judgement, Marked, check, collect, name_user
from pipeline.marks.read import KEY, find_newest, to_marks
from pipeline.marks.table import append_rows, read_rows, take_out
from pipeline.schema import MARKS, Row, make_mark_id

_A_TICK = dt.timedelta(microseconds=1)
"""The smallest step of a stored time. A correction is this much later than the mark that it corrects, and any other
mark at least twice as much: so it wins over the correction, whichever of the two is stored first."""

Key = tuple[object, ...]


class Content(NamedTuple):
    """What is marked: a content, and a file that holds it or held it."""

    audio_id: str
    uri: str
    duration_s: float | None
    """None where no indexed file holds it."""


def add_marks(
    live: Generation,
    judgements: Sequence[Judgement],
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> Marked:
    """Store judgements, all or none. Those that are stored already, with the same time, are not stored twice.

    Args:
        live: the tables that say which files there are.

    Raises:
        UsageError: a judgement is wrong: the first one is named, and how many others there are.
        MarkedSince: one corrects a mark that is not the newest any more.
    """
    if not judgements:
        return Marked([], 0)
    contents = _Contents(live, judgements)
    begun = collect(judgements, lambda said: _make_row(said, contents))
    stored = read_rows(live.index, _select_alike(begun))
    times, waiting = _Times(stored, now()), iter(begun)
    rows = collect(judgements, lambda said: times.complete(said, next(waiting)))
    known = set(stored["mark_id"].to_pylist())
    new = {row["mark_id"]: row for row in rows if row["mark_id"] not in known}
    if new:
        version = append_rows(live.index, pa.Table.from_pylist(list(new.values()), schema=MARKS))
        corrections = [row for said, row in zip(judgements, rows, strict=True) if said.replaces is not None]
        _yield_to_former(live.index, version, new, [row for row in corrections if row["mark_id"] in new])
    return Marked(to_marks(live, rows), len(new))


class _Contents:
    """The contents of files, all looked up together."""

    def __init__(self, live: Generation, judgements: Sequence[Judgement]) -> None:
        self._live = live
        self._files = find_files(live, {said.uri for said in judgements if said.uri})
        ids = {said.audio_id for said in judgements} | {row["audio_id"] for row in self._files.values()}
        self._holders = find_holders(live, {audio_id for audio_id in ids if audio_id is not None})
        self._n_missing = 0

    def find(self, said: Judgement) -> Content:
        """What a judgement is about.

        Raises:
            UsageError: no content is given, and the index has no such file, or has not indexed it.
        """
        row = self._files.get(said.uri)
        if said.audio_id is not None:
            holders = self._holders.get(said.audio_id)
            uri = row["uri"] if row else said.uri
            if holders is None:
                return Content(said.audio_id, uri, None)
            return Content(said.audio_id, uri or holders.uris[0], holders.duration_s)
        if row is None:
            self._n_missing += 1
            raise said.error(explain_missing(self._live, said.uri, with_likeness=self._n_missing == 1))
        if why := explain_status(row):
            raise said.error(why)
        return Content(row["audio_id"], row["uri"], self._holders[row["audio_id"]].duration_s)


def _select_alike(rows: list[Row]) -> str | None:
    """SQL for the stored rows that may be about the same as these; None for all."""
    values = {column: {row[column] for row in rows} for column in ("audio_id", "text")}
    return " AND ".join(among(column, found) for column, found in values.items() if len(found) <= FEW) or None


def _make_row(said: Judgement, contents: _Contents) -> Row:
    """A row without its time and id."""
    check(said)
    content = contents.find(said)
    if said.end_s is None and content.duration_s is None:
        raise said.error(f"end: is missing, and no file of the index has the content {content.audio_id}; give a time")
    end_s = said.end_s if said.end_s is not None else content.duration_s or 0.0
    first_frame, stop_frame = span_to_frames(said.start_s, end_s)
    if content.duration_s is not None:
        n_frames = count_frames(seconds_to_samples(content.duration_s))
        if stop_frame > n_frames or first_frame >= n_frames:
            where, at_s = ("end", end_s) if first_frame < n_frames else ("start", said.start_s)
            raise said.error(f"{where} {at_s:g} s: {content.uri} lasts {content.duration_s:.3f} s")
    return {
        "audio_id": content.audio_id,
        "first_frame": first_frame,
        "stop_frame": stop_frame,
        "text": " ".join(said.text.split()),
        "verdict": said.verdict,
        "who": " ".join((said.who or name_user()).split()),
        "score": said.score,
        "uri": content.uri,
    }


class _Times:
    """Gives judgements their times, by those of the newest rows about the same things."""

    def __init__(self, stored: pa.Table, now: dt.datetime) -> None:
        self._newest = {_key(row): row for row in find_newest(stored).to_pylist()}
        self._now = now

    def complete(self, said: Judgement, row: Row) -> Row:
        """A row with its time and id.

        What is said now is later than what was said before, whatever the clocks of other machines say.

        Raises:
            UsageError: there is no mark to take back. MarkedSince: another mark than the one to be corrected is the
                newest.
        """
        before = self._newest.get(_key(row))
        if before is None and said.verdict == TAKEN_BACK:
            raise said.error(
                f"{row['uri']}: has no mark {row['text']!r} from {frames_to_seconds(row['first_frame']):g} to"
                f" {frames_to_seconds(row['stop_frame']):g} s that could be taken back"
            )
        if said.replaces is not None:
            made = _correct(said.replaces, row, before)
        elif said.marked_at is not None:
            made = _at(said.marked_at.astimezone(dt.UTC), row)
        else:
            made = _at(self._now if before is None else max(self._now, before["marked_at"] + 2 * _A_TICK), row)
        if before is None or made["marked_at"] >= before["marked_at"]:
            self._newest[_key(row)] = made
        return made


def _correct(replaces: dt.datetime, row: Row, before: Row | None) -> Row:
    """A row that corrects the mark of the time ``replaces``, or the same row, if that is stored already."""
    if before is not None and before["marked_at"] == replaces:
        return _at(before["marked_at"] + _A_TICK, row)
    if before is not None and before["marked_at"] - _A_TICK == replaces:
        made = _at(before["marked_at"], row)
        if made["mark_id"] == before["mark_id"]:
            return made
    raise _marked_since(row, before)


def _marked_since(row: Row, other: Row | None) -> MarkedSince:
    by = "" if other is None else f" by {other['who']} at {other['marked_at'].isoformat()} ({other['verdict']})"
    return MarkedSince(f"{row['uri']}: {row['text']!r} was marked since{by}: look at that mark first")


def _yield_to_former(index: str, version: int, new: dict[str, Row], corrections: list[Row]) -> None:
    """Take ``new`` out again if one of its corrections is too late: the same was marked after the look at the table and
    before the rows were stored, in its version ``version``.

    Two who correct one mark have looked at it before either wrote, and their rows are of the same time. The order of
    the versions is the same for all, so the first one stored stays, whatever their ids are.

    Raises:
        MarkedSince: one is.
    """
    if not corrections:
        return
    by_key = {_key(row): row for row in reversed(corrections)}
    for other in read_rows(index, _select_alike(corrections), version=version).to_pylist():
        row = by_key.get(_key(other))
        if row is not None and other["mark_id"] not in new and other["marked_at"] >= row["marked_at"]:
            held = Counter(read_rows(index, among("mark_id", new), ["mark_id"], version)["mark_id"].to_pylist())
            take_out(index, [mark_id for mark_id, n_rows in held.items() if n_rows == 1])  # others are someone else's
            raise _marked_since(row, other)


def _at(marked_at: dt.datetime, row: Row) -> Row:
    row = {**row, "marked_at": marked_at}
    return {**row, "mark_id": make_mark_id(row)}


def _key(row: Row) -> Key:
    return tuple(row[name] for name in KEY)
