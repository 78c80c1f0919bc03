"""A server from its start to its end."""

import logging
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvicorn

import pipeline
from jobs.serve import limits
from jobs.serve.app import make_app
from jobs.serve.security import is_loopback, make_access
from jobs.serve.service import open_service
from jobs.shared.servers import Running, find_server, name_index, noted
from pipeline.errors import UsageError

GRACE_S = 1
"""Answers that are being sent when the server ends have this long to finish."""

MAX_CONNECTIONS_WAITING = 2_048
PORTS_TRIED = 50


@dataclass(frozen=True)
class Options:
    """What ``earshot serve`` was asked for."""

    index: str
    host: str
    port: int
    allowed_hosts: Sequence[str] = ()


def run_server(options: Options, on_start: Callable[[str], None]) -> None:
    """Serve an index until a signal ends this process.

    Args:
        on_start: called once the server answers, with the address to open. It has the token, if there is one.

    Raises:
        UsageError: there is no index, or the port is taken.
    """
    service = open_service(options.index)
    try:
        listening = bind(options.host, options.port)
    except UsageError:
        other = find_server(options.index)
        if other is None or not other.address.endswith(f":{options.port}"):
            raise
        raise UsageError(f"--port {options.port}: a server of this index runs there already: {other.address}") from None
    port = listening.getsockname()[1]
    token = None if is_loopback(options.host) else secrets.token_urlsafe(24)
    app = make_app(service, make_access(options.host, port, options.allowed_hosts, token))
    # No log of requests: addresses hold tokens and what people look for.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=MAX_CONNECTIONS_WAITING,
        timeout_graceful_shutdown=GRACE_S,
    )
    here = address_of(options.host, port, for_programs=True)
    running = Running(name_index(options.index), here, token, os.getpid(), pipeline.__version__)
    shown = address_of(options.host, port) + (f"/?token={token}" if token else "/")

    def start() -> None:
        service.warm_up()
        on_start(shown)

    with noted(running):
        try:
            _Server(config, start).run([listening])
        finally:
            service.workers.close()
            listening.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: the port is taken, or the host is not this machine's.
    """
    try:
        [family, *_, place] = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UsageError(f"--host {host}: is no address of this machine") from None
    # asyncio sets TCP_NODELAY where the protocol is named; without it each answer waits 40 ms for the client's kernel.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform == "linux":  # connections inherit it: what is left of an answer waits no longer for its client
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1_000 * limits.MAX_TAKE_S))
    try:
        listening.bind(place)
        listening.listen(MAX_CONNECTIONS_WAITING)
    except OSError as error:
        listening.close()
        if not isinstance(error, PermissionError) and _is_taken(family, place):
            other = _find_free(family, place)
            raise UsageError(f"--port {port}: another program uses it; try --port {other}") from None
        raise UsageError(f"--host {host} --port {port}: {(error.strerror or str(error)).lower()}") from None
    return listening


def _is_taken(family: int, place: tuple[object, ...]) -> bool:
    """Whether the port is the trouble: another one of the same host can be had."""
    return _can_bind(family, (place[0], 0, *place[2:]))


def _find_free(family: int, place: tuple[object, ...]) -> int:
    """The next port that is free."""
    port = int(str(place[1]))
    free = (each for each in range(port + 1, port + PORTS_TRIED) if _can_bind(family, (place[0], each, *place[2:])))
    return next(free, 0)


def _can_bind(family: int, place: tuple[object, ...]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(place)
        except (OSError, OverflowError):
            return False
    return True


def address_of(host: str, port: int, *, for_programs: bool = False) -> str:
    """The address of a server.

    Args:
        for_programs: on this machine. A server that listens on all addresses is reached by loopback here, and by the
            name of the machine from others.
    """
    host = host.strip("[]")
    if host in ("0.0.0.0", "::"):
        host = ("127.0.0.1" if host == "0.0.0.0" else "::1") if for_programs else _find_own_address()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _find_own_address() -> str:
    """The address by which this machine reaches others. Nothing is sent for that."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of the block for documentation, RFC 5737
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def open_browser(address: str) -> threading.Thread | None:
    """Show an address in the browser, if there is a display; a browser of the terminal would take it over.

    One with a token is not shown: the command that opens it would tell the token to every user of this machine.

    Returns:
        The thread that opens it.
    """
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_display or "token=" in address:
        return None
    thread = threading.Thread(target=webbrowser.open, args=(address,), name="browser", daemon=True)
    thread.start()
    return thread
