"""Forms as they arrive: whole or in pieces, valid or not, and never more than is allowed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from jobs.serve import limits
from jobs.serve.bodies import FormReader, collect_form, read_form, read_json
from jobs.serve.errors import TooLarge, TooSlow
from jobs.serve.room import NoRoom, Room
from pipeline.errors import UsageError

BOUNDARY = "a-boundary"
KIND = f"multipart/form-data; boundary={BOUNDARY}"


def ignore(n_bytes: int) -> None:
    """There is room for everything."""


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
        asyncio.run(collect_form(pieces(body), KIND, tmp_path, ignore))


@pytest.mark.parametrize(
    "kind", ["", "multipart/form-data", "text/plain; boundary=x", "multipart/form-data; boundary="]
)
def test_form_needs_a_boundary(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="boundary"):
        asyncio.run(collect_form(pieces(b""), kind, tmp_path, ignore))


def test_endless_upload_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UPLOAD_BYTES", 100_000)
    endless = Endless()
    with pytest.raises(TooLarge):
        asyncio.run(collect_form(endless.chunks(), KIND, tmp_path, ignore))
    assert endless.n_sent <= 101_000
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000


class Endless:
    """A form whose file never ends, and how many bytes of it were taken."""

    def __init__(self) -> None:
        self.n_sent = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        yield part(FILE, b"")[:-2]
        while True:
            self.n_sent += 1_000
            yield bytes(1_000)


def test_uploads_share_the_room_for_them_and_give_it_back(tmp_path: Path) -> None:
    room, endless = Room("sounds", 100_000), Endless()
    with room.hold() as take:
        take(60_000)  # another upload
        with pytest.raises(NoRoom, match="too many sounds at once"), room.hold() as take_more:
            asyncio.run(collect_form(endless.chunks(), KIND, tmp_path, take_more))
        assert (endless.n_sent <= 41_000, room.n_taken) == (True, 60_000)
    assert room.n_taken == 0
    body, again = form(part(FILE, bytes(90_000))), tmp_path / "again"
    again.mkdir()
    with room.hold() as take:
        assert asyncio.run(collect_form(pieces(body), KIND, again, take)).file is not None


def make_request(*messages: dict[str, Any]) -> Request:
    """A request that sends these messages, and then nothing more."""
    left = iter(messages)

    async def receive() -> Any:
        return next(left, None) or await asyncio.Event().wait()

    return Request({"type": "http", "headers": [(b"content-type", KIND.encode())]}, receive)


def test_body_that_does_not_arrive_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BODY_S", 0.05)
    begun = {"type": "http.request", "body": part(FILE, b"x")[:-4], "more_body": True}
    with pytest.raises(TooSlow, match=r"within 0\.05 s"):
        asyncio.run(read_form(make_request(begun), tmp_path, ignore))
    with pytest.raises(TooSlow):
        asyncio.run(read_json(make_request({"type": "http.request", "body": b"{", "more_body": True}), ignore))


def test_json_takes_room_while_it_arrives() -> None:
    room = Room("JSON bodies", 10)
    with pytest.raises(NoRoom), room.hold() as take:
        asyncio.run(read_json(make_request({"type": "http.request", "body": b"[" * 11, "more_body": True}), take))
    with room.hold() as take:
        assert asyncio.run(read_json(make_request({"type": "http.request", "body": b"[1]"}), take)) == [1]


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 7):
        yield body[at : at + 7]
