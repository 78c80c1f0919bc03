"""The API answers what the commands answer, and refuses in one line."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

import pipeline
from jobs.serve import limits
from jobs.serve.service import open_service
from pipeline.audio.source import hash_file
from pipeline.config import Config
from pipeline.marks.mark import name_user
from pipeline.search.presence import Presences
from tests.helpers.commands import lines, run_main
from tests.helpers.served import BROKEN, LENGTHS_S, make_client, uri


def get(client: TestClient, path: str, **values: Any) -> Any:
    answer = client.get(f"/api/{path}", params=values)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(answer: Any) -> tuple[int, str]:
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]
    return answer.status_code, answer.json()["error"]


def test_info_says_what_the_index_holds(client: TestClient, config: Config) -> None:
    info = get(client, "info")
    assert (info["index"], info["version"]) == (config.into, pipeline.__version__)
    assert (info["files"], info["indexed"], info["failed"]) == (len(LENGTHS_S) + 1, len(LENGTHS_S), 1)
    assert info["hours"] == pytest.approx(sum(LENGTHS_S.values()) / 3600, abs=1e-6)
    assert info["models"] == {"clip": "earshot-tiny", "frame": "earshot-tiny"}
    kinds = {column["name"]: (column["type"], column["kind"]) for column in info["columns"]}
    assert {kinds["place"], kinds["codec"]} == {("string", "text")}
    assert kinds["heard_at"] == ("timestamp[us, tz=UTC]", "time")
    assert {kinds["loudness"], kinds["duration_s"]} == {("double", "number")}
    assert info["has_frames"] is True
    assert info["who"] == name_user()
    assert info["max_upload_bytes"] == limits.MAX_UPLOAD_BYTES


@pytest.mark.parametrize(
    ("path", "command", "values"),
    [
        ("query", ["query"], {"k": 5}),
        ("query", ["query", "--where", "place = 'yard'"], {"k": 5, "where": "place = 'yard'"}),
        ("query", ["query", "--exact"], {"k": 5, "exact": 1}),
    ],
)
def test_query_answers_as_the_command(
    path: str, command: list[str], values: dict[str, Any], client: TestClient, config: Config, capsys: Any
) -> None:
    found = get(client, path, text="a bell", **values)
    run_main(command[0], config.into, "a bell", "-k", 5, "--json", *command[1:])
    expected = lines(capsys.readouterr().out)
    assert expected
    assert [{name: hit[name] for name in other} for hit, other in zip(found["hits"], expected, strict=True)] == [
        without_infinity(hit) for hit in expected
    ]


def without_infinity(hit: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinite numbers; Python's reads and writes them all the same."""
    metadata = {name: None if value == float("inf") else value for name, value in hit["metadata"].items()}
    return hit | {"metadata": metadata}


def test_locate_answers_as_the_command_for_each_text(client: TestClient, config: Config, capsys: Any) -> None:
    texts = ["a bell", "birds chirping"]
    found = get(client, "locate", text=texts, k=7, threshold=1e-6)
    assert [result["text"] for result in found["results"]] == texts
    for result in found["results"]:
        run_main("locate", config.into, result["text"], "-k", 7, "--threshold", 1e-6, "--json")
        expected = lines(capsys.readouterr().out)
        assert [[hit[name] for name in ("uri", "start_s", "end_s", "score", "peak_s")] for hit in result["hits"]] == [
            [hit[name] for name in ("uri", "start_s", "end_s", "score", "peak_s")] for hit in expected
        ]
    assert any(result["hits"] for result in found["results"])


def test_hits_name_their_file_and_content(client: TestClient, config: Config) -> None:
    rows = {row["uri"]: row for row in pipeline.open(config.into).to_arrow("files").to_pylist()}
    for hit in get(client, "query", text="a bell")["hits"]:
        row = rows[hit["uri"]]
        assert (hit["file_id"], hit["audio_id"]) == (row["file_id"], row["audio_id"])
        assert hit["duration_s"] == row["duration_s"]


