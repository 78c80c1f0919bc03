"""Recordings over HTTP: as sound and as scores."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

import pipeline
from jobs.serve import limits
from jobs.serve.service import Service
from jobs.serve.workers import Workers
from pipeline.config import Config
from tests.helpers import served
from tests.helpers.served import BROKEN, LENGTHS_S, uri
from tests.helpers.sounds import encode_damaged_mp3

BELL = "a bell.wav"


def ask(client: TestClient, path: str, headers: dict[str, str] | None = None, **values: Any) -> Any:
    return client.get(f"/api/{path}", params=values, headers=headers or {})


# --- sound ------------------------------------------------------------------------------------------------------------


def test_sound_is_the_recording(client: TestClient, config: Config) -> None:
    answer = ask(client, "audio", uri=uri(config, BELL))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert answer.headers["accept-ranges"] == "bytes"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "x-earshot-approximate" not in answer.headers
    heard, rate_hz = soundfile.read(io.BytesIO(answer.content), dtype="int16")
    expected, expected_hz = soundfile.read(uri(config, BELL), dtype="int16")
    assert rate_hz == expected_hz
    assert np.abs(heard.astype(int) - expected.astype(int)).max() <= 1
    part = ask(client, "audio", uri=uri(config, BELL), start_s=1, end_s=1.5)
    heard, _ = soundfile.read(io.BytesIO(part.content), dtype="int16")
    assert np.abs(heard.astype(int) - expected[44_100 : 44_100 + 22_050].astype(int)).max() <= 1


def test_a_file_that_is_not_indexed_is_not_opened(client: TestClient, config: Config) -> None:
    """It may have ended the process that decoded it."""
    broken = uri(config, BROKEN)
    like = client.post("/api/similar", json={"uri": broken, "start_s": 0, "end_s": 1})
    size: dict[str, Any] = {"start_s": 0, "end_s": 1, "width": 16, "height": 16}
    for answer in (ask(client, "audio", uri=broken), ask(client, "spectrogram", uri=broken, **size), like):
        assert answer.status_code == 404
        assert "failed" in answer.json()["error"]


def test_sound_whose_times_are_approximate_is_labelled(tmp_path: Path) -> None:
    config = served.make_corpus(tmp_path)
    Path(config.sources[0], "junk.mp3").write_bytes(encode_damaged_mp3())
    served.index(config)
    client = served.make_client(config.into)
    for start_s, label in ((30, "1"), (1, None)):
        asked = {"uri": uri(config, "junk.mp3"), "start_s": start_s, "end_s": start_s + 1}
        answer = ask(client, "audio", {"Range": "bytes=0-99"}, **asked)
        assert (answer.status_code, answer.headers.get("x-earshot-approximate")) == (206, label)


def test_ranges_are_parts_of_the_whole(client: TestClient, config: Config) -> None:
    asked: dict[str, Any] = {"uri": uri(config, "b.flac"), "start_s": 0.1, "end_s": 1.9}
    whole = ask(client, "audio", **asked).content
    for header, first, stop in (
        ("bytes=0-", 0, len(whole)),
        ("bytes=0-43", 0, 44),
        ("bytes=1000-2001", 1_000, 2_002),
        ("bytes=-5", len(whole) - 5, len(whole)),
        (f"bytes=70000-{10**9}", 70_000, len(whole)),
    ):
        answer = ask(client, "audio", {"Range": header}, **asked)
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {first}-{stop - 1}/{len(whole)}"
        assert answer.content == whole[first:stop]


def test_range_out_of_bounds_is_refused_with_the_length(client: TestClient, config: Config) -> None:
    n_bytes = len(ask(client, "audio", uri=uri(config, BELL)).content)
    answer = ask(client, "audio", {"Range": f"bytes={n_bytes}-"}, uri=uri(config, BELL))
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{n_bytes}")
    assert list(answer.json()) == ["error"]


def test_range_of_another_version_gets_the_whole(client: TestClient, config: Config) -> None:
    whole = ask(client, "audio", uri=uri(config, BELL))
    tag = whole.headers["etag"]
    assert ask(client, "audio", {"Range": "bytes=0-9", "If-Range": tag}, uri=uri(config, BELL)).status_code == 206
    other = ask(client, "audio", {"Range": "bytes=0-9", "If-Range": '"other"'}, uri=uri(config, BELL))
    assert (other.status_code, len(other.content)) == (200, len(whole.content))


def test_head_tells_the_length(client: TestClient, config: Config) -> None:
    answer = client.head("/api/audio", params={"uri": uri(config, BELL)})
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == 44 + 4 * round(LENGTHS_S[BELL] * 44_100)


def test_expanded_sound_states_a_lower_rate(client: TestClient, config: Config) -> None:
    answer = ask(client, "audio", uri=uri(config, BELL), start_s=1, end_s=1.1, expand=10)
    heard, rate_hz = soundfile.read(io.BytesIO(answer.content))
    assert (len(heard), rate_hz) == (4_410, 4_410)


@pytest.mark.parametrize(
    ("values", "status", "said"),
    [
        ({"uri": "/etc/passwd"}, 404, "is no file of the index"),
        ({"uri": "{folder}/../in/b.flac"}, 404, "is no file of the index"),
        ({"uri": "{folder}/b.flac", "start_s": 2.5}, 422, "start_s: 2.5 s, and"),
        ({"uri": "{folder}/b.flac", "start_s": 1, "end_s": 1}, 422, "end_s: 1 s is not after"),
        ({"uri": "{folder}/b.flac", "start_s": -1}, 422, "start_s: "),
        ({"uri": "{folder}/b.flac", "start_s": "nan"}, 422, "start_s: "),
        ({"uri": "{folder}/b.flac", "end_s": "inf"}, 422, "end_s: "),
        ({"uri": "{folder}/b.flac", "expand": 0}, 422, "expand: "),
        ({"uri": f"{{folder}}/{BROKEN}"}, 404, "failed"),
    ],
)
def test_wrong_sound_is_one_line(
    values: dict[str, Any], status: int, said: str, client: TestClient, config: Config
) -> None:
    asked = values | {"uri": values["uri"].format(folder=config.sources[0])}
    answer = ask(client, "audio", **asked)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]


def test_file_that_has_gone_or_changed_is_not_played_and_keeps_its_scores(own: Config, own_client: TestClient) -> None:
    bell, flac = Path(uri(own, BELL)), Path(uri(own, "b.flac"))
    ask(own_client, "audio", uri=str(bell))
    bell.unlink()
    flac.write_bytes(flac.read_bytes()[:-100])
    gone, changed = ask(own_client, "audio", uri=str(bell)), ask(own_client, "audio", uri=str(flac))
    assert (gone.status_code, changed.status_code) == (404, 409)
    assert "has gone" in gone.json()["error"]
    assert "has changed" in changed.json()["error"]
    for each in (bell, flac):
        assert ask(own_client, "curve", uri=str(each), text="a bell").json()["scores"]


# --- scores -----------------------------------------------------------------------------------------------------------


def test_curve_is_that_of_the_index(client: TestClient, config: Config) -> None:
    found = ask(client, "curve", uri=uri(config, BELL), text="a bell", start_s=0.5, end_s=2).json()
    expected = pipeline.open(config.into).curve("a bell", uri(config, BELL), 0.5, 2.0)
    assert found["scores"] == pytest.approx(expected.scores.tolist(), abs=1e-6)
    assert (found["first_frame"], found["frame_s"], found["step_frames"]) == (expected.first_frame, 0.04, 1)
    assert (found["logit_scale"], found["logit_bias"]) == (expected.logit_scale, expected.logit_bias)


def test_curve_of_fewer_points_has_the_best_of_several_frames(client: TestClient, config: Config) -> None:
    asked: dict[str, Any] = {"uri": uri(config, BELL), "text": "a bell", "start_s": 0.5, "end_s": 2}
    fine, coarse = ask(client, "curve", **asked).json(), ask(client, "curve", points=10, **asked).json()
    assert 5 <= len(coarse["scores"]) <= 10
    step, first = coarse["step_frames"], coarse["first_frame"]
    assert (coarse["frame_s"], step > 1, 0 <= fine["first_frame"] - first < step) == (0.04, True, True)
    best: dict[int, float] = {}
    for frame, score in enumerate(fine["scores"], start=fine["first_frame"]):
        begin = frame - frame % step
        best[begin] = max(score, best.get(begin, -np.inf))
    assert {first + k * step: score for k, score in enumerate(coarse["scores"])} == best


def test_curve_of_many_frames_is_bounded_and_holds_up_no_questions(
    client: TestClient, service: Service, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_POINTS", 20)  # what is long; the largest `points` was read before
    monkeypatch.setattr(service, "workers", Workers())
    service.workers.long.close()
    asked: dict[str, Any] = {"uri": uri(config, BELL), "text": "a bell"}
    assert ask(client, "curve", end_s=0.8, **asked).status_code == 200
    assert ask(client, "curve", end_s=1.0, **asked).status_code == 500  # its threads are gone


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"uri": "/etc/passwd", "text": "x"}, 404),
        ({"uri": "{folder}/b.flac", "text": "x", "points": 0}, 422),
        ({"uri": "{folder}/b.flac", "text": "x", "points": 100_001}, 422),
        ({"uri": f"{{folder}}/{BROKEN}", "text": "x"}, 404),
        ({"uri": "{folder}/b.flac", "text": " "}, 422),
        ({"uri": "{folder}/b.flac", "text": "x", "start_s": 2, "end_s": 1}, 422),
    ],
)
def test_wrong_curve_is_one_line(values: dict[str, Any], status: int, client: TestClient, config: Config) -> None:
    answer = ask(client, "curve", **values | {"uri": values["uri"].format(folder=config.sources[0])})
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
