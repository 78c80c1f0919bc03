"""Why workers end themselves: they note it in Ray's own store of small values, where the driver reads it.

A batch whose decoder did not come to an end may be given up: the next tries of its tasks leave it out, so that a file
that stops its decoder costs the limit of time twice, and not six times: once with its batch, and once alone.
"""

import contextlib
from collections.abc import Iterable

_CAUSES, _GIVEN_UP = "earshot", "earshot-given-up"
"""Namespaces of Ray's store. Both have batch ids as keys, and causes as values."""


def note_cause(batch_id: str, why: str, *, is_final: bool = False) -> None:
    """Note why this process ends. Without a cluster, nothing is noted.

    Args:
        is_final: whether no worker should try the batch again under this id.
    """
    for namespace in (_CAUSES, _GIVEN_UP) if is_final else (_CAUSES,):
        _put(batch_id, why, namespace)


def is_given_up(batch_id: str) -> bool:
    """Whether a worker has given up a batch."""
    return _get(batch_id, _GIVEN_UP) is not None


def find_causes(batch_ids: Iterable[str]) -> dict[str, str]:
    """Why the workers of lost batches ended, as far as they could note it."""
    found = {batch_id: _get(batch_id, _CAUSES) for batch_id in batch_ids}
    return {batch_id: cause.decode() for batch_id, cause in found.items() if cause is not None}


def _put(key: str, value: str, namespace: str) -> None:
    from ray.experimental import internal_kv

    with contextlib.suppress(Exception):  # the process ends in any case
        internal_kv._internal_kv_put(key, value, namespace=namespace)


def _get(key: str, namespace: str) -> bytes | None:
    from ray.experimental import internal_kv

    if not internal_kv._internal_kv_initialized():
        return None
    value: bytes | None = internal_kv._internal_kv_get(key, namespace=namespace)
    return value
