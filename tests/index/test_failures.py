"""What stops a run, in one line: judged by types and numbers, not by the words that a path may hold."""

import errno

import pyarrow as pa
import pytest

from pipeline.errors import EarshotError
from pipeline.index.failures import plain_errors


def stop(error: Exception) -> str:
    with pytest.raises(EarshotError) as caught, plain_errors("/ix"):
        raise error
    return str(caught.value)


FULL, LACKING, DAMAGED = "the disk is full", "have no Earshot", "the index is damaged"
LANCES_FULL = "LanceError(IO): Generic LocalFileSystem error: No space left on device (os error 28), /a/b.rs:1:2"


class OfRay(Exception):
    """A text of Ray, which holds the traceback of a worker."""

    __module__ = "ray.exceptions"


WORKERS = "ray::Encode()\n  File x, line 1\nModuleNotFoundError: No module named 'pipeline'"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), FULL),
        (RuntimeError("OSError: [Errno 28] No space left on device"), FULL),
        (RuntimeError(f"OSError: {LANCES_FULL}"), FULL),
        (ModuleNotFoundError("No module named 'pipeline'", name="pipeline"), LACKING),
        (ModuleNotFoundError("No module named 'pipeline.run.workers'", name="pipeline.run.workers"), LACKING),
        (OfRay(WORKERS), LACKING),
        (OfRay("System error: No module named 'pipeline'\ntraceback: x"), LACKING),
        (RuntimeError("OSError: LanceError(IO): Not found: /ix/data/a.lance, /a/b.rs:1:2"), DAMAGED),
        (PermissionError(13, "Permission denied"), "/ix: cannot be written: Permission denied"),
        (MemoryError(), "there is not enough memory"),
    ],
)
def test_what_stops_a_run_is_told_by_type_and_number(error: Exception, said: str) -> None:
    line = stop(error)
    assert said in line
    assert line.startswith("/ix: ")
    assert ".rs" not in line


@pytest.mark.parametrize(
    "error",
    [
        ValueError("cannot parse '/data/No space left on device/a.csv'"),
        ValueError("cannot parse '/data/LanceError(IO): Not found: (os error 28)/a.csv'"),
        RuntimeError("ValueError: /data/OSError: [Errno 28] No space left on device"),
        ModuleNotFoundError("No module named 'pipeline_of_others'", name="pipeline_of_others"),
        ValueError("cannot read ModuleNotFoundError: No module named 'pipeline'"),
        OfRay("cannot read /No module named 'pipeline'/a.csv"),
        pa.ArrowInvalid("cannot parse 'Not found: x'"),
    ],
)
def test_words_in_a_path_do_not_count(error: Exception) -> None:
    line = stop(error)
    assert line.startswith("/ix: the run stopped: ")
    assert not any(words in line for words in (FULL, LACKING, DAMAGED))
    assert line.endswith("run again")
