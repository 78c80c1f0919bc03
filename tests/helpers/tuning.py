"""A measurement of the recall, as a run publishes it; and what one needs: vector indexes, and a text model."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.index.handle import open_index
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tables import FILE_FORMAT
from pipeline.index.tuning import COMMANDS, Measured, Tuning, read_trained
from pipeline.index.vector_index import NAME, Step
from pipeline.index.writer import Writer
from pipeline.search.query_vectors import QueryModels, TextModel
from tests.helpers.building import make_here

TUNING = Tuning(
    wanted=0.98,
    settings=SearchSettings(clip_refine=16),
    locate=Measured(0.993, 0.985, 0.997, 1_512, 800, 320, k=20, n_dimensions=41.0, threshold=0.3),
    query=Measured(None, 0.0, 1.0, 0, 0, 320, k=20, n_dimensions=3.5),
    similar=Measured(0.986, 0.975, 0.992, 3_020, 800, 320, k=20, n_dimensions=52.0),
    n_clips=10_000,
    n_frames=1_000_000,
    seconds=35.1,
)


def measure_here(path: str, tuning: Tuning = TUNING) -> Tuning:
    """``tuning`` as if it had been measured on the index at ``path`` as it is now."""
    live = open_index(path).live
    found = {name: read_trained(live, name) for name in COMMANDS}
    rows = {f"n_{name}": live.open(name).count_rows() for name in ("clips", "frames")}
    return replace(tuning, **rows, measured_on={name: trained for name, trained in found.items() if trained})


class RandomTexts:
    """A text model that gives each text a random direction."""

    def embed(self, texts: Sequence[str]) -> Any:
        return np.random.default_rng(3).standard_normal((len(texts), 8)).astype(np.float32)


class FakeModels(QueryModels):
    """Text models of any name."""

    def __init__(self) -> None:
        super().__init__("index")

    def for_texts(self, identity: ModelIdentity) -> TextModel:
        return RandomTexts()


def publish_tuning(path: str, tuning: Tuning) -> None:
    writer = Writer(path, "1" * 32)
    with writer.changes() as changes:
        writer.publish("tune", changes, tuning.to_detail())


def add_vector_index(path: str, *names: str, spoil: bool = False, n_partitions: int = 1) -> None:
    """Give tables, ``clips`` by default, a vector index as Earshot makes it, however few rows they have. An index that
    is there already is built anew.

    Args:
        spoil: give each row the vector of another one before.
    """
    writer = Writer(path, "1" * 32)
    with writer.changes() as changes:
        for name in names or ("clips",):
            if spoil:
                changes.make("spoil", name, _shuffle)
            changes.make("index", name, partial(_index, name=name, n_partitions=n_partitions))
        writer.publish("maintain", changes)


def drop_vector_index(path: str, name: str) -> None:
    writer = Writer(path, "1" * 32)
    with writer.changes() as changes:
        changes.make("drop index", name, _drop)
        writer.publish("maintain", changes)


def _shuffle(table: Any) -> Any:
    rows = table.to_table()
    order = np.random.default_rng(0).permutation(rows.num_rows)
    at = rows.column_names.index("vector")
    shuffled = rows.set_column(at, rows.schema.field("vector"), rows["vector"].take(pa.array(order)))
    return lance.write_dataset(shuffled, table.uri, mode="overwrite", data_storage_version=FILE_FORMAT)


def _index(table: Any, name: str, n_partitions: int) -> Any:
    make_here(table, Step(name, n_partitions, 0, table.count_rows()))
    return lance.dataset(table.uri)


def _drop(table: Any) -> Any:
    table.drop_index(NAME)
    return table
