"""Commands, their output, and versions of tables."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from jobs.main import main
from pipeline.index import journal
from pipeline.run.dispatch import Workers
from tests.helpers.indexes import table

Call = Callable[..., tuple[int, str, str]]


def run_main(*arguments: object, workers: Workers | None = None) -> int:
    """Run a command in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["earshot", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main(obj=workers)
    return int(exit.value.code or 0)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def versions(index: str) -> dict[str, int]:
    names = (*journal.DATA_TABLES, "batches")
    return {name: table(index, name).version for name in names}
