"""``earshot export``."""

import errno
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile

import pipeline
from pipeline.export.folder import STATE
from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus
from tests.helpers.exports import read_folder

ANY = ("--threshold", "1e-9")
"""Every file has an event."""


@pytest.fixture
def into(corpus: KnownCorpus, call: Call) -> str:
    """The index, brought up to date."""
    call("reindex", corpus.config.into, "--allow-deletions")
    return corpus.config.into


def found(call: Call, into: str) -> list[dict[str, Any]]:
    """What ``earshot locate`` finds."""
    return lines(call("locate", into, "a bell", "-k", 100, *ANY, "--json")[1])


def test_csv_goes_to_stdout_and_has_what_the_search_finds(into: str, call: Call) -> None:
    code, out, err = call("export", into, "--locate", "a bell", *ANY, "--format", "csv")
    table = pd.read_csv(io.StringIO(out))
    events = found(call, into)
    assert (code, err) == (0, "")
    assert len(events) > 2
    for name in ("rank", "uri", "start_s", "end_s", "score", "probability", "peak_s"):
        assert table[name].tolist() == [event[name] for event in events]
    assert set(table["text"]) == {"a bell"}
    assert table["audio_id"].notna().all()


def test_several_texts_are_exported_together(into: str, call: Call, tmp_path: Path) -> None:
    out = tmp_path / "hits.jsonl"
    arguments = ("--query", "rain", "--query", "wind", "--locate", "a bell", *ANY, "-k", 2, "--format", "jsonl")
    assert call("export", into, *arguments, "--out", out)[:2] == (0, f"6 labels in {out}\n")
    rows = lines(out.read_text("utf-8"))
    assert [row["text"] for row in rows] == ["rain"] * 2 + ["wind"] * 2 + ["a bell"] * 2
    assert [row["rank"] for row in rows] == [1, 2] * 3
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "dcase", "audacity", "raven", "wav", "clip-vectors", "frame-vectors"])
def test_hits_of_a_file_are_exported_like_those_of_the_search(into: str, call: Call, tmp_path: Path, form: str) -> None:
    printed, table = tmp_path / "printed.json", tmp_path / "table.csv"
    printed.write_text(call("locate", into, "a bell", "-k", 100, *ANY, "--json")[1], "utf-8")
    call("export", into, "--locate", "a bell", *ANY, "--format", "csv", "--out", table)
    outs: list[Any] = []
    sources: tuple[list[Any], ...] = (
        ["--locate", "a bell", *ANY],
        ["--hits", printed, "--label", "a bell"],
        ["--hits", table],
    )
    for number, source in enumerate(sources):
        code, _, err = call("export", into, *source, "--format", form, "--out", tmp_path / f"out{number}")
        assert (code, err) == (0, "")
        out = tmp_path / f"out{number}"
        outs.append(read_folder(out) if out.is_dir() else out.read_bytes())
    assert outs[0] == outs[1] == outs[2]


def test_label_tracks_lie_beside_each_other_one_for_each_recording(into: str, call: Call, tmp_path: Path) -> None:
    code, out, _ = call("export", into, "--locate", "a bell", *ANY, "--format", "audacity", "--out", tmp_path / "new")
    names = {Path(event["uri"]).name for event in found(call, into)}
    assert code == 0
    assert out.endswith(f"of {len(names)} recordings in {tmp_path / 'new'}\n")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        f"{'sub_' if name == 'd.wav' else ''}{name}.txt" for name in names
    }


def test_cut_audio_that_is_gone_is_told_and_the_rest_is_there(
    into: str, call: Call, tmp_path: Path, corpus: KnownCorpus
) -> None:
    events = found(call, into)
    gone = str(corpus.folder / "b.wav")
    n_gone = sum(event["uri"] == gone for event in events)
    Path(gone).unlink()
    out = tmp_path / "cuts"
    code, _, err = call("export", into, "--locate", "a bell", *ANY, "--format", "flac", "--padding", 0.1, "--out", out)
    assert code == 1
    assert err.count("vanished") == err.count("\n") == n_gone > 0
    manifest = pd.read_csv(out / "manifest.csv")
    assert manifest["uri"].tolist() == [event["uri"] for event in events]
    for _, row in manifest.iterrows():
        if row["uri"] == gone:
            assert row["reason"] == "vanished"
            continue
        info = soundfile.info(out / row["file"])
        assert info.frames / info.samplerate == pytest.approx(row["cut_end_s"] - row["cut_start_s"], abs=1e-4)
        assert row["cut_start_s"] == pytest.approx(max(0.0, row["start_s"] - 0.1), abs=1e-4)


