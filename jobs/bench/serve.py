"""Measure ``earshot serve``: how soon it answers, 50 clients at once, and its memory over thousands of requests.

    python -m jobs.bench serve                   # makes the demo's index: takes three minutes
    python -m jobs.bench serve --hours 11.2      # indexes so much made audio first: a million frames
    python -m jobs.bench serve --index INDEX     # asks another one, whose files have to be there

A server runs in a process of its own, and is asked over the network of this machine, as a browser would. ``page``: the
first page after the server is up. ``browser``: what a person sees and hears of it, where there is a Chromium.
``question``: clips and events for a text that was not asked before. ``tile``: a spectrogram that is in no cache.
``sound``: the first 64 kB from somewhere in a file. ``clients``: so many ask for a minute, each the next thing as soon
as it has the last, in the proportions of ``MIX``; an answer other than 200, 201 or 206 is an error. Of an index that it
made, they also mark. ``memory``: the growth of the server's resident memory over the last four fifths of so many
requests.
``shell``: a process of ``earshot query`` from its start to its end.

The exit code is 1 where a limit is missed.
"""

import http.client
import itertools
import json as jsonlib
import math
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
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import numpy as np
import typer

from jobs.bench.browser import measure_browser
from jobs.bench.figures import Figure, measure_and_report, read_memory
from jobs.bench.sounds import write_sounds
from jobs.shared.options import Json
from jobs.tiny.synth import draw_scene

EARSHOT = [sys.executable, "-m", "jobs.main"]
SOUNDS = ("a bell", "birds", "an engine", "rain", "a siren", "drums", "clicking", "a tone", "wind", "steps")
PLACES = ("far away", "in a hall", "in the street", "under water", "at night", "close by", "behind a wall", "outside")
MIX = {
    "query": 3,
    "locate": 3,
    "spectrogram": 6,
    "audio": 4,
    "curve": 3,
    "similar": 1,
    "file": 1,
    "marks": 1,
    "export": 1,
    "info": 1,
}
MARKING = {"mark": 1}
ANSWERED = (200, 201, 206)
FILE_S, SCENE_S, N_SCENES = 300.0, 10.0, 60
"""Files of made audio, and the scenes that they consist of, in random order."""

FIRST_BYTES = 65_536
SPAN_S = 4.0
TIMEOUT_S = 60


@dataclass(frozen=True)
class Load:
    """How many clients ask at the same time, for how long, and the requests over which memory is watched."""

    clients: int
    seconds: float
    requests: int


@dataclass(frozen=True)
class Served:
    """A server that runs, and the files of its index: uri and seconds of each."""

    pid: int
    port: int
    files: list[tuple[str, float]]
    mix: dict[str, int]
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

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None, body: Any = None) -> tuple[int, float]:
        """The status, and the milliseconds until the whole answer was there; a ``body`` is sent as JSON."""
        method, data, headers = "GET", None, headers or {}
        if body is not None:
            method, data, headers = "POST", jsonlib.dumps(body), {"Content-Type": "application/json"}
        began = time.perf_counter()
        self._connection.request(method, path, data, headers)
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
        if kind in ("file", "marks"):
            return self.get(f"/api/{kind}?" + urlencode({"uri": uri}))
        if kind == "mark":
            return self.get("/api/marks", body={"marks": [{**span, "text": self.text(), "verdict": "right"}]})
        if kind == "similar":
            return self.get("/api/similar", body=span)
        if kind == "export":
            return self.get("/api/export?" + urlencode({"format": "csv", "locate": self.text(), "k": 20}))
        if kind in ("query", "locate"):
            return self.get(f"/api/{kind}?" + urlencode({"text": self.text()}))
        if kind == "spectrogram":
            return self.get("/api/spectrogram?" + urlencode({**span, "width": 800, "height": 256}))
        if kind == "curve":
            return self.get("/api/curve?" + urlencode({**span, "text": self._random.choice(SOUNDS)}))
        whole = "/api/audio?" + urlencode({"uri": uri, "start_s": start_s})
        return self.get(whole, {"Range": f"bytes=0-{FIRST_BYTES - 1}"})

    def text(self) -> str:
        return self._served.text()

    def choose(self) -> str:
        mix = self._served.mix
        return self._random.choices(list(mix), list(mix.values()))[0]

    def time(self, kind: str) -> float:
        """The milliseconds of ``ask``.

        Raises:
            RuntimeError: it was refused.
        """
        status, took_ms = self.ask(kind)
        if status not in ANSWERED:
            raise RuntimeError(f"{kind}: the server answered with status {status}")
        return took_ms


# --- the server -------------------------------------------------------------------------------------------------------


@contextmanager
def serving(index: str, folder: Path, mix: dict[str, int]) -> Iterator[tuple[Served, float]]:
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
        yield Served(process.pid, int(found[1]), list_files(index), mix), up_s
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
        client.time(kind)


