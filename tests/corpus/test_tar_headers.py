"""Tar files that are made to fill memory or time are refused; others are read as ``tarfile`` reads them."""

import io
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from jobs.bench.hostile_tars import END, make_header, make_record, make_special
from pipeline.corpus import tar_headers
from pipeline.corpus.tar_headers import Header, read_header
from pipeline.corpus.tar_members import list_tar
from tests.helpers.corpora import listed
from tests.helpers.shards import write_shard

LONG_NAMES = [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
ATTRIBUTES = [tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE]


MEMBER = make_header("a.wav", size=4, body=b"RIFF")


def read_all(data: bytes) -> Iterator[Header]:
    file, at = io.BytesIO(data), 0
    while (header := read_header(file, at)) is not None:
        yield header
        at = header.end


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_those_of_tarfile(form: int) -> None:
    names = ["a.wav", "n" * 90 + "/" + "m" * 90, "d/", "link", "pipe"]
    names += ["ü" * 90, "k" * 400, "\udcff.wav"] if form != tarfile.USTAR_FORMAT else []
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = {"d/": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "pipe": tarfile.FIFOTYPE}.get(name, info.type)
            info.linkname = "t" * (90 if form == tarfile.USTAR_FORMAT else 300) if name == "link" else ""
            data = name.encode(errors="surrogateescape") * 20 if info.isreg() else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        expected = [
            (info.name, info.type, info.linkname, info.offset, info.offset_data, info.size) for info in tar.getmembers()
        ]
    found = list(read_all(file.getvalue()))
    assert [
        (one.info.name, one.info.type, one.info.linkname, one.offset, one.begin, one.size_bytes) for one in found
    ] == expected
    assert len(found) == len(names)


@pytest.mark.parametrize(
    "data",
    [
        make_header("a.wav", size=-512),
        make_header("a.wav", size=-1024) * 3,
        make_special(tarfile.XHDTYPE, make_record("size", b"-512")) + MEMBER,
        make_special(tarfile.XHDTYPE, make_record("size", b"-1536")) + MEMBER,
        *(make_header("special", kind, size=-512) + MEMBER for kind in (*LONG_NAMES, *ATTRIBUTES)),
        make_header("a.wav", tarfile.GNUTYPE_SPARSE, size=-512),
    ],
)
def test_negative_sizes_are_refused(data: bytes, tmp_path: Path) -> None:
    """They would lead back to the same header, without end."""
    (tmp_path / "s.tar").write_bytes(data + END)
    with pytest.raises(tarfile.ReadError, match=r"a size of -\d"):
        list(islice(list_tar(str(tmp_path / "s.tar")), 20))


@pytest.mark.parametrize("kind", [*LONG_NAMES, *ATTRIBUTES])
def test_headers_of_gigabytes_are_not_read(kind: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(make_header("special", kind, 3 * 2**30, b"x" * 512) + MEMBER + END)
    [row] = listed(tmp_path / "s.tar").values()
    assert row["reason"] == "not_audio"
    said = "a header of 3,221,225,984 bytes at byte 0; 1,048,576 are allowed"
    assert row["message"] == f"is read up to {said}; 0 files found"


@pytest.mark.parametrize("kind", [*LONG_NAMES, *ATTRIBUTES])
def test_headers_of_one_member_are_counted_together(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_headers, "MOST_HEADER_BYTES", 10_000)
    special = make_special(kind, make_record("comment", b"x" * 2_000))
    assert len(list(read_all((special * 2 + MEMBER) * 10 + END))) == 10
    with pytest.raises(tarfile.ReadError, match="a header of 10,240 bytes at byte 0; 10,000 are allowed"):
        list(read_all(special * 5 + MEMBER + END))


def test_attributes_for_all_members_are_not_kept() -> None:
    """Python's own reader keeps them, and copies all of them for each member."""
    common = b"".join(make_record(f"key{number}", b"x" * 100) for number in range(1_000))
    common += make_record("path", b"x") + make_record("size", b"9")
    found = list(read_all((make_special(tarfile.XGLTYPE, common) + MEMBER) * 3 + END))
    assert [(header.info.name, header.size_bytes, header.info.pax_headers) for header in found] == [
        ("a.wav", 4, {})
    ] * 3


def test_long_names_of_members_are_refused(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", [("a.wav", b"RIFF"), (f"{'n' * 5_000}.wav", b"RIFF")])
    rows = listed(shard)
    assert rows["s.tar"]["message"] == "is read up to a name of 5,004 bytes; 4,096 are allowed; 1 file found"
    assert "s.tar#a.wav" in rows


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_are_measured_in_bytes(form: int, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w", format=form) as tar:
        for name in ("é" * 2_046 + ".wav", "é" * 2_047 + ".wav"):
            tar.addfile(tarfile.TarInfo(name))
    with (tmp_path / "s.tar").open("rb") as file:
        first = read_header(file, 0)
        assert first is not None
        assert first.info.name == "é" * 2_046 + ".wav"
        with pytest.raises(tarfile.ReadError, match="a name of 4,098 bytes; 4,096 are allowed"):
            read_header(file, first.end)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_targets_of_links_are_refused(form: int, tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.wav")
    link.type, link.linkname = tarfile.SYMTYPE, "t" * 5_000
    with tarfile.open(tmp_path / "s.tar", "w", format=form) as tar:
        tar.addfile(link)
    [row] = listed(tmp_path / "s.tar").values()
    assert "a name of 5,000 bytes; 4,096 are allowed" in row["message"]


@pytest.mark.parametrize("body", [b"1" * 500_000, b"2 " * 250_000 + b"=", b"2 " * 250_000, b"0 path=a\n", b"9 path\n"])
def test_invalid_attributes_are_refused_at_once(body: bytes, tmp_path: Path) -> None:
    """Python's own reader takes time by the square of their bytes."""
    (tmp_path / "s.tar").write_bytes(make_special(tarfile.XHDTYPE, body) + MEMBER + END)
    [row] = listed(tmp_path / "s.tar").values()
    assert "invalid attributes at byte 512" in row["message"]


def test_maps_of_sparse_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_headers, "MOST_HEADER_BYTES", 10_000)
    head = bytearray(make_header("sparse.wav", tarfile.GNUTYPE_SPARSE, size=4))
    head[482] = 1
    head[148:156] = b"%06o\0 " % (256 + sum(head[:148]) + sum(head[156:512]))
    more, last = bytes(504) + b"\1" + bytes(7), bytes(512)
    data = bytes(head) + more * 5 + last + b"RIFF" + bytes(508)
    found = list(read_all(data + MEMBER + END))
    assert [(one.info.name, one.begin, one.is_sparse) for one in found] == [
        ("sparse.wav", 512 + 6 * 512, True),
        ("a.wav", len(data) + 512, False),
    ]
    with pytest.raises(tarfile.ReadError, match="a header of over 10,000 bytes at byte 0"):
        list(read_all(bytes(head) + more * 30 + last + END))


def test_map_of_a_sparse_file_in_its_bytes_is_not_read() -> None:
    """It may have as many lines as somebody likes."""
    records = make_record("GNU.sparse.major", b"1") + make_record("GNU.sparse.minor", b"0")
    records += make_record("GNU.sparse.name", b"real.wav") + make_record("GNU.sparse.realsize", b"9")
    data = make_special(tarfile.XHDTYPE, records) + make_header("x", size=1_024, body=b"9" * 1_024) + MEMBER + END
    found = list(read_all(data))
    assert [(one.info.name, one.size_bytes, one.is_sparse) for one in found] == [
        ("real.wav", 1_024, True),
        ("a.wav", 4, False),
    ]


def make_long_sparse() -> bytes:
    """The header of a sparse file of the old GNU format whose map goes on in blocks of its own."""
    header = bytearray(make_header("a.wav", tarfile.GNUTYPE_SPARSE))
    header[482] = 1
    header[148:156] = b" " * 8  # the checksum is that of the header with spaces in its place
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("data", "n_bytes"),
    [
        (make_special(tarfile.GNUTYPE_LONGNAME, b"n" * 300), 700),
        (make_special(tarfile.GNUTYPE_LONGNAME, b"n" * 512), 700),
        (make_special(tarfile.XHDTYPE, make_record("path", b"n" * 300)), 700),
        (make_long_sparse() + bytes(512), 512),
    ],
)
def test_headers_that_are_cut_off_are_told(data: bytes, n_bytes: int) -> None:
    with pytest.raises(tarfile.ReadError, match=r"cut off at byte \d+, within a header"):
        read_header(io.BytesIO(data[:n_bytes]), 0)
