"""Folders with metadata tables, and the metadata of the indexes that they become."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.config import Config, make_config
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.metadata import CorpusMetadata, read_metadata
from pipeline.index import journal
from pipeline.index.handle import find_index
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from pipeline.run.progress import Progress
from tests.helpers.contents import SECTIONS, content
from tests.helpers.runs import WideEncoder, in_place


def fill(folder: Path, *names: str) -> Path:
    """Files of known contents: a.wav has content 0, b.wav 1, and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names or ("a.wav", "b.wav", "c.wav")):
        shutil.copyfile(content(number), folder / name)
    return folder


def configure(tmp_path: Path, *sources: Path, **corpus: Any) -> Config:
    values = {"sources": [str(source) for source in sources], "into": str(tmp_path / "index"), "corpus": corpus}
    return make_config({**SECTIONS, **values})


def index(config: Config, **options: Any) -> Progress:
    progress = index_corpus(config, stages=in_place(options.pop("encoder", None) or WideEncoder()), **options)
    assert verify_index(config.into) == []
    return progress


def columns(config: Config, name: str = "files") -> dict[str, pa.DataType]:
    """Names and types of the metadata columns of a table."""
    table = find_index(config.into).live.open(name).schema
    return {column.name: column.type for column in schema.metadata_columns(table)}


def values(config: Config, name: str = "files", status: str | None = None) -> dict[str, dict[str, Any]]:
    """The metadata of each file, by its name, as ``files`` or ``clips`` have it."""
    table = find_index(config.into).live.open(name).to_table()
    wanted = list(columns(config, name))
    found: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        if status is None or row["status"] == status:
            known = {column: row[column] for column in wanted}
            assert found.setdefault(Path(row["uri"]).name, known) == known
    return found


def everything(config: Config) -> dict[str, list[str]]:
    """Published rows without the batches that wrote them."""
    tables = {name: find_index(config.into).live.open(name).to_table() for name in journal.DATA_TABLES}
    return {name: sorted(map(str, table.drop_columns(["batch_id"]).to_pylist())) for name, table in tables.items()}


def given(config: Config) -> CorpusMetadata:
    """The metadata of the sources, for an index without any."""
    manifests: list[str] = []
    listed = list_corpus(config.sources, config.corpus, manifests=manifests)
    return read_metadata(listed, manifests, config.corpus, pa.schema([]))
