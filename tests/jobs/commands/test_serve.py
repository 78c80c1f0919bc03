"""``earshot serve`` as a process: it starts, notes itself, answers commands, and ends cleanly."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
import soundfile

import pipeline
from jobs.shared import servers
from pipeline.config import Config, make_config
from tests.helpers import served
from tests.helpers.commands import Call
from tests.helpers.running import Served, serving
from tests.helpers.served import uri
from tests.helpers.waiting import wait_until


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    made = served.make_corpus(tmp_path_factory.mktemp("served"))
    served.index(made)
    return made


@pytest.fixture(scope="module")
def running(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(config.into, tmp_path_factory.mktemp("runtime")) as server:
        yield server


@pytest.fixture
def found(running: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The server, where commands of this process look for one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(running.folder))
    monkeypatch.setattr(servers, "ALIVE_S", 60.0)  # the machine may be busy
    return running


def test_server_notes_itself_for_its_user_alone(running: Served, config: Config) -> None:
    [note] = running.notes
    assert note["index"] == servers.name_index(config.into)
    assert note["address"] == f"http://127.0.0.1:{running.port}"
    assert note["token"] is None
    folder = running.folder / "earshot"
    assert folder.stat().st_mode & 0o077 == 0
    assert [path.stat().st_mode & 0o077 for path in folder.iterdir()] == [0]


def test_server_answers_over_the_network(running: Served) -> None:
    assert running.json("/api/info")["indexed"] == len(served.LENGTHS_S)
    assert running.request("/api/info", Host="evil.example")[0] == 421
    status, headers, _ = running.request("/api/info")
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert "server" not in headers


def test_any_part_of_a_sound_is_sent(running: Served, config: Config) -> None:
    path = f"/api/audio?{urlencode({'uri': uri(config, 'a bell.wav')})}"
    status, headers, whole = running.request(path)
    assert (status, int(headers["content-length"])) == (200, len(whole))
    status, headers, part = running.request(path, Range="bytes=1000-5000")
    assert (status, headers["content-range"]) == (206, f"bytes 1000-5000/{len(whole)}")
    assert part == whole[1_000:5_001]
    status, headers, body = running.request(path, "HEAD")
    assert (status, body, int(headers["content-length"])) == (200, b"", len(whole))


def test_file_is_closed_once_the_listener_has_gone(tmp_path: Path) -> None:
    long = tmp_path / "in" / "long.wav"
    long.parent.mkdir()
    soundfile.write(long, np.zeros((200 * 48_000, 2), np.int16), 48_000)  # more than sockets hold
    own = make_config({"sources": [str(long.parent)], "into": str(tmp_path / "index")})
    served.index(own)
    with serving(own.into, tmp_path) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", f"/api/audio?{urlencode({'uri': str(long)})}")
        assert len(connection.getresponse().read(10_000)) == 10_000
        assert is_open(long, server.process.pid)
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        wait_until(lambda: not is_open(long, server.process.pid))


def is_open(path: Path, pid: int) -> bool:
    """Whether a process has a file open."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return str(path) in found


COMMANDS = [
    ["query", "{index}", "a bell", "-k", "3", "--json"],
    ["query", "{index}", "a bell", "-k", "3", "--all-windows"],
    ["query", "{index}", "a bell", "--where", "codec = 'opus'"],
    ["query", "{index}", "a bell", "--where", "place = 'yard'", "--exact", "--json"],
    ["query", "{index}", "a bell", "--where", "plaze = 'yard'"],
    ["query", "{index}", " "],
    ["locate", "{index}", "a bell", "--threshold", "1e-6", "--json"],
    ["locate", "{index}", "a bell", "--threshold", "1e-6", "-k", "2"],
    ["locate", "{index}", "a bell", "--threshold", "0.999999", "--min-duration", "900"],
    ["locate", "{index}", "a bell", "--where", "codec = 'opus'"],
    ["locate", "{index}", "a bell", "--threshold", "2"],
    ["similar", "{index}", "{folder}/b.flac", "--json"],
    ["similar", "{index}", "{folder}/b.flac", "--start", "0.5", "--end", "1.5"],
    ["similar", "{index}", "{folder}/b.flac", "--where", "place = 'yard'", "--exact", "--json"],
    ["similar", "{index}", "{folder}/broken.wav"],
    ["similar", "{index}", "{folder}/not there.wav"],
    ["similar", "{index}", "{other}", "--json"],
    ["similar", "{index}", "{folder}/b.flac#t=0.2,1.4", "--json"],
]


