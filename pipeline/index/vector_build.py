"""A vector index built: partitions are trained, segments made over some fragments each, joined, and committed.

The partitions are trained on a sample in float32. Lance trains in the type of the column, and in float16 sums of long
vectors overflow (lance issue 8607). A large index is built a shard at a time, so that memory does not grow with the
rows: here one after the other, and on a cluster by Ray tasks (``run/vector_builds.py``). Shards can be joined since
they share the centres of the partitions and the rotation of RaBitQ. Lance searches a segment with one core, so a large
index has several.

A build that dies before its commit leaves every version of the table as it was. The next step first deletes the
segments of shards that a dead build left.
"""

import base64
import pickle
import uuid
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
import numpy.typing as npt

from pipeline import storage
from pipeline.index.handle import delete_folder
from pipeline.index.journal import Failpoint

NAME, COLUMN = "vector_idx", "vector"

OPTIONS: dict[str, Any] = {"index_type": "IVF_RQ", "metric": "dot", "num_bits": 1}

ROWS_PER_SHARD = 500_000
"""About so many rows make a shard: half a minute of one core."""

MOST_SEGMENTS = 4
"""Shards are joined into so many segments of about equal size: that many cores search a large index side by side."""

ROWS_PER_PARTITION = 128
"""The size of the sample that partitions are trained on."""

FRUGAL = {"LANCE_DEFAULT_IO_BUFFER_SIZE": str(64 * 2**20), "LANCE_DEFAULT_FRAGMENT_READAHEAD": "1"}
"""Variables for a process that builds: by default Lance reads 2 GB ahead."""

_ITERATIONS = 10

_PART = "ea25ba11-5a4d"
"""The UUIDs of the segments of shards begin like this. They are joined: no version of a table ever names one."""


@dataclass(frozen=True)
class Model:
    """What all segments share."""

    centres: npt.NDArray[np.float16]
    """(n_partitions, D)"""
    rotation: str
    """JSON of Lance's."""


def open_version(uri: str, version: int | None = None) -> Any:
    """A table at ``version``, or at the newest one, in a process that has not opened its store before."""
    return lance.dataset(storage.database(uri), version=version)


def make_step(
    uri: str,
    version: int,
    n_partitions: int | None,
    n_merged: int,
    failpoint: Failpoint = lambda step: None,
) -> None:
    """Build a vector index, or extend one, and commit that: one version.

    Args:
        n_partitions: of an index that is built; None where one is extended by the rows that it leaves out.
        n_merged: how many of its newest segments are merged with these.
        failpoint: called before each step, with its name.
    """
    table = open_version(uri, version)
    delete_parts(uri)
    if n_partitions is None:
        failpoint("extend index")
        table.optimize.optimize_indices(index_names=[NAME], num_indices_to_merge=n_merged)
        failpoint("end extension")
        return
    model, segments = train_model(uri, version, n_partitions), list[list[str]]()
    for shards in split_fragments(table):
        segments.append([])
        for shard in shards:
            failpoint("build shard")
            segments[-1].append(build_shard(uri, version, model, shard))
    join_shards(uri, version, segments, failpoint)


def train_model(uri: str, version: int, n_partitions: int) -> Model:
    """The model for a table."""
    from lance.lance import indices

    table = open_version(uri, version)
    n_sample = min(table.count_rows(), ROWS_PER_PARTITION * n_partitions)
    column = table.sample(n_sample, columns=[COLUMN])[COLUMN].combine_chunks()
    sample = column.flatten().to_numpy(zero_copy_only=False).reshape(n_sample, -1).astype(np.float32)
    means = lance.util.KMeans(n_partitions, "l2", max_iters=_ITERATIONS)
    try:
        means.fit(sample)
        centres = np.stack(means.centroids.to_numpy(zero_copy_only=False))
    except RuntimeError:  # fewer different vectors than partitions
        centres = sample[np.linspace(0, n_sample - 1, n_partitions).astype(np.intp)]
    return Model(centres.astype(np.float16), indices.build_rq_model(sample.shape[1], OPTIONS["num_bits"]))


@dataclass(frozen=True)
class Shard:
    """A part of a table: the numbers of its fragments. ``is_alone`` where it is a whole segment of the index."""

    fragments: list[int]
    is_alone: bool


def split_fragments(table: Any) -> list[list[Shard]]:
    """The shards of a table, in order, by the segments that they become. No fragment is split."""
    rows = {fragment.fragment_id: fragment.count_rows() for fragment in table.get_fragments()}
    n_shards = max(1, -(-sum(rows.values()) // ROWS_PER_SHARD))
    n_segments = min(n_shards, MOST_SEGMENTS)
    dealt = [
        [part for part in _deal(segment, rows, -(-n_shards // n_segments)) if part]
        for segment in _deal(list(rows), rows, n_segments)
    ]
    return [[Shard(part, len(parts) == 1) for part in parts] for parts in dealt if parts]


def _deal(fragments: list[int], rows: dict[int, int], n_parts: int) -> list[list[int]]:
    """Neighbouring fragments in ``n_parts`` parts of about as many rows; some may be empty."""
    parts: list[list[int]] = [[] for _ in range(n_parts)]
    n_all, n_before = max(1, sum(rows[each] for each in fragments)), 0
    for fragment in fragments:
        middle = n_before + rows[fragment] / 2
        parts[min(n_parts - 1, int(middle / n_all * n_parts))].append(fragment)
        n_before += rows[fragment]
    return parts


def build_shard(uri: str, version: int, model: Model, shard: Shard) -> str:
    """Write the segment of a shard, which belongs to no version yet. Returns what ``join_shards`` needs."""
    drawn = str(uuid.uuid4())
    segment = open_version(uri, version).create_index_uncommitted(
        COLUMN,
        name=NAME,
        num_partitions=len(model.centres),
        ivf_centroids=model.centres,
        rabitq_model=model.rotation,
        fragment_ids=shard.fragments,
        index_uuid=drawn if shard.is_alone else _PART + drawn[len(_PART) :],
        replace=True,
        **OPTIONS,
    )
    return base64.b64encode(pickle.dumps(segment)).decode()


def join_shards(uri: str, version: int, segments: list[list[str]], failpoint: Failpoint = lambda step: None) -> None:
    """Join the shards of each segment, from ``build_shard``, and commit the segments as the vector index: one version.
    Delete those of the shards, which Lance would keep for a week."""
    table, joined = open_version(uri, version), list[Any]()
    for shards in segments:
        failpoint("join shards")
        built = [pickle.loads(base64.b64decode(shard)) for shard in shards]
        joined.append(table.merge_existing_index_segments(built))  # a single one stays as it is
    failpoint("commit shards")
    table.commit_existing_index_segments(NAME, COLUMN, joined)
    failpoint("delete shards")
    delete_parts(uri)


def delete_parts(uri: str) -> None:
    """Delete the segments of shards that have been joined, or whose build has died. Only one process at a time builds
    the vector index of a table: the one that holds the lease."""
    fs, root = storage.find_store(storage.join(uri, "_indices"))
    try:
        found = storage.retried(fs.ls, root, detail=False)
    except FileNotFoundError:
        return
    for name in (str(each).rstrip("/").rpartition("/")[2] for each in found):
        if name.startswith(_PART):
            delete_folder(storage.join(uri, f"_indices/{name}"))
