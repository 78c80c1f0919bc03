"""Questions over HTTP: about the index, its files and their metadata, and what sounds like a text or another sound."""

import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, StringConstraints, ValidationError

import pipeline
from jobs.serve import answers, limits
from jobs.serve.answers import to_found, to_value
from jobs.serve.bodies import Sent, is_json, read_form, read_json
from jobs.serve.errors import NotFound
from jobs.serve.file_view import describe
from jobs.serve.service import Service, milliseconds_since
from jobs.serve.sounds import require_whole
from jobs.serve.states import State
from jobs.serve.workers import Pool, Workers
from pipeline.audio.part import is_quick
from pipeline.errors import UsageError, suggest
from pipeline.grid import FRAME_S
from pipeline.marks.mark import name_user
from pipeline.marks.read import count_marks
from pipeline.schema import Row
from pipeline.search.events import Rules
from pipeline.search.found import Event, Hit

M = TypeVar("M", bound=BaseModel)

THRESHOLD = Rules().threshold

At = Annotated[int | None, Query(description="The state to answer from (`seq` of /api/info); the open one by default.")]
Uri = Annotated[str, Query(min_length=1, max_length=limits.MAX_URI, description="The uri of a file of the index.")]
Text = Annotated[str, Query(min_length=1, max_length=limits.MAX_TEXT, description="What to look for, in words.")]
OneText = Annotated[str, StringConstraints(min_length=1, max_length=limits.MAX_TEXT)]
K = Annotated[int, Query(ge=1, le=limits.MAX_K, description="Number of results.")]
Where = Annotated[
    str | None,
    Query(max_length=limits.MAX_WHERE, description="SQL over the columns of the index, as in `earshot query`."),
]
Exact = Annotated[bool, Query(description="Scan all vectors instead of the vector index: slower.")]
Threshold = Annotated[float, Query(gt=0, lt=1, description="Probability at which an event begins.")]

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.Error, "description": said}
    for status, said in {
        400: "No valid Host header.",
        401: "A token is needed.",
        403: "Sent by another site's page.",
        404: "No such file or column, or the file has gone.",
        408: "The body takes too long to arrive.",
        409: "The file has changed since it was indexed, or was marked since the mark that is to be corrected.",
        410: "The state is not open any more.",
        413: "Too many bytes.",
        415: "Neither JSON nor a form.",
        421: "Called by a name that is not the server's.",
        422: "A wrong value.",
        503: "The index, a model or a disk fails, too much is asked at once, or the answer takes too long.",
    }.items()
}
"""The errors that any request may meet."""


class Like(Sent):
    """A part of a file of the index, to which others are compared."""

    uri: str = Field(min_length=1, max_length=limits.MAX_URI)
    start_s: float = Field(0.0, ge=0, le=limits.MAX_S, allow_inf_nan=False)
    end_s: float | None = Field(None, gt=0, le=limits.MAX_S, allow_inf_nan=False)
    k: int = Field(20, ge=1, le=limits.MAX_K)
    where: str | None = Field(None, max_length=limits.MAX_WHERE)
    exact: bool = False


