"""What a plan lists of its files, and the words it uses."""

import re
from pathlib import Path

from pipeline.errors import REASONS
from pipeline.planning.plan import Plan


def test_a_plan_lists_actions_only_where_asked() -> None:
    listing, silent = Plan(), Plan(list_actions=False)
    for plan in (listing, silent):
        plan.note("a.wav", "new", "not in the index")
    assert (listing.actions, silent.actions) == ([("a.wav", "new", "not in the index")], [])


def test_every_reason_is_listed() -> None:
    """Every reason that the code gives is one of ``REASONS``, and the README of audio explains each."""
    root = Path(__file__).parents[2]
    code = "".join(path.read_text(encoding="utf-8") for path in (root / "pipeline").rglob("*.py"))
    written = set(re.findall(r'FileFailure\(\s*"[a-z]+", "([a-z_]+)"|reason="([a-z_]+)"|"reason": "([a-z_]+)"', code))
    assert {word for words in written for word in words if word} <= set(REASONS)
    readme = (root / "pipeline/audio/README.md").read_text(encoding="utf-8")
    assert [reason for reason in REASONS if f"| `{reason}` |" not in readme] == []
