"""Hits read from a file: what commands print, and what an export wrote, come back as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.export.hits_file import read_hits
from pipeline.export.labels import Label
from pipeline.export.texts import csv_lines, jsonl_lines

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1) | st.sampled_from(["=1", "'=1", "-", "007"])
SECONDS = st.floats(0, 1e6, allow_nan=False)
LABELS = st.builds(
    Label,
    uri=TEXTS.map(lambda text: f"/sounds/{text}.wav"),
    start_s=SECONDS,
    end_s=st.floats(1.1e6, 2e6),
    text=TEXTS,
    rank=st.none() | st.integers(1, 10**6),
    score=st.none() | st.floats(-1e3, 1e3),
    probability=st.none() | st.floats(0, 1),
    peak_s=st.none() | SECONDS,
    verdict=st.sampled_from([None, "right", "wrong"]),
    file_id=st.sampled_from([None, "0" * 32]),
    sample_rate_hz=st.sampled_from([None, 44_100]),
)


@given(st.lists(LABELS))
def test_every_label_comes_back_from_csv_and_from_json(labels: list[Label]) -> None:
    for lines in (csv_lines, jsonl_lines):
        assert read_hits("x", "".join(lines(labels)).encode()) == labels


def test_metadata_comes_back_where_all_have_it() -> None:
    labels = [
        Label("/a.wav", 0.0, 1.0, "a", metadata={"text": "t", "place": "-x", "n": 3, "r": 0.1, "is": True, "no": None}),
        Label(
            "/b.wav", 0.0, 1.0, "b", metadata={"text": "u", "place": "007", "n": -3, "r": 1e-9, "is": False, "no": "y"}
        ),
    ]
    for lines in (csv_lines, jsonl_lines):
        assert read_hits("x", "".join(lines(labels)).encode()) == labels


def test_lines_of_other_programs_are_read() -> None:
    csv = b"\xef\xbb\xbfstart_s, end_s ,uri\r\n1,2.5,/a.wav\r\n\r\n3,4,/b.wav\r\n"
    assert read_hits("x", csv) == [Label("/a.wav", 1.0, 2.5), Label("/b.wav", 3.0, 4.0)]
    json = b'\n{"uri": "/a.wav", "start_s": 1, "end_s": 2.5, "probability": null, "station": "north"}\n'
    assert read_hits("x", json) == [Label("/a.wav", 1.0, 2.5, metadata={"station": "north"})]


@pytest.mark.parametrize("data", [b"", b"\n", b"uri,start_s,end_s\n"])
def test_no_hits_are_no_labels(data: bytes) -> None:
    assert read_hits("x", data) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"url,start_s,end_s\n/a,1,2\n", "hits.csv: has no column `uri`, did you mean url"),
        (b"uri,start_s,end_s\n/a,1,2\n/b,one,2\n", "line 3: `start_s` is 'one', no number"),
        (b'uri,start_s,end_s,text\n/a,1,2,"two\nlines"\n\n/b,one,2,x\n', "line 5: `start_s` is 'one', no number"),
        (b'uri,start_s,end_s,text\n/a,one,2,"two\nlines"\n', "line 2: `start_s` is 'one', no number"),
        (b"uri,start_s,end_s\n/a,2,1\n", r"line 2: from 2\.0 s to 1\.0 s is no span"),
        (b"uri,start_s,end_s\n/a,1,85899345.9\n", r"line 2: `end_s` is 85899345\.9, which is longer than any file"),
        (b"uri,start_s,end_s\n/a,nan,1\n", "line 2: `start_s` is 'nan', no number"),
        (b"uri,start_s,end_s\n/a,,1\n", "line 2: has no `start_s`"),
        (b"uri,start_s,end_s\n/a,1\n", "line 2: has 2 cells, and the header 3"),
        (b'uri,start_s,end_s\n"/a,1,2\n', "is no CSV"),
        (b'{"uri": "/a", "start_s": 1}\n', "line 1: has no `end_s`"),
        (b'{"uri": "/a", "start_s": 1, "end_s": 2}\nnonsense\n', "line 2: is no JSON"),
        (b'{"a":' * 100_000 + b"\n", "line 1: is no JSON"),
        (b'{"uri": "/\\ud800", "start_s": 1, "end_s": 2}\n', "line 1: has half of a character"),
        (b'{"uri": "/a", "start_s": 1, "end_s": ' + b"9" * 400 + b"}\n", "line 1: `end_s` is 999"),
        (b'{"uri": 3, "start_s": 1, "end_s": 2}\n', "line 1: `uri` is 3, no text"),
        (b'{"uri": "/a", "start_s": true, "end_s": 2}\n', "line 1: `start_s` is True, no number"),
        (b'{"uri": "/a", "start_s": 1, "end_s": 2, "rank": 1.5}\n', r"`rank` is 1\.5, no whole number"),
        (b"uri,start_s,end_s\n/\xe9,1,2\n", "line 2: is not UTF-8"),
    ],
)
def test_errors_name_the_line_and_the_value(data: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_hits("hits.csv", data)
    assert "\n" not in str(caught.value)
