"""How an index is searched through its vector indexes: few numbers, which an audit of the recall sets."""

from dataclasses import dataclass

ALL_PARTITIONS = 1_000_000
"""As a number of partitions to read: more than any index has."""


@dataclass(frozen=True)
class SearchSettings:
    """Larger numbers find more and take longer."""

    pools_per_event: int = 5
    """`locate` reads the frames of at least so many pools for each event asked for."""
    clip_probes: int | None = None
    """Partitions of the clips' vector index that a question reads; None for all."""
    clip_refine: int = 4
    """For each clip asked for, a question compares so many whole vectors."""