def test_values_of_a_column_are_counted(client: TestClient) -> None:
    found = get(client, "values", column="place")
    assert found["values"] == [{"value": "yard", "n_files": 2}, {"value": "O'Hare", "n_files": 1}]
    assert found["is_cut"] is False
    assert get(client, "values", column="place", prefix="o'")["values"] == [{"value": "O'Hare", "n_files": 1}]
    cut = get(client, "values", column="place", limit=1)
    assert (len(cut["values"]), cut["is_cut"]) == (1, True)
    times = [each["value"] for each in get(client, "values", column="heard_at")["values"]]
    assert times == ["1970-01-01T00:00:01+00:00", "1970-01-01T00:00:02+00:00"]
    assert None in [each["value"] for each in get(client, "values", column="loudness")["values"]]


def test_every_value_can_be_asked_for(client: TestClient) -> None:
    for each in get(client, "values", column="place")["values"]:
        quoted = each["value"].replace("'", "''")
        hits = get(client, "query", text="x", where=f"place = '{quoted}'", k=100)["hits"]
        assert {hit["metadata"]["place"] for hit in hits} == {each["value"]}


def test_file_says_how_it_was_indexed(client: TestClient, config: Config) -> None:
    found = get(client, "file", uri=uri(config, "雨 & Ü.wav"))
    assert (found["status"], found["is_gone"], found["is_changed"]) == ("indexed", False, False)
    assert (found["sample_rate_hz"], found["channels"], found["codec"]) == (44_100, 2, "pcm_s16")
    assert found["metadata"]["place"] == "O'Hare"
    broken = get(client, "file", uri=uri(config, BROKEN))
    assert (broken["status"], broken["n_frames"]) == ("failed", 0)
    assert broken["reason"]


