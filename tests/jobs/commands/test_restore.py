"""``earshot history`` and ``earshot restore``."""

from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus, live


def test_restored_index_is_that_of_the_batch_and_can_be_reindexed(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    before = live(into)
    call("reindex", into)
    history = lines(call("history", into, "--json")[1])
    kinds = [row["kind"] for row in history]
    assert kinds[:3] == ["create", "configure", "index"]
    assert sum(row["files"] for row in history) == 4 + 6  # c.wav and a.wav are noted as deleted
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
