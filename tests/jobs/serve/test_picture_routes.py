"""Spectrograms over HTTP, and kept on the disk."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from pipeline.config import Config
from tests.helpers.served import BROKEN, index, uri
from tests.helpers.sounds import encode_damaged_mp3

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


def test_picture_whose_times_are_approximate_is_labelled_also_when_kept(
    own: Config, own_client: TestClient, tmp_path: Path
) -> None:
    Path(own.sources[0], "junk.mp3").write_bytes(encode_damaged_mp3())
    index(own)
    own_client.post("/api/refresh").raise_for_status()
    pictures = []
    for start_s, label in ((30, "1"), (1, None), (30, "1"), (1, None)):
        answer = ask(own_client, uri=uri(own, "junk.mp3"), start_s=start_s, end_s=start_s + 1)
        assert (answer.status_code, answer.headers.get("x-earshot-approximate")) == (200, label)
        pictures.append(answer.content)
    assert pictures[:2] == pictures[2:]
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 2


def test_sampled_picture_says_so_also_when_kept(own: Config, own_client: TestClient) -> None:
    asked: dict[str, Any] = {"uri": uri(own, BELL), "width": 60}
    sampled, whole = ask(own_client, **asked, sampled=True), ask(own_client, **asked)
    assert [answer.headers.get("x-earshot-sampled") for answer in (sampled, whole)] == ["1", None]
    assert sampled.content != whole.content
    Path(uri(own, BELL)).unlink()
    again = ask(own_client, **asked, sampled=True)
    assert (again.content, again.headers["x-earshot-sampled"]) == (sampled.content, "1")


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
