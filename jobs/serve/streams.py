"""Answers that are sent piece by piece while they are made, and end as soon as their client has gone."""

import threading
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from jobs.serve.workers import Pool


class Source(Protocol):
    """Where the bytes come from. Any thread may close it at any time, also more than once, and waits for no read."""

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        ...

    def close(self) -> None: ...


class SourceResponse(StreamingResponse):
    """The bytes of a source, which is closed in any case: also if the client has gone before the first one is sent.

    Args:
        request: whose client takes the bytes. pool: whose threads read and close. first: sent before what is read.
    """

    def __init__(
        self, request: Request, pool: Pool, source: Source, headers: Mapping[str, str], first: bytes = b""
    ) -> None:
        self._request, self._pool, self._source, self._first = request, pool, source, first
        self._is_over = threading.Event()
        super().__init__(self._send(), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._is_over.set()  # a read that runs ends at its next step, and its thread is free
            self._pool.submit(self._source.close)

    async def _send(self) -> AsyncIterator[bytes]:
        piece = self._first or await self._pool.compute(self._source.read, self._is_over)
        while piece:
            yield piece
            if await self._request.is_disconnected():
                return
            piece = await self._pool.compute(self._source.read, self._is_over)
