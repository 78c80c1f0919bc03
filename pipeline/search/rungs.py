"""The settings of search that an audit chooses from, in order: each one finds at least as much as the one before."""

from dataclasses import replace

from pipeline.index.search_settings import SearchSettings
from pipeline.search.candidates import LEAST_EVENTS
from pipeline.search.clips import MIN_CANDIDATES, count_candidates
from pipeline.search.scores import MAX_COMPARED

POOLS_PER_EVENT = (5, 10, 20, 40)
CLIP_PROBES = (1 / 2,)
CLIP_REFINE = (4, 8, 16, 32, 64)
SIMILAR_CANDIDATES = (800, 1_600, 3_200, 6_400, 12_800)
"""The settings to choose from, in order; probes as shares of the partitions, of which the usual settings read all.
With fewer than half of the partitions, no index that was measured reached 0.98. Of 40,002 made clips of 1,024 numbers,
the best 200 by the codes held 96 % of the answers to sounds from elsewhere, although they held 99 % of those to the
questions here; 800 held 99.9 %."""

LEAST_NUMBERS = 512
"""Numbers of whole vectors that are compared for each candidate, at least. A code has a bit for each number, so short
vectors have coarse codes: with 64 numbers, four vectors for each lost up to 6 % of the answers to sounds that are like
none of the questions here, and eight at most 1 %. `similar` compares at least 400 times as many numbers, since codes
alone choose its candidates: with 64 numbers, 1,600 candidates from half of the partitions held 92 to 95 % of the
answers to such sounds, and 3,200 held 98 to 100 %."""


def list_pool_rungs(k: int, n_pools: int) -> list[SearchSettings]:
    """The settings to try for events: ever more pools, until a question for ``k`` events reads them all."""
    few = [n for n in POOLS_PER_EVENT if n * max(k, LEAST_EVENTS) < n_pools]
    return [SearchSettings(pools_per_event=n) for n in POOLS_PER_EVENT[: len(few) + 1]]


def find_least_refine(dimension: int) -> int:
    """The fewest whole vectors of ``dimension`` numbers to compare for each candidate."""
    return next((n for n in CLIP_REFINE if n * dimension >= LEAST_NUMBERS), CLIP_REFINE[-1])


def find_least_candidates(dimension: int) -> int:
    """The fewest whole vectors of ``dimension`` numbers to compare by cosine."""
    least = 2 * MIN_CANDIDATES * LEAST_NUMBERS
    return next((n for n in SIMILAR_CANDIDATES if n * dimension >= least), SIMILAR_CANDIDATES[-1])


def raise_to_least(settings: SearchSettings, dimension: int) -> SearchSettings:
    """Settings that compare as many vectors of ``dimension`` numbers as any audit would choose, at least."""
    refine = max(settings.clip_refine, find_least_refine(dimension))
    n_candidates = max(settings.similar_candidates, find_least_candidates(dimension))
    return replace(settings, clip_refine=refine, similar_candidates=n_candidates)


def list_clip_rungs(default: SearchSettings, n_partitions: int, k: int) -> list[SearchSettings]:
    """The settings to try for clips by dot product: ever more partitions, then ever more whole vectors than ``default``
    has, as far as a question for ``k`` clips may compare so many.

    Args:
        n_partitions: of the vector index.
    """
    rungs = [replace(default, clip_probe_share=share) for share in _shares(n_partitions)]
    most = MAX_COMPARED // count_candidates(k)
    refines = [n for n in CLIP_REFINE if n >= default.clip_refine]
    few = [n for n in refines if n < most]
    return rungs + [replace(default, clip_refine=n) for n in refines[: len(few) + 1]]


def list_similar_rungs(
    default: SearchSettings, n_clips: int, k: int, least: int = MIN_CANDIDATES
) -> list[SearchSettings]:
    """The settings to try for clips by cosine: ever more candidates, at ``least`` so many, until a question for ``k``
    clips compares all."""
    sizes = sorted({count_candidates(k, n) for n in SIMILAR_CANDIDATES if n >= least})
    few = [n for n in sizes if n < n_clips]
    return [replace(default, similar_candidates=n) for n in sizes[: len(few) + 1]]


def list_wider(settings: SearchSettings, n_partitions: int) -> list[SearchSettings]:
    """The same with ever more partitions; none where all are read."""
    share = settings.clip_probe_share
    if share is None:
        return []
    more = [each for each in _shares(n_partitions) if each > share]
    return [replace(settings, clip_probe_share=each) for each in (*more, None)]


def _shares(n_partitions: int) -> list[float]:
    return [share for share in CLIP_PROBES if share * n_partitions >= 1]
