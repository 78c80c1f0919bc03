"""``earshot failures``."""

import re
import shlex
from pathlib import Path

from jobs.commands.failures import MANY
from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus


def test_files_with_a_note_are_listed_after_failures(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    assert call("failures", into, "--json")[:2] == (0, "")
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


def test_many_failures_are_counted_by_reason(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    for number in range(MANY):
        (corpus.folder / f"text{number:02d}.mp3").write_text(f"page {number}")
    (corpus.folder / "nothing.wav").touch()
    assert call("reindex", into)[0] == 0
    code, out, _ = call("failures", into)
    assert code == 0
    assert re.search(rf"not_audio +{MANY + 1} +\S*broken\.wav +no decoder recognises it", out)
    assert re.search(r"empty +1 +\S*nothing\.wav", out)
    assert f"`earshot failures {shlex.quote(into)} --reason NAME`" in out
    assert "text00.mp3" not in out
    assert call("failures", into, "--reason", "empty")[1].startswith("1 file in ")
    every = lines(call("failures", into, "--json")[1])
    assert len(every) == MANY + 2
    of_one = lines(call("failures", into, "--reason", "empty", "--json")[1])
    assert of_one == [row for row in every if row["reason"] == "empty"]


def test_reason_that_no_file_failed_for(corpus: KnownCorpus, call: Call) -> None:
    assert call("reindex", corpus.config.into)[0] == 0
    code, _, said = call("failures", corpus.config.into, "--reason", "not_audo")
    assert code == 2
    assert re.search(r"no such failure in .*, did you mean not_audio\?; there are: not_audio \(1\)\n", said)


def test_many_notes_are_counted(corpus: KnownCorpus, call: Call) -> None:
    for number in range(MANY + 1):
        (corpus.folder / f"text{number:02d}.g722").write_text(f"{number}: no sound, but each byte is a sample\n" * 60)
    assert call("reindex", corpus.config.into)[0] == 0
    noted = call("failures", corpus.config.into)[1].split("with a note")[1]
    assert re.search(rf"{MANY + 1} +\S*text00\.g722 +it has no header", noted)
    assert "text01" not in noted
