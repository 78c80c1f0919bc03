"""Files that are found and not listed are counted as ignored, each once, however many sources hold it."""

import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import CorpusConfig
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.ignored_files import (
    HIDDEN,
    LINKS,
    MOST_KINDS,
    NO_EXTENSION,
    OTHERS,
    IgnoredFiles,
    kind_of,
    summarize,
)
from pipeline.errors import CorpusError
from pipeline.schema import LISTED
from tests.helpers.corpora import touch
from tests.helpers.shards import write_shard


def count(*sources: Path | str, leave_out: Path | None = None, **settings: Any) -> dict[str, int]:
    ignored = IgnoredFiles()
    listed = list_corpus(
        list(map(str, sources)),
        CorpusConfig(**settings),
        None if leave_out is None else str(leave_out),
        ignored=ignored,
    )
    return ignored.count(listed)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("a.wav", "notes.txt", "in/b.TXT", "in/c.jpg", "in/deep/README", "in/.hidden.wav", ".h/d.wav", "e.mp3"):
        touch(root / name)
    touch(tmp_path / "far" / "f.txt")
    (root / "link").symlink_to(tmp_path / "far")
    return root


EVERYTHING = {".txt": 2, ".jpg": 1, NO_EXTENSION: 1, HIDDEN: 2, LINKS: 1}


def test_ignored_files_are_counted_by_extension(tree: Path) -> None:
    assert count(tree) == EVERYTHING
    assert list(count(tree)) == list(EVERYTHING)


def test_each_ignored_file_counts_once(tree: Path) -> None:
    assert count(tree, tree / "in", tree / "in" / "*", tree / "in" / "..", tree) == EVERYTHING


def test_files_that_another_source_names_are_not_ignored(tree: Path) -> None:
    assert count(tree, tree / "notes.txt")[".txt"] == 1
    manifest = touch(tree / "list.csv", b"uri,start_s\nin/c.jpg,1\n")
    shard = write_shard(tree / "s.tar", [("a.wav", b"sound"), ("a.json", b"{}"), (".h/b.wav", b"sound"), ("../x", b"")])
    table = touch(tree / "sidecar.csv", b"uri\na.wav\n")
    found = count(tree, manifest, shard, metadata=str(table))
    assert found == {".json": 1, ".txt": 2, NO_EXTENSION: 2, HIDDEN: 3, LINKS: 1}
    assert count(tree) == {**EVERYTHING, ".csv": 2, ".tar": 1}


def test_settings_choose_which_files_are_ignored(tree: Path) -> None:
    assert count(tree, extensions=["*"], hidden=True, follow_symlinks=True) == {}
    assert count(tree, extensions=["txt"]) == {".jpg": 1, ".mp3": 1, ".wav": 1, NO_EXTENSION: 1, HIDDEN: 2, LINKS: 1}
    assert count(tree, leave_out=tree / "in") == {".txt": 1, HIDDEN: 1, LINKS: 1}


def test_of_a_pattern_only_matches_count_as_ignored(tree: Path) -> None:
    assert count(tree / "*") == EVERYTHING
    assert count(tree / "a*", tree / "in" / "*.[jT]*") == {".txt": 1, ".jpg": 1}
    assert count(tree / "[ai]*", tree / "*.t*") == {".txt": 2, ".jpg": 1, NO_EXTENSION: 1, HIDDEN: 1}
    # Patterns tell small letters from capital ones; what is hidden and does not match either was not asked for.
    assert count(tree / "a*", tree / "*.t*") == {".txt": 1}
    assert count(tree / "a*", tree / "*n*") == {".txt": 2, ".jpg": 1, NO_EXTENSION: 1, HIDDEN: 1, LINKS: 1}


def test_pattern_across_folders_counts_folders_not_entered(tree: Path) -> None:
    touch(tree / "in" / ".notes")  # hidden, and does not match either
    touch(tree / "in" / "g.wav")
    for pattern in ("**/*.wav", "**/*/*.wav", "*/*.wav"):
        assert count(tree / pattern, hidden=True, follow_symlinks=True) == {}, pattern
        assert count(tree / pattern) == {HIDDEN: 2, LINKS: 1}, pattern
    assert count(tree / "**" / "*.wav", hidden=True) == {LINKS: 1}
    assert count(tree / "**" / "*.wav", follow_symlinks=True) == {HIDDEN: 2}
    assert count(tree / "**") == {**EVERYTHING, HIDDEN: 3}
    assert count(tree / "**", tree / "**" / "*.wav", tree) == {**EVERYTHING, HIDDEN: 3}


