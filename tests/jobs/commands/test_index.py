"""``earshot index``: sources, metadata, and exit codes."""

import re
from pathlib import Path

import pytest

from tests.helpers.commands import Call, lines, versions
from tests.helpers.contents import KnownCorpus, live


def test_metadata_can_be_used_in_where_of_every_search(corpus: KnownCorpus, call: Call) -> None:
    """From ``--metadata`` to ``--where``, in every command that shows metadata."""
    into, table = corpus.config.into, corpus.root / "about.csv"
    table.write_text("uri,mic,Take No,day\nin/moved.wav,H5,1,2024-05-01\nin/b.wav,MKH 50,2,\nin/doubled.wav,H5,3,\n")
    assert call("index", corpus.folder, "--into", into, "--metadata", table)[0] == 0
    table.write_text("uri,mic,Take No,day\nin/moved.wav,H5,1,2024-05-01\nin/b.wav,H5,2,\nin/gone.wav,,,\n")
    code, out, _ = call("plan", into)
    assert code == 0
    assert re.search(r"metadata +2 *\n", out)
    assert f"note: {table}: 1 row belongs to no file of the corpus; the first one is {corpus.root}/in/gone.wav" in out
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


@pytest.mark.parametrize("command", ["index", "reindex", "plan"])
def test_only_source_without_audio_asks_for_its_disk(corpus: KnownCorpus, call: Call, command: str) -> None:
    into, source = corpus.config.into, Path(corpus.config.sources[0])
    before = live(into)
    for file in [*source.rglob("*.wav")]:
        file.unlink()
    arguments = (command, source, "--into", into) if command == "index" else (command, into)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(
        rf"earshot: {source}: holds no audio now, and the index has 4 files: is a disk missing\?.*\n", err
    )
    assert live(into) == before


def test_move_source_keeps_frames_and_metadata(corpus: KnownCorpus, call: Call) -> None:
    """The metadata table moves along, and nothing is encoded again."""
    into, new = corpus.config.into, corpus.root / "elsewhere"
    table = corpus.folder / "about.csv"
    table.write_text("uri,mic\nb.wav,H5\n")
    assert call("index", corpus.folder, "--into", into, "--metadata", table)[0] == 0
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


def test_forget_removes_a_source_without_allow_deletions(corpus: KnownCorpus, call: Call) -> None:
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


def test_sources_can_be_moved_by_forgetting_the_old_ones(corpus: KnownCorpus, call: Call) -> None:
    into, new = corpus.config.into, corpus.root / "elsewhere"
    call("reindex", into)
    corpus.folder.rename(new)
    [done] = lines(call("index", new, "--into", into, "--forget", corpus.folder, "--json")[1])
    assert done.items() >= {"deleted": 6, "hours": 0.0}.items()
    corpus.folder = new
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
def test_mistake_with_sources_is_one_line(corpus: KnownCorpus, call: Call, arguments: list[str], said: str) -> None:
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
