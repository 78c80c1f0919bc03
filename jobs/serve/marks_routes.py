"""Marks over HTTP: what people said of sounds, read and added. They are always those of now, whatever state is open."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, AwareDatetime, FailFast, Field, StringConstraints

from jobs.serve import answers, limits
from jobs.serve.bodies import ID, Sent, describe_body, loads, read_body
from jobs.serve.search_routes import ERRORS, At, check, require_files
from jobs.serve.service import Service
from jobs.serve.states import State
from pipeline.marks.mark import Judgement, Mark
from pipeline.marks.read import find_named


def check_name(name: str) -> str:
    """A name that can be shown in a line; joiners are part of some scripts.

    Raises:
        ValueError: it is none.
    """
    if not name.strip() or not all(char.isprintable() or char in "\u200c\u200d" for char in name):
        raise ValueError("is no name that can be shown in a line")
    return name


Name = Annotated[str, StringConstraints(min_length=1, max_length=limits.MAX_NAME), AfterValidator(check_name)]


class NewMark(Sent):
    """What a person says of a part of a file. The verdict `none` takes a mark back."""

    uri: str = Field(
        "",
        max_length=limits.MAX_URI,
        description="A file of the index, or with `audio_id` one that has a mark, or none.",
    )
    audio_id: str | None = Field(
        None, pattern=ID, description="The content that was heard; by default the file's in the index."
    )
    start_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    end_s: float | None = Field(None, gt=0, allow_inf_nan=False, description="By default the end of the file.")
    text: str = Field(min_length=1, max_length=limits.MAX_TEXT)
    verdict: Literal["right", "wrong", "unsure", "none"]
    score: float | None = Field(None, allow_inf_nan=False)
    who: Name | None = Field(
        None,
        description="The name of the person, as it is to be shown. By default the user that runs the server.",
    )
    replaces: AwareDatetime | None = Field(
        None,
        description="To undo: the `marked_at` of the mark that this one corrects. 409 where the same was marked since;"
        " that mark stays.",
    )


class NewMarks(Sent):
    marks: Annotated[list[NewMark], FailFast()] = Field(min_length=1, max_length=limits.MAX_MARKS)


def make_marks_router(service: Service) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/api", responses=ERRORS)

    @router.get("/marks", response_model=answers.Marks)
    async def list_marks(
        request: Request,
        uri: Annotated[str | None, Query(min_length=1, description="Only the marks of this file.")] = None,
        limit: Annotated[int, Query(ge=1, le=1_000_000, description="Only the newest ones.")] = limits.MAX_MARKS,
        at: At = None,
    ) -> Any:
        """The marks that count, the newest first."""

        def find(state: State) -> dict[str, Any]:
            if uri is None:
                marks = state.index.marks()
            elif state.find_file(uri) is not None:
                marks = state.index.marks(uri)
            else:  # a name that the index does not know is not looked up anywhere
                marks = [mark for mark in state.index.marks() if mark.uri == uri]
            newest = sorted(marks, key=lambda mark: mark.marked_at, reverse=True)
            return {"marks": list(map(to_answer, newest[:limit])), "is_cut": len(newest) > limit}

        return await service.ask(request, at, find)

    @router.post(
        "/marks", status_code=201, response_model=answers.Marks, openapi_extra={"requestBody": describe_body(NewMarks)}
    )
    async def add_marks(request: Request, at: At = None) -> Any:
        """Store marks: all, or none if one is wrong."""

        def add(state: State, body: bytearray) -> dict[str, Any]:
            new = check(NewMarks, loads(body))
            require_names(state, new.marks)
            stored = state.index.mark_all([Judgement(**mark.model_dump()) for mark in new.marks])
            return {"marks": list(map(to_answer, stored)), "is_cut": False}

        with service.bodies.hold() as take:
            body = await read_body(request, take, limits.MAX_MARKS_BYTES)
            return await service.ask(request, at, lambda state: add(state, body))

    return router


def require_names(state: State, marks: list[NewMark]) -> None:
    """Check that each file is one of the index. Where the content is given, one that a mark names will do, or none:
    marks of files that have left the index can be corrected. Other names are looked up nowhere.

    Raises:
        NotFound: one is not.
    """
    named = state.find_files({mark.uri for mark in marks if mark.uri})
    missing = [mark for mark in marks if mark.uri and named[mark.uri] is None]
    former = find_named(state.index.path, {mark.uri for mark in missing if mark.audio_id})
    require_files(state, (mark.uri for mark in missing if not (mark.audio_id and mark.uri in former)))


def to_answer(mark: Mark) -> dict[str, Any]:
    """A mark as the API has it."""
    return {**vars(mark), "marked_at": mark.marked_at.isoformat(), "uris": list(mark.uris)}
