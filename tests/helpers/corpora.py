"""Configurations of corpora, listed and indexed in this process."""

import os
from pathlib import Path
from typing import Any

from pipeline.config import Config, CorpusConfig, make_config
from pipeline.corpus.discover import list_corpus
from pipeline.index.verify import verify_index
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from pipeline.schema import LISTED, Row
from tests.helpers.contents import SECTIONS
from tests.helpers.runs import WideEncoder, in_place


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
