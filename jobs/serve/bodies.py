"""The bodies of requests, read as they arrive: JSON, and forms (multipart/form-data, RFC 7578).

The one file of a form goes to a disk piece by piece.

The limits (``limits``) hold while bytes arrive, whatever the request says of its length.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, model_validator
from starlette.requests import Request

from jobs.serve import limits
from jobs.serve.errors import TooLarge, TooSlow
from jobs.serve.room import Take
from pipeline.errors import UsageError

ID = "^[0-9a-f]{32}$"
"""The pattern of ids: of files, contents and clips."""

_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}")


@dataclass
class Form:
    """The fields of a form, and its file. The file has the extension of its name, which tells some formats."""

    fields: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    file_name: str = ""


def is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


class Sent(BaseModel):
    """What a body says: known names alone. Of unknown ones, the first is told: there may be millions."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def leave_out_unknown(cls, values: Any) -> Any:
        if not isinstance(values, dict) or len(values) <= len(cls.model_fields):
            return values
        first = next(name for name in values if name not in cls.model_fields)
        return {name: value for name, value in values.items() if name in cls.model_fields or name == first}


def describe_body(model: type[Sent]) -> dict[str, Any]:
    """A JSON body for the description of the API, where the request is read with a limit.

    Args:
        model: its fields may be lists of other models, whose own fields are plain.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    for values in schema["properties"].values():
        if reference := values.get("items", {}).get("$ref"):
            values["items"] = definitions[reference.rpartition("/")[2]]
    return {"required": True, "content": {"application/json": {"schema": schema}}}


async def read_json(request: Request, take: Take) -> Any:
    """The JSON body of a request that asks something.

    Args:
        take: room for it.

    Raises:
        TooLarge: it has more than ``MAX_JSON_BYTES``. TooSlow: it takes too long. NoRoom: there are many others.
        UsageError: it is no JSON.
    """
    return loads(await read_body(request, take, limits.MAX_JSON_BYTES))


async def read_body(request: Request, take: Take, max_bytes: int) -> bytearray:
    """The body of a request. A large one takes long to parse, which is no work for the thread of the event loop.

    Args:
        take: room for it.

    Raises:
        TooLarge: it has more than ``max_bytes``. TooSlow: it takes too long. NoRoom: there are many others.
    """
    refuse_size(request, max_bytes)
    body = bytearray()
    async with in_time():
        async for chunk in request.stream():
            take(len(chunk))
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
    return body


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Raises ``TooSlow`` where a body takes longer than ``MAX_BODY_S``."""
    try:
        async with asyncio.timeout(limits.MAX_BODY_S):
            yield
    except TimeoutError:
        raise TooSlow(f"the body has not arrived within {limits.MAX_BODY_S:g} s") from None


def loads(text: bytes | bytearray) -> Any:
    """The value of JSON.

    Raises:
        UsageError: it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("the body is no JSON") from None


def refuse_size(request: Request, max_bytes: int) -> None:
    """Refuse a request by the length that it states.

    Raises:
        TooLarge: more than ``max_bytes``.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> TooLarge:
    hint = "; of a sound, send the part that you look for" if max_bytes == limits.MAX_UPLOAD_BYTES else ""
    return TooLarge(f"the body has more than {max_bytes / 10**6:g} MB{hint}")


def find_boundary(content_type: str) -> bytes:
    """The boundary of a form.

    Raises:
        UsageError: it is no form, or has no boundary.
    """
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise UsageError("the body: send multipart/form-data with a boundary, or application/json")
    return boundary.encode("latin-1", "replace")


async def read_form(request: Request, folder: Path, take: Take) -> Form:
    """Read the form of a request; the part with a file name is written below ``folder``.

    Args:
        take: room for it.

    Raises:
        TooLarge: it has more than ``MAX_UPLOAD_BYTES``. TooSlow: it takes too long. NoRoom: there are many others.
        UsageError: it is no valid form.
    """
    refuse_size(request, limits.MAX_UPLOAD_BYTES)
    async with in_time():
        return await collect_form(request.stream(), request.headers.get("content-type", ""), folder, take)


