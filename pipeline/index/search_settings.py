"""How an index is searched through its vector indexes: few numbers, which an audit of the recall sets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

ALL_PARTITIONS = 1_000_000
"""As a number of partitions to read: more than any index has."""


@dataclass(frozen=True)
class SearchSettings:
    """Larger numbers find more and take longer."""

    pools_per_event: int = 5
    """`locate` reads the frames of at least so many pools for each event asked for."""
    clip_probe_share: float | None = None
    """The share of the partitions of the clips' vector index that a question reads, as an audit stores it; None for
    all."""
    clip_probes: int | None = None
    """Their number, once the index is known: see ``for_partitions``; None for all."""
    clip_refine: int = 4
    """For each candidate, of which `query` has four for each clip asked for, so many whole vectors are compared."""
    similar_candidates: int = 1_600
    """`similar` ranks by cosine so many clips at least, which are the best by dot product. `query` does not depend on
    it."""

    def for_partitions(self, n_partitions: int | None) -> "SearchSettings":
        """The same for an index of ``n_partitions``, with their number in place of a share; None for an index that was
        not measured, or a question that needs more, of which all are read."""
        n_probes = None if n_partitions is None else self.clip_probes
        if n_partitions is not None and self.clip_probe_share is not None:
            n_probes = max(1, math.ceil(self.clip_probe_share * n_partitions))
        return replace(self, clip_probe_share=None, clip_probes=n_probes)


def select_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that this version knows, of those that some version stored. Before there was ``clip_probe_share``,
    ``clip_probes`` below 1 was a share."""
    known = {each.name: stored[each.name] for each in fields(SearchSettings) if each.name in stored}
    n_probes = known.get("clip_probes")
    if isinstance(n_probes, int | float) and n_probes < 1:
        known |= {"clip_probe_share": n_probes, "clip_probes": None}
    return known
