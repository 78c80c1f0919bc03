"""A model by name in, its checkpoint on this machine and its identity out. No model is built here.

A name is ``earshot-tiny``, a local folder, or a repository on the Hugging Face hub, which is downloaded once. The
identity, by which an index recognises its model later, is read from the files in milliseconds.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.encoder.tokenizer import checksum_tokenizer
from pipeline.errors import ModelError, one_line

BUNDLED = "earshot-tiny"
"""The model that comes with the project, in ``models/`` beside this file."""

MODEL_TYPES = ("pe_audio", "pe_audio_video")
"""Checkpoints of the second type (``facebook/pe-av-*``) hold several models, one of them of the first type."""

TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
"""Optional files beside tokenizer.json."""

HUB_FILES = (
    *("config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer.json", *TOKENIZER_SETTINGS),
)
"""The only files that are downloaded from a hub repository: no ``.bin`` copies, no original checkpoints."""

SAMPLE_BYTES = 4096
"""How much the checksum reads at each of three places of a tensor."""


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made a table's vectors, and how to read its scores. Stored with the table, compared on opening."""

    name: str
    """``earshot-tiny``, an absolute folder, or a hub name."""
    revision: str | None
    """Commit on the hub; None for folders."""
    checksum: str
    """Equal for equal checkpoints wherever they lie; ``Checkpoint.checksum`` says which changes it notices."""
    dimension: int
    logit_scale: float
    logit_bias: float
    tokenizer: str | None = None
    """Checksum of the tokenizer; None in indexes that were made before there was one."""


@dataclass(frozen=True)
class Tensor:
    """Where a safetensors file holds a tensor: bytes ``start`` .. ``stop - 1`` of ``file``."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def samples(self) -> tuple[int, int, int]:
        """Where the checksum reads its values: at the start, in the middle, and up to the end."""
        last = max(self.start, self.stop - SAMPLE_BYTES)
        return self.start, (self.start + last) // 2, last


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json, tokenizer.json and safetensors weights."""

    name: str
    revision: str | None
    folder: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        settings = self._read("config.json")
        if settings.get("model_type") not in MODEL_TYPES:
            found = settings.get("model_type")
            raise ModelError(f"{self.name}: is a model of type {found}, not PE-Audio ({' or '.join(MODEL_TYPES)})")
        return settings

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        index = self.folder / "model.safetensors.index.json"
        if index.exists() and not (self.folder / "model.safetensors").exists():
            files = sorted(set(self._read(index.name).get("weight_map", {}).values()))
        else:
            files = ["model.safetensors"]
        return {name: tensor for file in files for name, tensor in _read_header(self.folder / file, self.name)}

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over the settings and, for every tensor, its name, type, shape and up to 12 KiB of its values.

        The values come from the start, the middle and the end of a tensor. Training moves nearly every number, and so
        changes the checksum; an edit confined to numbers between these places goes unnoticed. Moving, copying or
        re-sharding a checkpoint does not change it.
        """
        digest = hashlib.sha256(json.dumps(_without_provenance(self.settings), sort_keys=True).encode())
        with ExitStack() as stack:
            # Not a mapped file: it would read ahead around each place, seconds instead of 0.1 s on a cold disk.
            paths = {tensor.file for tensor in self.tensors.values()}
            files = {path: stack.enter_context(path.open("rb", buffering=0)) for path in paths}
            for name, tensor in sorted(self.tensors.items()):
                digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
                for begin in tensor.samples():
                    files[tensor.file].seek(begin)
                    digest.update(files[tensor.file].read(min(SAMPLE_BYTES, tensor.stop - begin)))
        return digest.hexdigest()

    @property
    def tokenizer_settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """``TOKENIZER_SETTINGS``; empty where there is no such file."""
        config, special = (self._read(file) if (self.folder / file).exists() else {} for file in TOKENIZER_SETTINGS)
        return config, special

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """tokenizer.json, of which parsing takes a good part of a question from the shell."""
        return self._read("tokenizer.json")

    @cached_property
    def tokenizer_checksum(self) -> str:
        """Of the tokenizer: see ``pipeline.encoder.tokenizer``."""
        try:
            return checksum_tokenizer(self.tokenizer, *self.tokenizer_settings)
        except (TypeError, AttributeError) as error:
            raise ModelError(f"{self.name}: tokenizer.json is no tokenizer: {one_line(error, 300)}") from None

    @property
    def reads_normed_text(self) -> bool:
        """Whether texts are embedded from ModernBERT's last state after its final norm; see ``text_encoder``."""
        text = self.settings.get("text_config")
        value = text.get(_TEXT_STATE) if isinstance(text, dict) else None
        if not (value is None or isinstance(value, bool)):
            raise ModelError(f"{self.name}: config.json: text_config.{_TEXT_STATE} is {value!r}, not true or false")
        return value is True

    @cached_property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(
            name=self.name,
            revision=self.revision,
            checksum=self.checksum,
            dimension=self._tensor("audio_head.proj.weight").shape[0],
            logit_scale=_read_number(self._tensor("text_audio_logit_scale")),
            logit_bias=_read_number(self._tensor("text_audio_logit_bias")),
            tokenizer=self.tokenizer_checksum,
        )

    def refuse_code(self) -> None:
        """Raise ``ModelError`` if a settings file names code to run."""
        for file in ("config.json", *TOKENIZER_SETTINGS):
            if (self.folder / file).exists() and _names_code(self._read(file)):
                raise ModelError(
                    f"{self.name}: {file} names code to run (`auto_map`), and Earshot runs no code of a model; if it is"
                    " a plain PE-Audio model, delete that entry"
                )

    def _read(self, file: str) -> dict[str, Any]:
        return _read_json(self.folder / file, self.name)

    def _tensor(self, key: str) -> Tensor:
        found = self.tensors.get(key) or self.tensors.get(f"audio_model.{key}")
        if found is None:
            raise ModelError(f"{self.name}: does not load exactly: missing {key}")
        return found


