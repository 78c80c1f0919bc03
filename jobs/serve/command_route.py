"""What ``earshot query``, ``locate`` and ``similar`` ask a server: the call that they would make themselves.

It is no part of the API: the command and the server are of one version. Commands want the newest published state, which
is opened for them; the page stays in its own.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from jobs.serve.bodies import is_json, loads, read_form, read_json
from jobs.serve.search_routes import require_sound
from jobs.serve.service import Service
from jobs.serve.states import State
from jobs.shared.servers import ALIVE, COMMAND, name_index, pack
from pipeline.errors import UsageError
from pipeline.search.client import Index

CALLS: dict[str, Callable[..., Any]] = {
    "search": Index.search,
    "locate": Index.locate,
    "similar_to_file": Index.similar_to_file,
    "count_indexed": Index.count_indexed,
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
            return await call(request, await read_json(request), None)
        with tempfile.TemporaryDirectory(prefix="earshot-upload-") as folder:
            form = await read_form(request, Path(folder))
            if form.file is None:
                raise UsageError("the body has no sound")
            return await call(request, loads(form.fields.get("call", "").encode()), form.file)

    async def call(request: Request, asked: Any, sound: Path | None) -> Any:
        if not isinstance(asked, dict) or not isinstance(asked.get("arguments"), dict):
            raise UsageError("the body is no call")
        name, arguments = asked.get("name"), asked["arguments"]
        if name not in CALLS:
            raise UsageError(f"{str(name)[:100]}: is no call")

        def ask() -> Any:
            state = service.states.open_newest()
            if name == "similar_to_file":
                arguments["sound"] = choose_sound(state, arguments.get("sound"), sound)
            return {"state": state.number, **pack(CALLS[name](state.index, **arguments))}

        is_long = sound is not None or bool(arguments.get("exact"))
        pool = service.workers.long if is_long else service.workers.questions
        return await pool.run(request, ask)

    return router


def choose_sound(state: State, uri: Any, sent: Path | None) -> str:
    """What to compare with: the sound that was sent, or a file of the index, and nothing else on this machine."""
    return str(sent) if sent is not None else str(require_sound(state, str(uri))["uri"])
