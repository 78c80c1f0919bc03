"""What ``earshot query``, ``locate`` and ``similar`` ask a server: the call that they would make themselves.

It is no part of the API: the command and the server are of one version. The limits are those of the API: a command
whose call is refused makes it itself. Commands want the newest published state, which is opened for them; the page
stays in its own.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from jobs.serve import limits
from jobs.serve.bodies import Sent, is_json, loads, read_form, read_json
from jobs.serve.search_routes import check, choose_pool, require_sound
from jobs.serve.service import Service
from jobs.serve.states import State
from jobs.serve.workers import Pool, Workers
from jobs.shared.servers import ALIVE, COMMAND, name_index, pack
from pipeline.errors import UsageError
from pipeline.search.client import Index


class Arguments(Sent):
    """Those of a call, within limits. The index itself says which values make sense."""

    model_config = ConfigDict(allow_inf_nan=False)

    def choose_pool(self, workers: Workers) -> Pool:
        """The threads that make this call."""
        return workers.questions


class Asked(Arguments):
    k: int = Field(le=limits.MAX_K)
    where: str | None = Field(None, max_length=limits.MAX_WHERE)
    exact: bool = False

    def choose_pool(self, workers: Workers) -> Pool:
        return workers.long if self.exact else workers.questions


class SearchArguments(Asked):
    text: str = Field(max_length=limits.MAX_TEXT)
    all_windows: bool = False


class LocateArguments(Asked):
    text: str = Field(max_length=limits.MAX_TEXT)
    threshold: float
    min_duration_s: float
    merge_gap_s: float


class SimilarArguments(Asked):
    sound: str = Field(max_length=limits.MAX_URI)
    start_s: float = Field(0.0, le=limits.MAX_S)
    end_s: float | None = Field(None, le=limits.MAX_S)
    all_windows: bool = False


class CountArguments(Arguments):
    where: str = Field(max_length=limits.MAX_WHERE)


class Call(NamedTuple):
    """A call that a command may make: a method of an index, and the model of its arguments."""

    method: Callable[..., Any]
    arguments: type[Arguments]


CALLS = {
    "search": Call(Index.search, SearchArguments),
    "locate": Call(Index.locate, LocateArguments),
    "similar_to_file": Call(Index.similar_to_file, SimilarArguments),
    "count_indexed": Call(Index.count_indexed, CountArguments),
}


def make_command_router(service: Service) -> APIRouter:
    """The routes, which are not described."""
    router = APIRouter(include_in_schema=False)

    @router.get(ALIVE)
    async def alive() -> dict[str, str]:
        return {"index": name_index(service.states.path)}

    @router.post(COMMAND)
    async def command(request: Request) -> Any:
        if is_json(request):
            with service.bodies.hold() as take:
                asked = await read_json(request, take)
            return await call(request, asked, None)
        with service.uploads.hold() as take, tempfile.TemporaryDirectory(prefix="earshot-upload-") as folder:
            form = await read_form(request, Path(folder), take)
            if form.file is None:
                raise UsageError("the body has no sound")
            return await call(request, loads(form.fields.get("call", "").encode()), form.file)

    async def call(request: Request, asked: Any, sent: Path | None) -> Any:
        if not isinstance(asked, dict) or not isinstance(asked.get("arguments"), dict):
            raise UsageError("the body is no call")
        name = asked.get("name")
        if not isinstance(name, str) or name not in CALLS:
            raise UsageError(f"{str(name)[:100]}: is no call")
        given = check(CALLS[name].arguments, asked["arguments"])

        def ask() -> Any:
            state, arguments = service.states.open_newest(), given.model_dump()
            if isinstance(given, SimilarArguments):
                arguments["sound"] = choose_sound(state, given.sound, sent)
            return {"state": state.number, **pack(CALLS[name].method(state.index, **arguments))}

        pool = service.workers.long if sent is not None else given.choose_pool(service.workers)
        if isinstance(given, SimilarArguments) and sent is None:
            find = service.workers.sounds.run(
                request, lambda: choose_sound(service.states.open_newest(), given.sound, None)
            )
            pool = await choose_pool(service.workers, request, await find, given)
        return await pool.run(request, ask)

    return router


def choose_sound(state: State, uri: str, sent: Path | None) -> str:
    """What to compare with: the sound that was sent, or a file of the index, and nothing else on this machine."""
    return str(sent) if sent is not None else str(require_sound(state, uri)["uri"])
