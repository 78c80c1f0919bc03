"""A server in a process of its own, as a person starts it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.processes import ROOT


@dataclass
class Served:
    process: subprocess.Popen[str]
    address: str
    """As it was printed, with the token if there is one."""
    port: int
    folder: Path
    """Of runtime files."""

    def request(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask without a browser; names of headers in lower case."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        return json.loads(self.request(path)[2])

    @property
    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(note.read_text()) for note in (self.folder / "earshot").glob("*.json")]

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """End it by a signal; returns its exit code and what else it printed."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@contextmanager
def serving(index: str, folder: Path, *options: str, **variables: str) -> Iterator[Served]:
    """Start a server on a free port, and end it.

    Args:
        folder: of runtime files and of pictures, which are kept by content: another server may have drawn the same.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "jobs.start", "serve", index, "--port", "0", "--no-browser", *options]
    folders = {"XDG_RUNTIME_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    environment = {**os.environ, "COLUMNS": "500", **folders, **variables}
    pipes: dict[str, Any] = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        try:
            assert process.stdout is not None
            said = ""
            while not (found := re.search(r"http://\S+:(\d+)/\S*", said)):
                line = process.stdout.readline()
                assert line, f"the server ended: {said}{process.stderr and process.stderr.read()}"
                said += line
            yield Served(process, found[0], int(found[1]), folder)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
