"""Formats of text, as other programs read them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import UsageError
from pipeline.export.labels import FIELDS, Label, find_recording
from pipeline.export.texts import ALWAYS, RAVEN_COLUMNS, TEXT_FORMATS, TextFormat, csv_lines, encode_lines, list_files

BELL = Label(
    "/s/a/x.wav", 3.8, 4.44, "a bell", rank=1, score=2.144, probability=0.9997, peak_s=3.9, sample_rate_hz=96_000
)
DOG = Label(
    "/s/b/x.wav", 1 / 3, 2.0, "犬 barks", rank=2, score=-0.5, probability=0.25, metadata={"place": "Ærø", "n": 3}
)
LATER = Label("/s/a/x.wav", 8.0, 9.123456789, "a\tdog\nbarks", rank=3, score=0.0, probability=0.1)
LABELS = [BELL, DOG, LATER]


def files(labels: Sequence[Label], name: str) -> dict[str, str]:
    return {file: "".join(lines) for file, lines in list_files(labels, TEXT_FORMATS[name])}


def only(labels: Sequence[Label], name: str) -> str:
    [text] = files(labels, name).values()
    return text


def test_pandas_reads_the_csv_with_every_value_in_full() -> None:
    table = pd.read_csv(io.StringIO(only(LABELS, "csv")))
    assert tuple(table.columns) == (*ALWAYS, "sample_rate_hz", "place", "n")
    for name in ("uri", "text", "start_s", "end_s", "score", "probability", "rank"):
        assert table[name].tolist() == [getattr(label, name) for label in LABELS]
    assert table["peak_s"].tolist()[0] == 3.9
    assert table["peak_s"].isna().tolist() == [False, True, True]
    assert table["place"].tolist()[1] == "Ærø"


def test_no_cell_of_a_csv_is_computed_by_a_spreadsheet() -> None:
    nasty = Label("=cmd|x.wav", 0.0, 1.0, "@SUM(A1)", metadata={"-note": "+1", "ok": "1"})
    header, row = [line.split(",") for line in "".join(csv_lines([nasty])).splitlines()]
    assert header[-2:] == ["'-note", "ok"]
    assert [cell for cell in row if cell.startswith(("=", "+", "-", "@"))] == []
    assert row[0] == "'@SUM(A1)"


def test_metadata_named_like_a_field_has_a_column_of_its_own() -> None:
    label = Label("/x.wav", 0.0, 1.0, "a bell", metadata={"text": "a title", "metadata.text": "odd"})
    table = pd.read_csv(io.StringIO("".join(csv_lines([label]))))
    assert table["text"].tolist() == ["a bell"]
    assert table["metadata.text"].tolist() == ["a title"]
    assert table["metadata.metadata.text"].tolist() == ["odd"]


def test_json_lines_have_the_fields_of_a_hit_first() -> None:
    text = only(LABELS, "jsonl")
    rows = [json.loads(line) for line in text.split("\n")[:-1]]
    assert len(pd.read_json(io.StringIO(text), lines=True)) == len(LABELS)
    assert list(rows[0])[:6] == ["rank", "uri", "start_s", "end_s", "score", "probability"]
    assert rows[1]["metadata"] == {"place": "Ærø", "n": 3}
    assert [row["end_s"] for row in rows] == [label.end_s for label in LABELS]
    assert set(rows[0]) <= {*FIELDS, "metadata"}


def test_audacity_has_a_label_track_for_each_recording_in_order_of_time() -> None:
    found = files([LATER, DOG, BELL], "audacity")
    assert found == {
        "a_x.wav.txt": "3.800000\t4.440000\ta bell\n8.000000\t9.123457\ta dog barks\n",
        "b_x.wav.txt": "0.333333\t2.000000\t犬 barks\n",
    }


def test_audacity_has_frequencies_where_a_label_has_some() -> None:
    """Audacity's manual, "Importing and Exporting Labels": a second line, -1 for what is undefined."""
    label = Label("/x.wav", 1.0, 2.0, "bat", low_hz=40_000.0)
    assert only([label], "audacity") == "1.000000\t2.000000\tbat\n\\\t40000.000000\t-1.000000\n"