def round_scores(printed: tuple[int, str, str]) -> tuple[int, str, str]:
    """Two processes may embed a sound with another number of threads, which changes its last digits."""
    code, out, err = printed
    return code, re.sub(r"\d+\.\d{7,}", lambda number: f"{float(number[0]):.5f}", out), err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_prints_the_same_with_and_without_a_server(
    command: list[str], found: Served, config: Config, tmp_path: Path, call: Call
) -> None:
    other = tmp_path / "other.flac"
    shutil.copyfile(uri(config, "b.flac"), other)
    folder = config.sources[0]
    arguments = [part.format(index=config.into, folder=folder, other=other) for part in command]
    assert round_scores(call(*arguments)) == round_scores(call(*arguments, "--no-server"))


@pytest.mark.parametrize("command", [["query", "a bell"], ["locate", "a bell"], ["similar", "{folder}/b.flac"]])
def test_command_says_who_answered(command: list[str], found: Served, config: Config, call: Call) -> None:
    name, what = command
    ask = (name, config.into, what.format(folder=config.sources[0]))
    assert f"answered by the server at http://127.0.0.1:{found.port}, from state" in call(*ask, "--verbose")[2]
    assert call(*ask)[2] == ""
    assert call(*ask, "--no-server", "--verbose")[2] == ""


def test_index_may_be_written_in_another_way(
    found: Served, config: Config, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(config.into)
    monkeypatch.chdir(tmp_path)
    assert "answered by the server" in call("query", "link", "a bell", "--verbose")[2]


def test_sound_outside_of_the_index_is_sent(found: Served, config: Config, tmp_path: Path, call: Call) -> None:
    other = tmp_path / "other.flac"
    shutil.copyfile(uri(config, "b.flac"), other)
    assert "answered by the server" in call("similar", config.into, other, "--verbose")[2]


@pytest.mark.parametrize("trouble", ["version", "dead", "other index", "silent"])
def test_command_answers_itself_where_no_server_can(
    trouble: str, config: Config, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if trouble == "dead":
            silent.close()
        running = servers.Running(
            index=servers.name_index("/other" if trouble == "other index" else config.into),
            address=f"http://127.0.0.1:{port}",
            token=None,
            pid=1,
            version="0.0.0" if trouble == "version" else pipeline.__version__,
        )
        with servers.noted(running):
            code, out, err = call("query", config.into, "a bell", "--json", "--verbose")
    assert code == 0
    assert "answering here" in err
    assert (0, out) == call("query", config.into, "a bell", "--json", "--no-server")[:2]


def test_state_that_was_published_later_is_searched(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = served.make_corpus(tmp_path)
    served.index(own)
    folder = Path(own.sources[0])
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(servers, "ALIVE_S", 60.0)  # the machine may be busy
    with serving(own.into, tmp_path) as server:
        before = server.json("/api/info")["seq"]
        (folder / "new.wav").write_bytes((folder / "a bell.wav").read_bytes() + bytes(4))
        served.index(own)
        _, out, err = call("query", own.into, "a bell", "-k", "100", "--verbose")
        assert "answered by the server" in err
        assert "new.wav" in out
        info = server.json("/api/info")
        assert info["seq"] == before < info["newest_seq"]
        assert server.stop(signal.SIGTERM) == (130, "", "earshot: stopped\n")


def test_server_beyond_this_machine_wants_a_token(config: Config, tmp_path: Path) -> None:
    with serving(config.into, tmp_path, "--host", "0.0.0.0") as server:
        assert "/?token=" in server.address
        token = server.address.partition("token=")[2]
        assert server.request("/api/info")[0] == 401
        assert server.request("/api/info", Authorization=f"Bearer {token}")[0] == 200
        status, headers, _ = server.request(f"/?token={token}")
        assert (status, headers["location"]) == (303, "/")
        [note] = server.notes
        assert (note["token"], note["address"]) == (token, f"http://127.0.0.1:{server.port}")
        code, out, err = server.stop()
        assert code == 130
        assert token not in out + err
        assert server.notes == []


def test_server_that_runs_already_is_named(found: Served, config: Config, call: Call) -> None:
    code, out, err = call("serve", config.into, "--port", found.port, "--no-browser")
    assert (code, out) == (2, "")
    assert err.endswith(f"a server of this index runs there already: http://127.0.0.1:{found.port}\n")


def test_taken_port_is_said_with_another_one(config: Config, call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = call("serve", config.into, "--port", port, "--no-browser")
    assert (code, out) == (2, "")
    assert err.startswith(f"earshot: --port {port}: another program uses it; try --port ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-here"], "no index here"),
        (["{index}", "--host", "not a host"], "--host not a host: is no address"),
        (["{index}", "--host", "192.0.2.1"], "--host 192.0.2.1"),
    ],
)
def test_wrong_call_is_one_line(arguments: list[str], said: str, config: Config, call: Call) -> None:
    code, out, err = call("serve", *(each.format(index=config.into) for each in arguments), "--no-browser")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_missing_packages_are_said(config: Config, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = call("serve", config.into)
    assert code == 2
    assert "pip install 'earshot[serve]'" in err
