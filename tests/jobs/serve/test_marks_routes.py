"""Marks over HTTP are those of the index, all or none."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import pipeline
from pipeline.config import Config
from pipeline.marks.mark import Judgement, name_user
from tests.helpers import served
from tests.helpers.served import uri

BELL = "a bell.wav"


def mark(config: Config, **values: Any) -> dict[str, Any]:
    given = {"uri": uri(config, BELL), "start_s": 0.4, "end_s": 0.8, "text": "a bell", "verdict": "right", "score": 1.5}
    return given | values


def test_mark_is_stored_replaced_and_taken_back(own: Config, own_client: TestClient) -> None:
    answer = own_client.post("/api/marks", json={"marks": [mark(own, who="Ada")]})
    assert answer.status_code == 201, answer.text
    [made] = answer.json()["marks"]
    assert (made["verdict"], made["who"], made["score"], made["status"]) == ("right", "Ada", 1.5, "here")
    assert own_client.get("/api/info").json()["n_marks"] == 1
    own_client.post("/api/marks", json={"marks": [mark(own, who="Ada", verdict="wrong")]})
    assert [each.verdict for each in pipeline.open(own.into).marks()] == ["wrong"]
    assert own_client.get("/api/marks", params={"uri": uri(own, BELL)}).json()["marks"][0]["verdict"] == "wrong"
    own_client.post("/api/marks", json={"marks": [mark(own, who="Ada", verdict="none")]})
    assert own_client.get("/api/marks").json() == {"marks": [], "is_cut": False}


def test_mark_has_the_name_that_is_sent_or_that_of_the_server(own: Config, own_client: TestClient) -> None:
    for who in ("Zoë Ångström-李", None):
        [made] = own_client.post("/api/marks", json={"marks": [mark(own, who=who)]}).json()["marks"]
        assert made["who"] == (who or name_user())


def test_undo_leaves_a_mark_that_came_in_between(own: Config, own_client: TestClient) -> None:
    def send(**values: Any) -> Any:
        return own_client.post("/api/marks", json={"marks": [mark(own, **values)]})

    [mine] = send(who="Ada").json()["marks"]
    [undone] = send(who="Ada", verdict="none", replaces=mine["marked_at"]).json()["marks"]
    assert own_client.get("/api/marks").json()["marks"] == []
    [again] = send(who="Ada", replaces=undone["marked_at"]).json()["marks"]
    send(who="Eve", verdict="unsure")
    late = send(who="Ada", verdict="none", replaces=again["marked_at"])
    assert late.status_code == 409
    assert "was marked since by Eve" in late.json()["error"]
    [left] = own_client.get("/api/marks").json()["marks"]
    assert (left["who"], left["verdict"]) == ("Eve", "unsure")


@pytest.mark.parametrize("name", ["/left/the index.wav", ""])
def test_mark_of_a_content_without_a_file_is_taken_back(name: str, own: Config, own_client: TestClient) -> None:
    """The marks may be those of another index, or of one that was built anew from fewer files."""
    said = Judgement(name, "a bell", "right", 0.4, 0.8, audio_id="0" * 32)
    pipeline.open(own.into).mark_all([said])
    [there] = own_client.get("/api/marks").json()["marks"]
    assert (there["uri"], there["status"]) == (name, "gone")
    back = {field: there[field] for field in ("uri", "audio_id", "start_s", "end_s", "text")} | {"verdict": "none"}
    answer = own_client.post("/api/marks", json={"marks": [back]})
    assert answer.status_code == 201, answer.text
    assert own_client.get("/api/marks").json()["marks"] == []


def test_content_alone_says_what_is_marked(own: Config, own_client: TestClient) -> None:
    [made] = own_client.post("/api/marks", json={"marks": [mark(own)]}).json()["marks"]
    again = {"audio_id": made["audio_id"], "text": "rain", "verdict": "wrong"}
    [other] = own_client.post("/api/marks", json={"marks": [again]}).json()["marks"]
    assert (other["uri"], other["start_s"], other["end_s"]) == (uri(own, BELL), 0.0, 3.0)


def test_newest_marks_come_first_and_are_cut(own: Config, own_client: TestClient) -> None:
    for text in ("one", "two", "three"):
        own_client.post("/api/marks", json={"marks": [mark(own, text=text)]})
    found = own_client.get("/api/marks", params={"limit": 2}).json()
    assert [each["text"] for each in found["marks"]] == ["three", "two"]
    assert found["is_cut"] is True
    assert own_client.get("/api/marks", params={"uri": "/not/there.wav"}).json()["marks"] == []


def test_export_from_a_former_state_has_the_marks_of_now(own: Config, own_client: TestClient) -> None:
    before = own_client.get("/api/info").json()["seq"]
    bell = Path(uri(own, BELL))
    bell.with_name("new.wav").write_bytes(bell.read_bytes() + bytes(4))
    served.index(own)
    assert own_client.post("/api/refresh").json()["seq"] > before
    own_client.post("/api/marks", json={"marks": [mark(own)]})
    answer = own_client.get("/api/export", params={"format": "jsonl", "marks": True, "at": before})
    [line] = map(json.loads, answer.text.splitlines())
    assert (line["uri"], line["text"], line["verdict"]) == (str(bell), "a bell", "right")


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"verdict": "great"}, 422, "verdict: Input should be 'right', 'wrong', 'unsure' or 'none'"),
        ({"verdict": "right" * 1_000_000}, 422, "verdict: Input should be 'right'"),
        ({"audio_id": "0" * 33}, 422, "audio_id: "),
        ({"audio_id": "0" * 1_000_000}, 422, "audio_id: "),
        ({"uri": ""}, 422, "uri: is empty"),
        ({"uri": "ftp://192.0.2.1/x", "audio_id": "0" * 32}, 404, "is no file of the index"),
        ({"text": " "}, 422, "text"),
        ({"start_s": -1}, 422, "start_s"),
        ({"start_s": 2, "end_s": 1}, 422, "end 1"),
        ({"end_s": 1_000}, 422, "lasts"),
        ({"uri": "/etc/passwd"}, 404, "is no file of the index"),
        ({"uri": "http://192.0.2.1/x"}, 404, "is no file of the index"),
        ({"more": 1}, 422, "more"),
        ({"who": " "}, 422, "who: "),
        ({"who": "Ada\nEve"}, 422, "who: "),
        ({"who": "\u202eadA"}, 422, "who: "),
        ({"who": "x" * 201}, 422, "who: "),
        ({"replaces": "2026-01-02T03:04:05"}, 422, "replaces"),
        ({"replaces": "9999-12-31T23:59:59.999999-12:00"}, 409, "was marked since"),
        ({"replaces": "0001-01-01T00:00:00+14:00"}, 409, "was marked since"),
    ],
)
def test_one_wrong_mark_stores_none(
    changes: dict[str, Any], status: int, said: str, own: Config, own_client: TestClient
) -> None:
    answer = own_client.post("/api/marks", json={"marks": [mark(own), mark(own, **changes)]})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]
    assert len(answer.text) < 1_000
    assert own_client.get("/api/marks").json()["marks"] == []
