"""Tells whether a content of the index that a correction of decoding may concern still decodes as it did."""

from collections.abc import Callable, Sequence

from pipeline.audio.decoder_versions import DECODER, Look
from pipeline.audio.source import memory_boundary
from pipeline.config import DecodeConfig
from pipeline.corpus.corpus_file import identify_audio
from pipeline.corpus.raw_formats import raw_format_of
from pipeline.errors import FileFailure
from pipeline.planning.file_rows import CONFIRMED, empty_row
from pipeline.run.planned_files import PlannedFile
from pipeline.schema import Row


class Examiner:
    """Examines the contents of a batch. A recording that is cut into ranges is looked at once.

    Args:
        decode: decodes all of a file, and fills a row with what it learns.
    """

    def __init__(self, config: DecodeConfig, decode: Callable[[Row, PlannedFile], object]) -> None:
        self._config, self._decode = config, decode
        self._seen: tuple[object, bool] | None = None

    def examine(self, audio: Row, files: Sequence[PlannedFile]) -> Row | None:
        """The row of a content that decodes as it did when it was indexed; None if it may not, or does not decode.

        All corrections change the length of the sound, but for those that choose a track or a channel: these change the
        note.

        Args:
            audio: of PLANNED, with ``look``.
            files: hold it. The first that can be read is looked at.
        """
        for file in files:
            try:
                return self._examine_one(audio, file)
            except FileFailure as failure:  # decoding finds it as well
                if failure.reason not in ("vanished", "unreadable"):
                    return None
        return None

    def _examine_one(self, audio: Row, file: PlannedFile) -> Row | None:
        audio_id = identify_audio(file.recording, file.range, audio["content_hash"])
        row = empty_row(file.uri, audio_id) | {"decoder": DECODER}
        look, note = Look(audio["look"]), audio["stored_note"]
        with memory_boundary():
            if look >= Look.LENGTH:
                self._decode(row, file)
                is_same = (row["duration_s"], row["note"]) == (audio["stored_s"], note)
            else:
                is_same = self._looks_same(file, look, note)
            if look is Look.ALL and is_same:
                is_same = self._looks_same(file, Look.STREAMS, note)
        file.check_unchanged()
        return row | {"status": CONFIRMED} if is_same else None

    def _looks_same(self, file: PlannedFile, look: Look, note: str | None) -> bool:
        from pipeline.audio.looks import decodes_as_before

        asked = file.recording, look, note
        if self._seen is None or self._seen[0] != asked:
            raw = raw_format_of(file.recording)
            self._seen = asked, decodes_as_before(file.place, self._config, raw, look, note)
        return self._seen[1]
