"""What commands say of vector indexes."""

import re
from pathlib import Path

import pytest

from pipeline.index import vector_index, vector_upkeep
from pipeline.index.handle import find_index
from pipeline.index.limited import Unfinished
from pipeline.index.vector_index import Step
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.index.verify import verify_index
from pipeline.index.writer import Writer
from pipeline.run.driver import index_corpus
from pipeline.search import audit_index
from tests.helpers.building import make_here
from tests.helpers.commands import Call, lines
from tests.helpers.contents import HASTY, KnownCorpus, live
from tests.helpers.damage import damage_vector_index
from tests.helpers.protocol import edit, fill, index
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.vector_tables import ClipTable


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownCorpus:
    """A corpus and its index, which has vector indexes all the same."""
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 2)
    monkeypatch.setattr(audit_index, "N_QUESTIONS", 3)
    corpus = KnownCorpus(tmp_path, store=HASTY)
    fill(corpus)
    index(corpus.config)
    return corpus


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipTable:
    """An index with 150 clips and no vector index."""
    table = ClipTable(tmp_path / "index")
    table.commit(Writer(table.path, "1" * 32), {"a": 150})
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 100)
    return table


def test_optimize_and_info_show_the_vector_indexes(table: ClipTable, call: Call) -> None:
    assert lines(call("info", table.path, "--json")[1])[0]["vector_indexes"] == {}
    code, out, _ = call("optimize", table.path)
    assert code == 0
    assert re.search(r"^the vector index of clips was built: 150 rows in \d+\.\d s$", out, re.MULTILINE)
    table.commit(Writer(table.path, "2" * 32), {"b": 20})
    [found] = lines(call("info", table.path, "--json")[1])[0]["vector_indexes"].values()
    assert (found["rows_indexed"], found["rows_unindexed"], found["segments"]) == (150, 20, 1)
    said = " ".join(call("info", table.path)[1].split())
    expected = r"vector index of clips 150 rows \(20 newer ones are scanned\), 1 segment, \d+\.\d kB, since 20\d\d-"
    assert re.search(expected, said)
    [done] = lines(call("optimize", table.path, "--json")[1])
    assert [(each["table"], each["done"], each["n_rows"]) for each in done["vector_indexes"]] == [
        ("clips", "extended", 20)
    ]
    assert not [problem for problem in done["problems"] if problem.startswith("the vector index")]


def test_optimize_says_in_one_line_that_a_build_failed(
    table: ClipTable, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_upkeep, "LEAST_S", 0.0)
    monkeypatch.setattr(vector_upkeep, "SECONDS_A_NUMBER", 0.0)
    code, out, _ = call("optimize", table.path)
    assert code == 0
    [note] = [line for line in out.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: the vector index of `clips` could not be built, searches scan: stopped after 0 s")


@pytest.mark.parametrize("how", ["lost", "cut", "overwritten"])
def test_questions_to_a_damaged_vector_index_say_what_to_do(small: KnownCorpus, call: Call, how: str) -> None:
    into = small.config.into
    damage_vector_index(into, "clips", how)
    damage_vector_index(into, "pools", how)
    for command in ("query", "locate"):
        code, out, err = call(command, into, "dog")
        assert (code, out) == (1, "")
        assert re.fullmatch(
            r"earshot: the index is damaged: [^\n]+ `earshot verify INDEX --repair` [^\n]+ `--exact` answers[^\n]*\n",
            err,
        )
        assert how != "lost" or "`earshot optimize INDEX` builds anew" in err
        assert call(command, into, "dog", "--exact")[0] == 0


@pytest.mark.parametrize("how", ["lost", "cut", "overwritten"])
def test_optimize_builds_a_damaged_vector_index_anew(small: KnownCorpus, call: Call, how: str) -> None:
    into = small.config.into
    damage_vector_index(into, "clips", how)
    damage_vector_index(into, "pools", how)
    code, out, _ = call("optimize", into)
    assert code == 0
    for name in ("clips", "pools"):
        [note] = re.findall(f"note: the vector index of `{name}` [^\n]+", out)
        assert note.startswith(f"note: the vector index of `{name}` could not be read and was built anew: ")
    assert verify_index(into) == []
    assert call("query", into, "dog")[0] == 0
    assert "note: the vector index" not in call("optimize", into)[1]


@pytest.mark.parametrize("how", ["lost", "overwritten"])
@pytest.mark.parametrize("kind", ["unchanged", "changed", "rebuild"])
def test_a_run_builds_a_damaged_vector_index_anew(small: KnownCorpus, how: str, kind: str) -> None:
    """At its end, or in the middle, where it optimizes after two commits."""
    for name in ("clips", "pools"):
        damage_vector_index(small.config.into, name, how)
    if kind != "unchanged":
        edit(small)
    vectors = VectorUpkeep(make_here)
    progress = index_corpus(small.config, stages=in_place(WideEncoder()), vectors=vectors, rebuild=kind == "rebuild")
    damaged = [note for note in progress.notes if "could not be read and was built anew: " in note]
    assert len(damaged) == (0 if kind == "rebuild" else 2)
    assert live(small.config.into) == small.expected()
    assert verify_index(small.config.into) == []
    for name in ("clips", "pools"):
        found = vector_index.read_index(find_index(small.config.into).live.open(name))
        assert found is not None
        assert found.n_unindexed == 0


def test_a_run_whose_build_fails_ends_well_and_says_so(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(table: object, step: Step, tick: object) -> None:
        raise Unfinished("no luck")

    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 2)
    corpus = KnownCorpus(tmp_path)
    fill(corpus)
    progress = index_corpus(corpus.config, stages=in_place(WideEncoder()), vectors=VectorUpkeep(fail))
    assert progress.notes == tuple(
        f"the vector index of `{name}` could not be built, searches scan: no luck" for name in ("clips", "pools")
    )
    assert live(corpus.config.into) == corpus.expected()
    code, out, _ = call("status", corpus.config.into)
    assert code == 0
    assert all(f"note: {note}\n" in out for note in progress.notes)
    assert lines(call("status", corpus.config.into, "--json")[1])[0]["record"]["state"] == "done"
    assert vector_index.read_index(find_index(corpus.config.into).live.open("clips")) is None
    notes = index_corpus(corpus.config, stages=in_place(WideEncoder())).notes
    assert not [note for note in notes if note.startswith("the vector index")]
    assert vector_index.read_index(find_index(corpus.config.into).live.open("clips")) is not None
