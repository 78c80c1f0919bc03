"""Unforeseen errors, one line each: judged by their origin, not by the words in a path."""

import re
from pathlib import Path
from types import FunctionType
from typing import Any

import lance
import pyarrow as pa
import pytest

from jobs.main import main
from jobs.shared.explain import explain
from pipeline.grid import Grid
from tests.helpers.tables import SILENT, write_index

NOWHERE = {
    "aws_endpoint": "http://127.0.0.1:1",
    "allow_http": "true",
    "aws_access_key_id": "any",
    "aws_secret_access_key": "any",
    "region": "us-east-1",
    "client_max_retries": "0",
    "client_retry_timeout": "1",
}


DAMAGED = "the index is damaged: "


def fail_with(error: BaseException) -> Any:
    def fail(**options: object) -> None:
        raise error

    # It has the name of a module of Earshot: only errors from there are called bugs of Earshot.
    return FunctionType(fail.__code__, {"__name__": "pipeline.fake"}, closure=fail.__closure__)


def say(command: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that `earshot` prints for this command."""
    with pytest.raises(SystemExit) as exit:
        main(command)
    assert exit.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"earshot: [^\n]+\n", err)
    return str(err)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "/data/freelance/x"), "/data/freelance/x: No such file"),
        (PermissionError(13, "Permission denied", "/lancedb/x.lance"), "/lancedb/x.lance: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("LanceError(IO): /x"), "a bug of Earshot: ValueError: LanceError(IO): /x (pipeline.fake:"),
        (KeyError("lance"), "a bug of Earshot: KeyError: 'lance' (pipeline.fake:"),
        (RuntimeError("one\ntwo\x1b[31m"), r"a bug of Earshot: RuntimeError: one two\x1b[31m (pipeline.fake:"),
        (ValueError("https://a:secret@b/c"), "https://***@b/c"),
    ],
)
def test_error_of_others_is_no_damage(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = say(fail_with(error), capsys)
    assert said in line
    assert "damaged" not in line


def test_error_of_lance_is_damage_in_any_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "Generic S3 error: x"
    write_index(path, {"/a.wav": SILENT}, Grid())
    for manifest in (path / "clips.lance" / "_versions").iterdir():
        manifest.write_bytes(b"")
    line = say(lambda **_: lance.dataset(str(path / "clips.lance")), capsys)
    assert "the index is damaged" in line
    assert "restore its folder from a copy" in line


def test_unreachable_store_is_no_damage(capsys: pytest.CaptureFixture[str]) -> None:
    command = lambda **_: lance.dataset("s3://bucket/index/clips.lance", storage_options=NOWHERE)  # noqa: E731
    line = say(command, capsys)
    assert "the index cannot be reached in its object store: " in line
    assert "check its URL" in line
    assert ".rs" not in line


def raise_in(module: str, error: BaseException) -> BaseException:
    """The error, raised by a function of another package."""
    values: dict[str, Any] = {"__name__": module}
    exec("def fail(error):\n    raise error\n", values)
    with pytest.raises(type(error)) as caught:
        values["fail"](error)
    return caught.value


def test_credential_error_of_a_store_has_no_xml() -> None:
    said = (
        "LanceError(IO): Generic S3 error: Error performing GET http://x/y - Server returned error: <?xml?><Error>"
        "<Code>InvalidAccessKeyId</Code><Message>The key does not exist.</Message></Error>, /build/aws.rs:319:13"
    )
    assert explain(raise_in("lance.dataset", OSError(said))).startswith(
        "the index cannot be reached in its object store: InvalidAccessKeyId: The key does not exist.; check its URL"
    )


def test_index_without_permission_is_not_damaged() -> None:
    said = explain(raise_in("lancedb.table", RuntimeError("LanceError(IO): Permission denied (os error 13)")))
    assert said.startswith("the index cannot be read or written: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError("LanceError(IO): Generic LocalFileSystem error: failed to fill whole buffer"),
            "the index is damaged: ",
        ),
        (
            OSError("LanceError(IO): Generic memory error: Invalid range 0..9 for object of size 1 bytes"),
            "the index is",
        ),
        (
            pa.ArrowInvalid("Not found: x.lance, /root/.cargo/io/src/local.rs:273:40"),
            "the index is damaged: Not found: ",
        ),
        (
            RuntimeError(
                "lance error: LanceError(IO): Generic S3 error: Error performing GET http://x/y in 2ms - Server"
                " returned non-2xx status code: 416 Range Not Satisfiable: <?xml?><Error><Code>InvalidRange</Code>"
            ),
            "the index is damaged: ",
        ),
        (OSError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("LanceError(IO): No space left on device (os error 28), /root/.cargo/a.rs:1:2"), "the disk is full: "),
        (OSError("LanceError(IO): /x(os error 28)/y: Permission denied (os error 13)"), "the index cannot be read or"),
        (MemoryError(), "there is not enough memory; free some and try again"),
        (
            RuntimeError("lance error: LanceError(IO): Execution error: Resources exhausted: Memory"),
            "there is not enough",
        ),
        (TypeError("x"), "this is a bug of Earshot: TypeError: x"),
        (ImportError("x"), "this is a bug of Earshot: ImportError: x"),
        (NotImplementedError("x"), "this is a bug of Earshot: NotImplementedError: x"),
    ],
)
def test_error_of_lance_is_classified_by_type_and_number(error: Exception, said: str) -> None:
    line = explain(raise_in("lance.dataset", error))
    assert line.startswith(said)
    assert not re.search(r"\.rs\b|cargo", line)


def test_panic_is_one_line_and_damage_if_from_lance(capsys: pytest.CaptureFixture[str]) -> None:
    panic = type("PanicException", (BaseException,), {})("index out of bounds")
    assert explain(raise_in("lance.dataset", panic)).startswith("the index is damaged: index out of bounds; ")
    line = say(fail_with(panic.with_traceback(None)), capsys)
    assert "a bug of Earshot: PanicException: index out of bounds (pipeline.fake:" in line


def test_error_of_ray_is_named_as_such() -> None:
    said = explain(raise_in("ray._private.node", Exception("The current node timed out\nduring startup.")))
    assert said == "Ray gave up: The current node timed out during startup.; what was published stays, run again"


def test_debug_variable_adds_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EARSHOT_DEBUG", "1")
    with pytest.raises(SystemExit):
        main(fail_with(KeyError("x\x1b[31m?password=abc")))
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "\x1b" not in err
    assert "abc" not in err
