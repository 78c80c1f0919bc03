"""How large the pages of a Parquet column are once they are decompressed, by their own headers.

The footer states a size, too, but Parquet's reader allocates what the headers state. Sources: Parquet's
``parquet.thrift`` (``PageHeader``), and the compact protocol of Thrift.
"""

from typing import Any, BinaryIO, NamedTuple

from pipeline.errors import CorpusError

MOST_PAGES = 1_000_000
"""In all columns that are read of a file, or in a group of rows with audio: some ten seconds of looking at them."""

_HEADER_BYTES = 2**16
"""The largest header; statistics make some long."""

_BOOLS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_DEEPEST = 8


class PageHeader(NamedTuple):
    """The sizes of a page as it is decompressed and as it lies in the file, and the size of its header."""

    n_bytes: int
    compressed_bytes: int
    header_bytes: int


class PageCount(NamedTuple):
    """Pages as they are decompressed."""

    n_bytes: int
    n_pages: int


def read_page_header(data: bytes | memoryview, at: int) -> PageHeader:
    """The header of a page.

    Args:
        data: bytes from the beginning of the header on. at: where it lies in the file, for messages.

    Raises:
        CorpusError: it is invalid.
    """
    header = _Header(data[:_HEADER_BYTES])
    try:
        return PageHeader(*header.read_sizes(), header.at)
    except (LookupError, ValueError):
        raise CorpusError(f"an invalid page at byte {at}") from None


def count_page_bytes(file: BinaryIO, begin: int, size_bytes: int, most_bytes: int, n_counted: int = 0) -> PageCount:
    """The bytes of the pages of one column in one row group, and their number.

    Args:
        begin, size_bytes: where the pages lie in the file.
        n_counted: pages of other columns, which count for the limit, too.

    Raises:
        CorpusError: they are larger than ``most_bytes``, too many or invalid.
    """
    n_bytes, at, block, block_at = 0, begin, memoryview(b""), begin
    for number in range(MOST_PAGES - n_counted + 1):
        if at >= begin + size_bytes:
            return PageCount(n_bytes, number)
        header = _find_header(block[at - block_at :], at) if at < block_at + len(block) else None
        if header is None:  # tiny pages share a block, so that each of a million takes no read
            file.seek(at)
            block, block_at = memoryview(file.read(_HEADER_BYTES)), at
            header = read_page_header(block, at)
        n_bytes += max(header.n_bytes, header.compressed_bytes)
        if n_bytes > most_bytes:
            raise CorpusError(f"over {n_bytes:,} bytes in its pages; {most_bytes:,} are read")
        at += header.header_bytes + header.compressed_bytes
    raise CorpusError(f"over {MOST_PAGES:,} pages")


def _find_header(data: memoryview, at: int) -> PageHeader | None:
    """The header of a page, if it is whole and valid."""
    try:
        return read_page_header(data, at)
    except CorpusError:
        return None


class PageGuard:
    """A file from which Parquet's reader takes one column of a row group, and which ends with an error before a page
    would be decompressed that is too large. Nothing is read twice, as the pages of audio may come from an object store.

    Args:
        file: left open.
        begin, size_bytes: where the pages lie in the file. most_bytes: the largest page.
    """

    closed = False

    def __init__(self, file: Any, begin: int, size_bytes: int, most_bytes: int) -> None:
        self._file, self._most_bytes = file, most_bytes
        self._next, self._end = begin, begin + size_bytes
        self._n_pages = 0

    def read(self, size: int = -1) -> bytes:
        """As of any file.

        Raises:
            CorpusError: these bytes belong to a page that is too large, or invalid.
        """
        at = self._file.tell()
        data: bytes = self._file.read(size)
        if self._next < min(at, self._end):
            raise CorpusError(f"an invalid page at byte {self._next}")
        while self._next < min(at + len(data), self._end):
            header = _find_header(memoryview(data)[self._next - at :], self._next)
            if header is None:  # it may be cut off where the data ends; tiny pages before it take no read
                header = read_page_header(self._read_next(), self._next)
            if max(header.n_bytes, header.compressed_bytes) > self._most_bytes:
                raise CorpusError(f"a page of {header.n_bytes:,} bytes; {self._most_bytes:,} are read")
            self._next += header.header_bytes + header.compressed_bytes
            self._n_pages += 1
            if self._n_pages > MOST_PAGES:
                raise CorpusError(f"over {MOST_PAGES:,} pages")
        return data

    def _read_next(self) -> bytes:
        """The bytes from the next header on."""
        before = self._file.tell()
        self._file.seek(self._next)
        ahead: bytes = self._file.read(_HEADER_BYTES)
        self._file.seek(before)
        return ahead

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Its file stays open."""


class _Header:
    """The header of a page, read from its beginning."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self.at = 0

    def read_sizes(self) -> tuple[int, int]:
        """The sizes of the page when it is decompressed, and as it lies in the file."""
        found = self._read_struct(_DEEPEST)
        sizes = found[2], found[3]
        if min(sizes) < 0:
            raise ValueError
        return sizes

    def _read_struct(self, depth: int) -> dict[int, int]:
        """The integers of a struct, by the numbers of their fields."""
        found: dict[int, int] = {}
        number = 0
        while head := self._read_byte():
            number = number + (head >> 4) if head >> 4 else self._read_integer()
            value = self._read_value(head & 15, depth)
            if value is not None:
                found[number] = value
        return found

    def _read_value(self, kind: int, depth: int) -> int | None:
        if kind in _INTEGERS:
            return self._read_integer()
        if kind == _STRUCT and depth:
            self._read_struct(depth - 1)
        elif kind in _LISTS and depth:
            self._read_list(depth - 1)
        elif kind in (_BYTE, _DOUBLE):
            self._skip(1 if kind == _BYTE else 8)
        elif kind == _BINARY:
            self._skip(self._read_varint())
        elif kind not in _BOOLS:
            raise ValueError
        return None

    def _read_list(self, depth: int) -> None:
        head = self._read_byte()
        kind, n_values = head & 15, self._read_varint() if head >> 4 == 15 else head >> 4
        if n_values > len(self._data) - self.at:  # each takes a byte or more
            raise ValueError
        for _ in range(n_values):
            if kind in _BOOLS:  # in a struct, its kind is its value
                self._skip(1)
            else:
                self._read_value(kind, depth)

    def _skip(self, n_bytes: int) -> None:
        self.at += n_bytes
        if self.at > len(self._data):
            raise ValueError

    def _read_byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _read_integer(self) -> int:
        value = self._read_varint()
        return value >> 1 ^ -(value & 1)

    def _read_varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._read_byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError
