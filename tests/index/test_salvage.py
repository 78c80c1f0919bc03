"""A damaged table is read without its lost fragments."""

import re
from pathlib import Path

import lance
import pytest

from pipeline.index.salvage import Fragments, Unreadable
from tests.helpers.damage import write_cut


def test_message_about_a_fragment_names_its_file_and_no_place_in_the_source_of_lance(tmp_path: Path) -> None:
    table = lance.dataset(str(write_cut(tmp_path / "index", "clips", "small") / "clips.lance"))
    with pytest.raises(Unreadable) as caught:
        list(Fragments(table, "clips").read(["uri"], 100))
    assert re.fullmatch(r"data file \w+\.lance cannot be read: [^\n]+", caught.value.why)
    assert not re.search(r"\.rs\b|rustc|cargo|LanceError", caught.value.why)


def test_data_files_that_are_missing_are_known_before_anything_is_read(tmp_path: Path) -> None:
    path = write_cut(tmp_path / "index", "clips", "small", part=1.0) / "clips.lance"
    assert Fragments(lance.dataset(str(path)), "clips").lost == {}
    for file in (path / "data").iterdir():
        file.unlink()
    table = Fragments(lance.dataset(str(path)), "clips")
    assert table.lost
    assert list(table.read(["uri"], 100)) == []