def make_search_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api", responses=ERRORS)

    def inform(state: State) -> dict[str, Any]:
        settings = state.index.settings
        return {
            "index": service.states.path,
            "seq": state.number,
            "newest_seq": service.states.find_newest(),
            "is_writing": service.states.is_writing(),
            "version": pipeline.__version__,
            **state.counts,
            "has_frames": state.has_frames,
            "threshold": THRESHOLD,
            "frame_s": FRAME_S,
            "models": {
                "clip": settings["clip_model"]["name"],
                "frame": settings["frame_model"] and settings["frame_model"]["name"],
            },
            "columns": [{"name": name, "type": of, "kind": find_kind(of)} for name, of in state.columns.items()],
            "n_marks": count_marks(service.states.path),
            "who": name_user(),
            "max_upload_bytes": limits.MAX_UPLOAD_BYTES,
        }

    @router.get("/info", response_model=answers.Info)
    async def info(request: Request, at: At = None) -> Any:
        """What the index holds, and which of its states is open."""
        return await service.ask(request, at, inform)

    @router.post("/refresh", response_model=answers.Info)
    async def refresh(request: Request) -> Any:
        """Take over the newest published state. Requests with `at` still get the former one."""
        return await service.workers.questions.run(request, lambda: inform(service.states.refresh()))

    @router.get("/values", response_model=answers.Values)
    async def values(
        request: Request,
        column: Annotated[str, Query(min_length=1)],
        prefix: Annotated[str, Query(max_length=limits.MAX_TEXT, description="Only values that begin so.")] = "",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 50,
        at: At = None,
    ) -> Any:
        """The values of a column, and the number of indexed files with each, the most frequent first."""

        def find(state: State) -> dict[str, Any]:
            known = state.columns
            if column not in known:
                raise NotFound(f"no column {column!r}{suggest(column, known)} (columns: {', '.join(known)})")
            begin = prefix.casefold()
            pairs = [pair for pair in state.count_values(column) if show(pair[0]).casefold().startswith(begin)]
            shown = [{"value": to_value(value), "n_files": n_files} for value, n_files in pairs[:limit]]
            return {"column": column, "values": shown, "is_cut": len(pairs) > limit}

        return await service.ask(request, at, find)

    @router.get("/file", response_model=answers.File)
    async def file(request: Request, uri: Uri, at: At = None) -> Any:
        """A file of the index, and whether it is still there as it was indexed."""

        def find(state: State) -> tuple[Row, dict[str, Any]]:
            row = require_file(state, uri)
            return row, {name: to_value(row[name]) for name in state.index.metadata.names}

        row, metadata = await service.ask(request, at, find)
        return describe(row, await service.find_presence(request, row), metadata)

    @router.get("/query", response_model=answers.Clips, response_model_exclude_unset=True)
    async def query(
        request: Request, text: Text, k: K = 20, where: Where = None, exact: Exact = False, at: At = None
    ) -> Any:
        """The clips that fit a text best."""
        began = time.perf_counter()

        def find(state: State) -> dict[str, Any]:
            hits = state.index.search(text, k, where=where or None, exact=exact)
            return {"kind": "query", "text": text, "hits": complete(state, hits)}

        pool = service.workers.long if exact else service.workers.questions
        return await service.ask(request, at, find, pool) | {"took_ms": milliseconds_since(began)}

    @router.get("/locate", response_model=answers.Located, response_model_exclude_unset=True)
    async def locate(
        request: Request,
        text: Annotated[
            list[OneText], Query(min_length=1, max_length=limits.MAX_TEXTS, description="One text or several.")
        ],
        k: K = 20,
        threshold: Threshold = THRESHOLD,
        where: Where = None,
        exact: Exact = False,
        at: At = None,
    ) -> Any:
        """The events that fit each text best, with their start and end."""
        began = time.perf_counter()

        def find(state: State) -> dict[str, Any]:
            found = state.index.locate(text, k, threshold=threshold, where=where or None, exact=exact)
            results = [
                {"text": each, "hits": complete(state, events), "is_cut": events.is_cut}
                for each, events in zip(text, found, strict=True)
            ]
            return {"kind": "locate", "results": results}

        pool = service.workers.long if exact else service.workers.questions
        return await service.ask(request, at, find, pool) | {"took_ms": milliseconds_since(began)}

    @router.post(
        "/similar",
        response_model=answers.Clips,
        response_model_exclude_unset=True,
        openapi_extra={"requestBody": describe_similar()},
    )
    async def similar(request: Request, at: At = None) -> Any:
        """The clips that sound most like a part of a file of the index, or like a sound that is sent."""
        began = time.perf_counter()
        if is_json(request):
            with service.bodies.hold() as take:
                like = check(Like, await read_json(request, take))

            file = await service.ask(request, at, lambda state: require_sound(state, like.uri), service.workers.sounds)
            require_whole(file, await service.find_presence(request, file, service.workers.sounds))
            pool = await choose_pool(service.workers, request, like.uri, like)
            found = await service.ask(request, at, lambda state: compare(state, like.uri, like), pool)
            return found | {"took_ms": milliseconds_since(began)}
        with service.uploads.hold() as take, tempfile.TemporaryDirectory(prefix="earshot-upload-") as folder:
            form = await read_form(request, Path(folder), take)
            sound = form.file
            if sound is None:
                raise UsageError("file: the form has none; send a sound as `file`")
            given = {name: value for name, value in form.fields.items() if value != ""}
            asked = check(Like, {**given, "uri": form.file_name or "sound"})
            found = await service.ask(
                request, at, lambda state: compare(state, str(sound), asked), service.workers.long
            )
        return found | {"took_ms": milliseconds_since(began)}

    return router


