"""A measurement of the recall, as a run publishes it; and a vector index that there is something to measure of."""

from typing import Any

from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import Measured, Tuning
from pipeline.index.writer import Writer

TUNING = Tuning(
    wanted=0.98,
    settings=SearchSettings(clip_refine=16),
    locate=Measured(0.993, 0.985, 0.997, 1_512, 800, 320, k=20, n_dimensions=41.0, threshold=0.3),
    query=Measured(None, 0.0, 1.0, 0, 0, 320, k=20, n_dimensions=3.5),
    similar=None,
    n_clips=10_000,
    n_frames=1_000_000,
    seconds=35.1,
)


def publish_tuning(path: str, tuning: Tuning) -> None:
    writer = Writer(path, "1" * 32)
    with writer.changes() as changes:
        writer.publish("tune", changes, tuning.to_detail())


def add_vector_index(path: str) -> None:
    """Give ``clips`` a vector index, however few they are."""
    writer = Writer(path, "1" * 32)
    with writer.changes() as changes:
        changes.make("index", "clips", _index)
        writer.publish("maintain", changes)


def _index(table: Any) -> Any:
    table.create_index("vector", "IVF_FLAT", name="vector_idx", metric="dot", num_partitions=1)
    return table
