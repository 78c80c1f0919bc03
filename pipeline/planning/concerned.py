"""Tells whether a correction of decoding concerns a file: by its ledger row, or by that of a copy.

Files with the same bytes share their frames, so they are examined and encoded together. A correction may concern only
some of them, for it also judges by their names: of ``a.mkv`` and ``a.mp3``, the first may have a late start.
"""

from collections.abc import Sequence

from pipeline.audio.decoder_versions import COLUMNS, Correction, Look, find_correction, find_look, join_looks
from pipeline.planning.ledger import Ledger
from pipeline.schema import Row


class Concerned:
    """Judges ledger rows with the ``COLUMNS`` and ``audio_id``."""

    def __init__(self, ledger: Ledger, corrections: Sequence[Correction]) -> None:
        self._corrections = corrections
        self._shared: dict[str, tuple[Correction, Look | None]] = {}
        """By audio id, for contents that several files hold: the newest correction, and all that must be looked at."""
        newest = max((each.version for each in corrections), default=1)
        for row in ledger.shared_before(newest, ["audio_id", *COLUMNS]):
            self._note(row)

    def _note(self, row: Row) -> None:
        if (correction := find_correction(row, self._corrections)) is None:
            return
        looks = [find_look(row, self._corrections) if row["status"] == "indexed" else None]
        if known := self._shared.get(row["audio_id"]):
            correction = max(correction, known[0], key=lambda each: each.version)
            looks.append(known[1])
        look = join_looks({each for each in looks if each is not None})
        self._shared[row["audio_id"]] = correction, look

    def find_correction(self, row: Row) -> Correction | None:
        """The newest correction that concerns a file or one with the same bytes; None if there is none."""
        shared = self._shared.get(row["audio_id"])
        return shared[0] if shared else find_correction(row, self._corrections)

    def find_look(self, row: Row) -> Look | None:
        """What shows whether an indexed file decodes differently; None if nothing does."""
        shared = self._shared.get(row["audio_id"])
        return shared[1] if shared else find_look(row, self._corrections)
