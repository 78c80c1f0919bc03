"""An index and its files in an object store are served like those on a disk."""

import io
from pathlib import Path

import numpy as np
import soundfile

from pipeline.run.driver import index_corpus
from tests.helpers import served
from tests.helpers.contents import KnownBucket
from tests.helpers.runs import WideEncoder, in_place


def test_bucket_is_searched_heard_and_marked(bucket: str, tmp_path: Path) -> None:
    made = KnownBucket(f"{bucket}/served", tmp_path)
    for number, name in enumerate(("a.wav", "b.wav", "sub/c.wav")):
        made.put(name, number + 2)
    index_corpus(made.config, stages=in_place(WideEncoder()))
    client = served.make_client(made.config.into, cache=tmp_path / "cache")
    info = client.get("/api/info").json()
    assert (info["index"], info["indexed"], info["is_writing"]) == (made.config.into, 3, False)
    hits = client.get("/api/query", params={"text": "a bell"}).json()["hits"]
    assert {hit["uri"] for hit in hits} == {made.uri(name) for name in ("a.wav", "b.wav", "sub/c.wav")}
    sound = {"uri": made.uri("a.wav")}
    whole = client.get("/api/audio", params=sound)
    assert whole.status_code == 200, whole.text
    heard, rate_hz = soundfile.read(io.BytesIO(whole.content))
    expected, expected_hz = soundfile.read(made.source(2))
    assert rate_hz == expected_hz
    assert np.abs(heard - expected).max() < 1e-3
    part = client.get("/api/audio", params=sound, headers={"Range": "bytes=500-999"})
    assert (part.status_code, part.content) == (206, whole.content[500:1_000])
    assert client.get("/api/spectrogram", params=sound).headers["content-type"] == "image/webp"
    assert client.get("/api/curve", params={**sound, "text": "a bell"}).json()["scores"]
    mark = {**sound, "text": "a bell", "verdict": "right", "end_s": 0.4}
    assert client.post("/api/marks", json={"marks": [mark]}).status_code == 201
    assert client.get("/api/info").json()["n_marks"] == 1
    made.delete("a.wav")
    assert client.get("/api/file", params=sound).json()["is_gone"] is True
    assert client.get("/api/audio", params=sound).status_code == 404
    index_corpus(made.config, stages=in_place(WideEncoder()))
    now = client.post("/api/refresh").json()
    assert (now["indexed"], now["seq"] > info["seq"]) == (2, True)
