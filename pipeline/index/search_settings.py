"""How an index is searched through its vector indexes: few numbers, which an audit of the recall sets."""

import math
from dataclasses import dataclass, replace

ALL_PARTITIONS = 1_000_000
"""As a number of partitions to read: more than any index has."""


@dataclass(frozen=True)
class SearchSettings:
    """Larger numbers find more and take longer."""

    pools_per_event: int = 5
    """`locate` reads the frames of at least so many pools for each event asked for."""
    clip_probes: float | None = None
    """Partitions of the clips' vector index that a question reads: None for all. Below 1, it is a share of them, as an
    audit stores it. From 1 on, it is their number: see ``for_partitions``."""
    clip_refine: int = 4
    """For each clip asked for, a question compares so many whole vectors."""

    def for_partitions(self, n_partitions: int | None) -> "SearchSettings":
        """The same for an index of ``n_partitions``, with their number in place of a share; None for an index that was
        not measured, of which all are read."""
        if self.clip_probes is None or n_partitions is None:
            return replace(self, clip_probes=None)
        n_probes = self.clip_probes if self.clip_probes >= 1 else self.clip_probes * n_partitions
        return replace(self, clip_probes=max(1, math.ceil(n_probes)))