# --- figures ----------------------------------------------------------------------------------------------------------


def make_index(folder: Path, hours: float | None) -> str:
    """The demo's index, or one of so much audio: scenes in random order, by the bundled model."""
    if hours is None:
        subprocess.run([*EARSHOT, "demo", str(folder / "demo")], check=True, stdout=subprocess.DEVNULL)
        return str(folder / "demo" / "index")
    rng = np.random.default_rng(3)
    scenes = [draw_scene(rng, SCENE_S)[0] for _ in range(N_SCENES)]
    orders = (rng.integers(0, N_SCENES, int(FILE_S / SCENE_S)) for _ in range(math.ceil(3600 * hours / FILE_S)))
    write_sounds(folder / "sounds", (np.concatenate([scenes[n] for n in order]) for order in orders))
    command = [*EARSHOT, "index", str(folder / "sounds"), "--into", str(folder / "index")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(folder / "index")


def measure(folder: Path, index: str | None, hours: float | None, load: Load) -> Iterator[Figure]:
    """All figures, of ``index``, or of one that is made."""
    mix = MIX if index else MIX | MARKING
    index = index or make_index(folder, hours)
    with serving(index, folder, mix) as (served, up_s):
        with closing(Client(served, seed=0)) as client:
            status, page_ms = client.get("/")
            yield Figure(
                "page", "first one after the server is up", page_ms, "ms", 500, f"status {status}; up in {up_s:.1f} s"
            )
            wait_for_models(client)
            client.close()  # or the server does, which waits five seconds for the next request
            yield from measure_browser(f"http://127.0.0.1:{served.port}/", served.texts)
            for kind, name, limit in (
                ("query", "question", 150),
                ("locate", "question", 150),
                ("spectrogram", "tile", 50),
                ("audio", "sound", 200),
                ("curve", "curve", None),
                ("similar", "question", None),
            ):
                times = [client.time(kind) for _ in range(100)]
                yield Figure(
                    name, f"{kind}, median of 100", statistics.median(times), "ms", limit, f"p95 {p95(times):.0f} ms"
                )
        yield from measure_clients(served, load)
        yield from measure_memory(served, load.requests)
        yield measure_shell(index, folder)


def measure_clients(served: Served, load: Load) -> Iterator[Figure]:
    """Many clients at once."""
    until = time.monotonic() + load.seconds
    times: dict[str, list[float]] = {kind: [] for kind in served.mix}
    errors: Counter[str] = Counter()

    def work(seed: int) -> None:
        with closing(Client(served, seed)) as client:
            while time.monotonic() < until:
                kind = client.choose()
                try:
                    status, took_ms = client.ask(kind)
                except (OSError, http.client.HTTPException) as error:
                    errors[f"{kind}: {type(error).__name__}"] += 1
                    client.close()
                    continue
                times[kind].append(took_ms)
                if status not in ANSWERED:
                    errors[f"{kind}: {status}"] += 1

    run_all([lambda seed=seed: work(seed) for seed in range(1, load.clients + 1)])  # type: ignore[misc]
    done = [each for of_kind in times.values() for each in of_kind]
    detail = ", ".join(f"{kind} {p95(of_kind):.0f}" for kind, of_kind in times.items() if of_kind)
    what = f"{load.clients} for {load.seconds:g} s, {len(done):,} requests"
    yield Figure("clients", f"{what}: errors", sum(errors.values()), "", 1, jsonlib.dumps(errors) if errors else "")
    yield Figure("clients", f"{what}: p95", p95(done), "ms", None, f"p95 by kind, ms: {detail}")


def measure_memory(served: Served, n_requests: int) -> Iterator[Figure]:
    """The growth of the server's memory."""
    first_mb = 0.0
    with closing(Client(served, seed=1_000)) as client:
        for number in range(n_requests):
            if number == n_requests // 5:
                first_mb = served.memory_mb()
            client.time(client.choose())
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
    hours: Annotated[
        float | None, typer.Option(min=0.1, help="Index so many hours of made audio first, not the demo's.")
    ] = None,
    index: Annotated[str | None, typer.Option(help="Index to serve; by default the demo's is made.")] = None,
    clients: Annotated[int, typer.Option(min=1, help="Clients that ask at the same time.")] = 50,
    seconds: Annotated[float, typer.Option(min=1, help="How long they ask.")] = 60.0,
    requests: Annotated[int, typer.Option(min=10, help="Requests over which memory is watched.")] = 5_000,
    json: Json = False,
) -> None:
    """Measure `earshot serve`: three minutes."""

    if index and hours:
        raise typer.BadParameter("--hours makes an index; leave out --index")

    def measure_here(folder: Path) -> Iterator[Figure]:
        return measure(folder, index, hours, Load(clients, seconds, requests))

    measure_and_report("the server", [measure_here], json=json)