async def collect_form(chunks: AsyncIterator[bytes], content_type: str, folder: Path, take: Take) -> Form:
    """Read a form from its bytes, as ``read_form`` does.

    Raises:
        TooLarge: it has more than ``MAX_UPLOAD_BYTES``. NoRoom: there are many others. UsageError: it is no valid form.
    """
    reader = FormReader(find_boundary(content_type), folder)
    n_bytes = 0
    try:
        async for chunk in chunks:
            take(len(chunk))
            n_bytes += len(chunk)
            if n_bytes > limits.MAX_UPLOAD_BYTES:
                raise _too_large(limits.MAX_UPLOAD_BYTES)
            reader.feed(chunk)
    finally:
        reader.close()
    if not reader.has_ended:
        raise UsageError("the body: the form ends before its last boundary")
    return reader.form


class FormReader:
    """Takes the bytes of a form in pieces of any size."""

    def __init__(self, boundary: bytes, folder: Path) -> None:
        self.form = Form()
        self.has_ended = False
        self._folder = folder
        self._mark = b"\r\n--" + boundary
        self._buffer = b"\r\n"  # the first boundary may begin the body
        self._is_head = False
        self._name: str | None = None
        self._field: bytearray | None = None
        self._file: BinaryIO | None = None
        self._n_parts = self._n_field_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            UsageError: the form is not valid.
        """
        self._buffer += chunk
        while not self.has_ended and (self._read_head() if self._is_head else self._read_body()):
            pass
        if self.has_ended:
            self._buffer = b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _read_body(self) -> bool:
        """Take bytes up to the next boundary; returns whether there may be more to read."""
        at = self._buffer.find(self._mark)
        if at < 0:
            keep = len(self._mark) - 1
            self._take(self._buffer[:-keep])
            self._buffer = self._buffer[-keep:]
            return False
        rest = self._buffer[at + len(self._mark) :]
        line, newline, after = rest.partition(b"\r\n")
        if rest.startswith(b"--"):
            self._take(self._buffer[:at])
            self._end_part()
            self.has_ended = True
            return False
        if not newline:
            if len(rest) > limits.MAX_HEAD_BYTES:
                raise UsageError("the body: the form has no line end after a boundary")
            return False
        if line.strip():
            raise UsageError("the body: the form has a boundary inside a part")
        self._take(self._buffer[:at])
        self._end_part()
        self._buffer, self._is_head = b"\r\n" + after, True  # a head may be empty
        return True

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            if len(head) > limits.MAX_HEAD_BYTES:
                raise UsageError("the body: the head of a part of the form is too long")
            return False
        self._n_parts += 1
        if self._n_parts > limits.MAX_PARTS:
            raise UsageError(f"the body: the form has more than {limits.MAX_PARTS} parts")
        self._begin_part(head.decode("utf-8", "replace"))
        self._buffer, self._is_head = rest, False
        return True

    def _begin_part(self, head: str) -> None:
        message = Message()
        for line in head.split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-disposition":
                message["content-disposition"] = value.strip()
        part_name = message.get_param("name", header="content-disposition")
        file_name = message.get_param("filename", header="content-disposition")
        if not isinstance(part_name, str):
            raise UsageError("the body: a part of the form has no name")
        self._name = part_name
        if file_name is None:
            self._field = bytearray()
            return
        if self.form.file is not None:
            raise UsageError("the body: the form has more than one file")
        self.form.file_name = file_name if isinstance(file_name, str) else str(file_name[-1])
        extension = Path(self.form.file_name).suffix
        name_here = "sound" + (extension if _EXTENSION.fullmatch(extension) else "")
        self.form.file = self._folder / name_here
        self._file = self.form.file.open("xb")

    def _take(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
        elif self._field is not None:
            self._n_field_bytes += len(data)
            if self._n_field_bytes > limits.MAX_FIELD_BYTES:
                raise UsageError("the body: the fields of the form are too long")
            self._field += data

    def _end_part(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._field is not None and self._name is not None:
            self.form.fields[self._name] = self._field.decode("utf-8", "replace")
            self._field = None
