"""The output of commands, and versions of tables."""

import json
from collections.abc import Callable
from typing import Any

from pipeline.index import journal
from pipeline.index.tables import open_published
from tests.helpers.indexes import table

Call = Callable[..., tuple[int, str, str]]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def versions(index: str) -> dict[str, int]:
    names = (*journal.DATA_TABLES, "batches")
    return {name: table(index, name).version for name in names}


def live_frames(into: str) -> list[str]:
    frames = open_published(into, "frames").to_table(columns=["audio_id", "frame", "vector"]).to_pylist()
    return sorted(map(str, frames))
