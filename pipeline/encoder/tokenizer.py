"""A tokenizer's files in, a checksum out that is equal where texts become the same tokens; and the tokens of a text.

The weights of a model do not show a change of its tokenizer, but with other merges or another lower-casing the same
words get other vectors. Copying a checkpoint or saving it again does not change the checksum, as far as transformers
writes the same settings.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATE = frozenset({"version", "truncation", "padding"})
"""Keys of tokenizer.json that hold leftovers of the last call; every call overwrites them."""

_PROVENANCE = frozenset(
    {
        *("backend", "files_loaded", "is_local", "local_files_only", "name_or_path", "processor_class"),
        *("special_tokens_map_file", "tokenizer_class", "tokenizer_file", "transformers_version"),
        # How batches are padded or cut, which Earshot never does, and how tokens become text again.
        *("max_length", "model_input_names", "model_max_length", "pad_to_multiple_of", "padding_side", "stride"),
        *("truncation_side", "truncation_strategy", "chat_template", "clean_up_tokenization_spaces"),
    }
)
"""Keys of tokenizer_config.json that do not decide which tokens a text becomes, and that saving again may change."""

_FAST_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""The class that uses tokenizer.json unchanged: its names in transformers 4 and 5."""


def checksum_tokenizer(tokenizer: dict[str, Any], config: dict[str, Any], special_tokens: dict[str, Any]) -> str:
    """SHA-256 over everything in tokenizer.json, tokenizer_config.json and special_tokens_map.json that decides tokens.

    Args:
        config, special_tokens: empty where there is no such file.
    """
    backend = {key: _in_one_form(value) for key, value in tokenizer.items() if key not in _STATE}
    tokens = tokenizer.get("added_tokens")
    known = set(map(_content, tokens)) if isinstance(tokens, list) else set()
    settings = {} if "added_tokens_decoder" in config else dict(special_tokens)
    settings = {**config, **settings}
    added = settings.pop("added_tokens_decoder", None)
    more = {str(key): token for key, token in added.items()} if isinstance(added, dict) else {}
    kept = {key: _content(value) for key, value in settings.items() if key not in _PROVENANCE}
    kept["extra_special_tokens"] = kept.pop("additional_special_tokens", None) or kept.get("extra_special_tokens")
    decides = {
        "tokenizer": backend,
        "class": None if (kind := config.get("tokenizer_class")) in _FAST_CLASSES else kind,
        "settings": {key: value for key, value in kept.items() if value not in (None, [], {})},
        "added": {key: token for key, token in more.items() if _content(token) not in known},
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _content(token: Any) -> Any:
    """The text of a special token, which is written as that text or as an object that holds it."""
    if isinstance(token, list):
        return [_content(item) for item in token]
    return token["content"] if isinstance(token, dict) and isinstance(token.get("content"), str) else token


def _in_one_form(value: Any) -> Any:
    """One form for both ways to write merges, ``"a b"`` and ``["a", "b"]``; nulls are left out."""
    if not isinstance(value, dict):
        return value
    found = {key: _in_one_form(item) for key, item in value.items() if item is not None}
    if isinstance(merges := found.get("merges"), list):
        found["merges"] = [" ".join(pair) if isinstance(pair, list) else pair for pair in merges]
    return found


# --- tokens without transformers --------------------------------------------------------------------------------------

_UNLIMITED = 10**30
"""What transformers writes as ``model_max_length`` where there is no limit."""


@dataclass(frozen=True)
class PlainTokenizer:
    """The tokenizer of tokenizer.json, used as it is."""

    model_max_length: int
    _backend: Any

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, with the special ones around it."""
        ids: list[int] = self._backend.encode(text).ids
        return ids


def read_plain_tokenizer(
    file: Path, stored: dict[str, Any], config: dict[str, Any], special_tokens: dict[str, Any]
) -> PlainTokenizer | None:
    """The tokenizer of a checkpoint, if its settings change nothing of tokenizer.json; else None.

    Args:
        file, stored: tokenizer.json and what it holds.
        config, special_tokens: tokenizer_config.json and special_tokens_map.json; empty where there is no such file.
    """
    from tokenizers import Tokenizer

    known = {token["content"]: token for token in stored.get("added_tokens") or []}
    settings = {key: value for key, value in {**special_tokens, **config}.items() if key not in _PROVENANCE}
    added = settings.pop("added_tokens_decoder", None) or {}
    if config.get("tokenizer_class") not in _FAST_CLASSES or not all(
        _is_known(token, known) for token in added.values()
    ):
        return None
    for key, value in settings.items():
        tokens = value if isinstance(value, list) else [value]
        is_harmless = value in (None, [], {}) or (
            key.endswith(("_token", "_tokens")) and set(map(_content, tokens)) <= {*known}
        )
        if not is_harmless:
            return None
    backend = Tokenizer.from_file(str(file))
    backend.no_truncation()
    backend.no_padding()
    return PlainTokenizer(int(config.get("model_max_length") or _UNLIMITED), backend)


def _is_known(token: Any, known: dict[str, Any]) -> bool:
    """Whether tokenizer.json has a special token with the same flags."""
    if not isinstance(token, dict) or (there := known.get(token.get("content", ""))) is None:
        return False
    return all(there.get(key) == value for key, value in token.items() if not key.startswith("__"))
