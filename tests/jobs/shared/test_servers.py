"""Notes of running servers, and results that travel as JSON."""

import datetime as dt
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

import pipeline
from jobs.shared.servers import Running, find_folder, find_server, name_index, noted, pack, unpack
from pipeline.search.found import Event, Events, Hit
from tests.helpers.processes import print_of

METADATA = {
    "text": "雨\n",
    "number": 0.1 + 0.2,
    "infinite": float("-inf"),
    "whole": 2**53 + 1,
    "nothing": None,
    "yes": True,
    "day": dt.date(2026, 2, 28),
    "moment": dt.datetime(2026, 2, 28, 1, 2, 3, 4, dt.UTC),
    "local": dt.datetime(2026, 2, 28, 1, 2, 3),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "earshot"


def running(index: str = "/ix", **values: Any) -> Running:
    given: dict[str, Any] = {
        "address": "http://127.0.0.1:1",
        "token": "t",
        "pid": os.getpid(),
        "version": pipeline.__version__,
    }
    return Running(index, **(given | values))


def test_results_travel_exactly() -> None:
    hits = [Hit(1, "/a.wav", 0.1, 1 / 3, -2.5e-8, None, "c", METADATA)]
    events = Events([Event(1, "/a.wav", 0.04, 0.08, 1e300, 0.3, 0.06, METADATA)], is_cut=True)
    for found in (hits, events, Events(), [], 7):
        back = unpack(json.loads(json.dumps(pack(found))))
        assert back == found
        assert type(back) is type(found)
    assert unpack(pack(events)).is_cut is True
    [hit] = unpack(json.loads(json.dumps(pack(hits))))
    assert str(hit.metadata["moment"]) == str(METADATA["moment"])


def test_note_is_there_while_the_server_runs(folder: Path) -> None:
    assert find_server("/ix") is None
    with noted(running()) as note:
        assert note is not None
        assert stat.S_IMODE(note.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert find_server("/ix") == running()
        assert find_server("/other") is None
    assert list(folder.iterdir()) == []


def test_note_of_a_dead_server_is_removed_by_the_next_one(folder: Path) -> None:
    gone = int(print_of("import os; print(os.getpid())"))
    with noted(running(pid=gone)):
        assert find_server("/ix") is None
        with noted(running("/other")):
            assert len(list(folder.iterdir())) == 1


def test_newest_server_of_an_index_is_asked(folder: Path) -> None:
    with noted(running(address="http://127.0.0.1:1")) as first, noted(running(address="http://127.0.0.1:2")) as second:
        assert first is not None
        assert second is not None
        os.utime(first, (1, 1))
        assert find_server("/ix") == running(address="http://127.0.0.1:2")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"index": "/ix"}'])
def test_damaged_note_is_no_server(content: str, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "1.json").write_text(content)
    assert find_server("/ix") is None


def test_folder_that_others_can_write_is_not_trusted(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    assert find_folder(create=True) is None
    with noted(running()) as note:
        assert note is None
    assert list(folder.iterdir()) == []


def test_folder_that_is_a_link_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert find_folder(create=True) is None


def test_without_a_runtime_folder_the_temporary_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert find_folder() is None
    assert find_folder(create=True) == tmp_path / f"earshot-{os.getuid()}"


def test_index_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ix").mkdir()
    (tmp_path / "link").symlink_to("ix")
    monkeypatch.chdir(tmp_path)
    assert {name_index(each) for each in ("ix", "./ix/", "link", str(tmp_path / "ix"))} == {str(tmp_path / "ix")}
    assert name_index("s3://bucket/ix/") == "s3://bucket/ix"


def test_asking_a_server_needs_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'lance', 'lancedb', 'pyarrow', 'numpy', 'fsspec', 'fastapi'}"
    code = f"import sys, jobs.main; from jobs.shared.opening import Question; print({heavy} & sys.modules.keys())"
    assert print_of(code) == "set()\n"