def describe_similar() -> dict[str, Any]:
    """The two kinds of bodies of /api/similar, for the description of the API."""
    like = Like.model_json_schema()
    of_sound = {name: value for name, value in like["properties"].items() if name != "uri"}
    form = {"type": "object", "required": ["file"], "properties": {"file": FILE, **of_sound}}
    return {
        "required": True,
        "content": {"application/json": {"schema": like}, "multipart/form-data": {"schema": form}},
    }


FILE = {
    "type": "string",
    "format": "binary",
    "description": f"A sound in any format, of at most {limits.MAX_UPLOAD_BYTES // 10**6} MB.",
}


class Compared(Protocol):
    """What decides how long a comparison takes."""

    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float | None: ...
    @property
    def exact(self) -> bool: ...


async def choose_pool(workers: Workers, request: Request, uri: str, part: Compared) -> Pool:
    """The threads that compare a part of a file: those of questions if it is short, is found without decoding all that
    lies before, and no scan is asked for.

    Raises:
        FileFailure: the file cannot be opened.
    """
    is_short = part.end_s is not None and part.end_s - part.start_s <= limits.SHORT_S
    if part.exact or not is_short:
        return workers.long
    quick = await workers.sounds.run(request, lambda: is_quick(uri, part.start_s))
    return workers.questions if quick else workers.long


def compare(state: State, sound: str, like: Like) -> dict[str, Any]:
    """The clips that sound like a part of ``sound``, a path or a uri."""
    if like.end_s is not None and like.end_s <= like.start_s:
        raise UsageError(f"end_s: {like.end_s} s is not after start_s ({like.start_s} s)")
    hits = state.index.similar_to_file(
        sound, like.k, start_s=like.start_s, end_s=like.end_s, where=like.where or None, exact=like.exact
    )
    return {"kind": "similar", "hits": complete(state, hits)}


def complete(state: State, hits: Sequence[Hit | Event]) -> list[dict[str, Any]]:
    """Hits or events with the ids of their files."""
    files = state.find_files(hit.uri for hit in hits)
    return [to_found(hit, files[hit.uri]) for hit in hits]


def require_file(state: State, uri: str) -> Row:
    """The row of a uri. Only what has one is ever opened, so no request reaches a file outside the index.

    Raises:
        NotFound: there is no such file in the index.
    """
    return require_files(state, [uri])[uri]


def require_files(state: State, uris: Iterable[str]) -> dict[str, Row]:
    """The row of each uri, looked up together; else as ``require_file``."""
    found = {}
    for uri, row in state.find_files(uris).items():
        if row is None:
            raise NotFound(f"{uri[:500]}: is no file of the index")
        found[uri] = row
    return found


def require_sound(state: State, uri: str) -> Row:
    """The row of a uri whose sound may be opened: not one that broke its decoder, or that left the index.

    Raises:
        NotFound: there is no such file in the index, or it is not indexed.
    """
    return require_sounds(state, [uri])[uri]


def require_sounds(state: State, uris: Iterable[str]) -> dict[str, Row]:
    """The row of each uri, looked up together; else as ``require_sound``."""
    found = require_files(state, uris)
    for uri, row in found.items():
        if row["status"] != "indexed":
            raise NotFound(f"{uri[:500]}: its status is {row['status']}, so its sound is not opened")
    return found


def find_kind(column_type: str) -> answers.Kind:
    """How the values of a column are compared, by the name of its Arrow type."""
    if re.match("u?int|float|double|halffloat|decimal", column_type):
        return "number"
    if re.match("timestamp|date", column_type):
        return "time"
    return "flag" if column_type.startswith("bool") else "text"


def show(value: Any) -> str:
    return str(to_value(value))


def check(model: type[M], values: Any) -> M:
    """Values as a model.

    Raises:
        UsageError: a value is missing, unknown or wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part)[:100] for part in wrong["loc"]) or "the body"
        raise UsageError(f"{name}: {wrong['msg']}") from None
