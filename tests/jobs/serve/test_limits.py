"""What one request may ask holds for the API and for commands, and what all may take together is given back."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

import pipeline
from jobs.serve import limits
from jobs.serve.marks_routes import NewMarks
from jobs.serve.room import Room
from jobs.serve.search_routes import check
from jobs.serve.service import Service, open_service
from jobs.serve.workers import Workers
from jobs.shared.servers import COMMAND
from pipeline.config import Config
from pipeline.errors import UsageError
from tests.helpers import served
from tests.helpers.served import uri
from tests.helpers.sounds import encode, encode_damaged_mp3, noise
from tests.helpers.waiting import wait_until

SEARCH: dict[str, Any] = {"text": "a bell", "k": 3}
LOCATE: dict[str, Any] = {**SEARCH, "threshold": 1e-6, "min_duration_s": 0.0, "merge_gap_s": 0.2}


def call(client: TestClient, name: Any, arguments: Any) -> Any:
    return client.post(COMMAND, json={"name": name, "arguments": arguments})


@pytest.mark.parametrize(
    ("name", "arguments"), [("search", SEARCH), ("locate", LOCATE), ("count_indexed", {"where": "duration_s > 0"})]
)
def test_call_of_a_command_is_answered(name: str, arguments: dict[str, Any], client: TestClient) -> None:
    answer = call(client, name, arguments)
    assert answer.status_code == 200, answer.text
    assert answer.json()["found"]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search", SEARCH | {"k": limits.MAX_K + 1}, "k: "),
        ("search", SEARCH | {"text": "x" * (limits.MAX_TEXT + 1)}, "text: "),
        ("search", SEARCH | {"where": "x" * (limits.MAX_WHERE + 1)}, "where: "),
        ("search", SEARCH | {"exact": "perhaps"}, "exact: "),
        ("search", SEARCH | {"more": 1}, "more: "),
        ("search", {"k": 3}, "text: Field required"),
        ("locate", LOCATE | {"text": ["a bell"] * 1_000}, "text: "),
        ("locate", LOCATE | {"k": 10**9}, "k: "),
        ("locate", LOCATE | {"threshold": "high"}, "threshold: "),
        ("similar_to_file", {"k": 3, "sound": "x" * (limits.MAX_URI + 1)}, "sound: "),
        ("count_indexed", {"where": "x" * (limits.MAX_WHERE + 1)}, "where: "),
        ("count_indexed", {}, "where: Field required"),
        ("__init__", {}, "is no call"),
        (["search"], {}, "is no call"),
        ("search", [], "the body is no call"),
    ],
)
def test_call_beyond_the_limits_is_one_line(name: Any, arguments: Any, said: str, client: TestClient) -> None:
    answer = call(client, name, arguments)
    assert (answer.status_code, list(answer.json())) == (422, ["error"])
    assert said in answer.json()["error"]


def test_more_results_than_a_server_gives_come_from_the_command_itself(client: TestClient) -> None:
    """422 is what a command answers by making the call itself."""
    assert call(client, "search", SEARCH | {"k": limits.MAX_K}).status_code == 200
    assert call(client, "search", SEARCH | {"k": limits.MAX_K + 1}).status_code == 422


@pytest.mark.parametrize(
    ("span", "is_long"),
    [
        ({"start_s": 0, "end_s": limits.SHORT_S}, False),
        ({"start_s": 0, "end_s": limits.SHORT_S + 1}, True),
        ({"start_s": 0}, True),
        ({"start_s": 0, "end_s": 1, "exact": True}, True),
    ],
)
def test_long_comparisons_of_pages_and_commands_hold_up_no_questions(
    span: dict[str, Any], is_long: bool, config: Config, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads of the other kind are gone, so that using them would fail."""
    monkeypatch.setattr(service, "workers", Workers())
    (service.workers.questions if is_long else service.workers.long).close()
    client, sound = served.make_client(service), uri(config, "b.flac")
    assert call(client, "similar_to_file", {"sound": sound, "k": 3, **span}).status_code == 200
    assert client.post("/api/similar", json={"uri": sound, **span}).status_code == 200


