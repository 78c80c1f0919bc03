"""Measure ``earshot serve``: how soon it answers, 50 clients at once, and its memory over thousands of requests.

    python -m jobs.bench serve                   # makes the demo's index: takes three minutes
    python -m jobs.bench serve --index INDEX     # asks another one, whose files have to be there

A server runs in a process of its own, and is asked over the network of this machine, as a browser would. ``page``: the
first page after the server is up. ``question``: clips and events for a text that was not asked before. ``tile``: a
spectrogram that is in no cache. ``sound``: the first 64 kB from somewhere in a file. ``clients``: so many ask for a
minute, each the next thing as soon as it has the last, in the proportions of ``MIX``; an answer other than 200 or 206
is an error. ``memory``: the growth of the server's resident memory over the last four fifths of so many requests.
``shell``: a process of ``earshot query`` from its start to its end.

The exit code is 1 where a limit is missed.
"""

import http.client
import itertools
import json as jsonlib
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from jobs.bench.figures import Figure, measure_and_report, read_memory
from jobs.shared.options import Json

EARSHOT = [sys.executable, "-m", "jobs.main"]
SOUNDS = ("a bell", "birds", "an engine", "rain", "a siren", "drums", "clicking", "a tone", "wind", "steps")
PLACES = ("far away", "in a hall", "in the street", "under water", "at night", "close by", "behind a wall", "outside")
MIX = {"query": 3, "locate": 3, "spectrogram": 6, "audio": 4, "curve": 3, "info": 1}
FIRST_BYTES = 65_536
SPAN_S = 4.0
TIMEOUT_S = 60


@dataclass(frozen=True)
class Served:
    """A server that runs, and the files of its index: uri and seconds of each."""

    pid: int
    port: int
    files: list[tuple[str, float]]
    texts: Iterator[str] = field(default_factory=lambda: make_texts())
    lock: threading.Lock = field(default_factory=threading.Lock)

    def text(self) -> str:
        """A text that was not asked before."""
        with self.lock:
            return next(self.texts)

    def memory_mb(self) -> float:
        return read_memory(Path(f"/proc/{self.pid}"))["VmRSS"] / 1e6


def make_texts() -> Iterator[str]:
    for number in itertools.count():
        for sound, place in itertools.product(SOUNDS, PLACES):
            yield f"{sound} {place}" + (f", {number}" if number else "")


