"""``earshot similar``."""

from pathlib import Path

import pytest

from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus
from tests.helpers.damage import damage_vector_index
from tests.helpers.tuning import add_vector_index


def test_similar_prints_ranks_and_no_probability(corpus: KnownCorpus, call: Call) -> None:
    into, sound = corpus.config.into, Path(corpus.config.sources[0]) / "b.wav"
    found = lines(call("similar", into, sound, "-k", 2, "--json")[1])
    assert [hit["rank"] for hit in found] == [1, 2]
    assert 1 >= found[0]["score"] >= found[1]["score"] >= -1
    assert [hit["probability"] for hit in found] == [None, None]
    code, out, _ = call("similar", into, sound, "-k", 2)
    assert code == 0
    assert f"like {sound} in {into}" in out


@pytest.mark.parametrize(
    ("name", "code", "said"), [("none.wav", 2, "none.wav"), ("broken.wav", 1, "broken.wav")], ids=["missing", "broken"]
)
def test_sound_that_cannot_be_read_is_one_line(
    corpus: KnownCorpus, call: Call, name: str, code: int, said: str
) -> None:
    found = call("similar", corpus.config.into, Path(corpus.config.sources[0]) / name)
    assert (found[0], found[1]) == (code, "")
    assert said in found[2]
    assert found[2].count("\n") == 1


def test_exact_needs_no_vector_index(corpus: KnownCorpus, call: Call) -> None:
    ask = ("similar", corpus.config.into, corpus.uri("b.wav"), "--json")
    before = call(*ask)
    add_vector_index(corpus.config.into)
    assert call(*ask) == before
    damage_vector_index(corpus.config.into, "clips")
    assert call(*ask)[0] == 1
    assert call(*ask, "--exact") == before
