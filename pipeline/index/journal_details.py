"""The JSON ``detail`` of journal rows, checked before anyone uses it."""

import json
from typing import Any

from pipeline.config import DecodeConfig, WindowConfig
from pipeline.errors import IndexMismatch

_MAYBE_MAPPING = (dict, type(None))
_SETTINGS = {"clip_model": _MAYBE_MAPPING, "frame_model": _MAYBE_MAPPING, "window": dict, "decode": dict, "frames": str}
_NUMBER = (int, float)
_MODEL = {"name": str, "checksum": str, "dimension": int, "logit_scale": _NUMBER, "logit_bias": _NUMBER}


def refuse(what: str) -> IndexMismatch:
    """The error for a value that no run can have written."""
    return IndexMismatch(f"{what}, so something else wrote here: restore the index from a copy")


def parse(detail: str | None, where: str) -> dict[str, Any]:
    """The mapping in a row's ``detail``; errors name the journal, ``where``.

    Raises:
        IndexMismatch: it is no JSON mapping.
    """
    try:
        values = json.loads(detail or "")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise refuse(f"{where}: `detail` is no JSON mapping")
    return values


def get_value(detail: dict[str, Any], key: str, kind: Any, where: str) -> Any:
    """The value of ``key`` in a row's ``detail``, which must be of the type ``kind``, or one of several.

    Raises:
        IndexMismatch: there is none, or it has another type.
    """
    value = detail.get(key)
    if key not in detail or not isinstance(value, kind) or isinstance(value, bool):
        raise refuse(f"{where}: `{key}` is {str(value)[:80]!r}")
    return value


def get_settings(detail: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings that an index was created with.

    Raises:
        IndexMismatch: one is missing or impossible.
    """
    settings: dict[str, Any] = get_value(detail, "settings", dict, where)
    for key, kind in _SETTINGS.items():
        get_value(settings, key, kind, where)
    for model in filter(None, (settings["clip_model"], settings["frame_model"])):
        for key, kind in _MODEL.items():
            get_value(model, key, kind, where)
    try:
        WindowConfig(**settings["window"])
        DecodeConfig(**settings["decode"])
    except (TypeError, ValueError) as error:
        raise refuse(f"{where}: {' '.join(str(error).split())[:300]}") from None
    return settings
