"""Results that are kept for the next questions, as far as memory allows."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The values that were used last, by key. Threads may share it.

    Args:
        max_weight: of all values together. The newest one is kept in any case.
    """

    def __init__(self, max_weight: int, weigh: Callable[[Value], int] = lambda value: 1) -> None:
        self._max_weight, self._weigh = max_weight, weigh
        self._weight = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()

    def find(self, keys: Iterable[Key]) -> dict[Key, Value]:
        """The values of those of ``keys`` that are kept."""
        with self._lock:
            found = {key: self._values[key] for key in keys if key in self._values}
            for key in found:
                self._values.move_to_end(key)
        return found

    def keep(self, values: Mapping[Key, Value]) -> None:
        with self._lock:
            for key, value in values.items():
                if key not in self._values:
                    self._values[key] = value
                    self._weight += self._weigh(value)
            while self._weight > self._max_weight and len(self._values) > 1:
                self._weight -= self._weigh(self._values.popitem(last=False)[1])
