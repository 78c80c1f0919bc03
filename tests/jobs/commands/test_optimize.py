"""``earshot optimize``."""

import re

import pytest

from pipeline.search import audit_index
from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.tuning import add_vector_index


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


def test_recall_of_an_index_without_vector_indexes_is_exact(corpus: KnownCorpus, call: Call) -> None:
    code, out, _ = call("optimize", corpus.config.into, "--recall", "0.99")
    assert code == 0
    assert out.endswith("\nthere is no vector index, so every answer is exact\n")
    assert lines(call("optimize", corpus.config.into, "--json")[1])[0]["recall"] == {}
    assert call("optimize", corpus.config.into, "--recall", "1.5")[0] == 2


def test_recall_is_measured_where_there_are_vector_indexes(
    corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_index, "N_QUESTIONS", 32)
    add_vector_index(corpus.config.into)
    code, out, _ = call("optimize", corpus.config.into, "--recall", "0.9")
    assert code == 0
    assert "\nrecall of query: 100.0% (" in out
    assert "\nrecall of other texts: may differ" in out
    [done] = lines(call("optimize", corpus.config.into, "--json")[1])
    assert list(done["recall"]) == ["query", "similar"]
    assert done["recall"]["query"]["recall"] == 1.0
    assert ["the sample holds" in problem for problem in done["problems"]] == [True, True]  # so few files prove little
