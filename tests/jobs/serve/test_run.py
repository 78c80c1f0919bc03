"""Addresses of a server, and what is shown in a browser."""

import asyncio
import socket
import sys
import webbrowser

import pytest

from jobs.serve import limits
from jobs.serve.run import address_of, bind, open_browser


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("[::1]", "http://[::1]:80"),
        ("a.b", "http://a.b:80"),
    ],
)
def test_address_names_the_host(host: str, shown: str) -> None:
    assert address_of(host, 80) == shown


def test_server_of_all_addresses_is_reached_by_loopback_here() -> None:
    assert address_of("0.0.0.0", 80, for_programs=True) == "http://127.0.0.1:80"
    assert address_of("::", 80, for_programs=True) == "http://[::1]:80"
    assert "0.0.0.0" not in address_of("0.0.0.0", 80)


@pytest.mark.parametrize(
    ("address", "display", "opened"),
    [("http://x/", ":0", ["http://x/"]), ("http://x/", "", []), ("http://x/?token=t", ":0", [])],
)
def test_browser_opens_where_there_is_a_display_and_no_token(
    address: str, display: str, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(webbrowser, "open", seen.append)
    thread = open_browser(address)
    if thread is not None:
        thread.join()
    assert seen == opened


@pytest.mark.skipif(sys.platform != "linux", reason="an option of Linux")
def test_connections_of_clients_that_take_nothing_end() -> None:
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1_000 * limits.MAX_TAKE_S


def test_what_is_answered_is_sent_at_once() -> None:
    """asyncio sets this for sockets whose protocol is named. Without it, every answer waits for the client's kernel."""

    async def accept() -> int:
        options = asyncio.get_running_loop().create_future()

        def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            options.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = bind("127.0.0.1", 0)
        async with await asyncio.start_server(note, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.close()
            return int(await options)

    assert asyncio.run(accept()) != 0
