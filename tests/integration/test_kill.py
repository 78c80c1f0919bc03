"""Killed anywhere: after random edits and a SIGKILL at a random moment, a rerun leaves what an undisturbed run would.

Real Ray, real Lance and the bundled model. One index goes through all rounds. Each round edits the corpus at random and
starts a run in a process of its own; that process, or one of its Ray workers, is killed. What a run must make of each
content is worked out once, without Ray, plan or store. The report names the step that each kill hit.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from pipeline import schema
from pipeline.audio.decode import open_audio
from pipeline.audio.source import hash_file
from pipeline.audio.windows import cut_windows
from pipeline.config import Config, load_config
from pipeline.errors import FileFailure
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ
from pipeline.index import journal, writer
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import KnownCorpus
from tests.helpers.sounds import cut, encode, noise, tone

SEED = 14

VICTIMS = {
    "driver": 8,
    "worker that decodes": 3,
    "worker that writes": 3,
    "encoder that loads": 2,
    "encoder that encodes": 2,
}
"""How many rounds kill each victim."""

KILLED_AGAIN = 0.3
"""In so many rounds of the driver, the rerun is killed, too."""

FAILED = "FAILED, rerun"

TITLES = {
    "worker that decodes": "(_decode)",
    "worker that writes": "(_write)",
    "encoder that loads": "(_Encode)).__init__",
    "encoder that encodes": "(_Encode)).submit",
}
"""The part that Ray puts into the title of a process that runs our function."""

AGENTS = ("DashboardAgent", "RuntimeEnvAgent", "agent.py", "agent/main.py")

STEPS_BEFORE = {
    "driver": 45,
    "worker that decodes": 4,
    "worker that writes": 12,
    "encoder that loads": 4,
    "encoder that encodes": 15,
}
"""A run is struck after at most so many steps. Most runs have about 45, and decode before they commit."""

LONG_WAITS = 0.3
"""The share of runs that are struck seconds later: most of that time passes before the first batch is encoded."""

MAX_ROUNDS = 36
"""Some runs end before they are struck."""

N_SOUNDS = 24
NAMES = [f"{'sub/' * (n % 2)}{n:02d}.{('wav', 'flac')[n // 2 % 2]}" for n in range(20)]
EDITS = ("add", "change", "move", "touch", "delete", "damage", "mend")

Vectors = npt.NDArray[np.float32]
Keys = list[tuple[Any, ...]]


# --- contents and their expected rows ---------------------------------------------------------------------------------


def make_contents() -> list[bytes]:
    """Sounds of 0.3 to 3 s in wav and flac, then broken files, one of which can be decoded in part."""
    contents = []
    for number in range(N_SOUNDS):
        rng = np.random.default_rng(number)
        duration_s, rate_hz = rng.uniform(0.3, 3.0), (48_000, 44_100)[number // 2 % 2]
        sound = noise(duration_s, rate_hz, seed=number)
        if number % 3 == 0:
            sound = tone(duration_s, rate_hz, frequency_hz=rng.uniform(200, 4_000)) + np.float32(0.1) * sound
        contents.append(encode(("wav_s16", "flac")[number % 2], sound, rate_hz))
    return [*contents, b"", b"This is not a sound.", contents[0][:30], cut(contents[1])]


@dataclass(frozen=True)
class Outcome:
    """The rows that an undisturbed run writes for a content: ``clips`` (n_clips, D), ``frames`` (n_frames, D)."""

    path: Path
    audio_id: str
    stage: str | None
    reason: str | None
    duration_s: float
    spans: list[tuple[int, int]]
    """(first, stop) frames of each clip."""
    clips: Vectors
    frames: Vectors


def work_out(path: Path, config: Config, encoder: Any) -> Outcome:
    audio_id = schema.make_audio_id(hash_file(path))
    try:
        with open_audio(path, config.decode) as audio:
            waveform = np.concatenate(list(audio.blocks()))
            truncated = audio.truncated
    except FileFailure as failure:
        none = np.empty((0, 0), np.float32)
        return Outcome(path, audio_id, failure.stage, failure.reason, 0.0, [], none, none)
    spans, windows = zip(*cut_windows([waveform], config.window.grid), strict=True)
    clips, frames = encoder.encode(windows)
    own = [
        rows[span.own_first - span.first : span.own_stop - span.first] for span, rows in zip(spans, frames, strict=True)
    ]
    return Outcome(
        path,
        audio_id,
        "decode" if truncated else None,
        "truncated" if truncated else None,
        len(waveform) / SAMPLE_RATE_HZ,
        [(span.first, span.first + span.length) for span in spans],
        clips,
        np.concatenate(own),
    )


class Corpus(KnownCorpus):
    """Files whose contents have these outcomes."""

    def __init__(self, root: Path, outcomes: list[Outcome], rng: np.random.Generator) -> None:
        super().__init__(root)
        self.outcomes, self._rng = outcomes, rng
        self.n_edits: Counter[str] = Counter()

    def source(self, number: int) -> Path:
        return self.outcomes[number].path

    def edit(self) -> None:
        """Make one random edit that is possible now."""
        sound = [name for name, number in self.held.items() if number < N_SOUNDS]
        damaged = [name for name in self.held if name not in sound]
        possible = {
            "add": NAMES if len(self.held) < 15 else [],
            "change": sound,
            "move": [*self.held],
            "touch": [*self.held],
            "delete": [*self.held] if len(self.held) > 6 else [],
            "damage": sound if len(damaged) < 4 else [],
            "mend": damaged,
        }
        edit = str(self._rng.choice([edit for edit in EDITS if possible[edit]]))
        self.n_edits[edit] += 1
        free = [name for name in NAMES if name not in self.held]
        name = str(self._rng.choice(sorted(free if edit == "add" else possible[edit])))
        if edit == "touch":
            self.touch(name)
        elif edit == "delete":
            self.delete(name)
        elif edit == "move":
            self.move(name, str(self._rng.choice(free)))
        else:
            self.put(name, self._draw_broken() if edit == "damage" else self._draw_sound(self.held.get(name)))

    def _draw_broken(self) -> int:
        return int(self._rng.integers(N_SOUNDS, len(self.outcomes)))

    def _draw_sound(self, but: int | None) -> int:
        """Mostly a content that no file holds, which must be encoded; sometimes one that a file holds already."""
        others = [number for number in range(N_SOUNDS) if number != but]
        unheld = [number for number in others if number not in self.held.values()]
        return int(self._rng.choice(unheld if self._rng.random() < 0.8 else others))

    def expected_live(self) -> dict[str, tuple[Keys, list[Vectors]]]:
        """The live rows of each table, as ``read_live`` gives them."""
        files, clips, frames = [], [], {}
        for name, number in self.held.items():
            known, uri = self.outcomes[number], str(self.folder / name)
            file_id = schema.make_file_id(uri, known.audio_id)
            status = "indexed" if len(known.frames) else "failed"
            counts = (known.duration_s, len(known.clips), len(known.frames))
            files.append((file_id, known.audio_id, uri, status, known.stage, known.reason, *counts))
            for (first, stop), vector in zip(known.spans, known.clips, strict=True):
                start_s, end_s = first * HOP_SAMPLES / SAMPLE_RATE_HZ, stop * HOP_SAMPLES / SAMPLE_RATE_HZ
                clip_id = schema.make_clip_id(file_id, first)
                clips.append(((clip_id, file_id, known.audio_id, uri, start_s, min(end_s, known.duration_s)), vector))
            for frame, vector in enumerate(known.frames):
                frames[known.audio_id, frame, frame * HOP_SAMPLES / SAMPLE_RATE_HZ] = vector
        return {"files": (sorted(files), []), "clips": _in_order(clips), "frames": _in_order([*frames.items()])}


def _in_order(rows: list[tuple[tuple[Any, ...], Vectors]]) -> tuple[Keys, list[Vectors]]:
    rows = sorted(rows, key=lambda row: row[0])
    return [key for key, _ in rows], [vector for _, vector in rows]


def read_live(index: str) -> dict[str, tuple[Keys, list[Vectors]]]:
    """Ids, times and counts of the published rows of each table, in order, and their vectors."""
    published = journal.read_published(index)

    def read(name: str, columns: list[str]) -> Iterator[dict[str, Any]]:
        rows = open_published(index, name, published).to_table(columns=columns).to_pylist()
        return ({column: row[column] for column in columns} for row in rows)

    def with_vectors(name: str, columns: list[str]) -> tuple[Keys, list[Vectors]]:
        rows = [(row.pop("vector"), tuple(row.values())) for row in read(name, [*columns, "vector"])]
        return _in_order([(key, np.array(vector, np.float32)) for vector, key in rows])

    columns = ["file_id", "audio_id", "uri", "status", "stage", "reason", "duration_s", "n_clips", "n_frames"]
    files = sorted(tuple(row.values()) for row in read("files", columns) if row["status"] != "deleted")
    return {
        "files": (files, []),
        "clips": with_vectors("clips", ["clip_id", "file_id", "audio_id", "uri", "start_s", "end_s"]),
        "frames": with_vectors("frames", ["audio_id", "frame", "start_s"]),
    }


def check_live(corpus: Corpus, index: str) -> None:
    expected, found = corpus.expected_live(), read_live(index)
    for name, (keys, vectors) in expected.items():
        assert found[name][0] == keys, name
        for key, one, other in zip(keys, vectors, found[name][1], strict=bool(vectors)):
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            assert cosine >= 0.9999, (name, key)


def check_readable(index: str) -> None:
    """Whatever was stopped, published batches are whole; only indexes may be behind."""
    if journal.exists(index):
        behind = ("no index on", "the index on")
        assert [finding for finding in verify_index(index) if not finding.what.startswith(behind)] == []


# --- a run and its end -----------------------------------------------------------------------------------------------


def run_and_trace(config: str, trace: str) -> None:
    """Index, and write down each step of the commit protocol and each stage when it begins."""
    last = ""
    with open(trace, "a", buffering=1) as file:

        def note(step: str) -> None:
            nonlocal last
            if step != last:
                last = step
                file.write(f"{step}\n")

        index_corpus(load_config(config), report=lambda progress: note(progress.stage), failpoint=note)


class Run:
    """A run in a process of its own, with a Ray of its own: all that it starts belongs to its session.

    A context manager: nothing of it is left afterwards.
    """

    def __init__(self, config: Path, folder: Path, ray_folder: str) -> None:
        self._trace, self._log = folder / "trace", folder / "log"
        self._trace.write_text("")
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(config), str(self._trace)],
                stdout=log,
                stderr=log,
                env={**environment, "RAY_TMPDIR": ray_folder},
                cwd=Path(__file__).parents[2],
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while left := self.processes():
            for pid in left:
                _kill(pid)
            time.sleep(0.05)
        self._process.wait(60)

    @property
    def steps(self) -> list[str]:
        return self._trace.read_text().splitlines()

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def wait_for(self, n_steps: int, delay_s: float) -> None:
        """Wait until the run has begun so many steps, and ``delay_s`` longer."""
        deadline = time.monotonic() + 300
        while not self.is_over() and len(self.steps) < n_steps:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.002)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(delay_s)

    def kill_driver(self) -> str | None:
        """Returns the step that was hit; None if the run ended before."""
        if self.is_over():
            return None
        os.kill(self._process.pid, signal.SIGKILL)
        died = self._process.wait(60) == -signal.SIGKILL
        return (self.steps or ["importing"])[-1] if died else None

    def kill_worker(self, title: str, delay_s: float) -> str | None:
        """The same, of the first worker with this in its title, ``delay_s`` after it is seen."""
        while not self.is_over():
            for pid in (pid for pid, text in self.processes().items() if text.startswith("ray::") and title in text):
                time.sleep(delay_s)
                if text := self.processes().get(pid):
                    os.kill(pid, signal.SIGKILL)
                    return f"{text}, driver: {self.steps[-1]}"
            time.sleep(0.01)
        return None

    def finish(self) -> int:
        """Wait for its end, and for that of all its processes; returns the exit code.

        They end by themselves: workers that are just starting wait a minute for a server that has ended.
        Ray's agents, which write nothing, wait so, too, and are helped.
        """
        code = self._process.wait(300)
        deadline = time.monotonic() + 180
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid, title in left.items():
                if any(agent in title for agent in AGENTS):
                    _kill(pid)
            time.sleep(0.05)
        assert not left, f"outlived their driver by three minutes: {left}"
        return code

    def processes(self) -> dict[int, str]:
        """Process id -> title of its living processes."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                state, _, _, session = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
                if int(session) == self._process.pid and state not in "ZX":
                    title = (folder / "cmdline").read_text(errors="replace")
                    found[int(folder.name)] = title.replace("\0", " ").strip()
        return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def strike(run: Run, victim: str, n_steps: int, rng: np.random.Generator) -> str | None:
    """Kill at a random moment: milliseconds after one of the first ``n_steps`` steps, or seconds after an early one.

    Returns:
        What was hit, None where the run was over before.
    """
    if rng.random() < LONG_WAITS:
        run.wait_for(int(rng.integers(0, min(n_steps, 15))), rng.uniform(0, 8))
    else:
        run.wait_for(int(rng.integers(0, n_steps)), 10 ** rng.uniform(-3, -1))
    if victim == "driver":
        return run.kill_driver()
    return run.kill_worker(TITLES[victim], rng.uniform(0, 0.05))


