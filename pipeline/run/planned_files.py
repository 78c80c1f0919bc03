"""The files of a planned content, as a worker reads them."""

from dataclasses import dataclass

from pipeline import storage
from pipeline.audio.source import place_of, unreadable
from pipeline.corpus.shards import Place
from pipeline.corpus.time_ranges import TimeRange, range_of
from pipeline.errors import FileFailure
from pipeline.schema import Row


@dataclass(frozen=True)
class PlannedFile:
    """A file that holds an audio content, as it was listed."""

    uri: str
    range: TimeRange
    place: str | Place
    size_bytes: int
    modified_ns: int

    @property
    def recording(self) -> str:
        return self.uri.removesuffix(str(self.range))

    def check_unchanged(self) -> None:
        """Fail if the file is not as it was listed. For a member, the time of its shard is compared."""
        try:
            path = self.place.shard if isinstance(self.place, Place) else self.place
            size_bytes, modified_ns = storage.stat_file(path)
        except Exception as error:  # each store has errors of its own
            failure = unreadable(error)
            if failure.reason != "vanished":
                raise failure from None
            message = f"deleted while it was read: {failure.message}"
            raise FileFailure("read", "changed_while_reading", message) from None
        if modified_ns != self.modified_ns or (isinstance(self.place, str) and size_bytes != self.size_bytes):
            raise FileFailure(
                "read", "changed_while_reading", "size or time changed since the file was listed; run again"
            )


def files_of(audio: Row) -> list[PlannedFile]:
    """The files that hold an AUDIO; the first one is read."""
    offsets = audio.get("offsets") or [None] * len(audio["uris"])
    size_bytes, part = audio["size_bytes"], range_of(audio)
    return [
        PlannedFile(uri, part, place_of(uri.removesuffix(str(part)), offset, size_bytes), size_bytes, modified_ns)
        for uri, modified_ns, offset in zip(audio["uris"], audio["modified_ns"], offsets, strict=True)
    ]
