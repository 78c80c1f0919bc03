"""The app of a server: its routes, wrapped in the checks of ``security``."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

import pipeline
from jobs.serve.command_route import make_command_router
from jobs.serve.docs import make_docs
from jobs.serve.errors import add_handlers
from jobs.serve.export_routes import make_export_router
from jobs.serve.marks_routes import make_marks_router
from jobs.serve.media_routes import make_media_router
from jobs.serve.page_files import PAGE, PageFiles
from jobs.serve.picture_routes import make_picture_router
from jobs.serve.search_routes import make_search_router
from jobs.serve.security import Access, Guard
from jobs.serve.service import Service
from jobs.serve.tile_cache import TileCache, find_cache_folder

ABOUT = "The HTTP API of an Earshot index: what sounds like a text or another sound, where, and how it sounds."


def make_app(service: Service, access: Access, page: Path = PAGE, cache: Path | None = None) -> ASGIApp:
    """The app that a web server runs.

    Args:
        page: the folder of the page's files. cache: that of spectrograms; by default the user's.
    """
    return Guard(make_api(service, page, cache), access)


def make_api(service: Service, page: Path = PAGE, cache: Path | None = None) -> FastAPI:
    """The routes, without the checks of who asks."""
    app = FastAPI(
        title="Earshot",
        description=ABOUT,
        version=pipeline.__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    add_handlers(app)
    app.include_router(make_search_router(service))
    app.include_router(make_marks_router(service))
    app.include_router(make_media_router(service))
    app.include_router(make_export_router(service))
    app.include_router(make_picture_router(service, TileCache(cache or find_cache_folder())))
    app.include_router(make_command_router(service))
    app.include_router(_make_page_router(app, page))
    return app


def _make_page_router(app: FastAPI, page: Path) -> APIRouter:
    """The page itself, and the description of the API for people."""
    router, files = APIRouter(include_in_schema=False), PageFiles(page)
    made: dict[str, Any] = {}

    @router.get("/api/docs")
    async def docs() -> HTMLResponse:
        if not made:
            made["docs"] = make_docs(app.openapi())
        return HTMLResponse(made["docs"])

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return files.answer(request, "index.html")

    @router.api_route("/{name:path}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        return files.answer(request, name)

    return router