def test_verdicts_of_marks_are_told_in_label_tracks() -> None:
    label = Label("/x.wav", 1.0, 2.0, "bat", verdict="wrong", who="me")
    assert only([label], "audacity").endswith("\tbat [wrong]\n")


def test_raven_reads_a_selection_table_for_each_recording() -> None:
    found = files(LABELS, "raven")
    assert list(found) == ["a_x.wav.selections.txt", "b_x.wav.selections.txt"]
    table = pd.read_csv(io.StringIO(found["a_x.wav.selections.txt"]), sep="\t")
    assert tuple(table.columns) == RAVEN_COLUMNS
    assert table["Selection"].tolist() == [1, 2]
    assert set(table["View"]) == {"Spectrogram 1"}
    assert set(table["Channel"]) == {1}
    assert table["Begin Time (s)"].tolist() == table["File Offset (s)"].tolist() == [3.8, 8.0]
    assert table["End Time (s)"].tolist() == [4.44, 9.123457]
    assert table["Low Freq (Hz)"].tolist() == [0.0, 0.0]
    assert table["High Freq (Hz)"].tolist() == [48_000.0, 24_000.0]  # of a file of unknown rate, what the models hear
    assert set(table["Begin Path"]) == {"/s/a/x.wav"}
    assert set(table["Begin File"]) == {"x.wav"}


def test_dcase_names_files_below_their_common_folder() -> None:
    table = pd.read_csv(io.StringIO(only(LABELS, "dcase")), sep="\t")
    assert list(table.columns) == ["filename", "onset", "offset", "event_label"]
    assert table["filename"].tolist() == ["a/x.wav", "a/x.wav", "b/x.wav"]
    assert table["onset"].tolist() == [3.8, 8.0, 0.333333]
    assert table["event_label"].tolist() == ["a bell", "a dog barks", "犬 barks"]


def test_dcase_needs_a_text() -> None:
    with pytest.raises(UsageError, match=r"/x\.wav: a hit without a text"):
        only([Label("/x.wav", 0.0, 1.0)], "dcase")


@pytest.mark.parametrize("name", ["audacity", "raven", "dcase"])
def test_time_ranges_are_placed_in_their_recording(name: str) -> None:
    part = Label("/s/long.wav#t=600,660", 1.5, 2.5, "a bell", peak_s=2.0)
    whole = Label("/s/long.wav", 601.5, 602.5, "a bell", peak_s=602.0)
    assert files([part], name) == files([whole], name)


def test_a_file_may_be_named_like_a_time_range(tmp_path: Path) -> None:
    (tmp_path / "odd.wav#t=10,20").touch()
    uri = str(tmp_path / "odd.wav#t=10,20")
    assert find_recording(uri) == (uri, 0.0)
    assert find_recording(str(tmp_path / "gone.wav#t=10,20")) == (str(tmp_path / "gone.wav"), 10.0)


@pytest.mark.parametrize("form", [form for form in TEXT_FORMATS.values() if not form.is_per_recording])
def test_nothing_found_is_a_file_without_rows(form: TextFormat) -> None:
    lines = list(form.to_lines([]))
    assert lines == [] if form.name == "jsonl" else len(lines) == 1
    if lines:
        separator: Any = "," if form.name == "csv" else "\t"
        assert pd.read_csv(io.StringIO(lines[0]), sep=separator).empty


@pytest.mark.parametrize("form", [form for form in TEXT_FORMATS.values() if form.is_per_recording])
def test_nothing_found_in_no_recording_is_no_file(form: TextFormat) -> None:
    assert list(list_files([], form)) == []


def test_lines_are_encoded_in_pieces_that_end_where_a_line_does() -> None:
    lines = [f"{number} é\n" for number in range(50_000)]
    pieces = list(encode_lines(lines))
    assert 1 < len(pieces) < 100
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert b"".join(pieces).decode() == "".join(lines)
