"""``earshot plan``."""

import re
from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import Call, lines, versions
from tests.helpers.contents import KnownCorpus, live, read
from tests.helpers.damage import publish
from tests.helpers.indexes import table


def test_plan_predicts_reindex_and_writes_nothing(corpus: KnownCorpus, call: Call) -> None:
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


def test_plan_of_a_configuration_creates_no_index(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"sources": ["in"], "into": "other"}))
    code, out, _ = call("plan", file, "--json")
    assert code == 0
    assert (lines(out)[-1]["new"], lines(out)[-1]["duplicate"]) == (5, 1)
    assert lines(out)[-1]["seconds"] is None
    assert not (tmp_path / "other").exists()


def test_plan_says_how_many_hours_are_examined(corpus: KnownCorpus, call: Call) -> None:
    """Hours that are examined are not among those to encode, and count each content once."""
    into = corpus.config.into
    call("reindex", into)
    table(into, "files").update({"decoder": "2", "channels": "2"}, "status = 'indexed'")  # stereo was mixed otherwise
    publish(into)
    indexed = [row for row in read(into, "files") if row["status"] == "indexed"]
    durations_s = {row["audio_id"]: row["duration_s"] for row in indexed}
    assert len(indexed) > len(durations_s)
    *_, summary = lines(call("plan", into, "--json")[1])
    assert (summary["examined"], summary["redecoded"], summary["hours"]) == (len(indexed), 0, 0.0)
    assert summary["hours_examined"] == pytest.approx(sum(durations_s.values()) / 3600, rel=0.01)
    assert (summary["bytes"], summary["seconds"]) == (0, 0.0)
    assert summary["bytes_examined"] > 0
    assert summary["seconds_examined"] > 0
    _, out, _ = call("plan", into)
    assert re.search(
        r"up to .+ of audio to encode; up to .+ to be written, up to .+ at the speed", " ".join(out.split())
    )
    assert f"{len(indexed)} files may decode differently now" in " ".join(out.split())
    *_, kept = lines(call("plan", into, "--keep-decoder", "--json")[1])
    assert (kept["examined"], kept["hours_examined"]) == (0, 0.0)
    [done] = lines(call("reindex", into, "--json")[1])
    assert (done["indexed"], done["unchanged"]) == (0, summary["examined"] + summary["failed"])
