"""Files appear whole or not at all; a folder takes one export, and only its own continuation."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.export.folder import PART, STATE, Folder, write_file
from tests.helpers.exports import read_folder


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"old")
    assert write_file(str(path), [b"new ", b"text"]) == 8
    assert read_folder(tmp_path) == {"labels.csv": b"new text"}


def test_failure_while_writing_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("no more")

    path = tmp_path / "labels.csv"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="no more"):
        write_file(str(path), pieces())
    assert read_folder(tmp_path) == {"labels.csv": b"old"}


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that is not there yet, on a disk or in an object store."""
    if request.param == "disk":
        return str(tmp_path / "out" / "deep")
    return str(request.getfixturevalue("bucket")) + f"/export/{tmp_path.name}"


def test_interrupted_export_keeps_its_first_plan(place: str) -> None:
    request: dict[str, Any] = {"format": "wav", "queries": ("a bell",)}
    assert Folder(place).begin(request, lambda: {"labels": [1, 2]}) == {"labels": [1, 2]}
    folder = Folder(place)
    folder.write("1.wav", [b"sound"])
    folder.note(0, {"n": 1})
    again = Folder(place)
    assert again.begin(request, lambda: pytest.fail("planned again")) == {"labels": [1, 2]}
    assert (again.find_note(0), again.find_note(1)) == ({"n": 1}, None)
    again.finish()
    assert again.list_names() == ["1.wav"]


def test_another_export_is_refused_and_told_what_differs(place: str) -> None:
    Folder(place).begin({"format": "wav", "k": 3}, dict)
    with pytest.raises(UsageError, match=r"unfinished export that differs in k \(3, not 4\)"):
        Folder(place).begin({"format": "wav", "k": 4}, dict)


def test_folder_with_anything_else_is_refused(place: str) -> None:
    folder = Folder(place)
    folder.begin({}, dict)
    folder.write("mine.txt", [b"mine"])
    folder.finish()
    with pytest.raises(UsageError, match=r"is not empty, it holds mine\.txt"):
        Folder(place).begin({}, dict)


def test_plan_that_was_not_written_to_its_end_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir()
    (tmp_path / STATE / f"plan.json.0123abcd{PART}").write_text('{"requ')
    assert Folder(str(tmp_path)).begin({}, lambda: [1]) == [1]
    assert json.loads((tmp_path / STATE / "plan.json").read_text()) == {"request": {}, "plan": [1]}


KILLED = """
import os, signal, sys
from pipeline.export.folder import Folder

def pieces():
    yield b"half of a sound" * 10_000
    os.kill(os.getpid(), signal.SIGKILL)

folder = Folder(sys.argv[1])
folder.begin({}, list)
folder.write("2.wav", pieces())
"""


def test_nothing_of_a_killed_attempt_is_left(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(name.startswith("2.wav.") and name.endswith(PART) for name in read_folder(tmp_path))
    folder = Folder(str(tmp_path))
    folder.begin({}, lambda: pytest.fail("planned again"))
    folder.write("1.wav", [b"sound"])
    folder.finish()
    assert read_folder(tmp_path) == {"1.wav": b"sound"}


def test_two_writers_of_one_file_write_it_whole(tmp_path: Path) -> None:
    """The second one begins and ends while the first one writes."""
    path = tmp_path / "labels.csv"

    def pieces() -> Iterator[bytes]:
        yield b"first "
        write_file(str(path), [b"second"])
        assert path.read_bytes() == b"second"
        yield b"writer"

    write_file(str(path), pieces())
    assert read_folder(tmp_path) == {"labels.csv": b"first writer"}


HOLDING = """
import sys
from pipeline.export.folder import Folder

folder = Folder(sys.argv[1])
folder.begin({}, list)
print("begun", flush=True)
sys.stdin.readline()
folder.write("1.wav", [b"sound"])
folder.finish()
"""


def begin_elsewhere(out: Path) -> "subprocess.Popen[str]":
    """A process that has begun to export into a folder; it ends once it gets a line."""
    command = [sys.executable, "-c", HOLDING, str(out)]
    other = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "begun\n"
    return other


def test_folder_that_another_process_fills_is_refused_until_that_one_has_ended(tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = begin_elsewhere(out)
    for request in ({}, {"format": "wav"}):
        with pytest.raises(UsageError, match="another process exports into this folder"):
            Folder(str(out)).begin(request, list)
    other.communicate("\n", timeout=60)
    assert other.returncode == 0
    assert read_folder(out) == {"1.wav": b"sound"}
    with pytest.raises(UsageError, match=r"is not empty, it holds 1\.wav"):
        Folder(str(out)).begin({}, list)
    assert sorted(os.listdir(out)) == ["1.wav"]


def test_folder_of_a_killed_export_is_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = begin_elsewhere(out)
    other.kill()
    other.communicate(timeout=60)
    assert Folder(str(out)).begin({}, lambda: pytest.fail("planned again")) == []
