"""``earshot locate``."""

from dataclasses import replace
from pathlib import Path

import pytest

import pipeline
from jobs.commands.locate import explain_no_event
from pipeline.grid import Grid
from pipeline.index.search_settings import SearchSettings
from pipeline.search import candidates
from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus
from tests.helpers.tables import SILENT, write_index
from tests.helpers.tuning import TUNING, add_vector_index, publish_tuning


@pytest.mark.parametrize(
    ("min_duration_s", "where", "said"),
    [
        (0.0, "codec = 'none'", "no indexed file where codec = 'none'"),
        (0.0, "codec = 'flac'", "no event reaches a probability of 0.3 where codec = 'flac'; try a lower --threshold"),
        (0.0, None, "no event reaches a probability of 0.3; try a lower --threshold, or `earshot query`"),
        (2.5, None, "no event of 2.5 s or more reaches a probability of 0.3; try a lower --threshold or --min-"),
    ],
)
def test_no_event_is_explained(min_duration_s: float, where: str | None, said: str, tmp_path: Path) -> None:
    write_index(tmp_path / "index", {"/a.wav": SILENT}, Grid())
    assert explain_no_event(pipeline.open(str(tmp_path / "index")), 0.3, min_duration_s, where).startswith(said)


def test_exact_finds_what_a_bad_vector_index_misses(
    corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    into, texts = corpus.config.into, ("a bell", "a dog barks", "rain", "white noise")
    before = {text: call("locate", into, text, "--threshold", "1e-4", "--json")[1] for text in texts}
    add_vector_index(into, "pools", spoil=True)
    publish_tuning(into, replace(TUNING, settings=SearchSettings(pools_per_event=1)))
    for constant in ("LEAST_PER_EVENT", "LEAST_EVENTS", "MIN_POOLS"):  # all of so few pools would be read
        monkeypatch.setattr(candidates, constant, 1)
    missed = 0
    for text in texts:
        assert call("locate", into, text, "--threshold", "1e-4", "--exact", "--json")[1] == before[text]
        found = lines(call("locate", into, text, "-k", "1", "--threshold", "1e-4", "--json")[1])
        missed += found != lines(before[text])[:1]
    assert missed


def test_search_that_ended_early_says_so(corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    into = corpus.config.into
    add_vector_index(into, "pools")
    publish_tuning(into, TUNING)
    whole = call("locate", into, "a bell", "--threshold", "1e-4", "--json")
    assert "--exact" not in whole[2]
    monkeypatch.setattr(candidates, "MAX_POOLS", 1)
    for options in (("--threshold", "1e-4"), ("--threshold", "1e-4", "--json"), ("--threshold", "0.9999")):
        code, _, err = call("locate", into, "a bell", *options)
        assert code == 0
        assert "there may be better events" in err
        assert "--exact" in err
    out = call("locate", into, "a bell", "--threshold", "0.9999")[1]
    assert out == "nothing found\n"
