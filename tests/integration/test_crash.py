"""The next run completes one that was killed, as if undisturbed. Interrupted runs stop in order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from jobs.shared.interrupt import SAME_S
from pipeline.config import load_config
from pipeline.errors import EarshotError
from pipeline.index import journal
from pipeline.index.tables import open_published
from pipeline.processes import find_descendants
from pipeline.run.driver import index_corpus
from pipeline.run.progress import Progress
from tests.helpers.indexes import check_same, count_batches, write_corpus
from tests.helpers.progress import record_of

N_FILES = 30


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "in", N_FILES)


def write_config(folder: Path, index: Path) -> Path:
    values = {
        "sources": [str(folder)],
        "into": str(index),
        "store": {"checkpoint_s": 0.01},
        "run": {"batch_s": 4.0},
        "encode": {"actors": 1},  # each encoder takes seconds of both cores to start
    }
    file = index.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(values))
    return file


def find_processes(session: int) -> dict[int, str]:
    """Process id -> command line of the living processes of a session."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, number = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
            if int(number) == session and state not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
    return found


def run_until(
    index: Path, config: Path, n_batches: int, stop: Callable[[int], None], first: str = "pass"
) -> tuple[int, str]:
    """``earshot index``, on which ``stop`` is called once it has published some batches, with the id of its process,
    which is that of its session, too: its exit code and what it said. Nothing of it is left, unless it was killed.

    Args:
        first: statements that the process executes before.
    """
    said = config.with_suffix(".log")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # A process started in the background, as tests may be, ignores SIGINT, and so would its children.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from jobs.start import main\n"
        f"{first}\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "index", str(config)]
    with (
        said.open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True) as process,
    ):
        deadline = time.monotonic() + 400
        while count_batches(index) < n_batches:
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.02)
        stop(process.pid)
        process.wait(200)
        deadline = time.monotonic() + 200
        while process.returncode != -signal.SIGKILL and (left := find_processes(process.pid)):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
    return process.returncode, said.read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_killed_run_is_completed_by_the_next(tmp_path: Path) -> None:
    corpus, n_files = write_corpus(tmp_path / "in", 3 * N_FILES), 3 * N_FILES + 1
    whole = load_config(write_config(corpus, tmp_path / "whole"))
    index_corpus(whole)
    index = tmp_path / "killed"
    file = write_config(corpus, index)
    run_until(index, file, 3, lambda pid: os.kill(pid, signal.SIGKILL))
    published = count_batches(index)
    n_before = len(open_published(index, "files").to_table())
    progress = index_corpus(load_config(file))
    assert progress.n_unchanged == n_before  # published files were not encoded again
    assert published >= 3
    assert n_before < n_files  # it was killed in the middle
    assert progress.n_unchanged + progress.n_indexed + progress.n_failed == n_files
    check_same(index, tmp_path / "whole")


def press(pid: int) -> None:
    """Ctrl-C: the terminal sends it to all processes of the run."""
    os.killpg(pid, signal.SIGINT)


def press_twice(pid: int) -> None:
    press(pid)
    time.sleep(2 * SAME_S)
    with suppress(ProcessLookupError):  # it has ended
        press(pid)


def terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


ONCE, AT_ONCE = "stopped; what was published stays, run again to go on", "stopped at once; run again to go on"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "told"),
    [(press, [ONCE]), (press_twice, [ONCE, AT_ONCE]), (terminate, [ONCE])],
    ids=["ctrl-c", "twice", "term"],
)
def test_stopped_run_prints_one_line_and_keeps_what_was_published(
    tmp_path: Path, stop: Callable[[int], None], told: list[str]
) -> None:
    index = tmp_path / "index"
    corpus = write_corpus(tmp_path / "in", 10 * N_FILES)  # enough to stop it in the middle
    code, said = run_until(index, write_config(corpus, index), 1, stop)
    assert code == 130, said
    assert said.splitlines()[-1] in [f"earshot: {line}" for line in told]
    assert "Traceback" not in said
    assert 0 < open_published(index, "files").count_rows() < 10 * N_FILES
    assert stop is press_twice or not list(index.glob("claim*"))
    batch_ids = journal.read_journal(index)["batch_id"].to_pylist()
    assert len(set(batch_ids)) == len(batch_ids)


def kill_part(part: str) -> Callable[[int], None]:
    def kill(session: int) -> None:
        [pid] = [pid for pid, line in find_processes(session).items() if line.split(" ")[0].endswith(f"/{part}")]
        os.kill(pid, signal.SIGKILL)

    return kill


def check_death_is_reported(index: Path, code: int, said: str, called: str) -> None:
    assert code == 1, said
    assert f"Ray's {called} has died (process" in said.splitlines()[-1]
    assert said.splitlines()[-1].endswith("killed by signal 9); what was published stays, run again to go on")
    assert "Traceback" not in said
    record = record_of(index)
    assert (record.state, f"Ray's {called} has died" in (record.error or "")) == ("failed", True)


PARTS = pytest.mark.parametrize(("part", "called"), [("gcs_server", "control store"), ("raylet", "raylet")])


@pytest.mark.slow
@PARTS
def test_run_whose_ray_is_killed_reports_it(tmp_path: Path, part: str, called: str) -> None:
    index = tmp_path / "index"
    corpus = write_corpus(tmp_path / "in", 10 * N_FILES)
    check_death_is_reported(index, *run_until(index, write_config(corpus, index), 1, kill_part(part)), called)
    record = record_of(index)
    assert 0 < record.n_done == open_published(index, "files").count_rows() < 10 * N_FILES
    assert not list(index.glob("claim*"))


@pytest.mark.slow
@PARTS
def test_run_whose_ray_is_killed_in_one_long_call_reports_it(
    corpus: Path, tmp_path: Path, part: str, called: str
) -> None:
    """Everything is encoded, and Lance is making indexes."""
    index, called_now = tmp_path / "index", tmp_path / "called"
    long_call = (
        "import pathlib, time, lance\n"
        "def call_long(*_, **__):\n"
        f"    pathlib.Path({str(called_now)!r}).touch()\n"
        "    time.sleep(300)\n"
        "lance.LanceDataset.create_scalar_index = call_long"
    )

    def kill(session: int) -> None:
        deadline = time.monotonic() + 400
        while not called_now.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        kill_part(part)(session)

    check_death_is_reported(index, *run_until(index, write_config(corpus, index), 1, kill, long_call), called)
    assert open_published(index, "files").count_rows() == N_FILES + 1


def find_workers() -> list[str]:
    """The titles of processes of a Ray started here that work on a stage, or hold an encoder."""
    titles = []
    for pid in find_descendants(os.getpid()):
        with suppress(OSError):
            titles.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").strip("\0 "))
    return [title for title in titles if title.startswith("ray::") and "Map" in title]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_workers_stop_with_a_run_that_fails(corpus: Path, tmp_path: Path) -> None:
    config, at_work = load_config(write_config(corpus, tmp_path / "index")), list[str]()

    def fail(progress: Progress) -> None:
        if progress.n_indexed:
            at_work.extend(find_workers())
            raise EarshotError("the terminal is gone")

    with pytest.raises(EarshotError, match="the terminal is gone"):
        index_corpus(config, fail)
    assert at_work
    deadline = time.monotonic() + 400
    while left := find_workers():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert open_published(config.into, "files").count_rows() < N_FILES + 1
    assert index_corpus(config).n_done == N_FILES + 1
