"""The configuration of a run: reads YAML into one validated, frozen ``Config``.

Models, window, decoding and ``store.frames`` are fixed when an index is made (``pipeline.index.settings``). Everything
else may change from run to run.
"""

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.credentials import without_credentials
from pipeline.errors import ConfigError, suggest
from pipeline.grid import FRAME_S, Grid, Tail, seconds_to_frames
from pipeline.storage import absolute, is_url


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _refuse_credentials(path: str) -> str:
    if is_url(path) and (shown := without_credentials(path)) != path:
        raise ValueError(f"{shown}: credentials belong in the environment, not in a URL")
    return path


STORES_OF_INDEXES = ("s3", "gs", "az", "abfss", "memory", "file")
"""Protocols that Lance speaks itself and whose fsspec drivers create files exclusively, which leases need. (Lance also
speaks ``oss://``, but its driver does not.) Corpora may lie wherever fsspec has a driver."""


class CorpusConfig(_Section):
    """Which files of the sources are audio, and which metadata belongs to them."""

    extensions: tuple[str, ...] | None = None
    """Extensions to look for in folders instead of the usual ones, for example [wav, rec]; ["*"] takes every file."""
    hidden: bool = False
    """Also take files and folders whose name begins with a dot."""
    follow_symlinks: bool = False
    """Also enter symbolic links to folders (links to files are always read)."""
    metadata: str | None = None
    """A CSV, JSON lines or Parquet table keyed by ``uri``; its other columns can be used in ``--where``."""
    columns: tuple[str, ...] | None = None
    """The metadata columns to keep; by default all columns of this table, of manifests and of tables with audio."""

    @field_validator("extensions")
    @classmethod
    def _normalise(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(e.lower().removeprefix("*.").removeprefix(".") for e in value)

    @field_validator("metadata")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        return value and _refuse_credentials(value)


class DecodeConfig(_Section):
    """How bytes become a waveform. Fixed for an index."""

    resampler: Literal["HQ", "VHQ"] = "HQ"
    """soxr's quality preset."""


class WindowConfig(_Section):
    """How a waveform is cut into windows. Fixed for an index."""

    length_s: float = Field(10.0, ge=0.4, le=400.0)
    overlap_s: float = Field(0.4, ge=0.0)
    tail: Tail | None = None
    """The last window of a file: ``fit`` takes all that is left, at most one and a half lengths; ``back`` starts early,
    to have the length of the others. By default ``fit``, but an index keeps its rule until it is rebuilt."""

    @model_validator(mode="after")
    def _on_grid(self) -> "WindowConfig":
        for name in ("length_s", "overlap_s"):
            value = getattr(self, name)
            if abs(seconds_to_frames(value) * FRAME_S - value) > 1e-9:
                raise ValueError(f"{name}: {value} is not a multiple of {FRAME_S} s")
        if self.overlap_s > self.length_s / 2:
            raise ValueError(f"overlap_s: {self.overlap_s} is more than half of length_s ({self.length_s})")
        return self

    @property
    def grid(self) -> Grid:
        return Grid(seconds_to_frames(self.length_s), seconds_to_frames(self.overlap_s), self.tail or "fit")


class EncodeConfig(_Section):
    """Which models turn windows into embeddings, and on which devices."""

    clip_model: str = "earshot-tiny"
    """``earshot-tiny``, a local folder, or a hub name such as ``facebook/pe-av-base``."""
    frame_model: str | None = None
    """Likewise, for example ``facebook/pe-a-frame-base``; by default the clip model also makes the frames."""
    clip_revision: str | None = None
    frame_revision: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_windows: int | None = Field(None, ge=1, le=1024)
    """Windows of 10 s in one pass of the model; by default 2 on a CPU, and as many as fit on a GPU, at most 64."""
    actors: int | None = Field(None, ge=1)
    """Encoder processes; by default one per GPU, or one per core if there are 4 GiB of memory for each."""
    max_actors: int | None = Field(None, ge=1)
    """Maximum of encoder processes, for a cluster that grows and shrinks; the run starts with ``actors``, or one."""
    actors_per_gpu: int = Field(1, ge=1, le=64)
    """Encoder processes that share a GPU."""

    @model_validator(mode="after")
    def _in_order(self) -> "EncodeConfig":
        if self.max_actors is not None and self.max_actors < (self.actors or 1):
            raise ValueError(f"max_actors: {self.max_actors} is less than actors ({self.actors})")
        return self


class StoreConfig(_Section):
    """Which rows are stored, when they are committed, and how long old versions stay."""

    frames: Literal["all", "none"] = "all"
    checkpoint_rows: int = Field(200_000, ge=1)
    """Finished clip and frame rows that trigger a commit ..."""
    checkpoint_s: float = Field(60.0, gt=0)
    """... and seconds that do, whichever comes first."""
    keep_hours: float = Field(24.0, gt=0)
    """Superseded versions stay readable for this long: queries may still read them. The newest 20 always do."""
    optimize_every: int = Field(50, ge=1)
    """Commits between maintenance: it merges small fragments, extends indexes on columns and deletes unused files."""


class RunConfig(_Section):
    """When a run fails or stops, and how large its batches are."""

    max_failed_fraction: float = Field(1.0, ge=0.0, le=1.0)
    """The run ends with exit code 1 if a larger fraction of the corpus has failed, in this run or before."""
    max_deleted_fraction: float = Field(0.2, ge=0.0, le=1.0)
    """The run stops before it deletes a larger fraction of the indexed files, and more than twenty: a disk may be
    missing. ``--allow-deletions`` lets one run delete them."""
    max_file_hours: float = Field(200.0, gt=0)
    """A longer recording, or range of one, fails as ``too_long``. Another limit is fixed (``audio.limits``): a file may
    hold four hours, and 0.7 s more for each of its bytes."""
    batch_s: float = Field(300.0, gt=0)
    """Seconds of audio in a batch, estimated from file sizes. A batch is published whole; a task decodes several."""
    decoder_silence_s: float = Field(300.0, gt=0)
    """Seconds after which a decoder that neither reads nor gives anything is ended; its file fails as ``crashed``."""
    decoder_s_per_byte: float = Field(5e-5, gt=0)
    """Seconds that decoding may take for each byte of a file, beside ten minutes for all; a decoder that takes more is
    ended likewise. The default is 14 hours for 1 GB. Fetching the file counts: 20 kB/s are enough."""
    recall: float = Field(0.98, ge=0.5, lt=1.0)
    """The share of the exact answers that search through vector indexes should find. The end of a run that builds them
    measures it, and sets how much each question reads."""


class Config(_Section):
    """A complete run."""

    into: str
    sources: tuple[str, ...] = Field(min_length=1)
    corpus: CorpusConfig = CorpusConfig()
    decode: DecodeConfig = DecodeConfig()
    window: WindowConfig = WindowConfig()
    encode: EncodeConfig = EncodeConfig()
    store: StoreConfig = StoreConfig()
    run: RunConfig = RunConfig()

    @field_validator("sources", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("into", "sources")
    @classmethod
    def _without_credentials(cls, value: Any) -> Any:
        for path in (value,) if isinstance(value, str) else value:
            _refuse_credentials(path)
        return value

    @field_validator("into")
    @classmethod
    def _for_lance(cls, value: str) -> str:
        if is_url(value) and (protocol := value.split("://")[0].lower()) not in STORES_OF_INDEXES:
            known = ", ".join(f"{name}://" for name in STORES_OF_INDEXES[:4])
            raise ValueError(f"{value}: an index cannot lie there: give a folder, or {known}, not {protocol}://")
        return value


RETIRED = {("store", "keep_versions"): "the newest 20 published versions stay readable"}
"""Keys that configurations used to have, and what holds instead."""


def make_config(values: dict[str, Any], where: str = "configuration") -> Config:
    """Validate ``values``. Errors begin with ``where``.

    Raises:
        ConfigError: for each mistake, the key, the value and the allowed range.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explain(item) for item in error.errors())) from None


def load_config(path: str | Path) -> Config:
    """Read a YAML file. Relative paths in it start from the folder of the file.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or has a wrong key or value.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping with `sources:` and `into:`")
    config = make_config(_without_retired(values, path), str(path))
    return _with_places(config, partial(_beside, path), partial(_is_folder, path))


def _without_retired(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """``values`` without keys that have no effect any more, with a warning for each."""
    values = {name: dict(section) if isinstance(section, dict) else section for name, section in values.items()}
    for (section, key), instead in RETIRED.items():
        if isinstance(values.get(section), dict) and key in values[section]:
            del values[section][key]
            warnings.warn(f"{path}: `{section}.{key}` has no effect any more: {instead}; remove it", stacklevel=2)
    return values


def anchor(config: Config) -> Config:
    """The same configuration with absolute paths, so that it means the same in any folder."""
    placed = _with_places(config, absolute, lambda model: os.path.isdir(os.path.expanduser(model)))
    return placed.model_copy(update={"sources": tuple(dict.fromkeys(placed.sources))})


def _with_places(config: Config, place: Callable[[str], str], is_folder: Callable[[str], bool]) -> Config:
    """The configuration with ``place`` of each path in it. A model is a path if ``is_folder`` says so."""
    models = {
        key: place(model)
        for key in ("clip_model", "frame_model")
        if (model := getattr(config.encode, key)) and is_folder(model)
    }
    metadata = config.corpus.metadata
    return config.model_copy(
        update={
            "into": place(config.into),
            "sources": tuple(map(place, config.sources)),
            "corpus": config.corpus.model_copy(update={"metadata": metadata and place(metadata)}),
            "encode": config.encode.model_copy(update=models),
        }
    )


def _is_folder(path: Path, model: str) -> bool:
    """Whether a model is a folder: a name like owner/model may also be one on the hub."""
    return model.startswith((".", "~")) or os.path.isdir(_beside(path, model))


def _beside(path: Path, value: str) -> str:
    if is_url(value):
        return value
    return str(path.parent / os.path.expanduser(value))


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        return f"unknown key `{key}`{_known_keys(item['loc'])}"
    if item["type"] == "missing":
        return f"`{key}` is missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"`{key}`: {message}, not {item['input']!r}" if item["type"] != "value_error" else f"`{key}`: {message}"


def _known_keys(loc: tuple[Any, ...]) -> str:
    model: Any = Config
    for part in loc[:-1]:
        field = model.model_fields.get(part)
        model = field.annotation if field else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return ""
    return f"{suggest(str(loc[-1]), model.model_fields)} (known: {', '.join(model.model_fields)})"
