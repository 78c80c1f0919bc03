"""``earshot query``."""

import pytest

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


@pytest.mark.parametrize("command", ["query", "locate", "failures"])
def test_every_row_is_one_line_at_80_columns(
    command: str, corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("reindex", corpus.config.into)
    monkeypatch.setenv("COLUMNS", "80")
    options = {"query": ["a bell", "-k", 20, "--all-windows"], "locate": ["a bell", "--threshold", 1e-9]}
    arguments = [command, corpus.config.into, *options.get(command, [])]
    n_rows = len(lines(call(*arguments, "--json")[1]))
    table = call(*arguments)[1].split("\n \u2500")[1].split("the best probability")[0]
    shown = [line for line in table.split("\n")[1:] if line.strip()]
    assert n_rows > 0
    assert len(shown) == n_rows
    assert all(len(line.rstrip()) <= 80 and ".wav" in line for line in shown)
