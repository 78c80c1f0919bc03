"""``earshot failures``."""

import re
from pathlib import Path

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
