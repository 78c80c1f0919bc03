"""The commands that keep an index up: plan, reindex, history, restore, verify, optimize, as a person meets them."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline.run.driver
from jobs.main import main
from pipeline.index import journal
from pipeline.index.handle import find_index
from pipeline.index.lease import Lease
from pipeline.index.repair import give_up_fragments
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.run.driver import Workers, index_corpus
from tests.helpers.contents import KnownCorpus, content, live
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownCorpus:
    """Indexed; then a file moved, one doubled, one new, one gone and one broken."""
    made = KnownCorpus(tmp_path, store={"optimize_every": 1_000})
    for number, name in enumerate(("a.wav", "b.wav", "c.wav", "sub/d.wav")):
        made.put(name, number + 2)
    index_corpus(made.config, stages=in_place(WideEncoder()))
    made.move("a.wav", "moved.wav")
    made.put("doubled.wav", 3)
    made.delete("c.wav")
    made.put("new.wav", 0)
    made.put("broken.wav", 7)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(pipeline.run.driver, "_check_before_creating", lambda config, workers: None)
    return made


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command with an encoder in this process; returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["earshot", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main(obj=Workers(in_place(WideEncoder())))
        out, err = capsys.readouterr()
        return int(exit.value.code or 0), out, err

    return run


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def versions(index: str) -> dict[str, int]:
    names = (*journal.DATA_TABLES, "batches")
    return {name: table(index, name).version for name in names}


def test_plan_says_what_reindex_does_and_writes_nothing(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    before = versions(into)
    code, out, _ = call("plan", into, "--json")
    *files, summary = lines(out)
    assert code == 0
    assert {Path(row["uri"]).name: row["action"] for row in files} == {
        "a.wav": "deleted",
        "b.wav": "unchanged",
        "c.wav": "deleted",
        "d.wav": "unchanged",
        "moved.wav": "moved",
        "doubled.wav": "duplicate",
        "new.wav": "new",
        "broken.wav": "new",
    }
    assert all(row.keys() == {"uri", "action", "reason"} and row["reason"] for row in files)
    counts = {"new": 2, "moved": 1, "duplicate": 1, "deleted": 2, "unchanged": 2, "changed": 0, "failed": 0}
    assert summary.items() >= counts.items()
    assert summary["hours"] > 0
    assert summary["bytes"] > 0
    assert summary["seconds"] > 0
    code, out, _ = call("plan", into)
    assert code == 0
    assert re.search(r"moved +1 *\n", out)
    assert "of audio to encode" in out
    assert versions(into) == before
    code, out, _ = call("reindex", into, "--json")
    assert code == 0
    [done] = lines(out)
    expected = {"files": 6, "unchanged": 2, "indexed": 3, "failed": 1, "deleted": 2}
    assert done.items() >= expected.items()
    assert live(into) == corpus.expected()
    *files, summary = lines(call("plan", into, "--json")[1])
    assert (summary["unchanged"], summary["failed"], summary["new"]) == (5, 1, 0)


def test_plan_of_a_configuration_without_an_index_makes_none(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"sources": ["in"], "into": "other"}))
    code, out, _ = call("plan", file, "--json")
    assert code == 0
    assert (lines(out)[-1]["new"], lines(out)[-1]["duplicate"]) == (5, 1)
    assert lines(out)[-1]["seconds"] is None
    assert not (tmp_path / "other").exists()


def test_failures_are_tried_again_when_asked(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    assert lines(call("reindex", into, "--json")[1])[0]["failed_before"] == 1
    assert lines(call("reindex", into, "--retry-failed", "--json")[1])[0]["failed"] == 1
    assert lines(call("reindex", into, "--retry-failed", "--reason", "empty", "--json")[1])[0]["failed"] == 0
    assert lines(call("plan", into, "--retry-failed", "--json")[1])[-1]["retried"] == 1
    assert lines(call("reindex", into, "--full", "--json")[1])[0]["indexed"] == 5
    assert live(into) == corpus.expected()


def test_history_restore_and_reindex(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    before = live(into)
    call("reindex", into)
    history = lines(call("history", into, "--json")[1])
    kinds = [row["kind"] for row in history]
    assert kinds[:3] == ["create", "configure", "index"]
    assert sum(row["files"] for row in history) == 4 + 6  # c.wav and a.wav are noted as gone
    assert history[2]["speed"] > 0
    text = call("history", into)[1]
    assert "maintain" in text
    first = max(row["batch"] for row in history[: kinds.index("maintain") + 1])
    code, out, _ = call("restore", into, "--batch", first)
    assert code == 0
    assert f"{into}: restored to batch {first}, " in out
    assert live(into) == before
    assert call("reindex", into)[0] == 0
    assert live(into) == corpus.expected()


def test_verify_lists_what_is_wrong_and_repairs_it(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    assert call("verify", into)[:2] == (0, f"{into}: all is well\n")
    clips = table(into, "clips")
    writer_versions = versions(into)
    clips.delete(f"uri = '{corpus.uri('moved.wav')}'")
    published = journal.read_published(into)
    row = journal.make_row(
        published.seq + 1, "f" * 32, "f" * 32, "maintain", {**published.versions, "clips": versions(into)["clips"]}
    )
    journal.publish(journal.open_journal(into), [row])
    assert writer_versions["clips"] < versions(into)["clips"]
    code, out, _ = call("verify", into)
    assert code == 1
    assert "moved.wav" in out
    code, out, _ = call("verify", into, "--json")
    finding, summary = lines(out)
    assert summary == {"findings": 1, "without_checksum": 0}
    assert (code, finding["table"], finding["uri"]) == (1, "clips", corpus.uri("moved.wav"))
    assert call("verify", into, "--repair")[0] == 0
    assert call("verify", into)[0] == 0
    assert live(into) == corpus.expected()


@pytest.mark.parametrize("name", journal.DATA_TABLES)
def test_verify_says_which_data_file_is_lost_and_has_made_anew_what_was_in_it(
    corpus: KnownCorpus, call: Call, name: str
) -> None:
    into = corpus.config.into
    call("reindex", into)
    file = max(Path(journal.table_uri(into, name), "data").iterdir(), key=lambda each: each.stat().st_size)
    file.unlink()
    code, _, err = call("reindex", into)
    assert (code, err.count("\n")) == (1, 1)
    assert f"`{name}`: data file {file.name} is gone; `earshot verify {into} --repair`" in err
    code, out, _ = call("verify", into, "--json")
    assert code == 1
    assert [found["table"] for found in lines(out)[:-1] if found["fragment"] is not None] == [name]
    assert call("verify", into, "--repair")[0] == 0
    assert call("verify", into)[:2] == (0, f"{into}: all is well\n")
    assert live(into) == corpus.expected()


@pytest.mark.parametrize("name", ["files", "frames"])
def test_nothing_is_given_up_while_a_disk_is_missing(corpus: KnownCorpus, call: Call, name: str) -> None:
    into, more = corpus.config.into, KnownCorpus(corpus.root / "more")
    more.put("a.wav", 5)
    call("index", more.folder, "--into", into)
    more.delete("a.wav")
    max(Path(journal.table_uri(into, name), "data").iterdir(), key=lambda each: each.stat().st_size).unlink()
    before = versions(into)
    code, _, err = call("verify", into, "--repair")
    assert code == 2
    assert f"{more.folder}: holds no audio now" in err
    assert versions(into) == before


def test_a_ledger_that_is_lost_in_part_is_not_repaired_while_a_disk_is_missing(corpus: KnownCorpus, call: Call) -> None:
    """Whose files are known from their clips; nor by another try, after the lost fragment has been given up."""
    into = str(corpus.root / "disks-index")
    for number in (1, 2):
        folder = corpus.root / f"disk{number}" / "sounds"
        folder.mkdir(parents=True)
        (folder / "a.wav").write_bytes(content(number + 2).read_bytes())
    assert call("index", corpus.root / "disk*" / "sounds", "--into", into)[0] == 0
    (corpus.root / "disk2" / "sounds" / "a.wav").unlink()
    max(Path(journal.table_uri(into, "files"), "data").iterdir(), key=lambda each: each.stat().st_size).unlink()
    before = live_frames(into)
    said = f"{corpus.root}/disk2/sounds: holds no audio now, and the index has 1 files of it"
    for is_given_up in (False, True):
        if is_given_up:
            give_up_fragments(into, verify_index(into))
        code, _, err = call("verify", into, "--repair")
        assert (code, err.count("\n")) == (2, 1)
        assert said in err
        assert live_frames(into) == before
    (corpus.root / "disk2" / "sounds" / "a.wav").write_bytes(content(4).read_bytes())
    assert call("verify", into, "--repair")[0] == 0
    assert call("info", into, "--json")[0] == 0
    assert live_frames(into) == before


def live_frames(into: str) -> list[str]:
    frames = open_published(into, "frames").to_table(columns=["audio_id", "frame", "vector"]).to_pylist()
    return sorted(map(str, frames))


@pytest.mark.parametrize("name", journal.DATA_TABLES)
def test_verify_mends_a_data_file_that_is_cut_off(corpus: KnownCorpus, call: Call, name: str) -> None:
    into = corpus.config.into
    call("reindex", into)
    file = max(Path(journal.table_uri(into, name), "data").iterdir(), key=lambda each: each.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert call("verify", into, "--repair")[0] == 0
    assert call("verify", into)[:2] == (0, f"{into}: all is well\n")
    assert live(into) == corpus.expected()


def test_verify_says_how_many_files_it_compared(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    indexed = call("info", into, "--json")
    n_indexed = lines(indexed[1])[0]["indexed"]
    assert call("verify", into, "--deep", "--sample", "2")[1].splitlines()[-1] == f"2 of {n_indexed} files compared"
    *_, summary = lines(call("verify", into, "--deep", "--sample", "all", "--json")[1])
    assert (summary["compared"], summary["indexed"]) == (n_indexed, n_indexed)
    for sample in ("0", "-1", "some", "1.5"):
        code, _, err = call("verify", into, "--deep", "--sample", sample)
        assert (code, err) == (2, f"earshot: --sample {sample}: expected a number of files from 1 on, or all\n")
    assert call("verify", into, "--sample", "all")[::2] == (2, "earshot: --sample: give --deep too\n")


def test_optimize_says_what_it_did(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    code, out, _ = call("optimize", into, "--keep-hours", "0")
    assert code == 0
    assert re.fullmatch(rf"{re.escape(into)}: \d+ fragments became 3, [\d.]+ [kM]?B deleted\n", out)
    [done] = lines(call("optimize", into, "--json")[1])
    assert done["n_fragments_before"] == done["n_fragments"] == 3
    assert live(into) == corpus.expected()


def test_rebuild_is_named_where_settings_differ_and_does_it(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    into = corpus.config.into
    file = tmp_path / "run.yaml"
    values = corpus.config.model_dump(mode="json", include={"sources", "into", "store", "run"})
    file.write_text(yaml.safe_dump({**values, "window": {"length_s": 1.2, "overlap_s": 0.2}}))
    code, out, err = call("index", file)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"earshot: {re.escape(into)}: built with window [^\n]*--rebuild\n", err)
    assert call("index", file, "--rebuild")[0] == 0
    assert call("verify", into)[0] == 0
    assert lines(call("plan", into, "--json")[1])[-1]["unchanged"] == 5
    code, out, _ = call("reindex", into, "--rebuild", "--json")
    assert lines(out)[0]["indexed"] == 5
    assert find_index(into).live.path.endswith("generation-3")


@pytest.mark.parametrize("command", ["reindex", "optimize", "restore", "verify"])
def test_a_second_writer_is_told_who_holds_the_index_and_since_when(
    corpus: KnownCorpus, call: Call, command: str
) -> None:
    into = corpus.config.into
    options = {"restore": ["--batch", "0"], "verify": ["--repair"]}.get(command, list[str]())
    if command == "verify":
        table(into, "clips").delete("true")
        published = journal.read_published(into)
        now = {**published.versions, "clips": versions(into)["clips"]}
        row = journal.make_row(published.seq + 1, "f" * 32, "f" * 32, "maintain", now)
        journal.publish(journal.open_journal(into), [row])
    with Lease(into, "another"):
        code, _, err = call(command, into, *options)
    assert code == 1
    said = r"earshot: [^\n]*another run writes here \(process \d+ on \S+, since [^\n)]+ UTC\); wait for it[^\n]*\n"
    assert re.fullmatch(said, err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reindex", "{tmp}/none"], "no index here"),
        (["plan", "{tmp}/none"], "no index here"),
        (["history", "{tmp}/none"], "no index here"),
        (["verify", "{tmp}/none"], "no index here"),
        (["optimize", "{tmp}/none"], "no index here"),
        (["restore", "{tmp}/none", "--batch", "1"], "no index here"),
        (["restore", "{into}", "--batch", "999"], "no batch 999"),
        (["reindex", "{into}", "--check", "time"], "--check time: expected content"),
        (["reindex", "{into}", "--reason", "empty"], "--reason: give --retry-failed too"),
        (["optimize", "{into}", "--keep-hours=-1"], "--keep-hours"),
    ],
)
def test_a_mistake_is_one_clear_line(corpus: KnownCorpus, call: Call, arguments: list[str], said: str) -> None:
    into = corpus.config.into
    before = versions(into)
    code, out, err = call(*(text.format(tmp=corpus.root, into=into) for text in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert re.fullmatch(r"earshot: [^\n]+\n", err)
    assert versions(into) == before
    assert not (corpus.root / "none").exists()


def test_metadata_is_asked_for_where_sounds_are(corpus: KnownCorpus, call: Call) -> None:
    """From the option that names a table to `--where`, in every command that shows something of it."""
    into, sidecar = corpus.config.into, corpus.root / "about.csv"
    sidecar.write_text("uri,mic,Take No,day\nin/moved.wav,H5,1,2024-05-01\nin/b.wav,MKH 50,2,\nin/doubled.wav,H5,3,\n")
    assert call("index", corpus.folder, "--into", into, "--metadata", sidecar)[0] == 0
    sidecar.write_text("uri,mic,Take No,day\nin/moved.wav,H5,1,2024-05-01\nin/b.wav,H5,2,\nin/gone.wav,,,\n")
    code, out, _ = call("plan", into)
    assert code == 0
    assert re.search(r"metadata +2 *\n", out)
    assert f"note: {sidecar}: 1 row belongs to no file of the corpus; the first one is {corpus.root}/in/gone.wav" in out
    code, out, _ = call("reindex", into)
    assert "0 indexed, 6 unchanged (1 of them failed before, 2 with other metadata)" in out
    assert "note: " in out
    [_, before, *_] = lines(call("history", into, "--json")[1])[::-1]
    assert (before["kind"], before["files"]) == ("metadata", 2)
    [described] = lines(call("info", into, "--json")[1])
    assert described["metadata"] == {"mic": "string", "Take No": "int64", "day": "date32[day]"}
    assert "mic (string), Take No (int64), day (date32[day])" in call("info", into)[1]
    moved = {"mic": "H5", "Take No": 1, "day": "2024-05-01"}
    sound = corpus.folder / "moved.wav"
    for command in (
        ["query", into, "noise"],
        ["similar", into, sound],
        ["locate", into, "noise", "--threshold", "1e-9"],
    ):
        for where in ("mic = 'H5' AND day >= date '2024-01-01'", "`Take No` = 1"):
            code, out, _ = call(*command, "--where", where, "--json")
            assert code == 0
            assert lines(out), command
            assert {Path(row["uri"]).name for row in lines(out)} == {"moved.wav"}
            assert all(row["metadata"] == moved for row in lines(out))
        out = call(*command, "--where", "mic = 'H5'")[1]
        assert re.search(r"Take No", out)
        assert "moved.wav" in out
        code, out, err = call(*command, "--where", "mik = 'H5'")
        assert code == 2
        assert re.fullmatch(r"earshot: --where \"mik = 'H5'\": .*\(columns: .*, mic, Take No, day\)\n", err)


def test_every_run_says_what_it_does_not_look_at(corpus: KnownCorpus, call: Call) -> None:
    into, expected = corpus.config.into, {".txt": 2, "without an extension": 1, "hidden": 1}
    for name in ("notes.txt", "sub/more.TXT", "README", ".DS_Store"):
        (corpus.folder / name).write_text("no sound")
    line = "not looked at: 2 .txt, 1 without an extension (corpus.extensions chooses), 1 hidden (corpus.hidden)"
    assert lines(call("info", into, "--json")[1])[0]["not_looked_at"] == {}
    assert line in call("plan", into)[1].splitlines()
    assert lines(call("plan", into, "--json")[1])[-1]["not_looked_at"] == expected
    assert line in call("reindex", into)[1].splitlines()
    assert lines(call("index", corpus.folder, "--into", into, "--json")[1])[-1]["not_looked_at"] == expected
    assert lines(call("info", into, "--json")[1])[0]["not_looked_at"] == expected
    assert re.search(r"not_looked_at +2 \.txt, 1 without an extension", call("info", into)[1])
    assert lines(call("status", into, "--json")[1])[0]["record"]["not_looked_at"] == expected
    (Path(into) / "run.json").unlink()
    assert lines(call("info", into, "--json")[1])[0]["not_looked_at"] is None


def test_files_with_a_note_are_listed_apart_from_failures(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    (corpus.folder / "text.g722").write_text("no sound, but every byte of it is a sample\n" * 2_000)
    assert call("reindex", into)[0] == 0
    assert lines(call("info", into, "--json")[1])[0]["with_note"] == 1
    code, out, _ = call("failures", into)
    assert code == 0
    failed, noted = out.split("1 file with a note")
    assert failed.startswith(f"1 file in {into}\n")
    assert "broken.wav" in failed
    assert "text.g722" not in failed
    assert re.search(r"text\.g722 +it has no header, and is read as G\.722 at 16 kHz", noted)
    assert "broken.wav" not in noted
    rows = {Path(row["uri"]).name: row for row in lines(call("failures", into, "--json")[1])}
    assert {name: (row["status"], row["note"] is None) for name, row in rows.items()} == {
        "broken.wav": ("failed", True),
        "text.g722": ("indexed", False),
    }
    assert len({tuple(row) for row in rows.values()}) == 1
    (corpus.folder / "broken.wav").unlink()
    assert call("reindex", into)[0] == 0
    assert call("failures", into)[1].startswith("no failures\n1 file with a note\n")


def test_a_folder_where_nothing_could_be_indexed_exits_with_1(corpus: KnownCorpus, call: Call) -> None:
    empty, into = corpus.root / "empty", corpus.config.into
    empty.mkdir()
    (empty / "notes.txt").write_text("no sound")
    code, _, err = call("index", empty, "--into", corpus.root / "of-nothing")
    assert (code, err.count("corpus.extensions")) == (1, 1)
    (empty / "broken.wav").write_text("no sound")
    assert call("index", empty, "--into", corpus.root / "of-nothing")[0] == 1
    # The only new files fail, while others are indexed: that is told by the failures, and not by the exit code.
    assert call("reindex", into)[0] == 0
    (corpus.folder / "broken too.wav").write_text("no sound")
    code, out, _ = call("reindex", into)
    assert (code, " 0 indexed, " in out, " 1 failed, " in out) == (0, True, True)


def test_a_run_counts_one_file_as_one_and_says_that_hours_are_of_audio(corpus: KnownCorpus, call: Call) -> None:
    only, into = corpus.root / "only", corpus.root / "one"
    only.mkdir()
    (only / "a.wav").write_bytes((corpus.folder / "moved.wav").read_bytes())
    code, out, err = call("index", only, "--into", into)
    assert code == 0
    assert out.startswith("1 file: 1 indexed, ")
    assert re.search(r" of \d+ s of audio in ", out)
    assert re.search(r"^1 file to encode, about \d+ s of audio; about ", err, re.MULTILINE)


def test_a_run_after_which_nothing_is_indexed_has_failed(corpus: KnownCorpus, call: Call) -> None:
    folder, into = corpus.root / "broken", corpus.root / "other"
    folder.mkdir()
    for name in ("a.wav", "b.mp3"):
        (folder / name).write_text(f"no sound in {name}")
    said = rf"earshot: {into}: all 2 files failed, so nothing is indexed: see `earshot failures {into}`\n"
    for command in (["index", folder, "--into", into], ["reindex", into], ["reindex", into, "--rebuild"]):
        code, out, err = call(*command)
        assert code == 1, command
        assert re.search(said, err)
        assert out.startswith("2 files: 0 indexed")
        record = lines(call("status", into, "--json")[1])[0]["record"]
        assert (record["state"], record["n_files"]) == ("failed", 2)
        assert record["error"].startswith("all 2 files failed")
    (folder / "b.mp3").unlink()
    assert "the only file failed" in call("reindex", into)[2]
    (folder / "c.wav").write_bytes((corpus.folder / "moved.wav").read_bytes())
    assert call("reindex", into)[0] == 0  # one of two is indexed now
    assert call("reindex", into)[0] == 0  # and stays so
    (folder / "c.wav").write_text("no sound any more")
    assert call("reindex", into)[0] == 1


def test_a_source_that_was_renamed_is_moved_in_one_command(corpus: KnownCorpus, call: Call) -> None:
    """With its table of metadata, and with the files that are elsewhere in it meanwhile; nothing is encoded again."""
    into, new = corpus.config.into, corpus.root / "elsewhere"
    sidecar = corpus.folder / "about.csv"
    sidecar.write_text("uri,mic\nb.wav,H5\n")
    assert call("index", corpus.folder, "--into", into, "--metadata", sidecar)[0] == 0
    rows = live(into)
    corpus.folder.rename(new)
    code, _, err = call("reindex", into)
    assert (code, err.count("\n")) == (2, 1)
    assert "in: no such file or folder; if it was renamed or is given up, see --move-source and --forget" in err
    code, out, _ = call("index", "--into", into, "--move-source", corpus.folder, new, "--json")
    assert code == 0
    [done] = lines(out)
    assert done.items() >= {"files": 6, "indexed": 5, "deleted": 6, "frames": 0, "hours": 0.0}.items()
    assert live(into)["frames"] == rows["frames"]
    corpus.folder = new
    assert live(into) == corpus.expected()
    assert call("query", into, "noise", "--where", "mic = 'H5'")[0] == 0
    assert lines(call("reindex", into, "--json")[1])[0].items() >= {"unchanged": 6, "deleted": 0}.items()


def test_a_source_that_is_given_up_goes_and_no_guard_stops_that(corpus: KnownCorpus, call: Call) -> None:
    into, more = corpus.config.into, KnownCorpus(corpus.root / "more")
    for number in range(3):
        more.put(f"{number}.wav", number + 3)
    assert call("index", more.folder, "--into", into)[0] == 0
    for name in list(more.held):
        more.delete(name)
    code, out, _ = call("plan", into)
    assert code == 0
    assert f"indexed files that would be removed: 3 in {more.folder}" in out
    assert f"a run would refuse: {more.folder}: holds no audio now, and the index has 3 files of it" in out
    *_, summary = lines(call("plan", into, "--json")[1])
    assert (summary["deleted"], summary["refused"][: len(str(more.folder))]) == (3, str(more.folder))
    assert "a run would refuse" not in call("plan", into, "--allow-deletions")[1]
    for command in ("reindex", "index"):
        arguments = [into] if command == "reindex" else [corpus.folder, "--into", into]
        code, _, err = call(command, *arguments)
        assert code == 2
        assert re.fullmatch(r"earshot: [^\n]*holds no audio now[^\n]*--allow-deletions[^\n]*--forget[^\n]*\n", err)
    assert lines(call("index", "--into", into, "--forget", more.folder, "--json")[1])[0]["deleted"] == 3
    assert live(into) == corpus.expected()
    assert lines(call("reindex", into, "--json")[1])[0]["unchanged"] == 6


def test_giving_up_a_source_takes_out_no_files_of_a_pattern(corpus: KnownCorpus, call: Call) -> None:
    into, more = corpus.config.into, KnownCorpus(corpus.root / "more")
    for number in range(23):
        more.put(f"{number}.wav", number % 5)
    assert call("index", more.root / "*" / "*.wav", "--into", into)[0] == 0
    before = live(into)
    for name in list(more.held)[1:]:
        more.delete(name)
    code, _, err = call("index", "--into", into, "--forget", corpus.folder)
    assert code == 2
    assert f"22 of 28 indexed files would go (22 in {more.folder})" in err
    assert live(into) == before


def test_several_sources_are_moved_by_giving_up_the_old_ones(corpus: KnownCorpus, call: Call) -> None:
    into, new = corpus.config.into, corpus.root / "elsewhere"
    call("reindex", into)
    corpus.folder.rename(new)
    [done] = lines(call("index", new, "--into", into, "--forget", corpus.folder, "--json")[1])
    assert done.items() >= {"deleted": 6, "hours": 0.0}.items()
    corpus.folder = new
    assert live(into) == corpus.expected()


def test_what_is_gone_goes_when_it_is_allowed(corpus: KnownCorpus, call: Call) -> None:
    into, more = corpus.config.into, KnownCorpus(corpus.root / "more")
    more.put("a.wav", 5)
    call("index", more.folder, "--into", into)
    more.delete("a.wav")
    for command in ("reindex", "index"):
        arguments = [into] if command == "reindex" else [more.folder, "--into", into]
        assert call(command, *arguments)[0] == 2
    assert call("reindex", into, "--allow-deletions")[0] == 0
    assert live(into) == corpus.expected()


def test_a_repair_takes_nothing_out_while_a_disk_is_missing(corpus: KnownCorpus, call: Call) -> None:
    into, more = corpus.config.into, KnownCorpus(corpus.root / "more")
    more.put("a.wav", 5)
    call("index", more.folder, "--into", into)
    more.delete("a.wav")
    table(into, "clips").delete("true")
    published = journal.read_published(into)
    now = {**published.versions, "clips": versions(into)["clips"]}
    row = journal.make_row(published.seq + 1, "f" * 32, "f" * 32, "maintain", now)
    journal.publish(journal.open_journal(into), [row])
    before = versions(into)
    code, _, err = call("verify", into, "--repair")
    assert code == 2
    assert "holds no audio now" in err
    assert versions(into) == before
    assert call("verify", into, "--repair", "--allow-deletions")[0] == 0
    assert live(into) == corpus.expected()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--move-source", "{tmp}/no", "{tmp}"], r"{tmp}/no: is no source of {into}; its sources are {tmp}/in"),
        (["--forget", "{tmp}/no"], r"{tmp}/no: is no source of {into}; its sources are {tmp}/in"),
        (["--move-source", "{tmp}/in", "{tmp}/no"], r"{tmp}/no: no such file or folder, so {tmp}/in cannot have moved"),
        (["--forget", "{tmp}/in"], r"{into}: no source would be left"),
        ([], r"SOURCE: name what to index; `earshot reindex {into}`"),
        (["{tmp}/run.yaml", "--forget", "{tmp}/in"], r"a configuration says everything; leave out --into, --forget"),
    ],
)
def test_a_mistake_with_sources_is_one_clear_line(
    corpus: KnownCorpus, call: Call, arguments: list[str], said: str
) -> None:
    into = corpus.config.into
    before = versions(into)
    code, out, err = call("index", "--into", into, *(text.format(tmp=corpus.root, into=into) for text in arguments))
    assert (code, out) == (2, "")
    assert said.format(tmp=corpus.root, into=into) in err
    assert re.fullmatch(r"earshot: [^\n]+\n", err)
    assert versions(into) == before
    code, _, err = call("index", "--into", corpus.root / "none", "--forget", corpus.folder)
    assert code == 2
    assert "no index here" in err
