"""The settings of an index: everything that decides its vectors. A run with other settings may not write to it.

They are the models (by their weights), the windows, the decoding, and whether frames are stored. The rest of a
configuration may change from run to run.
"""

from typing import Any

from pydantic import BaseModel

from pipeline.config import Config
from pipeline.errors import IndexMismatch


def index_settings(config: Config, clip_model: dict[str, Any], frame_model: dict[str, Any] | None) -> dict[str, Any]:
    """The settings to store in an index. Models are given as their identities."""
    return {
        "clip_model": clip_model,
        "frame_model": frame_model,
        "window": {**config.window.model_dump(), "tail": config.window.grid.tail},
        "decode": config.decode.model_dump(),
        "frames": config.store.frames,
    }


def check_settings(path: str, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare the settings of an index with those of a run. Models are compared by weights and tokenizer, not by name.

    Raises:
        IndexMismatch: naming each difference.
    """
    if found := differences(stored, wanted):
        advice = "run with the settings of the index, use another index, or --rebuild"
        raise IndexMismatch(f"{path}: built with {'; '.join(found)}; {advice}")


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """One clause for each setting that differs between an index and a run."""
    found = []
    for key in ("clip_model", "frame_model"):
        if _weights(stored[key]) != _weights(wanted[key]):
            found.append(f"{key} {_name(stored[key])}, not {_name(wanted[key])}")
        elif (tokenizer := _tokenizer(stored[key])) and tokenizer != (other := _tokenizer(wanted[key])):
            # Sounds would get the same vectors as before, but words would not.
            found.append(
                f"{key} {stored[key]['name']} and its tokenizer ({tokenizer[:8]}), not that of {wanted[key]['name']}"
                f" ({str(other)[:8]}), whose weights are the same"
            )
    for key in ("window", "decode", "frames"):
        if stored[key] != wanted[key]:
            found.append(f"{key} {stored[key]}, not {wanted[key]}")
    return found


def _weights(model: dict[str, Any] | None) -> Any:
    return model and {key: value for key, value in model.items() if key not in ("name", "revision", "tokenizer")}


def _tokenizer(model: dict[str, Any] | None) -> str | None:
    """None where an index is older than stored tokenizers: any tokenizer matches it."""
    return model.get("tokenizer") if model else None


def _name(model: dict[str, Any] | None) -> str:
    return f"{model['name']} (weights {model['checksum'][:8]})" if model else "none"


def known_values(values: dict[str, Any], section: type[BaseModel] = Config) -> dict[str, Any]:
    """A stored configuration without the keys that this version has retired."""
    known: dict[str, Any] = {}
    for key, value in values.items():
        field = section.model_fields.get(key)
        if field is None:
            continue
        kind: Any = field.annotation
        is_section = isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict)
        known[key] = known_values(value, kind) if is_section else value
    return known
