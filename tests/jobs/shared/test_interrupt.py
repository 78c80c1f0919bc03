"""Ctrl-C, once and twice, at every step of a commit and while commands start: real signals to processes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
import yaml

from pipeline.index import journal
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import KnownCorpus, check_whole, live
from tests.helpers.processes import run_python
from tests.helpers.progress import record_of
from tests.helpers.runs import WideEncoder, in_place

RUN = """
import os, signal, sys, time

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner in the background ignores it
from jobs.shared.interrupt import SAME_S, Stopped, stopping
from pipeline.run.driver import index_corpus
from pipeline.config import load_config
from tests.helpers.runs import WideEncoder, in_place

config, step, presses, number = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

def failpoint(name):
    global presses
    if name == step:
        presses, due = 0, presses
        for _ in range(due):
            os.kill(os.getpid(), number)
            time.sleep(1.5 * SAME_S)

with stopping():
    try:
        index_corpus(load_config(config), stages=in_place(WideEncoder()), failpoint=failpoint)
    except KeyboardInterrupt:
        raise Stopped("stopped in order")
"""
"""Indexes, and sends itself a number of signals at one step of the protocol."""


@pytest.fixture
def corpus(tmp_path: Path) -> KnownCorpus:
    """An index that has three of five files; the others come in several commits."""
    corpus = KnownCorpus(tmp_path, store={"checkpoint_rows": 1})
    for number in range(3):
        corpus.put(f"{number}.wav", number)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    for number in range(3, 6):
        corpus.put(f"{number}.wav", number)
    return corpus


def interrupt(corpus: KnownCorpus, step: str, presses: int, number: int = signal.SIGINT) -> tuple[int, str]:
    """Returns the exit code and stderr."""
    file = corpus.root / "run.yaml"
    file.write_text(yaml.safe_dump(corpus.config.model_dump(mode="json")))
    result = run_python("-c", RUN, file, step, presses, int(number))
    return result.returncode, result.stderr


def check_mended(corpus: KnownCorpus) -> None:
    check_whole(corpus.config.into)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    assert live(corpus.config.into) == corpus.expected()
    assert verify_index(corpus.config.into) == []
    batch_ids = journal.read_journal(corpus.config.into)["batch_id"].to_pylist()
    assert len(set(batch_ids)) == len(batch_ids)


@pytest.mark.parametrize("step", ["append frames", "publish", "tag"])
def test_second_signal_in_a_commit_ends_at_once(corpus: KnownCorpus, step: str) -> None:
    """Before the commit point, at it, and after it."""
    before = journal.read_journal(corpus.config.into).num_rows
    code, said = interrupt(corpus, step, presses=2)
    assert (code, said.strip()) == (130, "earshot: stopped at once; run again to go on")
    after = journal.read_journal(corpus.config.into).num_rows
    assert after - before == (1 if step == "tag" else 0)
    check_mended(corpus)


@pytest.mark.parametrize(("step", "number"), [("append frames", signal.SIGINT), ("publish", signal.SIGTERM)])
def test_first_signal_lets_the_commit_finish(corpus: KnownCorpus, step: str, number: int) -> None:
    before = journal.read_journal(corpus.config.into).num_rows
    code, said = interrupt(corpus, step, 1, number)
    assert (code, said) == (130, "earshot: stopped in order\n")
    assert journal.read_journal(corpus.config.into).num_rows == before + 1
    record = record_of(corpus.config.into)
    assert record.state == "stopped"
    assert not list(Path(corpus.config.into).glob("claim*"))
    check_mended(corpus)


@contextmanager
def python_handles_signals() -> Iterator[None]:
    """Python's default handler: a test runner in the background ignores SIGINT."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("step", ["append frames", "publish", "tag"])
def test_interrupted_commit_is_not_retried(corpus: KnownCorpus, step: str) -> None:
    """In the library, a second signal is a KeyboardInterrupt in the middle of the commit."""
    seen: list[str] = []

    def failpoint(name: str) -> None:
        seen.append(name)
        if name == step and seen.count(step) == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with python_handles_signals(), pytest.raises(KeyboardInterrupt):
        index_corpus(corpus.config, stages=in_place(WideEncoder()), failpoint=failpoint)
    assert seen[-1] == step
    check_mended(corpus)


AT_IMPORT = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)
module, *sys.argv[1:] = sys.argv[1:]
came = []

def press(event, arguments):
    if event == "import" and arguments[0] == module and not came:
        came.append(module)
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(press)
from jobs.start import main
main()
"""
"""A command that gets Ctrl-C when it starts to import a module."""


@pytest.mark.parametrize(
    ("module", "command"),
    [
        *product(["jobs.main", "typer", "numpy", "pyarrow.lib", "lance", "tokenizers"], ["query"]),
        *product(["av", "torch", "transformers"], ["similar"]),
    ],
)
def test_interrupted_command_prints_one_line(corpus: KnownCorpus, module: str, command: str) -> None:
    what = "a bell" if command == "query" else str(next(corpus.folder.rglob("*.wav")))
    result = run_python("-c", AT_IMPORT, module, command, corpus.config.into, what)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "earshot: stopped\n")


AS_ANOTHER_ERROR = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["earshot", "info", "none"]
import jobs.commands.info

def press(event, arguments):
    if event == "import" and arguments[0] == "pipeline.search.client":
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy was broken off")

sys.addaudithook(press)
from jobs.start import main
main()
"""
"""Native libraries turn an exception in the middle of an import into an error of their own."""


def test_error_after_a_signal_is_no_bug() -> None:
    result = run_python("-c", AS_ANOTHER_ERROR)
    assert (result.returncode, result.stderr) == (130, "earshot: stopped\n")


IN_DESTRUCTOR = """
import os, signal, time

signal.signal(signal.SIGINT, signal.default_int_handler)
from jobs.shared.interrupt import stopping

class Resource:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)

with stopping():
    Resource()
    time.sleep(100)
"""


def test_signal_in_a_destructor_is_not_lost() -> None:
    result = run_python("-c", IN_DESTRUCTOR)
    assert (result.returncode, result.stderr) == (130, "earshot: stopped\n")
