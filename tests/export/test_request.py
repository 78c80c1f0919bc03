"""A request becomes a stream, or files in a folder, with the same content."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.errors import UsageError
from pipeline.export.exporting import LEFT_OUT
from pipeline.export.request import FORMATS, VECTORS, Request, export_into, find_labels, to_stream
from pipeline.export.sources import Questions
from pipeline.search.client import Index
from tests.helpers.ears import GRID, Ear, open_with
from tests.helpers.exports import read_folder
from tests.helpers.tables import draw_vectors, write_index

QUESTIONS = Questions(queries=("a bell",), locates=("a bell", "a dog"), threshold=1e-6, k=3)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Two recordings that are there, and one that is not."""
    folder, rng = tmp_path_factory.mktemp("request"), np.random.default_rng(0)
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", rng.uniform(-0.5, 0.5, 28 * 8_000), 8_000)
    audios = {str(folder / f"{name}.wav"): draw_vectors(rng, 700, GRID) for name in ("a", "b", "gone")}
    write_index(folder / "index", audios, GRID)
    return open_with(folder / "index", Ear())


@pytest.mark.parametrize("form", FORMATS)
def test_stream_has_what_the_folder_has(opened: Index, tmp_path: Path, form: str) -> None:
    request = Request(form, QUESTIONS)
    labels = find_labels(opened, request).labels
    assert len(labels) == 9
    stream = to_stream(opened, request, labels)
    data = b"".join(stream.pieces)
    exported, answer = export_into(opened, request, str(tmp_path / "out"))
    files = read_folder(tmp_path / "out")
    assert answer.labels == labels
    if stream.name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == files
    elif stream.name.endswith(".parquet"):
        [content] = files.values()
        assert pq.read_table(io.BytesIO(data)).equals(pq.read_table(io.BytesIO(content)))
    else:
        assert files == {stream.name: data}
    assert sorted(exported.names) == sorted(files)


def test_hits_of_all_questions_come_in_their_order_with_ids(opened: Index) -> None:
    labels = find_labels(opened, Request("csv", QUESTIONS)).labels
    assert [label.text for label in labels] == ["a bell"] * 6 + ["a dog"] * 3
    assert [label.rank for label in labels] == [1, 2, 3] * 3
    assert all(label.clip_id for label in labels[:3])
    assert all(label.peak_s is not None for label in labels[3:])
    files = opened.to_arrow("files", ["uri", "file_id", "audio_id", "sample_rate_hz"]).to_pylist()
    known = {row["uri"]: (row["file_id"], row["audio_id"], row["sample_rate_hz"]) for row in files}
    assert all(known[label.uri] == (label.file_id, label.audio_id, label.sample_rate_hz) for label in labels)


@pytest.mark.parametrize("form", ["clip-vectors", "frame-vectors"])
def test_all_vectors_are_streamed_with_their_files(opened: Index, form: str) -> None:
    request = Request(form, Questions(where="uri LIKE '%/a.wav'"), precision="float16")
    stream = to_stream(opened, request, find_labels(opened, request).labels)
    with zipfile.ZipFile(io.BytesIO(b"".join(stream.pieces))) as archive:
        files, vectors = (pq.read_table(io.BytesIO(archive.read(name))) for name in archive.namelist())
    assert [Path(uri).name for uri in files["uri"].to_pylist()] == ["a.wav"]
    key = "file_id" if form == "clip-vectors" else "audio_id"
    assert set(vectors[key].to_pylist()) == set(files[key].to_pylist())
    assert vectors.num_rows == (3 if form == "clip-vectors" else 700)


def test_given_hits_may_be_of_files_that_the_index_does_not_have(opened: Index) -> None:
    hits = b"uri,start_s,end_s,text\n/other.wav,1,2,\n/other.wav,2,3,a cat\n"
    labels = find_labels(opened, Request("csv", hits=hits, label="a dog")).labels
    assert [(label.uri, label.text, label.file_id) for label in labels] == [
        ("/other.wav", "a dog", None),
        ("/other.wav", "a cat", None),
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_request_names_itself_alike_only_if_it_asks_the_same(form: str) -> None:
    requests = [
        Request(form, QUESTIONS),
        Request(form, Questions(queries=("a bell",))),
        Request(form, hits=b""),
        Request(form, hits=b"uri,start_s,end_s\n"),
        Request(form, marks=True),
        Request(form, marks=True, verdicts=("right",)),
        Request(form, marks=True, precision="float16"),
    ]
    named = [request.identify("index") for request in requests]
    assert named == [request.identify("index") for request in requests]
    assert all(one != other for number, one in enumerate(named) for other in named[:number])
    assert named[0] != requests[0].identify("other")


def test_wrong_where_of_vectors_is_refused_before_anything_is_written(opened: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        export_into(opened, Request("frame-vectors", Questions(where="nonsense = 1")), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_hits_of_another_content_are_gone(opened: Index, tmp_path: Path) -> None:
    uri = opened.to_arrow("files", ["uri"])["uri"][0].as_py()
    hits = f"uri,start_s,end_s,text,audio_id\n{uri},1,2,a bell,{'0' * 32}\n".encode()
    labels = find_labels(opened, Request("csv", hits=hits)).labels
    assert [(label.status, label.file_id) for label in labels] == [("gone", None)]
    for form in FORMATS:
        request = Request(form, hits=hits)
        exported, _ = export_into(opened, request, str(tmp_path / form))
        stream = to_stream(opened, request, labels)
        assert len(stream.problems) == int(stream.knows_problems and form not in ("csv", "jsonl"))
        data = b"".join(stream.pieces)
        if form in ("csv", "jsonl"):
            assert "gone" in data.decode()
            continue
        assert stream.problems == exported.problems
        if form in VECTORS:
            [name] = exported.names
            for file in (io.BytesIO(data), tmp_path / form / name):
                [left_out] = json.loads(pq.read_metadata(file).metadata[LEFT_OUT.encode()])
                assert (left_out["uri"], left_out["start_s"], left_out["reason"]) == (uri, 1.0, "vanished")
        assert [(problem.uri, problem.reason) for problem in exported.problems] == [(uri, "vanished")]
        assert not any(name.endswith((".wav", ".flac", ".txt")) for name in exported.names)