_TEXT_STATE = "tie_last_hidden_states"
"""A setting of the text tower. Its owner may add it to a checkpoint on the hub; it does not affect sounds' vectors."""

_NO_MATTER = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", _TEXT_STATE})
"""Settings that do not affect the vectors of sounds. All but the last change when a checkpoint is saved again."""


def _without_provenance(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {key: _without_provenance(value) for key, value in settings.items() if key not in _NO_MATTER}


def _names_code(settings: Any) -> bool:
    """Whether a settings file has an ``auto_map`` at any level: transformers looks for it at several."""
    if isinstance(settings, list):
        return any(map(_names_code, settings))
    return isinstance(settings, dict) and (bool(settings.get("auto_map")) or any(map(_names_code, settings.values())))


def find_checkpoint(name: str, revision: str | None) -> Checkpoint:
    folder = Path(name).expanduser()
    if name == BUNDLED:
        checkpoint = Checkpoint(name, None, Path(__file__).parent / "models" / name)
    elif folder.is_dir():
        checkpoint = Checkpoint(str(folder.resolve()), None, folder.resolve())
    elif name.count("/") == 1 and not name.startswith((".", "~", "/")):
        folder = _fetch(name, revision)
        checkpoint = Checkpoint(name, folder.name, folder)
    else:
        raise ModelError(f"{name}: no such model: give {BUNDLED}, a folder, or a name like facebook/pe-av-base")
    missing = _missing_files(checkpoint.folder)
    if missing:
        raise ModelError(f"{checkpoint.name}: the model has no {' and no '.join(missing)}")
    checkpoint.refuse_code()
    return checkpoint


def _missing_files(folder: Path) -> list[str]:
    missing = [file for file in ("config.json", "tokenizer.json") if not (folder / file).exists()]
    if not any((folder / file).exists() for file in ("model.safetensors", "model.safetensors.index.json")):
        missing.append("model.safetensors")
    return missing


def _fetch(name: str, revision: str | None) -> Path:
    """The folder of a hub model, named by its commit; downloaded unless it is in the cache.

    A model in the cache is used without asking the hub: a run does not change models by itself.
    """
    from huggingface_hub import HfApi, errors, snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*HUB_FILES], local_files_only=True))
        if not _missing_files(folder):
            return folder
    except errors.LocalEntryNotFoundError:
        pass
    except errors.HFValidationError:
        raise ModelError(f"{name}: is neither a folder nor a possible name of a model on the hub") from None
    try:
        # This request comes first since it fails at once: without a network, a download retries for half a minute.
        commit = HfApi().model_info(name, revision=revision, timeout=10).sha
        return Path(snapshot_download(name, revision=commit, allow_patterns=[*HUB_FILES]))
    except errors.RevisionNotFoundError:
        raise ModelError(f"{name}: has no revision {revision} on the hub") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"{name}: is not on the hub, or you have no access: check the name, accept its terms at"
            f" https://huggingface.co/{name}, and log in with `hf auth login`"
        ) from None
    except Exception as error:  # the hub's client, its http library and its accelerator share no base class
        advice = "connect once, or give a folder"
        raise ModelError(f"{name}: is not here and cannot be downloaded: {advice} ({one_line(error, 300)})") from None


def _read_json(file: Path, name: str) -> dict[str, Any]:
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: {file.name} cannot be read: {one_line(error, 300)}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{name}: {file.name} is not a JSON object")
    return values


def _read_header(file: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file, without their values.

    Source: the format's specification, https://github.com/huggingface/safetensors (8 bytes with the header's length,
    the header in JSON, then the values; offsets count from the end of the header). The library gives no offsets.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, 100_000_000)))
        header.pop("__metadata__", None)
        for key, entry in header.items():
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            if stop > file.stat().st_size:
                raise ValueError("it is shorter than its header says: the copy or download was cut off")
            yield key, Tensor(file, entry["dtype"], tuple(entry["shape"]), start, stop)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{name}: {file.name} is no readable safetensors file: {one_line(error, 300)}") from None


def _read_number(tensor: Tensor) -> float:
    """The only value of a tensor."""
    data = np.fromfile(tensor.file, np.uint8, tensor.stop - tensor.start, offset=tensor.start)
    if tensor.dtype == "BF16":  # the upper half of a float32
        data, dtype = np.concatenate([np.zeros(2, np.uint8), data]), "<f4"
    else:
        dtype = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[tensor.dtype]
    return float(data.view(dtype).item())


def read_identity(name: str, revision: str | None = None) -> ModelIdentity:
    """The identity of a model, from its files: takes milliseconds, once they are on this machine.

    Raises:
        ModelError: the model cannot be found, or is not a PE-Audio model.
    """
    return find_checkpoint(name, revision).identity


def name_some(keys: set[str]) -> str:
    """The first three of ``keys``, for a message."""
    shown = sorted(keys)[:3]
    return ", ".join(shown) + (", ..." if len(keys) > len(shown) else "")
