"""``python -m jobs.bench search`` on tiny indexes: its figures, its exact answers, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from jobs.bench.asking import MODES, Job, ask, to_job
from jobs.bench.search import SHARES, Effort, Question, measure, search, show
from jobs.bench.synthetic import CLIPS_PER_FILE, FILE_FRAMES, MadeVectors
from jobs.bench.synthetic_index import Built, Corpus, build, load
from jobs.bench.truth import best_clips, best_events, measure_levels, recall
from pipeline.index.verify import verify_index

N_FILES, K = 7, 20


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("made")
    return build(folder, Corpus(N_FILES, True, 64, "made", 0), MadeVectors(0, 64, 64))


def bench(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(search)
    return CliRunner().invoke(app, list(arguments))


def test_index_is_that_of_a_run(built: Built) -> None:
    assert verify_index(built.index) == []
    assert load(built.folder) == built


def test_exact_answers_equal_those_of_the_search(built: Built, tmp_path: Path) -> None:
    questions = MadeVectors(0, 64, 64).texts(12)
    levels = measure_levels(built.index, questions)
    limits = [N_FILES, 2]
    exact = best_events(built.index, questions, levels, limits, K)
    np.save(tmp_path / "questions.npy", questions)
    values: list[Any] = [[each.on, each.off, each.gap_frames, each.min_frames] for each in levels]
    for limit, expected in zip(limits, exact, strict=True):
        where = f"lot < {limit}"
        job = Job(built.index, "locate", "exact", where, K, str(tmp_path / "questions.npy"), values, 12)
        found = ask(to_job(job))["found"]
        assert sum(map(len, found)) == sum(map(len, expected)) > 0
        for few, all_of in zip(found, expected, strict=True):
            assert recall(all_of, few, K) in (1.0, None)
            assert [each.score for each in few] == pytest.approx([each.score for each in all_of], abs=1e-4)


@pytest.mark.parametrize("kind", ["query", "similar"])
def test_exact_clips_equal_those_of_the_search(built: Built, tmp_path: Path, kind: str) -> None:
    questions = MadeVectors(0, 64, 64).sounds(6)
    [exact] = best_clips(built.index, questions, [3], K, by_cosine=kind == "similar")
    np.save(tmp_path / "questions.npy", questions)
    found = ask(to_job(Job(built.index, kind, "exact", "lot < 3", K, str(tmp_path / "questions.npy"), [], 6)))["found"]
    assert [[each.where for each in few] for few in found] == [[each.where for each in of] for of in exact]
    assert len(exact[0]) == 18  # all clips of three files


def test_each_question_filter_and_mode_has_a_line_of_figures(built: Built) -> None:
    kinds = list(Question)
    rows = list(measure(built, kinds, Effort(3, 2, 1), call=lambda function, job: function(job)))
    assert len(rows) == len(kinds) * len(SHARES) * len(MODES)
    fields = {"rows", "dimension", "question", "mode", "where", "p50_ms", "p95_ms", "recall", "bytes_per_row"}
    assert all(row.keys() >= fields | {"build_s", "build_cpu_s", "peak_mb"} for row in rows)
    assert {(row["question"], row["rows"]) for row in rows} == {
        ("locate", N_FILES * FILE_FRAMES),
        ("query", N_FILES * CLIPS_PER_FILE),
        ("similar", N_FILES * CLIPS_PER_FILE),
    }
    assert {row["recall"] for row in rows if row["mode"] == "exact" and row["results"]} == {1.0}
    assert all(row["results"] for row in rows if row["where"] is None)
    first = rows[0]
    assert (first["mode"], first["where"], first["questions"]) == ("exact", None, 2)
    assert first["p95_ms"] >= first["p50_ms"] > 0
    assert first["cold_ms"] > 0
    assert 0 < first["reads"] <= first["cold_reads"]
    assert N_FILES * FILE_FRAMES * 64 * 2 / 1e6 < first["read_mb"] <= first["cold_read_mb"]  # a scan reads all vectors
    assert first["bytes_per_row"] > 64 * 2


def test_command_builds_and_keeps_an_index(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    done = bench("--clips", "12", "--keep", str(kept), "--questions", "2", "--cold", "0", "--json", "query")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.output.splitlines()]
    assert [row["rows"] for row in rows] == [12] * len(SHARES) * len(MODES)
    built = load(kept)
    assert built.corpus == Corpus(2, False, 1024, "made", 0)
    [again, *_] = measure(built, [Question.query], Effort(2, 2, 0), call=lambda function, job: function(job))
    same = ("rows", "question", "mode", "where", "recall", "results", "bytes_per_row", "build_s")
    assert [again[name] for name in same] == [rows[0][name] for name in same]


def test_index_of_clips_has_no_frames(tmp_path: Path) -> None:
    built = build(tmp_path, Corpus(4, False, 64, "made", 0), MadeVectors(0, 64, 64))
    assert built.corpus.n_rows == 24
    assert verify_index(built.index) == []


def test_vector_index_is_built_audited_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = build(tmp_path, Corpus(1_700, False, 64, "made", 0), MadeVectors(0, 64, 64))
    # Each training gives another index: with some, the interval of the recall reaches below what a note is made for.
    assert [problem for problem in built.problems if "of what an exact search finds" not in problem] == []
    assert built.tuned.cpu_s > 0
    assert built.audited["query"]["recall"] >= 0.98
    rows = list(measure(built, [Question.query], Effort(40, 2, 0), call=lambda function, job: function(job)))
    exact, indexed = rows[:2]
    assert (exact["mode"], exact["extra_share"], exact["audited"]) == ("exact", 0.0, None)
    assert indexed["mode"] == "indexed"
    assert indexed["recall"] == pytest.approx(indexed["audited"], abs=0.03)
    interval = ("audited_low", "audited", "audited_high")
    assert [indexed[name] for name in interval] == [built.audited["query"][name] for name in ("low", "recall", "high")]
    assert 0.9 < indexed["audited_low"] < indexed["audited"] <= indexed["audited_high"] <= 1
    assert [exact[name] for name in interval] == [None] * 3
    show(iter(rows))
    low, recall, high = (f"{indexed[name]:.2%}" for name in interval)
    assert f"the audit found {recall} ({low} to {high})" in " ".join(capsys.readouterr().out.split())
    assert 0.1 < indexed["extra_share"] < 0.4  # 8 bytes of codes and 15 more for 128 of a vector
    assert {row["recall"] for row in rows if row["share"] <= 0.01} == {1.0}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"corpus": {"n": 1}}'])
def test_a_folder_of_another_version_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "corpus.json").write_text(content)
    done = bench("--index", str(tmp_path))
    assert done.exit_code == 2
    assert "another version of this measurement wrote it" in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "/nothing/here"], "no index was kept here"),
        (["--index", "/nothing/here", "--keep", "/nothing/here"], "give a new folder"),
        (["--clips", "6", "locate"], "has no events to locate"),
        (["--rows", "0"], "greater than or equal to 1"),
        (["anything"], "is not one of"),
    ],
)
def test_wrong_calls_are_refused(arguments: list[str], message: str) -> None:
    done = bench(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