def test_a_file_that_changed_since_is_not_cut_and_one_that_was_touched_is(
    into: str, call: Call, tmp_path: Path, corpus: KnownCorpus
) -> None:
    Path(corpus.folder / "b.wav").write_bytes(corpus.source(0).read_bytes())
    corpus.touch("new.wav")
    out = tmp_path / "cuts"
    assert call("export", into, "--locate", "a bell", *ANY, "--format", "wav", "--out", out)[0] == 1
    manifest = pd.read_csv(out / "manifest.csv")
    reasons = {
        Path(uri).name: reason for uri, reason in zip(manifest["uri"], manifest["reason"].fillna(""), strict=True)
    }
    assert len(reasons) > 2
    assert {name for name, reason in reasons.items() if reason} == {"b.wav"}
    assert "has other bytes than when it was indexed" in manifest["message"].dropna().iloc[0]


def test_all_vectors_of_some_files(into: str, call: Call, tmp_path: Path) -> None:
    where = "uri LIKE '%new.wav'"
    call(
        "export", into, "--format", "frame-vectors", "--where", where, "--out", tmp_path / "v", "--precision", "float16"
    )
    [file] = (tmp_path / "v").glob("frames-*.parquet")
    opened = pipeline.open(into)
    [audio_id] = opened.to_arrow("files", ["audio_id"], where)["audio_id"].to_pylist()
    stored = opened.to_arrow("frames", where=f"audio_id = '{audio_id}'")
    assert pq.read_table(file)["vector"].to_pylist() == stored["vector"].to_pylist()


def test_stopped_export_goes_on_by_the_same_command_alone(
    into: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("export", into, "--locate", "a bell", *ANY, "--format", "wav", "--out")
    expected = call(*arguments, tmp_path / "whole")
    out = tmp_path / "out"
    left = 3

    class Full(soundfile.SoundFile):  # type: ignore[misc]
        def __init__(self, *values: Any, **named: Any) -> None:
            nonlocal left
            left -= "w" in values[1:2]
            if not left:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().__init__(*values, **named)

    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "SoundFile", Full)
        assert call(*arguments, out)[0] == 1
    assert (out / STATE).is_dir()
    assert len(list(out.glob("*.wav"))) == 2
    code, _, err = call(*arguments, out, "--padding", 1)
    assert code == 2
    assert "differs in padding_s (0.0, not 1.0)" in err
    code, text, err = call(*arguments, out)
    assert (code, text.replace("out", "whole"), err) == expected
    assert read_folder(out) == read_folder(tmp_path / "whole")
    code, _, err = call(*arguments, out)
    assert code == 2
    assert "is not empty" in err


def test_marks_are_exported_by_verdict_and_those_of_an_edited_file_are_gone(
    into: str, call: Call, tmp_path: Path, corpus: KnownCorpus
) -> None:
    for name, text, verdict in (
        ("moved.wav", "a bell", "right"),
        ("new.wav", "a dog", "wrong"),
        ("new.wav", "rain", "right"),
    ):
        where = ("--start", "0", "--end", "0.2", "--who", "ada")
        call("mark", into, corpus.uri(name), "--text", text, "--verdict", verdict, *where)
    table = pd.read_csv(io.StringIO(call("export", into, "--marks", "--format", "csv")[1]))
    assert table["verdict"].tolist() == ["right", "wrong", "right"]
    assert set(table["who"]) == {"ada"}
    assert table["marked_at"].notna().all()
    wrong = lines(call("export", into, "--marks", "--verdict", "wrong,unsure", "--format", "jsonl")[1])
    assert [(row["text"], row["verdict"], row["start_s"]) for row in wrong] == [("a dog", "wrong", 0.0)]
    truth = call("export", into, "--marks", "--format", "dcase")
    assert truth[1].splitlines()[1:] == ["moved.wav\t0.000000\t0.200000\ta bell", "new.wav\t0.000000\t0.200000\train"]
    corpus.put("moved.wav", 0)
    call("reindex", into)
    out = tmp_path / "tracks"
    code, _, err = call("export", into, "--marks", "--format", "audacity", "--out", out)
    assert (code, err.count("\n")) == (1, 1)
    assert f"{corpus.uri('moved.wav')} from 0.00 s: vanished" in err
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "new.wav.txt": "0.000000\t0.200000\ta dog [wrong]\n0.000000\t0.200000\train [right]\n"
    }
    table = pd.read_csv(io.StringIO(call("export", into, "--marks", "--format", "csv")[1]))
    assert table["status"].tolist() == ["gone", "here", "here"]


