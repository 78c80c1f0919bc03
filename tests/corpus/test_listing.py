"""Listed rows become one table: each uri once, in order."""

import gc

import pytest

from pipeline.corpus import listing
from pipeline.corpus.listing import Listing, gc_paused, listed_row, to_table
from pipeline.errors import CorpusError
from pipeline.schema import LISTED


def test_first_row_of_a_uri_counts_and_uris_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ROWS_AT_ONCE", 2)
    found = Listing()
    for uri, size_bytes in [("b", 1), ("a", 2), ("b", 3), ("c", 4)]:
        found.add(listed_row(uri, size_bytes))
    found.extend(to_table([listed_row("a", 5), listed_row("d", 6)]))
    table = found.to_table()
    assert table.schema == LISTED
    assert list(zip(table["uri"].to_pylist(), table["size_bytes"].to_pylist(), strict=True)) == [
        *[("a", 2), ("b", 1), ("c", 4), ("d", 6)]
    ]


def test_progress_is_reported_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ROWS_PER_REPORT", 2)
    reported: list[int] = []
    found = Listing(reported.append)
    for number in range(5):
        found.add(listed_row(str(number)))
    found.extend(to_table([listed_row("x")]))
    assert reported == [2, 4, 6]


def test_a_file_named_like_a_time_range_is_refused() -> None:
    found = Listing()
    found.add(listed_row("a.wav#t=1"))
    found.add({**listed_row("a.wav#t=1"), "start_s": 1.0})
    with pytest.raises(CorpusError, match=r"a\.wav#t=1: the name of a file, and of a range in a manifest"):
        found.to_table()


def test_no_rows_are_an_empty_table() -> None:
    assert Listing().to_table().equals(LISTED.empty_table())


@pytest.mark.parametrize("is_enabled", [True, False])
def test_garbage_collection_is_as_before_after_a_pause(is_enabled: bool) -> None:
    was_enabled = gc.isenabled()
    try:
        (gc.enable if is_enabled else gc.disable)()
        with gc_paused():
            assert not gc.isenabled()
        assert gc.isenabled() == is_enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize(("uri", "hides_files"), [("a.tar", True), ("a.wav", False)])
def test_an_unreadable_shard_hides_files(uri: str, hides_files: bool) -> None:
    assert listed_row(uri, reason="unreadable")["hides_files"] == hides_files
    assert not listed_row(uri)["hides_files"]
