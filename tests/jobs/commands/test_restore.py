"""``earshot history`` and ``earshot restore``."""

from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus, live


def test_restored_index_is_that_of_the_batch_and_can_be_reindexed(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    before = live(into)
    call("reindex", into)
    history = lines(call("history", into, "--json")[1])
    assert sum(row["files"] for row in history) == 4 + 6  # c.wav and a.wav are noted as deleted
    first = next(row["batch"] for row in history if row["kind"] == "maintain")
    code, out, _ = call("restore", into, "--batch", first)
    assert code == 0
    assert f"{into}: restored to batch {first}, " in out
    assert live(into) == before
    assert call("reindex", into)[0] == 0
    assert live(into) == corpus.expected()
