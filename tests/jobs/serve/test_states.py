"""A server stays in its state while a run publishes, and takes over the newest one when asked."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from jobs.serve.errors import NotFound
from jobs.serve.search_routes import require_files
from jobs.serve.service import open_service
from jobs.serve.states import MAX_OPEN, State, StateGone, States
from pipeline.config import Config, make_config
from pipeline.index.lease import Lease
from pipeline.run.driver import index_corpus
from pipeline.search.client import Index
from tests.helpers import served
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.served import LENGTHS_S
from tests.helpers.waiting import wait_until


def publish(config: Config, name: str) -> None:
    """Index one more file."""
    folder = Path(config.sources[0])
    (folder / name).write_bytes((folder / "a bell.wav").read_bytes() + bytes(4))
    served.index(config)


def uris(client: TestClient, **values: int) -> set[str]:
    answer = client.get("/api/query", params={"text": "a bell", "k": 100, **values})
    assert answer.status_code == 200, answer.text
    return {Path(hit["uri"]).name for hit in answer.json()["hits"]}


def test_page_stays_in_its_state_until_it_is_refreshed(own: Config, own_client: TestClient) -> None:
    before = own_client.get("/api/info").json()
    assert before["seq"] == before["newest_seq"]
    publish(own, "new.wav")
    now = own_client.post("/api/refresh").json()
    assert now["seq"] == now["newest_seq"] > before["seq"]
    assert now["files"] == before["files"] + 1
    assert uris(own_client) == {*LENGTHS_S, "new.wav"}
    assert uris(own_client, at=before["seq"]) == set(LENGTHS_S)
    assert own_client.get("/api/info", params={"at": before["seq"]}).json()["files"] == before["files"]


def test_newer_state_is_announced_and_not_taken(own: Config) -> None:
    states = open_service(own.into).states
    publish(own, "new.wav")
    assert states.find_newest(fresh=True) > states.current.number
    assert states.get(None).counts["indexed"] == len(LENGTHS_S)


def test_few_states_are_open_at_once(own: Config) -> None:
    states = States(own.into, lambda: Index(own.into))
    opened = [states.current.number]
    for number in range(MAX_OPEN + 2):
        publish(own, f"{number}.wav")
        opened.append(states.refresh().number)
    assert [at for at in opened if is_open(states, at)] == opened[-MAX_OPEN:]
    assert states.get(None).number == opened[-1]


def is_open(states: States, at: int) -> bool:
    try:
        return states.get(at).number == at
    except StateGone:
        return False


def test_request_for_a_state_that_is_gone_is_told_so(client: TestClient) -> None:
    answer = client.get("/api/query", params={"text": "x", "at": 999})
    assert answer.status_code == 410
    assert "state 999 of" in answer.json()["error"]
    assert answer.json()["error"].endswith("is not open any more: take over the newest one")


def test_state_whose_tables_are_deleted_is_gone_and_the_newest_is_damaged(own: Config, own_client: TestClient) -> None:
    publish(own, "new.wav")
    shutil.rmtree(Path(own.into) / "clips.lance" / "data")
    answer = own_client.get("/api/query", params={"text": "x"})
    assert answer.status_code == 410
    assert "clean-up has deleted its tables" in answer.json()["error"]
    assert own_client.post("/api/refresh").status_code == 200
    answer = own_client.get("/api/query", params={"text": "x"})
    assert answer.status_code == 503
    assert "the index is damaged" in answer.json()["error"]


def test_index_that_is_deleted_is_said_so(own: Config, own_client: TestClient) -> None:
    shutil.rmtree(own.into)
    answer = own_client.post("/api/refresh")
    assert answer.status_code == 503
    assert "no index here" in answer.json()["error"]


def test_commands_get_the_newest_state_and_the_page_its_own(own: Config) -> None:
    states = open_service(own.into).states
    before = states.current.number
    publish(own, "new.wav")
    assert states.open_newest().number > before
    assert states.current.number == before


def test_run_that_writes_is_announced(own: Config, own_client: TestClient) -> None:
    assert own_client.get("/api/info").json()["is_writing"] is False
    states = open_service(own.into).states
    with Lease(own.into, "0" * 32):
        wait_until(states.is_writing)  # it looks in the background


def test_rebuilt_index_has_a_higher_number(own: Config) -> None:
    states = open_service(own.into).states
    before = states.current.number
    rebuild(own)
    assert states.refresh().number > before
    assert states.get(before).number == before


def rebuild(config: Config) -> None:
    changed = make_config({**config.model_dump(), "window": {"length_s": 1.2, "overlap_s": 0.2}})
    index_corpus(changed, rebuild=True, stages=in_place(WideEncoder()))


class CountingIndex:
    """An index that counts the reads of its tables."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.n_reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def to_arrow(self, *arguments: Any, **options: Any) -> Any:
        self.n_reads += 1
        return self._index.to_arrow(*arguments, **options)


def test_files_that_are_asked_for_together_are_read_together(own: Config) -> None:
    index: Any = CountingIndex(Index(own.into))
    state, names = State(index), [served.uri(own, name) for name in LENGTHS_S]
    state.find_file("/none.wav")  # which also reads the names of the columns
    index.n_reads = 0
    found = require_files(state, [*names, *names])
    assert ({uri: row["uri"] for uri, row in found.items()}, index.n_reads) == ({uri: uri for uri in names}, 1)
    with pytest.raises(NotFound, match=r"/none\.wav: is no file of the index"):
        require_files(state, [*names, "/none.wav"])
