"""``earshot info``."""

import pytest

from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.runs import DIMENSION


def test_info_counts_the_published_files(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    [before] = lines(call("info", into, "--json")[1])
    assert (before["files"], before["indexed"], before["failed"], before["deleted"]) == (4, 4, 0, 0)
    rows = live(into)
    n_rows = len(rows["clips"]), len(rows["frames"])
    assert (before["clips"], before["frames"], before["dimension"]) == (*n_rows, DIMENSION)
    assert before["hours"] == pytest.approx(len(rows["frames"]) * 0.04 / 3600, rel=0.05)
    call("reindex", into)
    [after] = lines(call("info", into, "--json")[1])
    assert (after["indexed"], after["failed"], after["deleted"]) == (5, 1, 2)
    code, out, _ = call("info", into)
    assert code == 0
    assert "earshot-tiny" in out