@pytest.mark.parametrize(("name", "is_long"), [("whole.mp3", False), ("damaged.mp3", True)])
def test_comparisons_that_decode_all_that_lies_before_hold_up_no_questions(
    name: str, is_long: bool, compressed: Config
) -> None:
    """The threads of the other kind are gone, so that using them would fail."""
    service, sound = open_service(compressed.into), uri(compressed, name)
    (service.workers.questions if is_long else service.workers.long).close()
    client, span = served.make_client(service), {"start_s": 32.0, "end_s": 33.0}
    assert call(client, "similar_to_file", {"sound": sound, "k": 3, **span}).status_code == 200
    answer = client.post("/api/similar", json={"uri": sound, **span})
    assert answer.status_code == 200, answer.text
    expected = pipeline.open(compressed.into).similar_to_file(sound, 2, start_s=32.0, end_s=33.0)
    assert [hit["uri"] for hit in answer.json()["hits"][:2]] == [hit.uri for hit in expected]
    service.workers.close()


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An index with files that are entered by counting their frames, where that is certain."""
    config = served.make_corpus(tmp_path_factory.mktemp("compressed"))
    damaged, whole = encode_damaged_mp3(), encode("mp3", noise(36.0, 48_000), 48_000)
    for name, content in (("damaged.mp3", damaged), ("whole.mp3", whole)):
        (Path(config.sources[0]) / name).write_bytes(content)
    served.index(config)
    return config


def test_what_was_sent_gives_its_room_back(client: TestClient, service: Service, config: Config) -> None:
    for content in (Path(uri(config, "b.flac")).read_bytes(), b"no sound"):
        client.post("/api/similar", files={"file": ("x.flac", content)})
    client.post("/api/similar", json={"uri": uri(config, "b.flac"), "end_s": 1})
    client.post("/api/marks", json={"marks": []})
    call(client, "search", SEARCH)
    assert (service.uploads.n_taken, service.bodies.n_taken) == (0, 0)


def test_upload_without_room_is_refused_at_once(client: TestClient, service: Service, config: Config) -> None:
    with service.uploads.hold() as take:
        take(limits.MAX_UPLOADS_BYTES)
        answer = client.post("/api/similar", files={"file": ("x.flac", b"no sound")})
    assert (answer.status_code, answer.headers["connection"]) == (503, "close")
    assert "too many uploads at once" in answer.json()["error"]


def test_exports_of_hits_that_wait_leave_room_for_marks(
    client: TestClient, service: Service, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads of exports are taken, as by exact scans."""
    room = Room("exports of hits", 1_000)
    monkeypatch.setattr(service, "hits", room)
    monkeypatch.setattr(service, "bodies", Room("JSON bodies", 1_000))
    sent = {"hits": [{"uri": uri(config, "b.flac"), "start_s": 0, "end_s": 1, "text": "x" * 400}]}
    scanned = threading.Event()
    with ThreadPoolExecutor() as threads:
        try:
            for _ in range(2):
                service.workers.long.submit(scanned.wait)
            waiting = threads.submit(client.post, "/api/export?format=csv", json=sent)
            wait_until(lambda: room.n_taken > 500)
            refused = client.post("/api/export?format=csv", json=sent)
            assert (refused.status_code, "too many exports of hits" in refused.text) == (503, True)
            marks = {"marks": [{"uri": "/not/there.wav", "text": "x" * 800, "verdict": "right"}]}
            assert client.post("/api/marks", json=marks).status_code == 404  # it was read
            assert not waiting.done()
        finally:
            scanned.set()
        assert waiting.result().status_code == 200
    assert room.n_taken == 0


def test_sounds_and_exports_that_are_sent_are_counted(
    client: TestClient, service: Service, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = {"uri": uri(config, "b.flac")}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("audio", sound),
        ("export", {"format": "csv", "query": "a bell", "k": 2}),
    ]
    for path, values in asked:
        assert client.get(f"/api/{path}", params=values).status_code == 200
    assert client.head("/api/audio", params=sound).status_code == 200
    assert client.get("/api/audio", params=sound, headers={"Range": "bytes=999999999-"}).status_code == 416
    assert client.get("/api/export", params={"format": "csv", "query": "a bell", "where": "no"}).status_code == 422
    assert (service.sounds_sent.n_taken, service.exports_sent.n_taken) == (0, 0)
    for name in ("sounds", "exports"):
        monkeypatch.setattr(service, f"{name}_sent", Room(name, 0))
    for path, values in asked:
        answer = client.get(f"/api/{path}", params=values)
        assert answer.status_code == 503
        assert "at once: try again later" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "max_bytes"),
    [
        ("/api/similar", limits.MAX_JSON_BYTES),
        (COMMAND, limits.MAX_JSON_BYTES),
        ("/api/marks", limits.MAX_MARKS_BYTES),
    ],
)
def test_json_has_no_more_bytes_than_its_route_needs(path: str, max_bytes: int, client: TestClient) -> None:
    for n_bytes, status in ((max_bytes, 422), (max_bytes + 1, 413)):
        body = b'{"uri": "' + b"x" * (n_bytes - 11) + b'"}'
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, len(answer.text) < 1_000) == (status, True)


def test_longest_question_fits_however_it_is_escaped(client: TestClient) -> None:
    longest = {"uri": "\U0001f514" * limits.MAX_URI, "where": "\U0001f514" * limits.MAX_WHERE}
    answer = client.post("/api/similar", content=json.dumps(longest), headers={"Content-Type": "application/json"})
    assert answer.status_code == 404  # it was read


def test_as_many_marks_as_may_be_fit(config: Config, client: TestClient) -> None:
    """The last one has a wrong name, so that none is stored."""
    said = {"uri": uri(config, "b.flac"), "audio_id": "0" * 32, "start_s": 0.5, "end_s": 1, "verdict": "right"}
    texts = [f"{number:04} " + "bell " * 79 for number in range(limits.MAX_MARKS)]
    marks = [{**said, "text": text, "who": "Ada Lovelace", "score": 1.25} for text in texts]
    answer = client.post("/api/marks", json={"marks": [*marks[:-1], {**marks[-1], "uri": "/not/there.wav"}]})
    assert (answer.status_code, answer.json()) == (404, {"error": "/not/there.wav: is no file of the index"})


@pytest.mark.parametrize("where", [(), ("marks", 0), ("marks", 1)])
def test_of_wrong_values_without_number_one_is_told(where: tuple[Any, ...]) -> None:
    """Pydantic would make an error of each."""
    many = {"x" * 1_000 + str(number): 1 for number in range(1_000)}
    right = {"text": "a bell", "verdict": "right"}
    values: dict[str, Any] = {"marks": [right, right]}
    if not where:
        values |= many
    else:
        values["marks"] = [right | many if number >= where[1] else right for number in range(limits.MAX_MARKS)]
    with pytest.raises(ValidationError) as caught:
        NewMarks.model_validate(values)
    assert caught.value.error_count() == 1
    with pytest.raises(UsageError, match=r"x{10,100}: Extra inputs are not permitted$") as told:
        check(NewMarks, values)
    assert len(str(told.value)) < 200
