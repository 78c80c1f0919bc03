"""Exports over HTTP: what `earshot export` writes, as one file that is sent while it is made."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import FailFast, Field
from starlette.responses import Response

from jobs.serve import limits
from jobs.serve.bodies import ID, Sent, describe_body, loads, read_body
from jobs.serve.closing import Closing
from jobs.serve.search_routes import ERRORS, THRESHOLD, At, Exact, OneText, Threshold, Where, check, require_sounds
from jobs.serve.service import Service
from jobs.serve.states import State
from jobs.serve.streams import SourceResponse
from pipeline.errors import UsageError
from pipeline.export import request as exports
from pipeline.export.exporting import LEFT_OUT
from pipeline.export.sources import Answer, Questions
from pipeline.grid import LONGEST_S

Format = Literal[
    "csv", "jsonl", "dcase", "audacity", "raven", "wav", "flac", "vectors", "clip-vectors", "frame-vectors"
]
TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".jsonl": "application/x-ndjson",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".zip": "application/zip",
    ".parquet": "application/vnd.apache.parquet",
}
FILE = {
    "description": "The file. What cut audio lacks is in its `manifest.csv`; what a Parquet file lacks is in its own"
    f" metadata, `{LEFT_OUT}`.",
    "headers": {
        "X-Earshot-Left-Out": {
            "description": "The number of labels that are not in the file. Missing where that is found out while it is"
            " sent: with cut audio and vectors, the file itself tells.",
            "schema": {"type": "integer"},
        },
        "X-Earshot-Is-Cut": {
            "description": "1 if there may be better events, which `exact` would find; else 0.",
            "schema": {"type": "integer"},
        },
    },
    "content": {kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}} for kind in TYPES.values()},
}


AskedFormat = Annotated[
    Format, Query(description="wav and flac: cut audio; vectors: those of clips for clips, else of frames.")
]
Padding = Annotated[float, Query(ge=0, le=3_600, description="Of cut audio, before and after.")]


class GivenHit(Sent):
    """A hit as /api/similar, /api/query or /api/locate answers it. The ids tell what was found: a hit of another
    content than its file has now is left out. All else about the file is looked up, also its metadata: the fields for
    it are only here so that answers can be sent as they are."""

    uri: str = Field(min_length=1, max_length=limits.MAX_URI)
    start_s: float = Field(ge=0, lt=LONGEST_S, allow_inf_nan=False)
    end_s: float = Field(gt=0, lt=LONGEST_S, allow_inf_nan=False)
    text: str = Field("", max_length=limits.MAX_TEXT)
    rank: int | None = Field(None, ge=1, le=limits.MAX_EXPORTED_K)
    score: float | None = Field(None, allow_inf_nan=False)
    probability: float | None = Field(None, allow_inf_nan=False)
    peak_s: float | None = Field(None, allow_inf_nan=False)
    clip_id: str | None = Field(None, pattern=ID)
    audio_id: str | None = Field(None, pattern=ID)
    file_id: Any = Field(None, exclude=True)
    duration_s: Any = Field(None, exclude=True)
    metadata: Any = Field(None, exclude=True)


class GivenHits(Sent):
    """``label`` is the text of hits that have none."""

    hits: Annotated[list[GivenHit], FailFast()] = Field(min_length=1, max_length=limits.MAX_EXPORTED_K)
    label: str | None = Field(None, min_length=1, max_length=limits.MAX_TEXT)


def make_export_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api", responses=ERRORS)

    async def send(
        request: Request, at: int | None, ask: Callable[[State], tuple[exports.Request, Answer]]
    ) -> Response:
        """The file of an export that ``ask`` asks for, with the labels that it finds."""

        def begin(state: State) -> tuple[dict[str, str], Pieces]:
            """The headers and the pieces, of which the first ones are read: what is wrong from the beginning is an
            error, and no broken file."""
            asked, answer = ask(state)
            stream = exports.to_stream(state.index, asked, answer.labels)
            pieces = Pieces(stream.pieces)
            pieces.read_ahead()
            return describe(stream, is_cut=answer.is_cut), pieces

        pool = service.workers.long
        with ExitStack() as held:
            held.enter_context(service.exports_sent.hold(1))
            headers, pieces = await service.ask(request, at, begin, pool, close=lambda begun: begun[1].close())
            return SourceResponse(request, pool, pieces, headers, held.pop_all())

    @router.get("/export", response_class=Response, responses={200: FILE})
    async def export(
        request: Request,
        format: AskedFormat,
        query: Annotated[
            list[OneText] | None, Query(max_length=limits.MAX_TEXTS, description="Clips that match this.")
        ] = None,
        locate: Annotated[
            list[OneText] | None, Query(max_length=limits.MAX_TEXTS, description="Events that match this.")
        ] = None,
        marks: Annotated[bool, Query(description="The marks.")] = False,
        verdict: Annotated[
            list[str] | None, Query(max_length=3, description="Of the marks: right, wrong, unsure.")
        ] = None,
        k: Annotated[int, Query(ge=1, le=limits.MAX_EXPORTED_K, description="Number of results for each text.")] = 100,
        threshold: Threshold = THRESHOLD,
        where: Where = None,
        exact: Exact = False,
        padding_s: Padding = 0.0,
        at: At = None,
    ) -> Response:
        """Hits or marks as a file for other programs; a zip archive where the format has several files."""
        asked = exports.Request(
            form=choose_form(format, of_clips=bool(query)),
            questions=Questions(tuple(query or ()), tuple(locate or ()), k, where or None, threshold, exact=exact),
            marks=marks,
            verdicts=tuple(verdict) if verdict else None,
            padding_s=padding_s,
        )
        if asked.is_of_all:
            raise UsageError("nothing to export: give query, locate or marks")
        return await send(request, at, lambda state: (asked, exports.find_labels(state.index, asked)))

    @router.post(
        "/export",
        response_class=Response,
        responses={200: FILE},
        openapi_extra={"requestBody": describe_body(GivenHits)},
    )
    async def export_given(request: Request, format: AskedFormat, padding_s: Padding = 0.0, at: At = None) -> Response:
        """Hits that are sent, such as those of /api/similar, as a file for other programs. Their files and metadata are
        those of the index."""
        with service.hits.hold() as take:
            body = await read_body(request, take, limits.MAX_HITS_BYTES)

            def ask(state: State) -> tuple[exports.Request, Answer]:
                given = check(GivenHits, loads(body))
                files = require_sounds(state, {hit.uri for hit in given.hits})
                form = choose_form(format, of_clips=all(hit.clip_id for hit in given.hits))
                lines = "\n".join(json.dumps(hit.model_dump()) for hit in given.hits)
                asked = exports.Request(form, hits=lines.encode(), label=given.label, padding_s=padding_s)
                metadata = {uri: {name: row[name] for name in state.index.metadata.names} for uri, row in files.items()}
                labels = exports.find_labels(state.index, asked).labels
                return asked, Answer([replace(label, metadata=metadata[label.uri]) for label in labels])

            return await send(request, at, ask)

    return router


def describe(stream: exports.Stream, *, is_cut: bool) -> dict[str, str]:
    """The headers of an export. What is left out is only counted where that is known before the first byte."""
    suffix = "." + stream.name.rpartition(".")[2]
    left_out = {"X-Earshot-Left-Out": str(len(stream.problems))} if stream.knows_problems else {}
    return {
        "Content-Type": TYPES.get(suffix, "text/plain; charset=utf-8"),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(stream.name)}",
        "X-Earshot-Is-Cut": str(int(is_cut)),
        **left_out,
    }


class Pieces:
    """Pieces of bytes that one thread after another asks for. Another thread may end them at any time."""

    def __init__(self, pieces: Iterator[bytes], at_least_bytes: int = 1 << 16) -> None:
        self._pieces: Any = pieces
        self._at_least_bytes = at_least_bytes
        self._closing = Closing(self._end)
        self._ahead = b""

    def read_ahead(self) -> None:
        """Read the next ones now, for the ``read`` that follows."""
        self._ahead = self.read()

    def read(self) -> bytes:
        """The next ones together; empty at the end."""
        with self._closing.reading() as is_open:
            found, self._ahead = bytearray(self._ahead), b""
            if is_open and not found:
                for piece in self._pieces:
                    found += piece
                    if len(found) >= self._at_least_bytes:
                        break
            return bytes(found) if is_open else b""

    def close(self) -> None:
        self._closing.close()

    def _end(self) -> None:
        if hasattr(self._pieces, "close"):
            self._pieces.close()


def choose_form(form: str, *, of_clips: bool) -> str:
    """The name of a format as `earshot export` has it."""
    if form != "vectors":
        return form
    return "clip-vectors" if of_clips else "frame-vectors"