def test_pattern_without_match_tells_folders_not_entered(tree: Path) -> None:
    touch(tree / "far" / "only" / ".x" / "a.wav")
    (tree / "far" / "only" / "link").symlink_to(tree / "in")
    said = r"matches no file; not looked at: 1 hidden \(corpus.hidden\), 1 link to a folder \(corpus.follow_symlinks\);"
    with pytest.raises(CorpusError, match=said):
        count(tree, tree / "far" / "only" / "*" / "*.wav")
    with pytest.raises(CorpusError, match=r"the pattern matches no file; if it was renamed"):
        count(tree, tree / "far" / "only" / "*.wav")
    fsspec.filesystem("memory").pipe_file("/pattern/.h/d.wav", b"sound")
    with pytest.raises(CorpusError, match=r"no file that matches; not looked at: 1 hidden \(corpus.hidden\);"):
        count("memory://pattern/*/*.wav")


def test_files_in_object_stores_are_counted_likewise() -> None:
    store = fsspec.filesystem("memory")
    for name in ("a.wav", "b.txt", "in/c.txt", "in/README", ".h/d.wav", "in/.e.wav"):
        store.pipe_file(f"/ignored/{name}", b"sound")
    assert count("memory://ignored") == {".txt": 2, NO_EXTENSION: 1, HIDDEN: 2}
    assert count("memory://ignored", "memory://ignored/in/c.txt")[".txt"] == 1
    assert count("memory://ignored/*.wav", "memory://ignored/b.*") == {".txt": 1}
    store.pipe_file("/ignored/.h/e.wav", b"sound")  # a hidden folder is one, however much it holds
    assert count("memory://ignored/**/*.wav") == {HIDDEN: 2}


def test_empty_corpus_tells_the_ignored_files(tree: Path) -> None:
    os.remove(tree / "a.wav")
    os.remove(tree / "e.mp3")
    said = r"no file with an audio file's extension there; not looked at: 2 \.txt, 1 \.jpg"
    with pytest.raises(CorpusError, match=said) as empty:
        list_corpus([str(tree)])
    assert str(empty.value).count("corpus.extensions") == 1
    (tree / "none").mkdir()
    with pytest.raises(CorpusError, match=r"extension there; corpus\.extensions names others, and tar"):
        list_corpus([str(tree / "none")])


def test_only_the_most_frequent_extensions_are_named() -> None:
    ignored = IgnoredFiles()
    for number in range(MOST_KINDS + 5):
        for k in range(number + 1):
            ignored.add(f"{number}/{k}", f".x{number:02d}")
    ignored.add("h", HIDDEN)
    found = ignored.count(LISTED.empty_table())
    assert found == {**{f".x{n:02d}": n + 1 for n in reversed(range(5, MOST_KINDS + 5))}, OTHERS: 15, HIDDEN: 1}
    assert list(found)[-2:] == [OTHERS, HIDDEN]


def test_number_of_extensions_is_bounded() -> None:
    ignored = IgnoredFiles()
    for number in range(20_000):
        ignored.add(str(number), f".{number}")
    found = ignored.count(LISTED.empty_table())
    assert sum(found.values()) == 20_000
    assert len(found) == MOST_KINDS + 1


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from([".txt", ".jpg", HIDDEN])), max_size=60),
    st.sets(st.integers(0, 20)),
)
def test_counts_hold_each_unlisted_file_once(added: list[tuple[int, str]], listed: set[int]) -> None:
    ignored, first = IgnoredFiles(), dict[int, str]()
    for number, kind in added:
        ignored.add(str(number), kind)
        first.setdefault(number, kind)
    rows = [{"uri": f"{number}#t=1", "start_s": 1.0} for number in listed]
    expected = [kind for number, kind in first.items() if number not in listed]
    found = ignored.count(pa.Table.from_pylist(rows, schema=LISTED))
    assert found == {kind: expected.count(kind) for kind in expected}


@pytest.mark.parametrize(
    ("extension", "kind"),
    [
        ("txt", ".txt"),
        ("", NO_EXTENSION),
        (" smith", NO_EXTENSION),
        ("a\x1b[0m", NO_EXTENSION),
        ("x" * 13, NO_EXTENSION),
    ],
)
def test_end_of_a_sentence_is_no_extension(extension: str, kind: str) -> None:
    assert kind_of(extension) == kind


def test_summary_names_the_settings_that_decide() -> None:
    assert summarize({}) == ""
    assert summarize(EVERYTHING) == (
        "2 .txt, 1 .jpg, 1 without an extension (corpus.extensions chooses), 2 hidden (corpus.hidden),"
        " 1 link to a folder (corpus.follow_symlinks)"
    )
    assert summarize({LINKS: 2}) == "2 links to folders (corpus.follow_symlinks)"
