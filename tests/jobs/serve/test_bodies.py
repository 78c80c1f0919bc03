"""Forms as they arrive: whole or in pieces, valid or not, and never more than is allowed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.serve import bodies
from jobs.serve.bodies import FormReader, collect_form
from jobs.serve.errors import TooLarge
from pipeline.errors import UsageError

BOUNDARY = "a-boundary"


def part(head: str, data: bytes) -> bytes:
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


FIELD = 'Content-Disposition: form-data; name="k"'
FILE = 'content-disposition: form-data; name="file"; filename="a bell.flac"\r\nContent-Type: audio/flac'


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_form_is_read_however_it_is_cut(data: bytes, cuts: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    body = form(part(FIELD, b"5"), part(FILE, data))
    reader = FormReader(BOUNDARY.encode(), tmp_path_factory.mktemp("form"))
    at = 0
    for cut in [*sorted(cuts), len(body)]:
        reader.feed(body[at : max(at, cut)])
        at = max(at, cut)
    reader.close()
    assert reader.has_ended
    assert reader.form.fields == {"k": "5"}
    assert reader.form.file is not None
    assert reader.form.file.read_bytes() == data
    assert (reader.form.file.name, reader.form.file_name) == ("sound.flac", "a bell.flac")


@pytest.mark.parametrize("name", ["../../etc/x.flac", "/abs.flac", "..", ".hidden", "a.wav\\..\\b.flac"])
def test_name_of_a_file_decides_nothing_but_its_extension(name: str, tmp_path: Path) -> None:
    reader = FormReader(BOUNDARY.encode(), tmp_path)
    reader.feed(form(part(f'Content-Disposition: form-data; name="file"; filename="{name}"', b"x")))
    [path] = tmp_path.iterdir()
    assert path == reader.form.file
    assert path.name in ("sound", "sound.flac")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "ends before"),
        (b"nonsense", "ends before"),
        (part(FIELD, b"5"), "ends before"),
        (form(part("X: y", b"5")), "no name"),
        (form(part(FILE, b"1"), part(FILE, b"2")), "more than one file"),
        (form(*[part(FIELD, b"5")] * 21), "more than 20 parts"),
        (form(part(FIELD, b"5" * 100_001)), "too long"),
        (b"--a-boundary\r\n" + b"x" * 10_000, "too long"),
        (b"--a-boundary" + b"x" * 10_000, "no line end"),
    ],
)
def test_form_that_is_not_valid_is_refused(body: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        asyncio.run(collect_form(pieces(body), f"multipart/form-data; boundary={BOUNDARY}", tmp_path))


@pytest.mark.parametrize(
    "kind", ["", "multipart/form-data", "text/plain; boundary=x", "multipart/form-data; boundary="]
)
def test_form_needs_a_boundary(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="boundary"):
        asyncio.run(collect_form(pieces(b""), kind, tmp_path))


def test_endless_upload_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_UPLOAD_BYTES", 100_000)
    n_sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal n_sent
        yield part(FILE, b"")[:-2]
        while True:
            n_sent += 1_000
            yield bytes(1_000)

    with pytest.raises(TooLarge):
        asyncio.run(collect_form(endless(), f"multipart/form-data; boundary={BOUNDARY}", tmp_path))
    assert n_sent <= 101_000
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 7):
        yield body[at : at + 7]
