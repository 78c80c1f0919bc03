"""Exports over HTTP are those of the command, and other readers read them."""

import io
import json
import zipfile
from typing import Any

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import soundfile
from starlette.testclient import TestClient

from jobs.serve.export_routes import Pieces
from pipeline.config import Config


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
    pieces.close()
    assert pieces.read() == b""
    assert Pieces(iter([])).read() == b""
