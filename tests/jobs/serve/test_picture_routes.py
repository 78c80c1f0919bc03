"""Spectrograms over HTTP, and kept on the disk."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from pipeline.config import Config
from tests.helpers.served import BROKEN, uri

BELL = "a bell.wav"


def ask(client: TestClient, headers: dict[str, str] | None = None, **values: Any) -> Any:
    return client.get("/api/spectrogram", params=values, headers=headers or {})


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("*/*", "webp"), ("", "webp"), ("image/avif,image/webp,image/png,*/*;q=0.8", "webp"), ("image/png", "png")],
)
def test_picture_has_the_asked_size_and_kind(accept: str, kind: str, client: TestClient, config: Config) -> None:
    answer = ask(client, {"Accept": accept}, uri=uri(config, BELL), width=123, height=45)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{kind}")
    assert Image.open(io.BytesIO(answer.content)).size == (123, 45)
    assert "max-age" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "values", [{"width": 0}, {"width": 10**6}, {"height": -1}, {"low_hz": 900, "high_hz": 100}, {"gain_db": "nan"}]
)
def test_impossible_picture_is_one_line(values: dict[str, Any], client: TestClient, config: Config) -> None:
    answer = ask(client, uri=uri(config, BELL), **values)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]


def test_picture_is_kept_by_its_content(own: Config, own_client: TestClient) -> None:
    bell = Path(uri(own, BELL))
    asked: dict[str, Any] = {"uri": str(bell), "start_s": 0.5, "end_s": 1.5, "width": 100}
    first = ask(own_client, **asked).content
    other_gain = ask(own_client, **asked, gain_db=20).content
    assert other_gain != first
    bell.unlink()
    assert ask(own_client, **asked).content == first
    assert ask(own_client, **asked | {"width": 101}).status_code == 404


@pytest.mark.parametrize(
    ("values", "status", "said"),
    [
        ({"uri": "/etc/passwd"}, 404, "is no file of the index"),
        ({"uri": "{folder}/b.flac", "start_s": 2.5}, 422, "start_s: 2.5 s, and"),
        ({"uri": "{folder}/b.flac", "start_s": 1, "end_s": 1}, 422, "end_s: 1 s is not after"),
        ({"uri": f"{{folder}}/{BROKEN}"}, 404, "failed"),
    ],
)
def test_wrong_picture_is_one_line(
    values: dict[str, Any], status: int, said: str, client: TestClient, config: Config
) -> None:
    answer = ask(client, **values | {"uri": values["uri"].format(folder=config.sources[0])})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]


def test_file_that_has_gone_or_changed_is_not_drawn(own: Config, own_client: TestClient) -> None:
    bell, flac = Path(uri(own, BELL)), Path(uri(own, "b.flac"))
    bell.unlink()
    flac.write_bytes(flac.read_bytes()[:-100])
    assert ask(own_client, uri=str(bell)).status_code == 404
    assert ask(own_client, uri=str(flac)).status_code == 409
