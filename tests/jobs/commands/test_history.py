"""``earshot history``."""

from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus


def test_history_lists_batches_and_maintenance(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    rows = lines(call("history", into, "--json")[1])
    assert [row["batch"] for row in rows] == list(range(len(rows)))
    kinds = [row["kind"] for row in rows]
    assert (kinds[0], kinds[1], kinds[-1]) == ("create", "configure", "maintain")
    assert sum(row["files"] for row in rows if row["kind"] == "index") == 4
    assert rows[2]["speed"] > 0
    code, out, _ = call("history", into)
    assert code == 0
    assert f"{into}, times in UTC" in out
    assert all(kind in out for kind in kinds)
