"""Finds the column of audio in the schema of a table.

It is a struct of ``bytes`` and ``path`` (the feature ``Audio`` of Hugging Face `datasets`), or plain bytes. If there
are several, the column ``audio`` counts.
"""

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.corpus.table_limits import is_text
from pipeline.errors import CorpusError


class NoAudioError(CorpusError):
    """A table has no column of audio."""


@dataclass(frozen=True)
class AudioColumn:
    """Where in the schema the bytes are, and their names."""

    data: str
    name: str | None


def find_column(schema: pa.Schema) -> AudioColumn:
    """The column of audio.

    Raises:
        NoAudioError: there is none. CorpusError: there are several, and none is named `audio`.
    """
    features = _features(schema)
    found = [
        column
        for column in schema
        if _holds_bytes(column.type) and features.get(column.name, {}).get("_type") in (None, "Audio", "Value")
    ]
    found = [column for column in found if features.get(column.name, {}).get("_type") == "Audio"] or found
    if "uri" in schema.names and not features:  # a manifest may hold other bytes, such as pictures
        found = [column for column in found if column.name == "audio" or pa.types.is_struct(column.type)]
    found = [column for column in found if column.name == "audio"] or found
    if len(found) > 1:
        names = ", ".join(column.name for column in found)
        raise CorpusError(f"several columns hold bytes ({names}): call the one with audio `audio`")
    if not found:
        raise NoAudioError("a table without a column of audio bytes")
    [column] = found
    if pa.types.is_struct(column.type):
        has_path = column.type.get_field_index("path") >= 0 and is_text(column.type.field("path").type)
        return AudioColumn(f"{column.name}.bytes", f"{column.name}.path" if has_path else None)
    has_path = "path" in schema.names and is_text(schema.field("path").type)
    return AudioColumn(column.name, "path" if has_path else None)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The description of columns that `datasets` writes into its files."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature if isinstance(feature, dict) else {} for name, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
