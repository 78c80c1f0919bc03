"""Files without sound, manifests, and configurations of corpora, which are listed and indexed in this process."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import Config, CorpusConfig, make_config
from pipeline.corpus.discover import list_corpus
from pipeline.index.verify import verify_index
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from pipeline.schema import LISTED, Row
from tests.helpers.contents import SECTIONS
from tests.helpers.runs import WideEncoder, in_place

TimedRow = tuple[str, float | None, float | None]
"""``uri``, ``start_s`` and ``end_s``."""


def write_manifest(path: Path, uris: list[str], **columns: list[Any]) -> Path:
    """A manifest, in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"uri": uris, **columns})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix in (".csv", ".tsv"):
        names, mark = table.column_names, "," if path.suffix == ".csv" else "\t"
        rows = [["" if value is None else f'"{value}"' for value in row.values()] for row in table.to_pylist()]
        path.write_text("\n".join([mark.join(names), *map(mark.join, rows)]) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return path


def write_ranges(path: Path, *rows: TimedRow) -> Path:
    """A manifest of time ranges."""
    uris, starts, ends = map(list, zip(*rows, strict=True))
    return write_manifest(path, uris, start_s=starts, end_s=ends)


def touch(path: Path, data: bytes = b"sound") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with audio, other files and hidden ones."""
    root = tmp_path / "tree"
    for name in ("b.wav", "a.FLAC", "notes.txt", "wav", "sub/c.mp3", "sub/deep/d.opus", "z/.hidden.wav", ".h/e.wav"):
        touch(root / name)
    return root


def configure(tmp_path: Path, *sources: Path | str, **sections: Any) -> Config:
    """Sources that are indexed into ``tmp_path / "index"``."""
    values = {"sources": list(map(str, sources)), "into": str(tmp_path / "index"), **SECTIONS, **sections}
    return make_config(values)


def index(config: Config, **others: Any) -> WideEncoder:
    """Index a corpus, verify the index, and return the encoder that was used."""
    encoder = WideEncoder()
    index_corpus(config, stages=in_place(encoder), **others)
    assert verify_index(config.into) == []
    return encoder


def listed(*sources: Path | str, **settings: Any) -> dict[str, Row]:
    """The row of each file of a corpus, by the last part of its uri."""
    found = list_corpus(list(map(str, sources)), CorpusConfig(**settings)).to_pylist()
    return {row["uri"].rsplit("/", 1)[-1]: row for row in found}


def list_rows(*sources: Path | str, **config: Any) -> list[Row]:
    """The rows of the files of a corpus."""
    table = list_corpus([str(source) for source in sources], CorpusConfig(**config))
    assert table.schema == LISTED
    listed: list[Row] = table.to_pylist()
    return listed


def list_names(root: Path, *sources: Path | str, **config: Any) -> list[str]:
    """The uris of the files of a corpus, relative to ``root``."""
    return [os.path.relpath(row["uri"], root) for row in list_rows(*sources, **config)]


def list_reasons(root: Path, *sources: Path | str, **config: Any) -> dict[str, str | None]:
    """Why files of a corpus cannot be read; None for the others."""
    return {os.path.relpath(row["uri"], root): row["reason"] for row in list_rows(*sources, **config)}


def actions(config: Config, **request: Any) -> dict[str, str]:
    """What a run would do with each file, by the last part of its uri."""
    return {Path(uri).name: action for uri, action, _ in plan_corpus(config, RunRequest(**request)).actions}
