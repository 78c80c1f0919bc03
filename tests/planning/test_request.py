"""Which files a request retries, and where files of a renamed source were before."""

from typing import Any

import pytest

from pipeline.planning.request import RunRequest

INDEXED: dict[str, Any] = {"status": "indexed", "reason": None}
TRUNCATED = {"status": "indexed", "reason": "truncated"}
CORRUPT = {"status": "failed", "reason": "corrupt"}
CRASHED = {"status": "failed", "reason": "crashed"}


@pytest.mark.parametrize(
    ("request_", "retried"),
    [
        (RunRequest(), []),
        (RunRequest(check_content=True), []),
        (RunRequest(retry_failed=True), [CORRUPT, CRASHED]),
        (RunRequest(retry_failed=True, reason="crashed"), [CRASHED]),
        (RunRequest(retry_failed=True, reason="truncated"), [TRUNCATED]),
        (RunRequest(reason="crashed"), []),
        (RunRequest(full=True), [INDEXED, TRUNCATED, CORRUPT, CRASHED]),
        (RunRequest(full=True, retry_failed=True, reason="crashed"), [INDEXED, TRUNCATED, CORRUPT, CRASHED]),
    ],
)
def test_a_request_retries_what_it_names(request_: RunRequest, retried: list[dict[str, Any]]) -> None:
    assert [row for row in (INDEXED, TRUNCATED, CORRUPT, CRASHED) if request_.retries(row)] == retried


@pytest.mark.parametrize(
    ("moved", "former", "present"),
    [
        (("/old", "/new"), "/old/in/a.wav", "/new/in/a.wav"),
        (("/old", "/new"), "/old", "/new"),
        (("/old.wav", "/new.wav"), "/old.wav#t=1,2", "/new.wav#t=1,2"),
        (("/old.tar", "/new.tar"), "/old.tar#a.wav", "/new.tar#a.wav"),
    ],
)
def test_files_of_a_renamed_source_are_renamed(moved: tuple[str, str], former: str, present: str) -> None:
    request = RunRequest(moved=moved)
    assert (request.renamed(former), request.former(present)) == (present, former)
    assert (RunRequest().renamed(former), RunRequest().former(present)) == (former, present)


@pytest.mark.parametrize("uri", ["/older/a.wav", "/in/old/a.wav", "/old.wav", "/old#a.wav"])
def test_other_files_are_not_renamed(uri: str) -> None:
    request = RunRequest(moved=("/old", "/new"))
    assert (request.renamed(uri), request.former(uri)) == (uri, uri)
