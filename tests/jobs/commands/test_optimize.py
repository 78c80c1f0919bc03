"""``earshot optimize``."""

import re

from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus, live


def test_optimize_reports_fragments_and_bytes(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    code, out, _ = call("optimize", into, "--keep-hours", "0")
    assert code == 0
    said = re.fullmatch(rf"{re.escape(into)}: (\d+) fragments became 4, ([\d.]+) [kM]?B deleted\n", out)
    assert said is not None
    assert int(said[1]) > 4
    assert float(said[2]) > 0
    [done] = lines(call("optimize", into, "--json")[1])
    assert done["n_fragments_before"] == done["n_fragments"] == 4
    assert live(into) == corpus.expected()
