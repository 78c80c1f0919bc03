"""What stops a writer, in one line: types and numbers decide, not the words that a path may hold."""

import errno

import pyarrow as pa
import pytest

from pipeline.errors import EarshotError
from pipeline.index.writer_errors import plain_errors


def stop(error: Exception) -> str:
    with pytest.raises(EarshotError) as caught, plain_errors("/ix"):
        raise error
    return str(caught.value)


FULL, DAMAGED = "the disk is full", "the index is damaged"
LANCES_FULL = "LanceError(IO): Generic LocalFileSystem error: No space left on device (os error 28), /a/b.rs:1:2"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), FULL),
        (RuntimeError("OSError: [Errno 28] No space left on device"), FULL),
        (RuntimeError(f"OSError: {LANCES_FULL}"), FULL),
        (RuntimeError("OSError: LanceError(IO): Not found: /ix/data/a.lance, /a/b.rs:1:2"), DAMAGED),
        (PermissionError(13, "Permission denied"), "/ix: cannot be written: Permission denied"),
        (MemoryError(), "there is not enough memory"),
    ],
)
def test_type_and_number_decide_what_is_said(error: Exception, said: str) -> None:
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
        pa.ArrowInvalid("cannot parse 'Not found: x'"),
    ],
)
def test_words_in_a_path_do_not_count(error: Exception) -> None:
    line = stop(error)
    assert line.startswith("/ix: the run stopped: ")
    assert not any(words in line for words in (FULL, DAMAGED))
    assert line.endswith("run again")
