"""Errors fit in one line, survive pickling, and have the right exit code."""

import pickle

import pytest

from pipeline.errors import EmptyCorpus, FileFailure, IndexBusy, UsageError, one_line, suggest


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n  b"), "a b"),
        (ValueError(), "ValueError"),
        (FileNotFoundError(2, "No such file or directory", "x"), "No such file or directory"),
    ],
)
def test_any_error_becomes_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
    assert one_line(error, 3) == line[:3] or not str(error)


def test_a_failure_survives_pickling() -> None:
    failure = FileFailure("decode", "empty", "no\nbytes")
    again = pickle.loads(pickle.dumps(failure))
    assert (again.stage, again.reason, again.message, str(again)) == ("decode", "empty", "no bytes", str(failure))


@pytest.mark.parametrize(("kind", "exit_code"), [(UsageError, 2), (EmptyCorpus, 1), (IndexBusy, 1)])
def test_wrong_call_exits_with_2_and_empty_corpus_or_busy_index_with_1(kind: type[UsageError], exit_code: int) -> None:
    assert kind("x").exit_code == exit_code


@pytest.mark.parametrize(
    ("given", "said"),
    [("duraton_s", ", did you mean duration_s?"), ("CODEC", ", did you mean codec?"), ("zzz", ""), ("", "")],
)
def test_the_name_that_is_most_alike_is_suggested(given: str, said: str) -> None:
    assert suggest(given, ["uri", "duration_s", "codec"]) == said


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("x" * 101, ["x" * 101]),
        ("x" * 100, ["x" * 101]),
        ("codex", [*(str(number) for number in range(1_000)), "codec"]),
    ],
)
def test_long_names_and_names_behind_many_are_not_compared(given: str, known: list[str]) -> None:
    """Columns and names of a file may be of any length and number."""
    assert suggest(given, known) == ""
    assert suggest(given[:100], [name[:100] for name in known[-1:]]) != ""
