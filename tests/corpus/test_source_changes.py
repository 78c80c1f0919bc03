"""Sources of an index are renamed, forgotten and added."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, make_config
from pipeline.corpus.source_changes import change_sources
from pipeline.errors import CorpusError, UsageError


def make(*sources: str, **corpus: Any) -> Config:
    return make_config({"into": "/index", "sources": list(sources), "corpus": corpus})


def test_a_renamed_folder_takes_sources_and_metadata_in_it_along(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    config = make(old, f"{old}/deep", f"{old}er", metadata=f"{old}/about.csv")
    changed = change_sources(config, moved=(old, new))
    assert changed.sources == (new, f"{new}/deep", f"{old}er")
    assert changed.corpus.metadata == f"{new}/about.csv"
    assert change_sources(config, moved=(old, f"{new}*")).sources[0] == f"{new}*"  # a pattern need not exist


def test_a_folder_cannot_move_to_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none: no such file or folder, so .*old cannot have moved there"):
        change_sources(make(str(tmp_path / "old")), moved=(str(tmp_path / "old"), str(tmp_path / "none")))


def test_sources_are_forgotten_and_added_once(tmp_path: Path) -> None:
    changed = change_sources(make("/a", "/b"), forgotten=["/a"], more=["/c", "/b", "/c"])
    assert changed.sources == ("/b", "/c")


def test_one_source_has_to_be_left() -> None:
    with pytest.raises(UsageError, match=r"^/index: no source would be left"):
        change_sources(make("/a"), forgotten=["/a"])
    assert change_sources(make("/a"), forgotten=["/a"], more=["/b"]).sources == ("/b",)


def test_an_unknown_source_is_named_with_the_known_ones(tmp_path: Path) -> None:
    for options in ({"forgotten": ["/x"]}, {"moved": ("/x", str(tmp_path))}):
        with pytest.raises(UsageError, match=r"^/x: is no source of /index; its sources are /a, /b$"):
            change_sources(make("/a", "/b"), **options)
