"""Exports over HTTP are those of the command, and other readers read them."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import soundfile
from starlette.testclient import TestClient

import pipeline
from jobs.serve import limits
from jobs.serve.export_routes import Pieces, describe
from pipeline.config import Config
from pipeline.export.exporting import LEFT_OUT
from pipeline.export.request import Stream
from tests.helpers import served
from tests.helpers.served import uri


def export(client: TestClient, **values: Any) -> Any:
    answer = client.get("/api/export", params=values)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    return answer


def events(client: TestClient, k: int = 5) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(
        "/api/locate", params={"text": "a bell", "k": k, "threshold": 1e-6}
    ).json()["results"][0]["hits"]
    return found


def test_tables_have_the_hits(client: TestClient) -> None:
    expected = events(client)
    asked = {"locate": "a bell", "k": 5, "threshold": 1e-6}
    table = pc.read_csv(io.BytesIO(export(client, format="csv", **asked).content)).to_pylist()
    assert [(row["uri"], row["start_s"], row["end_s"]) for row in table] == [
        (hit["uri"], hit["start_s"], hit["end_s"]) for hit in expected
    ]
    lines = [json.loads(line) for line in export(client, format="jsonl", **asked).text.splitlines()]
    assert [line["score"] for line in lines] == [hit["score"] for hit in expected]


def test_several_files_are_an_archive(client: TestClient) -> None:
    expected = events(client)
    asked = {"locate": "a bell", "k": 5, "threshold": 1e-6}
    with zipfile.ZipFile(io.BytesIO(export(client, format="wav", **asked).content)) as archive:
        assert archive.testzip() is None
        sounds = [name for name in archive.namelist() if name.endswith(".wav")]
        assert len(sounds) == len(expected)
        samples, rate_hz = soundfile.read(io.BytesIO(archive.read(sounds[0])))
        assert (len(samples) > 0, rate_hz) == (True, 44_100)
    with zipfile.ZipFile(io.BytesIO(export(client, format="audacity", **asked).content)) as archive:
        n_labels = sum(len(archive.read(name).splitlines()) for name in archive.namelist())
        assert n_labels == len(expected)


def test_vectors_are_parquet(client: TestClient) -> None:
    table = pq.read_table(io.BytesIO(export(client, format="vectors", query="a bell", k=2).content))
    assert set(table["rank"].to_pylist()) == {1, 2}
    assert "vector" in table.column_names


def test_what_is_left_out_is_counted_or_told_by_the_file(own: Config, own_client: TestClient) -> None:
    """The marks of a file that has another content now."""
    client, bell = own_client, Path(uri(own, "a bell.wav"))
    said = [{"uri": str(bell), "text": "a bell", "verdict": "right", "end_s": end_s} for end_s in (0.4, 0.8)]
    said.append({"uri": uri(own, "b.flac"), "text": "a bell", "verdict": "right", "end_s": 0.4})
    assert client.post("/api/marks", json={"marks": said}).status_code == 201
    samples, rate_hz = soundfile.read(bell)
    soundfile.write(bell, samples[::-1], rate_hz)
    served.index(own)
    client.post("/api/refresh")
    for form, count in (("csv", "0"), ("raven", "2"), ("dcase", "2")):
        headers = export(client, format=form, marks=1).headers
        assert (headers["x-earshot-left-out"], headers["x-earshot-is-cut"]) == (count, "0")
    for form in ("wav", "vectors"):
        answer = export(client, format=form, marks=1)
        assert "x-earshot-left-out" not in answer.headers
        if form == "vectors":
            metadata = pq.read_metadata(io.BytesIO(answer.content)).metadata
            left_out = [each["uri"] for each in json.loads(metadata[LEFT_OUT.encode()])]
        else:
            with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                manifest = pc.read_csv(io.BytesIO(archive.read("manifest.csv"))).to_pylist()
            left_out = [row["uri"] for row in manifest if row["reason"]]
        assert left_out == [str(bell)] * 2


# --- hits that are sent -----------------------------------------------------------------------------------------------


def find_similar(client: TestClient, config: Config) -> list[dict[str, Any]]:
    like = {"uri": uri(config, "a bell.wav"), "start_s": 0.5, "end_s": 1.5, "k": 3}
    found: list[dict[str, Any]] = client.post("/api/similar", json=like).json()["hits"]
    assert len(found) == 3
    return found


def send(client: TestClient, form: str, sent: Any, **values: Any) -> Any:
    return client.post("/api/export", params={"format": form, **values}, json=sent)


def test_hits_of_a_sound_are_exported_as_they_are_sent(client: TestClient, config: Config) -> None:
    hits = find_similar(client, config)
    table = pc.read_csv(io.BytesIO(send(client, "csv", {"hits": hits, "label": "like a bell"}).content)).to_pylist()
    assert [(row["text"], row["rank"], row["uri"], row["score"], row["place"]) for row in table] == [
        ("like a bell", hit["rank"], hit["uri"], hit["score"], hit["metadata"]["place"]) for hit in hits
    ]
    answer = send(client, "dcase", {"hits": hits[:1], "label": "like a bell"})
    _, start_s, end_s, text = answer.text.splitlines()[1].split("\t")
    assert (float(start_s), float(end_s), text) == (hits[0]["start_s"], hits[0]["end_s"], "like a bell")
    named = [{**hit, "text": f"heard {hit['rank']}"} for hit in hits]
    lines = send(client, "jsonl", {"hits": named, "label": "like a bell"}).text.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["heard 1", "heard 2", "heard 3"]


def test_hits_that_are_sent_are_cut_and_have_the_vectors_of_their_clips(client: TestClient, config: Config) -> None:
    hits = find_similar(client, config)
    sent = {"hits": [{**hits[0], "start_s": 0.5, "end_s": 1.0}]}
    with zipfile.ZipFile(io.BytesIO(send(client, "flac", sent, padding_s=0.25).content)) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".flac")]
        samples, rate_hz = soundfile.read(io.BytesIO(archive.read(name)))
    assert len(samples) == rate_hz
    clips = pipeline.open(config.into).to_arrow("clips", ["clip_id", "uri", "start_s", "end_s"]).to_pylist()
    for hit in hits:
        table = pq.read_table(io.BytesIO(send(client, "vectors", {"hits": [hit]}).content))
        here = (clip for clip in clips if clip["uri"] == hit["uri"])
        expected = {
            clip["clip_id"] for clip in here if clip["start_s"] < hit["end_s"] and clip["end_s"] > hit["start_s"]
        }
        assert 0 < len(expected) < len(clips)
        assert sorted(table["clip_id"].to_pylist()) == sorted(expected)


def test_metadata_of_hits_that_are_sent_is_that_of_the_index(client: TestClient, config: Config) -> None:
    """Names without number, each of which would be a column for all hits, are none of its."""
    hits = find_similar(client, config)
    expected = send(client, "csv", {"hits": hits}).content
    assert "yard" in {row["place"] for row in pc.read_csv(io.BytesIO(expected)).to_pylist()}
    for changes in ({"metadata": {"place": "elsewhere"}}, {"file_id": "x", "duration_s": "long"}):
        assert send(client, "csv", {"hits": [hit | changes for hit in hits]}).content == expected
    many = [hit | {"metadata": {f"{number} {name}": 1 for name in range(1_000)}} for number, hit in enumerate(hits)]
    assert send(client, "csv", {"hits": many}).content == expected
    lines = send(client, "jsonl", {"hits": many}).text.splitlines()
    assert [json.loads(line)["metadata"]["place"] for line in lines] == [hit["metadata"]["place"] for hit in hits]


def test_hits_of_another_content_are_left_out(client: TestClient, config: Config) -> None:
    hits = find_similar(client, config)
    answer = send(client, "raven", {"hits": [{**hits[0], "audio_id": "0" * 32}, *hits[1:]], "label": "like a bell"})
    assert (answer.status_code, answer.headers["x-earshot-left-out"]) == (200, "1")


@pytest.mark.parametrize("name", ["/etc/passwd", "{folder}/broken.wav", "{folder}/../said.parquet"])
@pytest.mark.parametrize("form", ["csv", "wav"])
def test_only_indexed_files_may_be_named(name: str, form: str, client: TestClient, config: Config) -> None:
    hit = {"uri": name.format(folder=config.sources[0]), "start_s": 0, "end_s": 1}
    known = find_similar(client, config)[0]
    for file_id in (None, known["file_id"]):
        answer = send(client, form, {"hits": [known, {**hit, "file_id": file_id}], "label": "x"})
        assert (answer.status_code, list(answer.json())) == (404, ["error"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start_s": 2.0, "end_s": 1.0}, "hits: line 1: from 2.0 s to 1.0 s is no span"),
        ({"end_s": None}, "hits.0.end_s: "),
        ({"end_s": 85_899_345.9}, "hits.0.end_s: Input should be less than 85899345.88"),
        ({"unknown": 1}, "hits.0.unknown: "),
        ({"clip_id": "x" * 32}, "hits.0.clip_id: "),
        ({"audio_id": "0" * 33}, "hits.0.audio_id: "),
    ],
)
def test_wrong_hit_is_one_line(changes: dict[str, Any], said: str, client: TestClient, config: Config) -> None:
    answer = send(client, "csv", {"hits": [{**find_similar(client, config)[0], **changes}]})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"].startswith(said)


@pytest.mark.parametrize("form", ["csv", "flac", "frame-vectors", "clip-vectors"])
def test_the_latest_time_that_has_a_frame_is_exported(form: str, client: TestClient, config: Config) -> None:
    hit = {**find_similar(client, config)[0], "end_s": 85_899_345.8}
    answer = send(client, form, {"hits": [hit]})
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 100


def test_halves_of_characters_are_refused(client: TestClient, config: Config) -> None:
    hit = {**find_similar(client, config)[0], "text": "\ud800"}
    answer = client.post(
        "/api/export?format=csv",
        content=json.dumps({"hits": [hit]}),
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["error"][:13]) == (422, "hits.0.text: ")


def test_too_many_bytes_of_hits_are_refused(
    client: TestClient, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = {"hits": find_similar(client, config), "label": "x"}
    assert send(client, "csv", sent).status_code == 200
    monkeypatch.setattr(limits, "MAX_HITS_BYTES", 500)
    assert send(client, "csv", sent).status_code == 413


# --- headers, errors, pieces ------------------------------------------------------------------------------------------


def test_headers_say_that_a_search_was_cut() -> None:
    stream = Stream("labels.csv", iter([]))
    assert [describe(stream, is_cut=is_cut)["X-Earshot-Is-Cut"] for is_cut in (True, False)] == ["1", "0"]


@pytest.mark.parametrize(
    "values",
    [
        {"format": "csv"},
        {"format": "xls", "query": "x"},
        {"format": "csv", "query": ""},
        {"format": "csv", "query": "x", "where": "nothing = 1"},
        {"format": "csv", "query": "x", "padding_s": 1},
        {"format": "csv", "marks": 1, "verdict": "great"},
        {"format": "vectors"},
    ],
)
def test_wrong_export_is_one_line(values: dict[str, Any], client: TestClient, config: Config) -> None:
    answer = client.get("/api/export", params=values)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["error"]


def test_pieces_are_sent_together_and_end_when_closed() -> None:
    pieces = Pieces(iter([b"ab"] * 10), at_least_bytes=5)
    assert pieces.read() == b"ababab"
    pieces.read_ahead()
    assert [pieces.read(), pieces.read(), pieces.read()] == [b"ababab", b"ababab", b"ab"]
    pieces = Pieces(iter([b"ab"] * 10), at_least_bytes=5)
    pieces.read_ahead()
    pieces.close()
    assert pieces.read() == b""
    assert Pieces(iter([])).read() == b""
