"""``earshot query``."""

from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus
from tests.helpers.damage import damage_vector_index
from tests.helpers.tuning import add_vector_index


def test_query_ranks_clips_by_score(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    found = lines(call("query", into, "a bell", "-k", 3, "--all-windows", "--json")[1])
    assert [hit["rank"] for hit in found] == [1, 2, 3]
    assert [hit["score"] for hit in found] == sorted((hit["score"] for hit in found), reverse=True)
    assert all(0 <= hit["probability"] <= 1 and hit["start_s"] < hit["end_s"] for hit in found)
    code, out, _ = call("query", into, "a bell", "-k", 3, "--all-windows")
    assert code == 0
    for hit in found:
        assert hit["uri"].rpartition("/")[2] in out


def test_query_without_a_match_repeats_the_condition(corpus: KnownCorpus, call: Call) -> None:
    arguments = ("query", corpus.config.into, "a bell", "--where", "codec = 'opus'")
    assert call(*arguments)[:2] == (0, "nothing found where codec = 'opus'\n")
    assert call(*arguments, "--json")[:2] == (0, "")


def test_exact_needs_no_vector_index(corpus: KnownCorpus, call: Call) -> None:
    ask = ("query", corpus.config.into, "a bell", "--json")
    before = call(*ask)
    add_vector_index(corpus.config.into)
    assert call(*ask) == before
    damage_vector_index(corpus.config.into, "clips")
    assert call(*ask)[0] == 1
    assert call(*ask, "--exact") == before
