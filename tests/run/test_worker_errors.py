"""What stops a run, in one line, also in a worker: types decide, not the words that a path may hold."""

import errno

import pytest

from pipeline.errors import EarshotError, UsageError
from pipeline.run.worker_errors import plain_run_errors


def stop(error: Exception) -> str:
    with pytest.raises(EarshotError) as caught, plain_run_errors("/ix"):
        raise error
    return str(caught.value)


FULL, LACKING, DAMAGED = "the disk is full", "have no Earshot", "the index is damaged"
WORKERS = "ray::Encode()\n  File x, line 1\nModuleNotFoundError: No module named 'pipeline'"


class OfRay(Exception):
    """A text of Ray, which holds the traceback of a worker; ``cause`` is the error of the worker where Ray has it."""

    __module__ = "ray.exceptions"

    def __init__(self, text: str = "", cause: Exception | None = None) -> None:
        super().__init__(text)
        self.cause = cause


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OfRay(cause=OSError(errno.ENOSPC, "No space left on device")), FULL),
        (OfRay(cause=OSError("LanceError(IO): Not found: /ix/data/a.lance, /a/b.rs:1:2")), DAMAGED),
        (OfRay(cause=PermissionError(13, "Permission denied", "/scratch")), "/ix: /scratch cannot be used: Permission"),
        (OfRay(cause=FileExistsError("x")), "/ix: a file of a worker cannot be used: x"),
        (ModuleNotFoundError("No module named 'pipeline'", name="pipeline"), LACKING),
        (ModuleNotFoundError("No module named 'pipeline.run.workers'", name="pipeline.run.workers"), LACKING),
        (OfRay(cause=ModuleNotFoundError("No module named 'pipeline'", name="pipeline")), LACKING),
        (OfRay(WORKERS), LACKING),
        (OfRay("System error: No module named 'pipeline'\ntraceback: x"), LACKING),
    ],
)
def test_an_error_of_a_worker_is_told_like_one_of_this_process(error: Exception, said: str) -> None:
    line = stop(error)
    assert said in line
    assert line.startswith("/ix: ")
    assert ".rs" not in line


def test_an_error_of_earshot_in_a_worker_stays_as_it_is() -> None:
    with pytest.raises(UsageError, match=r"^too much$"), plain_run_errors("/ix"):
        raise OfRay(cause=UsageError("too much"))


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'pipeline_of_others'", name="pipeline_of_others"),
        ValueError("cannot read ModuleNotFoundError: No module named 'pipeline'"),
        OfRay("cannot read /No module named 'pipeline'/a.csv"),
    ],
)
def test_words_in_a_path_do_not_count(error: Exception) -> None:
    line = stop(error)
    assert line.startswith("/ix: the run stopped: ")
    assert not any(words in line for words in (FULL, LACKING, DAMAGED))
    assert line.endswith("run again")
