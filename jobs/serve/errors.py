"""Errors of requests: a status and one line, ``{"error": "..."}``, in the words of the commands."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobs.serve.room import NoRoom
from jobs.serve.security import refuse
from jobs.serve.states import StateGone
from jobs.serve.workers import Busy, ClientGone
from jobs.shared.explain import explain
from jobs.shared.output import print_error
from pipeline.credentials import without_credentials
from pipeline.errors import (
    CommitConflict,
    EarshotError,
    FileFailure,
    IndexBusy,
    IndexMismatch,
    IndexMissing,
    MarkedSince,
    ModelError,
    UsageError,
)
from pipeline.index import engine_errors

_OPTION = re.compile(r"^--?([a-z][a-z-]*)(?=[: ])")

CLIENT_GONE = 499
"""Nobody reads this answer."""


class NotFound(EarshotError):
    """There is no such file or column in the index, or the file has gone from its place."""


class FileChanged(EarshotError):
    """The file is not what it was when it was indexed."""


class TooLarge(EarshotError):
    """More bytes than a request may send."""


class TooSlow(EarshotError):
    """A body that takes longer to arrive than it may."""


STATUSES: Sequence[tuple[type[EarshotError], int]] = (
    (NotFound, 404),
    (TooSlow, 408),
    (FileChanged, 409),
    (StateGone, 410),
    (TooLarge, 413),
    (Busy, 503),
    (IndexMissing, 503),
    (IndexMismatch, 503),
    (ModelError, 503),
    (IndexBusy, 409),
    (CommitConflict, 409),
    (MarkedSince, 409),
    (UsageError, 422),
    (FileFailure, 422),
    (EarshotError, 503),
)
"""The first type that fits decides."""


def status_of(error: BaseException) -> int:
    """The status for an error."""
    if isinstance(error, FileFailure) and error.reason == "vanished":
        return 404
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return status
    is_outside = isinstance(error, OSError | MemoryError) or engine_errors.is_failure(error)
    return 503 if is_outside else 500


def say(error: BaseException) -> str:
    """The line for an error. Values have the names of the API: ``where``, not ``--where``."""
    if not isinstance(error, EarshotError):
        return without_credentials(explain(error))
    return _OPTION.sub(lambda found: found[1].replace("-", "_"), str(error))


def add_handlers(app: FastAPI) -> None:
    """Give every error of a request the form that clients expect."""

    async def answer(_: Request, error: Exception) -> Response:
        refusal = refuse(status_of(error), say(error))
        if isinstance(error, TooLarge | TooSlow | NoRoom):
            refusal.headers["Connection"] = "close"  # the rest of the body is not read
        return refusal

    async def answer_unforeseen(request: Request, error: Exception) -> Response:
        if (status := status_of(error)) == 500:
            print_error(f"earshot: {request.method} {request.url.path}: {say(error)}")
        return refuse(status, say(error))

    async def answer_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: "there is nothing here; /api/docs lists what there is", 405: "this method is not for this address"}
        answer = refuse(error.status_code, said.get(error.status_code, error.detail))
        answer.headers.update(error.headers or {})
        return answer

    async def answer_wrong_call(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return refuse(422, "; ".join(_say_wrong(wrong) for wrong in error.errors()[:3]))

    async def answer_nobody(_: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    app.add_exception_handler(EarshotError, answer)
    app.add_exception_handler(ClientGone, answer_nobody)
    app.add_exception_handler(HTTPException, answer_http)
    app.add_exception_handler(RequestValidationError, answer_wrong_call)
    app.add_exception_handler(Exception, answer_unforeseen)


def _say_wrong(wrong: Any) -> str:
    """``k: Input should be less than or equal to 1000 (is 5000)``."""
    name = ".".join(str(part) for part in wrong["loc"][1:]) or "the body"
    given = wrong.get("input")
    shown = f" (is {str(given)[:80]!r})" if isinstance(given, str | int | float) else ""
    return " ".join(f"{name}: {wrong['msg']}{shown}".split())