class Client:
    """Asks a server over one connection."""

    def __init__(self, served: Served, seed: int) -> None:
        self._served, self._random = served, random.Random(seed)
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=TIMEOUT_S)

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, float]:
        """The status, and the milliseconds until the whole answer was there."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=headers or {})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, 1000 * (time.perf_counter() - began)

    def ask(self, kind: str) -> tuple[int, float]:
        """Ask something of this kind that was hardly asked before."""
        uri, duration_s = self._random.choice(self._served.files)
        start_s = round(self._random.uniform(0, max(0.0, duration_s - SPAN_S)), 3)
        span = {"uri": uri, "start_s": start_s, "end_s": round(min(start_s + SPAN_S, duration_s), 3)}
        if kind == "info":
            return self.get("/api/info")
        if kind in ("query", "locate"):
            return self.get(f"/api/{kind}?" + urlencode({"text": self._served.text()}))
        if kind == "spectrogram":
            return self.get("/api/spectrogram?" + urlencode({**span, "width": 800, "height": 256}))
        if kind == "curve":
            return self.get("/api/curve?" + urlencode({**span, "text": self._random.choice(SOUNDS)}))
        whole = "/api/audio?" + urlencode({"uri": uri, "start_s": start_s})
        return self.get(whole, {"Range": f"bytes=0-{FIRST_BYTES - 1}"})

    def choose(self) -> str:
        return self._random.choices(list(MIX), list(MIX.values()))[0]


# --- the server -------------------------------------------------------------------------------------------------------


@contextmanager
def serving(index: str, folder: Path) -> Iterator[tuple[Served, float]]:
    """A server with a cache and a runtime folder of its own, and the seconds until it was up."""
    variables = {"XDG_RUNTIME_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    began = time.perf_counter()
    process = subprocess.Popen(
        [*EARSHOT, "serve", index, "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | variables,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        up_s = time.perf_counter() - began
        found = re.search(r"http://[^/]+:(\d+)/", line)
        if found is None:
            raise RuntimeError(f"the server did not start: {line}")
        yield Served(process.pid, int(found[1]), list_files(index)), up_s
    finally:
        process.terminate()
        process.communicate()


def list_files(index: str) -> list[tuple[str, float]]:
    import pipeline

    rows = pipeline.open(index).to_arrow("files", ["uri", "duration_s"], "status = 'indexed'").to_pylist()
    return [(row["uri"], row["duration_s"]) for row in rows]


def wait_for_models(client: Client) -> None:
    """Wait until the text models are loaded, as the page would."""
    for kind in ("query", "locate"):
        client.ask(kind)


# --- figures ----------------------------------------------------------------------------------------------------------


def measure(folder: Path, index: str | None, clients: int, seconds: float, requests: int) -> Iterator[Figure]:
    """All figures."""
    if index is None:
        subprocess.run([*EARSHOT, "demo", str(folder / "demo")], check=True, stdout=subprocess.DEVNULL)
        index = str(folder / "demo" / "index")
    with serving(index, folder) as (served, up_s):
        client = Client(served, seed=0)
        status, page_ms = client.get("/")
        yield Figure(
            "page", "first one after the server is up", page_ms, "ms", 500, f"status {status}; up in {up_s:.1f} s"
        )
        wait_for_models(client)
        for kind, name, limit in (
            ("query", "question", 150),
            ("locate", "question", 150),
            ("spectrogram", "tile", 50),
            ("audio", "sound", 200),
            ("curve", "curve", None),
        ):
            times = [client.ask(kind)[1] for _ in range(100)]
            yield Figure(
                name, f"{kind}, median of 100", statistics.median(times), "ms", limit, f"p95 {p95(times):.0f} ms"
            )
        yield from measure_clients(served, clients, seconds)
        yield from measure_memory(served, requests)
        yield measure_shell(index, folder)


def measure_clients(served: Served, n_clients: int, seconds: float) -> Iterator[Figure]:
    """Many clients at once."""
    until = time.monotonic() + seconds
    times: dict[str, list[float]] = {kind: [] for kind in MIX}
    errors: Counter[str] = Counter()

    def work(seed: int) -> None:
        client = Client(served, seed)
        while time.monotonic() < until:
            kind = client.choose()
            try:
                status, took_ms = client.ask(kind)
            except (OSError, http.client.HTTPException) as error:
                errors[f"{kind}: {type(error).__name__}"] += 1
                client = Client(served, seed)
                continue
            times[kind].append(took_ms)
            if status not in (200, 206):
                errors[f"{kind}: {status}"] += 1

    run_all([lambda seed=seed: work(seed) for seed in range(1, n_clients + 1)])  # type: ignore[misc]
    done = [each for of_kind in times.values() for each in of_kind]
    detail = ", ".join(f"{kind} {p95(of_kind):.0f}" for kind, of_kind in times.items() if of_kind)
    what = f"{n_clients} for {seconds:g} s, {len(done):,} requests"
    yield Figure("clients", f"{what}: errors", sum(errors.values()), "", 1, jsonlib.dumps(errors) if errors else "")
    yield Figure("clients", f"{what}: p95", p95(done), "ms", None, f"p95 by kind, ms: {detail}")


def measure_memory(served: Served, n_requests: int) -> Iterator[Figure]:
    """The growth of the server's memory."""
    client, first_mb = Client(served, seed=1_000), 0.0
    for number in range(n_requests):
        if number == n_requests // 5:
            first_mb = served.memory_mb()
        client.ask(client.choose())
    last_mb = served.memory_mb()
    detail = f"{first_mb:.0f} MB after {n_requests // 5:,}, {last_mb:.0f} MB after {n_requests:,} requests"
    yield Figure("memory", "growth", last_mb - first_mb, "MB", 50, detail)


def measure_shell(index: str, folder: Path) -> Figure:
    """``earshot query`` through the server."""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder)}
    command = [*EARSHOT, "query", index, "a bell", "--verbose"]
    times = []
    for _ in range(11):
        began = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        times.append(time.perf_counter() - began)
        if "answered by the server" not in done.stderr:
            raise RuntimeError(f"the server was not asked: {done.stderr}")
    return Figure("shell", "earshot query, median of 10", statistics.median(times[1:]), "s", 0.5)


def run_all(works: list[Callable[[], Any]]) -> None:
    """Run functions at the same time."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1] if len(times) > 1 else (times or [0.0])[0]


def serve(
    index: Annotated[str | None, typer.Option(help="Index to serve; by default the demo's is made.")] = None,
    clients: Annotated[int, typer.Option(min=1, help="Clients that ask at the same time.")] = 50,
    seconds: Annotated[float, typer.Option(min=1, help="How long they ask.")] = 60.0,
    requests: Annotated[int, typer.Option(min=10, help="Requests over which memory is watched.")] = 5_000,
    json: Json = False,
) -> None:
    """Measure `earshot serve`: three minutes."""

    def measure_here(folder: Path) -> Iterator[Figure]:
        return measure(folder, index, clients, seconds, requests)

    measure_and_report("the server", [measure_here], json=json)
