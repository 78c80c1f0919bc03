"""A vector index that several workers build: one trains a model, each makes a segment over some fragments with it, and
one process joins the segments and commits them. These are plain functions; ``run/vector_builds.py`` gives them to Ray.

Segments can be joined only if they share the centres of the partitions and the rotation of RaBitQ.
"""

import base64
import pickle
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
import numpy.typing as npt

from pipeline.index.vector_index import COLUMN, NAME, OPTIONS, train

ROWS_PER_SHARD = 500_000
"""About so many rows make a shard: half a minute of one core."""


@dataclass(frozen=True)
class Model:
    """What all segments share."""

    centres: npt.NDArray[np.float16]
    """(n_partitions, D)"""
    rotation: str
    """JSON of Lance's."""


def train_model(uri: str, version: int, n_partitions: int) -> Model:
    from lance.lance import indices

    table = lance.dataset(uri, version=version)
    centres = train(table, n_partitions)
    return Model(centres, indices.build_rq_model(centres.shape[1], OPTIONS["num_bits"]))


def split_fragments(table: Any) -> list[list[int]]:
    """The numbers of the fragments of each shard, in order. No fragment is split."""
    shards, n_rows = list[list[int]](), ROWS_PER_SHARD
    for fragment in table.get_fragments():
        if n_rows >= ROWS_PER_SHARD:
            shards.append([])
            n_rows = 0
        shards[-1].append(fragment.fragment_id)
        n_rows += fragment.count_rows()
    return shards


def build_shard(uri: str, version: int, model: Model, fragments: list[int]) -> str:
    """Write the segment over some fragments, which belongs to no version yet. Returns what ``join_shards`` needs."""
    segment = lance.dataset(uri, version=version).create_index_uncommitted(
        COLUMN,
        name=NAME,
        num_partitions=len(model.centres),
        ivf_centroids=model.centres,
        rabitq_model=model.rotation,
        fragment_ids=fragments,
        replace=True,
        **OPTIONS,
    )
    return base64.b64encode(pickle.dumps(segment)).decode()


def join_shards(uri: str, version: int, shards: list[str]) -> None:
    """Join segments from ``build_shard`` into one, and commit it as the vector index: one version."""
    table = lance.dataset(uri, version=version)
    segments = [pickle.loads(base64.b64decode(shard)) for shard in shards]
    joined = table.merge_existing_index_segments(segments) if len(segments) > 1 else segments[0]
    table.commit_existing_index_segments(NAME, COLUMN, [joined])
