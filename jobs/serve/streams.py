"""Answers that are sent piece by piece while they are made, and end as soon as their client has gone."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from typing import Protocol

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from jobs.serve import limits
from jobs.serve.workers import Pool


class Source(Protocol):
    """Where the bytes come from. Any thread may close it at any time, also more than once, and waits for no read."""

    def read(self) -> bytes:
        """The next piece; empty at the end."""
        ...

    def close(self) -> None: ...


class NotTaken(Exception):
    """A client does not take what it is sent."""


class SourceResponse(StreamingResponse):
    """The bytes of a source, which is closed in any case: also if the client has gone before the first one is sent.

    A client that does not take a piece within ``limits.MAX_TAKE_S`` loses the connection.

    Args:
        request: whose client takes the bytes. pool: whose threads read and close. held: closed at the end.
    """

    def __init__(
        self, request: Request, pool: Pool, source: Source, headers: Mapping[str, str], held: ExitStack
    ) -> None:
        self._request, self._pool, self._source, self._held = request, pool, source, held
        self._is_over = threading.Event()
        super().__init__(self._read(), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(limits.MAX_TAKE_S):
                    await send(message)
            except TimeoutError:
                raise NotTaken from None

        try:
            await super().__call__(scope, receive, send_in_time)
        except NotTaken:
            return  # the web server closes the connection of an answer that is not complete
        finally:
            self._is_over.set()  # a read that runs ends at its next step, and its thread is free
            self._pool.submit(self._source.close)
            self._held.close()

    async def _read(self) -> AsyncIterator[bytes]:
        while piece := await self._pool.compute(self._source.read, self._is_over):
            yield piece
            if await self._request.is_disconnected():
                return