@pytest.mark.parametrize(
    ("path", "values", "status", "said"),
    [
        ("query", {}, 422, "text: Field required"),
        ("query", {"text": ""}, 422, "text: "),
        ("query", {"text": "  "}, 422, "the query is empty"),
        ("query", {"text": "x", "k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ("query", {"text": "x", "k": 10**30}, 422, "k: "),
        (
            "query",
            {"text": "x", "where": "plaze = 1"},
            422,
            "No field named plaze, did you mean place",
        ),
        ("query", {"text": "x", "where": "'"}, 422, "where "),
        ("query", {"text": "x", "at": "soon"}, 422, "at: "),
        ("locate", {"text": "x", "threshold": 1}, 422, "threshold: "),
        ("locate", {"text": ["x"] * 21}, 422, "text: "),
        ("locate", {"text": "x", "where": "nothing = 1"}, 422, "where "),
        ("values", {"column": "plaze"}, 404, "no column 'plaze', did you mean place?"),
        ("values", {"column": "vector"}, 404, "no column 'vector'"),
        ("file", {"uri": "/etc/passwd"}, 404, "is no file of the index"),
        ("file", {"uri": "../../etc/passwd"}, 404, "is no file of the index"),
        ("file", {"uri": "\0"}, 404, "is no file of the index"),
        ("file", {"uri": "' OR 1=1 --"}, 404, "is no file of the index"),
        ("nothing", {}, 404, "there is nothing here"),
    ],
)
def test_wrong_call_is_one_line(path: str, values: dict[str, Any], status: int, said: str, client: TestClient) -> None:
    found = refusal(client.get(f"/api/{path}", params=values))
    assert found[0] == status
    assert said in found[1]


def test_wrong_method_is_refused(client: TestClient) -> None:
    assert refusal(client.post("/api/query", json={}))[0] == 405
    assert refusal(client.get("/api/similar"))[0] in (404, 405)


# --- similar ----------------------------------------------------------------------------------------------------------


def test_part_of_a_file_of_the_index_is_compared(client: TestClient, config: Config) -> None:
    sound = uri(config, "a bell.wav")
    answer = client.post("/api/similar", json={"uri": sound, "start_s": 0.4, "end_s": 1.2, "k": 3})
    assert answer.status_code == 200, answer.text
    hits, expected = answer.json()["hits"], pipeline.open(config.into).similar_to_file(sound, 3, start_s=0.4, end_s=1.2)
    assert [hit["uri"] for hit in hits] == [hit.uri for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert {hit["probability"] for hit in hits} == {None}


def test_sound_that_is_sent_is_compared(client: TestClient, config: Config, capsys: Any) -> None:
    sound = Path(uri(config, "b.flac"))
    sent = client.post("/api/similar", files={"file": ("any name.flac", sound.read_bytes())}, data={"k": "3"})
    assert sent.status_code == 200, sent.text
    run_main("similar", config.into, sound, "-k", 3, "--json")
    hits, expected = sent.json()["hits"], lines(capsys.readouterr().out)
    assert [hit["uri"] for hit in hits] == [hit["uri"] for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in expected], abs=1e-5)


def test_sound_that_is_sent_leaves_nothing_behind(
    client: TestClient, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for content in (Path(uri(config, "b.flac")).read_bytes(), b"no sound"):
        client.post("/api/similar", files={"file": ("x.flac", content)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({"json": {"uri": "/etc/passwd"}}, 404, "is no file of the index"),
        ({"json": {"uri": "http://192.0.2.1/x.wav"}}, 404, "is no file of the index"),
        ({"json": {}}, 422, "uri: Field required"),
        ({"json": {"uri": "x", "more": 1}}, 422, "more: Extra inputs"),
        ({"json": []}, 422, "the body: "),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "the body is no JSON"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 422, "boundary"),
        ({"files": {"file": ("x.wav", b"no sound")}}, 422, "not_audio"),
        ({"files": {"file": ("x.wav", b"")}}, 422, "empty"),
        ({"files": {"other": (None, b"x")}}, 422, "file: the form has none"),
        ({"files": {"file": ("x.wav", b"x")}, "data": {"k": "many"}}, 422, "k: "),
        (
            {"files": {"file": ("x.wav", b"x")}, "data": {"start_s": "2", "end_s": "1"}},
            422,
            "end_s: 1.0 s is not",
        ),
    ],
)
def test_wrong_sound_is_one_line(sent: dict[str, Any], status: int, said: str, client: TestClient) -> None:
    found = refusal(client.post("/api/similar", **sent))
    assert found[0] == status, found
    assert said in found[1]


def test_huge_upload_is_refused_by_its_stated_length(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "5000000000"}
    assert refusal(client.post("/api/similar", content=b"--b", headers=headers))[0] == 413


def test_description_has_every_error_in_one_form(client: TestClient) -> None:
    description = client.get("/api/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(description)
    for path, methods in description["paths"].items():
        for operation in methods.values():
            assert {"401", "404", "410", "422", "503"} <= set(operation["responses"]), path
            schema = operation["responses"]["422"]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Error"}


# --- files that have gone or changed ----------------------------------------------------------------------------------


def test_file_that_has_gone_or_changed_is_said_so(own: Config, own_client: TestClient) -> None:
    bell, flac = Path(uri(own, "a bell.wav")), Path(uri(own, "b.flac"))
    content = flac.read_bytes()
    bell.unlink()
    assert get(own_client, "file", uri=str(bell))["is_gone"] is True
    flac.write_bytes(content)  # another time, the same content
    assert get(own_client, "file", uri=str(flac))["is_changed"] is False
    samples, rate = soundfile.read(flac)
    soundfile.write(flac, np.zeros_like(samples), rate)
    assert get(own_client, "file", uri=str(flac))["is_changed"] is True


def test_only_the_file_that_was_indexed_is_compared(own: Config, own_client: TestClient) -> None:
    bell, flac = Path(uri(own, "a bell.wav")), Path(uri(own, "b.flac"))
    bell.unlink()
    samples, rate = soundfile.read(flac)
    soundfile.write(flac, np.zeros_like(samples), rate)
    for path, status, said in ((bell, 404, "has gone since"), (flac, 409, "has changed since")):
        found = refusal(own_client.post("/api/similar", json={"uri": str(path), "start_s": 0.1, "end_s": 0.9}))
        assert (found[0], said in found[1]) == (status, True), found


def test_questions_do_not_wait_while_files_are_hashed(own: Config) -> None:
    begun, go = threading.Event(), threading.Event()

    def hash_slowly(place: Any) -> str:
        begun.set()
        assert go.wait(60)
        return hash_file(place)

    service = open_service(own.into)
    service.presences = Presences(hash_slowly)
    client, sounds = make_client(service), [uri(own, name) for name in LENGTHS_S]
    for path in sounds:
        os.utime(path, ns=(1, 1))
    with ThreadPoolExecutor(10) as threads:
        try:
            slow = [threads.submit(get, client, "file", uri=path) for path in sounds * 3]
            assert begun.wait(60)
            assert threads.submit(get, client, "query", text="a bell").result(60)["hits"]
            assert not any(each.done() for each in slow)
        finally:
            go.set()
        assert not any(each.result(60)["is_changed"] or each.result()["is_gone"] for each in slow)
    service.workers.close()