# --- the rounds -------------------------------------------------------------------------------------------------------


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    values = {
        "sources": [str(tmp_path / "in")],
        "into": str(tmp_path / "index"),
        "window": {"length_s": 1.2, "overlap_s": 0.2},
        "run": {"batch_s": 2.0},
        # Many commits, maintenance after each, and no old versions: whatever still needs one would fail.
        "store": {"checkpoint_s": 0.01, "optimize_every": 4, "keep_hours": 1e-6},
        "encode": {"actors": 1},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture
def corpus(tmp_path: Path, config_file: Path) -> Corpus:
    from pipeline.encoder.encoder import load_encoder

    config = load_config(config_file)
    encoder, outcomes = load_encoder(config.encode), []
    for number, data in enumerate(make_contents()):
        path = tmp_path / f"content-{number}"
        path.write_bytes(data)
        outcomes.append(work_out(path, config, encoder))
    return Corpus(tmp_path, outcomes, np.random.default_rng(SEED))


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """A folder for the sockets and logs of Ray: paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder


@dataclass(frozen=True)
class Kill:
    """A kill that happened; ``then`` says how the run ended."""

    round: int
    victim: str
    then: str
    hit: str

    def __str__(self) -> str:
        return f"{self.round:5}  {self.victim:20}  {self.then:15}  {self.hit}"


HEAD = "\nround  victim                then             hit"


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.usefixtures("ray_session")
def test_rerun_completes_a_run_that_was_killed_anywhere(
    corpus: Corpus,
    config_file: Path,
    ray_folder: str,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng([SEED, 1])
    config = load_config(config_file)
    victims = [str(victim) for victim in rng.permutation(np.repeat([*VICTIMS], [*VICTIMS.values()]))]
    kills: list[Kill] = []
    rounds, began = 0, time.monotonic()

    def tell(line: object) -> None:
        with capsys.disabled():
            print(line, flush=True)

    def run_and_strike(victim: str, n_steps: int) -> tuple[bool, bool]:
        """Returns whether the victim was killed, and whether the run came to its end."""
        with Run(config_file, config_file.parent, ray_folder) as run:
            hit = strike(run, victim, n_steps, rng)
            ended = run.finish() == 0
            assert ended or hit, run.said
        if hit:
            then = "ended well" if ended else "rerun" if victim == "driver" else FAILED
            kills.append(Kill(rounds, victim, then, hit))
            tell(kills[-1])
        check_readable(config.into)
        return hit is not None, ended

    tell(HEAD)
    while victims and rounds < MAX_ROUNDS:
        rounds += 1
        for _ in range(int(rng.integers(6, 13)) if rounds > 1 else 20):
            corpus.edit()
        victim = victims.pop()
        killed, ended = run_and_strike(victim, STEPS_BEFORE[victim])
        if not killed:
            victims.insert(0, victim)
        elif victim == "driver" and rng.random() < KILLED_AGAIN:
            _, ended = run_and_strike(victim, 20)
        if not ended:
            index_corpus(config)
        check_live(corpus, config.into)
        assert verify_index(config.into) == []
    tell(f"{len(kills)} kills in {time.monotonic() - began:.0f} s, seed {SEED}; edits: {dict(corpus.n_edits)}")
    record_property("kills", "\n".join([HEAD, *map(str, kills)]))
    assert not victims
    assert len(kills) >= sum(VICTIMS.values())
    assert not [kill for kill in kills if kill.then == FAILED]
    assert len({kill.hit for kill in kills if kill.victim == "driver"}) >= 4
    assert corpus.n_edits.keys() == {*EDITS}


if __name__ == "__main__":
    writer.KEEP_VERSIONS = 3
    run_and_trace(*sys.argv[1:])
