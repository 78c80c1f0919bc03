"""Marks outlive what happens to an index and to its corpus, and nothing of an index is disturbed by them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.errors import IndexBusy, IndexMissing
from pipeline.index import journal
from pipeline.index.lease import is_held
from pipeline.index.maintenance import optimize_index
from pipeline.index.repair import restore_index
from pipeline.index.verify import verify_index
from pipeline.marks.mark import Mark
from pipeline.run.driver import index_corpus
from tests.helpers.commands import versions
from tests.helpers.contents import HASTY, KnownBucket, KnownCorpus, live
from tests.helpers.leases import write_lease
from tests.helpers.runs import WideEncoder, in_place


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.slow)])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> KnownCorpus:
    """Three indexed sounds."""
    if request.param == "disk":
        made = KnownCorpus(tmp_path)
    else:
        made = KnownBucket(f"{request.getfixturevalue('bucket')}/{tmp_path.name}", tmp_path)
    for number, name in enumerate(("a.wav", "b.wav", "sub/c.wav")):
        made.put(name, number + 2)
    index(made)
    return made


def index(corpus: KnownCorpus, **others: Any) -> None:
    index_corpus(corpus.config, stages=in_place(WideEncoder()), **others)


def mark(corpus: KnownCorpus, name: str, text: str, verdict: str = "right") -> Mark:
    return pipeline.open(corpus.config.into).mark(corpus.uri(name), text, verdict, start_s=0.2, end_s=0.6, score=0.5)


def found(corpus: KnownCorpus) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """By text: the file that a mark names, its status, and the files that hold its content."""
    return {each.text: (each.uri, each.status, each.uris) for each in pipeline.open(corpus.config.into).marks()}


def test_marks_follow_contents_that_move_are_copied_edited_and_deleted(corpus: KnownCorpus) -> None:
    for name, text in (("a.wav", "moved"), ("b.wav", "copied"), ("sub/c.wav", "edited")):
        mark(corpus, name, text)
    a, b, c = map(corpus.uri, ("a.wav", "b.wav", "sub/c.wav"))
    assert found(corpus) == {"moved": (a, "here", (a,)), "copied": (b, "here", (b,)), "edited": (c, "here", (c,))}
    corpus.move("a.wav", "elsewhere.wav")
    corpus.put("copy.wav", corpus.held["b.wav"])
    corpus.put("sub/c.wav", 5)
    index(corpus)
    elsewhere, copy = map(corpus.uri, ("elsewhere.wav", "copy.wav"))
    assert found(corpus) == {
        "moved": (elsewhere, "here", (elsewhere,)),
        "copied": (b, "here", (b, copy)),
        "edited": (c, "gone", ()),
    }
    mark(corpus, "sub/c.wav", "of the new content")
    opened = pipeline.open(corpus.config.into)
    assert [each.status for each in opened.marks(c)] == ["gone", "here"]
    corpus.delete("b.wav")
    corpus.put("sub/c.wav", 4)  # as it was
    index(corpus)
    assert found(corpus) == {
        "moved": (elsewhere, "here", (elsewhere,)),
        "copied": (copy, "here", (copy,)),
        "edited": (c, "here", (c,)),
        "of the new content": (c, "gone", ()),
    }
    assert verify_index(corpus.config.into) == []


def test_marks_outlive_restore_rebuild_optimization_and_verify(corpus: KnownCorpus) -> None:
    into = corpus.config.into
    mark(corpus, "a.wav", "before")
    before, state = found(corpus), journal.read_published(into).seq
    corpus.put("late.wav", 5)
    index(corpus)
    mark(corpus, "late.wav", "late")
    restore_index(into, state)
    assert found(corpus) == {**before, "late": (corpus.uri("late.wav"), "gone", ())}
    index(corpus, rebuild=True)
    opened = pipeline.open(into)
    assert opened.tables.endswith("generation-2")
    assert {text: status for text, (_, status, _) in found(corpus).items()} == {"before": "here", "late": "here"}
    opened.mark(corpus.uri("a.wav"), "before", "wrong", start_s=0.2, end_s=0.6)
    everything = opened.marks(history=True)
    optimize_index(into, keep_hours=0.0)
    index_corpus(
        corpus.config.model_copy(update={"store": corpus.config.store.model_copy(update=HASTY)}),
        stages=in_place(WideEncoder()),
        rebuild=True,
    )
    opened = pipeline.open(into)
    assert opened.tables.endswith("generation-3")
    assert opened.marks(history=True) == everything
    assert [(each.text, each.verdict) for each in opened.marks()] == [("before", "wrong"), ("late", "right")]
    assert verify_index(into) == []
    assert live(into) == corpus.expected()


def test_many_marks_push_no_state_of_the_index_out(corpus: KnownCorpus) -> None:
    into = corpus.config.into
    states, before = journal.read_journal(into)["seq"].to_pylist(), versions(into)
    for number in range(21):
        mark(corpus, "a.wav", f"sound {number}")
    assert versions(into) == before
    assert journal.read_journal(into)["seq"].to_pylist() == states
    corpus.put("a.wav", 0)
    index(corpus)
    restore_index(into, states[-1])
    assert {row["uri"] for row in pipeline.open(into).to_arrow("files").to_pylist()} == set(
        map(corpus.uri, corpus.held)
    )
    assert len(found(corpus)) == 21


def test_marks_are_made_while_another_process_holds_the_lease(corpus: KnownCorpus) -> None:
    into = corpus.config.into
    write_lease(into)
    assert is_held(into)
    with pytest.raises(IndexBusy):
        index(corpus)
    mark(corpus, "a.wav", "meanwhile")
    assert found(corpus).keys() == {"meanwhile"}


def test_marks_are_made_while_a_run_commits(tmp_path: Path) -> None:
    corpus = KnownCorpus(tmp_path)
    corpus.put("a.wav", 2)
    index(corpus)
    corpus.put("b.wav", 3)
    steps = list[str]()

    def mark_before(step: str) -> None:
        steps.append(mark(corpus, "a.wav", step).text)

    index(corpus, failpoint=mark_before)
    assert len(steps) > 5
    assert found(corpus).keys() == set(steps)
    assert live(corpus.config.into) == corpus.expected()
    assert verify_index(corpus.config.into) == []


def test_index_that_is_made_anew_beside_its_marks_has_them(tmp_path: Path) -> None:
    """Of the former index, only the marks were kept."""
    corpus = KnownCorpus(tmp_path)
    corpus.put("a.wav", 2)
    index(corpus)
    mark(corpus, "a.wav", "kept")
    into = Path(corpus.config.into)
    for path in into.iterdir():
        if path.name != "marks.lance":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(IndexMissing):
        pipeline.open(str(into))
    index(corpus)
    assert found(corpus) == {"kept": (corpus.uri("a.wav"), "here", (corpus.uri("a.wav"),))}
    assert live(str(into)) == corpus.expected()
    assert verify_index(str(into)) == []
