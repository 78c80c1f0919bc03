"""Values that are kept for the next questions."""

import threading

from pipeline.search.recent import Recent


def test_values_that_were_used_longest_ago_are_dropped_first() -> None:
    recent = Recent[str, int](3)
    recent.keep({"a": 1, "b": 2, "c": 3})
    assert recent.find(["a", "none"]) == {"a": 1}
    recent.keep({"d": 4})
    assert recent.find("abcd") == {"a": 1, "c": 3, "d": 4}


def test_weight_is_bounded_but_the_newest_value_is_kept() -> None:
    recent = Recent[str, str](5, len)
    recent.keep({"a": "12", "b": "123"})
    recent.keep({"a": "12"})  # a value that is known weighs nothing
    assert recent.find("ab") == {"a": "12", "b": "123"}
    recent.keep({"c": "1234567"})
    assert recent.find("abc") == {"c": "1234567"}
    recent.keep({"d": "1"})
    assert recent.find("abcd") == {"d": "1"}


def test_threads_may_share_it() -> None:
    recent = Recent[int, int](50)

    def use(first: int) -> None:
        for n in range(2_000):
            key = first + n % 90
            assert recent.find([key]) in ({}, {key: key})
            recent.keep({key: key})

    threads = [threading.Thread(target=use, args=(first,)) for first in (0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recent.find(range(200))) == 50
