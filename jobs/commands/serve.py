"""``earshot serve``: a page to search, hear and judge, and an HTTP API."""

from importlib import import_module
from typing import Annotated

import typer

from jobs.shared.options import Path_
from jobs.shared.output import print_line

NEEDED = ("fastapi", "uvicorn", "PIL")
"""The packages of the optional group `serve`."""


def serve(
    index: Path_,
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65_535)] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Beyond this machine, a token is made and printed.")
    ] = "127.0.0.1",
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A further name by which the server may be called; may be repeated.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the browser.")] = False,
) -> None:
    """Open a page on INDEX, to search it, listen and look; `query`, `locate` and `similar` are answered by it, too.

    Example: earshot serve my-index
    """
    from pipeline.errors import UsageError

    for name in NEEDED:
        try:
            import_module(name)
        except ImportError as error:
            raise UsageError(
                f"the page needs {name}, which cannot be loaded ({error}): pip install 'earshot[serve]'"
            ) from None
    from jobs.serve.run import Options, open_browser, run_server

    def announce(address: str) -> None:
        print_line(f"{index}: {address} (Ctrl-C ends it)")
        if not no_browser:
            open_browser(address)

    run_server(Options(index, host, port, allowed_host or ()), announce)
