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
    assert table.num_rows >= 2
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
