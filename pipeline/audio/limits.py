"""How much sound a file may hold. Few bytes can be made to decode to days of silence."""

from pipeline.errors import FileFailure

_ANY_FILE_S = 4 * 3_600.0
_S_PER_BYTE = 0.7
"""FLAC can put 65,535 samples of silence into 12 bytes (RFC 9639): at 8 kHz, that is 0.68 s for each. Opus takes 25
bytes a second in pauses, AMR 50. A gap in a container takes none: therefore any file may hold some hours."""


def most_seconds(size_bytes: int) -> float:
    """How much sound a file of this size may hold."""
    return _ANY_FILE_S + size_bytes * _S_PER_BYTE


class LengthLimit:
    """The longest sound that is read of a file.

    Args:
        size_bytes: of the file.
        max_hours: the limit of the run, if it sets one.
    """

    def __init__(self, size_bytes: int, max_hours: float | None) -> None:
        self._by_bytes_s = most_seconds(size_bytes)
        self._size_bytes = size_bytes
        self._max_hours = max_hours

    def check(self, duration_s: float) -> None:
        """Refuse a sound of this duration, or a range of one, if it is too long.

        Raises:
            FileFailure: ``too_long``.
        """
        if self._max_hours is not None and duration_s > self._max_hours * 3_600:
            raise _too_long(f"longer than {self._max_hours:g} h, the limit `run.max_file_hours`")
        self.check_bytes(duration_s)

    def check_bytes(self, duration_s: float) -> None:
        """The same by the bytes of the file alone: for sound that is only decoded on the way to a range.

        Raises:
            FileFailure: ``too_long``.
        """
        if duration_s > self._by_bytes_s:
            hours = f"{self._by_bytes_s / 3_600:.1f} h"
            raise _too_long(f"{self._size_bytes:,} bytes decode to more than {hours}, the most for so few")


def _too_long(message: str) -> FileFailure:
    return FileFailure("decode", "too_long", message)
