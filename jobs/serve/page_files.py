"""The files of the page: those in the folder ``page``, and no others."""

import hashlib
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

PAGE = Path(__file__).with_name("page")

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The kinds of files that are served."""


class PageFiles:
    """Answers requests for the files of a folder, by the names that it has when this is made."""

    def __init__(self, folder: Path = PAGE) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.suffix in TYPES and path.is_file()]
        self._files = {path.relative_to(folder).as_posix(): path for path in files}

    def answer(self, request: Request, name: str) -> Response:
        """The file ``name``, or that it has not changed since the client got it.

        Raises:
            HTTPException: 404, there is no such file.
        """
        path = self._files.get(name)
        if path is None:
            raise HTTPException(404)
        content = path.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}  # asked for each time, sent when changed
        if tag in [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=TYPES[path.suffix], headers=headers)