@pytest.mark.parametrize("command", ["locate", "query"])
def test_printed_hits_of_a_file_that_was_edited_since_are_gone(
    into: str, call: Call, tmp_path: Path, corpus: KnownCorpus, command: str
) -> None:
    asked = ("a bell", *(ANY if command == "locate" else ()))
    printed = tmp_path / "printed.json"
    printed.write_text(call(command, into, *asked, "-k", 100, "--json")[1], "utf-8")
    hits = lines(printed.read_text("utf-8"))
    audio_ids = dict(zip(*pipeline.open(into).to_arrow("files", ["uri", "audio_id"]).to_pydict().values(), strict=True))
    assert [hit["audio_id"] for hit in hits] == [audio_ids[hit["uri"]] for hit in hits]
    corpus.put("sub/d.wav", 1)
    assert call("reindex", into)[0] == 0
    edited = [hit["uri"] == corpus.uri("sub/d.wav") for hit in hits]
    assert 0 < sum(edited) < len(hits)
    again = ("--hits", printed, "--label", "a bell")
    table = pd.read_csv(io.StringIO(call("export", into, *again, "--format", "csv")[1]))
    assert [status == "gone" for status in table["status"]] == edited
    code, out, err = call("export", into, *again, "--format", "dcase")
    assert (code, out.count("\n")) == (1, 1 + len(hits) - sum(edited))
    assert err.count("vanished") == err.count("\n") == sum(edited)
    out = call("mark", into, "--from", printed, "--text", "a bell", "--verdict", "right")[1]
    assert out.endswith(f"; {sum(edited)} of audio that no file of the index has\n")


def test_nothing_found_is_an_empty_table(into: str, call: Call) -> None:
    code, out, err = call("export", into, "--query", "a bell", "--where", "codec = 'none'", "--format", "csv")
    assert (code, err) == (0, "")
    assert pd.read_csv(io.StringIO(out)).empty


def test_summary_as_json_names_every_file(into: str, call: Call, tmp_path: Path) -> None:
    arguments = ("export", into, "--query", "a bell", "--format", "raven", "--out", tmp_path / "out", "--json")
    [summary] = lines(call(*arguments)[1])
    assert summary["files"] == sorted(read_folder(tmp_path / "out"))
    assert summary["problems"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "csv"], "nothing to export: give --query, --locate, --hits or --marks"),
        (["--format", "xml", "--query", "a"], "--format xml: expected csv"),
        (["--format", "csvs", "--query", "a"], "did you mean csv"),
        (["--format", "wav", "--query", "a"], "--out: give a new folder"),
        (["--format", "audacity", "--query", "a", "--out", "-"], "--out: give a new folder"),
        (["--format", "csv", "--query", "a", "--verdict", "right"], "--verdict: give --marks too"),
        (["--format", "csv", "--marks", "--where", "true"], "--where: is for --query and --locate"),
        (["--format", "csv", "--query", "a", "--label", "b"], "--label: give --hits too"),
        (["--format", "csv", "--query", "a", "--padding", "1"], "--padding: is for --format wav or flac"),
        (["--format", "clip-vectors", "--precision", "int8", "--out", "x"], "--precision int8: expected float32"),
        (["--format", "csv", "--hits", "none.csv"], "--hits none.csv: No such file"),
        (["--format", "frame-vectors", "--where", "nonsense = 1", "--out", "new"], "--where 'nonsense = 1'"),
    ],
)
def test_wrong_calls_are_told_in_a_line(
    into: str, call: Call, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call("export", into, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_folder_is_no_name_of_a_file(into: str, call: Call, tmp_path: Path) -> None:
    code, _, err = call("export", into, "--query", "a", "--format", "csv", "--out", tmp_path)
    assert code == 2
    assert "is a folder: give the name of a file" in err
