"""What the options of ``plan`` and ``reindex`` ask for."""

import pytest

from jobs.shared.options import read_request
from pipeline.errors import UsageError
from pipeline.planning.request import RunRequest

NONE = {"retry_failed": False, "reason": None, "keep_decoder": False, "full": False, "allow_deletions": False}


def test_request_has_every_option() -> None:
    assert read_request(None, **NONE) == RunRequest()  # type: ignore[arg-type]
    everything = read_request(
        "content", retry_failed=True, reason="empty", keep_decoder=True, full=True, allow_deletions=True
    )
    assert everything == RunRequest(
        check_content=True, retry_failed=True, reason="empty", keep_decoder=True, full=True, allow_deletions=True
    )


def test_option_that_lacks_another_is_an_error() -> None:
    with pytest.raises(UsageError, match="--check time: expected content"):
        read_request("time", **NONE)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--reason: give --retry-failed too"):
        read_request(None, **(NONE | {"reason": "empty"}))  # type: ignore[arg-type]
