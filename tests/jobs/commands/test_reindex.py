"""``earshot reindex``, alone and together with other commands that write."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.index.handle import find_index
from pipeline.index.lease import Lease
from tests.helpers.commands import Call, lines, versions
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.damage import publish
from tests.helpers.indexes import table


def test_failures_are_tried_again_on_request(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    assert lines(call("reindex", into, "--json")[1])[0]["failed_before"] == 1
    assert lines(call("reindex", into, "--retry-failed", "--json")[1])[0]["failed"] == 1
    assert lines(call("reindex", into, "--retry-failed", "--reason", "empty", "--json")[1])[0]["failed"] == 0
    assert lines(call("plan", into, "--retry-failed", "--json")[1])[-1]["retried"] == 1
    assert lines(call("reindex", into, "--full", "--json")[1])[0]["indexed"] == 5
    assert live(into) == corpus.expected()


def test_changed_settings_need_rebuild(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
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
def test_second_writer_reads_who_holds_the_lease(corpus: KnownCorpus, call: Call, command: str) -> None:
    into = corpus.config.into
    options = {"restore": ["--batch", "0"], "verify": ["--repair"]}.get(command, list[str]())
    if command == "verify":
        table(into, "clips").delete("true")
        publish(into)
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
def test_mistake_is_one_line(corpus: KnownCorpus, call: Call, arguments: list[str], said: str) -> None:
    into = corpus.config.into
    before = versions(into)
    code, out, err = call(*(text.format(tmp=corpus.root, into=into) for text in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert re.fullmatch(r"earshot: [^\n]+\n", err)
    assert versions(into) == before
    assert not (corpus.root / "none").exists()


def test_ignored_files_are_counted_everywhere(corpus: KnownCorpus, call: Call) -> None:
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


def test_run_with_nothing_indexed_fails(corpus: KnownCorpus, call: Call) -> None:
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


def test_allow_deletions_removes_deleted_files(corpus: KnownCorpus, call: Call) -> None:
    into, more = corpus.config.into, KnownCorpus(corpus.root / "more")
    more.put("a.wav", 5)
    call("index", more.folder, "--into", into)
    more.delete("a.wav")
    for command in ("reindex", "index"):
        arguments = [into] if command == "reindex" else [more.folder, "--into", into]
        assert call(command, *arguments)[0] == 2
    assert call("reindex", into, "--allow-deletions")[0] == 0
    assert live(into) == corpus.expected()
