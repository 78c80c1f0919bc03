"""Folders, patterns and links on a disk: which files are listed, under which names, and why some cannot be read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.corpus.local_files import stat_row
from pipeline.errors import CorpusError
from tests.helpers.corpora import list_names, list_reasons, list_rows, touch
from tests.helpers.corpora import tree as tree


def test_folders_are_searched_recursively(tree: Path) -> None:
    assert list_names(tree, tree) == ["a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.opus"]


def test_row_holds_uri_size_and_time(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.wav", b"12345")
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    expected = dict(
        uri=str(path), start_s=None, end_s=None, size_bytes=5, modified_ns=1_600_000_000_123_456_789, offset=None
    )
    expected |= dict(reason=None, message=None, hides_files=False)
    assert list_rows(tmp_path) == [expected]


@pytest.mark.parametrize("year", [-9999, 0, 1600, 1901, 2262, 2300, 9999])
def test_times_out_of_range_become_the_nearest_that_fits(tmp_path: Path, year: int) -> None:
    path = touch(tmp_path / "a.wav")
    seconds = round((year - 1970) * 31_556_952)
    try:
        os.utime(path, ns=(seconds * 10**9, seconds * 10**9))
    except (OSError, OverflowError):
        pytest.skip("no file has such a time here")
    wanted = path.stat().st_mtime_ns  # where a file system has no such times, it has another one
    [row] = list_rows(tmp_path)
    assert row["modified_ns"] == max(-(2**63), min(wanted, 2**63 - 1)) == storage.stat_file(str(path))[1]


def test_extensions_are_overridden(tree: Path) -> None:
    assert list_names(tree, tree, extensions=["txt", ".MP3", "*.opus"]) == ["notes.txt", "sub/c.mp3", "sub/deep/d.opus"]
    everything = ["a.FLAC", "b.wav", "notes.txt", "sub/c.mp3", "sub/deep/d.opus", "wav"]
    assert list_names(tree, tree, extensions=["*"]) == everything


def test_hidden_files_are_taken_if_set_or_named(tree: Path) -> None:
    with_hidden = [".h/e.wav", "a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.opus", "z/.hidden.wav"]
    assert list_names(tree, tree, hidden=True) == with_hidden
    assert list_names(tree, tree / ".h") == [".h/e.wav"]
    assert list_names(tree, tree / "z" / ".hidden.wav") == ["z/.hidden.wav"]


def test_file_named_as_source_is_taken_whatever_its_extension(tree: Path) -> None:
    assert list_names(tree, tree / "notes.txt", tree / "wav") == ["notes.txt", "wav"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["b.wav"]),
        ("[ab].*", ["a.FLAC", "b.wav"]),
        ("?.wav", ["b.wav"]),
        ("*/*", ["sub/c.mp3", "sub/deep/d.opus"]),  # folders that match are searched
        ("s*", ["sub/c.mp3", "sub/deep/d.opus"]),
        ("**/*.mp3", ["sub/c.mp3"]),
        ("**/d.opus", ["sub/deep/d.opus"]),
        ("**/deep/*", ["sub/deep/d.opus"]),
        ("**/dee[p]", ["sub/deep/d.opus"]),
        ("sub/**", ["sub/c.mp3", "sub/deep/d.opus"]),
        ("**/*", ["a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.opus"]),
        ("**/**/*.wav", ["b.wav"]),
        (".h*", [".h/e.wav"]),
        ("z/.h*", ["z/.hidden.wav"]),
    ],
)
def test_patterns_match_as_in_a_shell(tree: Path, pattern: str, expected: list[str]) -> None:
    assert list_names(tree, tree / pattern) == expected


def test_patterns_match_hidden_files_if_set(tree: Path) -> None:
    assert list_names(tree, tree / "**" / "*.wav", hidden=True) == [".h/e.wav", "b.wav", "z/.hidden.wav"]
    assert list_names(tree, tree / "**" / "*.txt", extensions=["*"]) == ["notes.txt"]


@pytest.mark.parametrize("name", ["[ab].wav", "take *.wav", "what?.wav"])
def test_existing_path_is_taken_literally(tmp_path: Path, name: str) -> None:
    for each in (name, "a.wav", "take 2.wav", "whats.wav"):
        touch(tmp_path / each)
    assert list_names(tmp_path, tmp_path / name) == [name]


def test_existing_folders_before_a_pattern_are_taken_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "[raw]" / "a.wav")
    touch(tmp_path / "r" / "b.wav")
    assert list_names(tmp_path, tmp_path / "[raw]" / "*.wav") == ["[raw]/a.wav"]
    monkeypatch.chdir(tmp_path / "[raw]")
    assert list_names(tmp_path, "*.wav") == ["[raw]/a.wav"]
    assert list_names(tmp_path, "**/*.wav") == ["[raw]/a.wav"]


def test_link_to_a_file_is_a_file_under_its_own_name(tmp_path: Path) -> None:
    target = touch(tmp_path / "far" / "x.dat", b"123")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.wav").symlink_to(target)
    (root / "link.dat").symlink_to(target)  # known by the name of the link, which is no audio
    assert [(row["uri"], row["size_bytes"]) for row in list_rows(root)] == [(str(root / "link.wav"), 3)]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with a link to another folder, to itself, and between two folders that link to each other."""
    root = tmp_path / "root"
    touch(root / "a.wav")
    touch(tmp_path / "other" / "b.wav")
    touch(root / "one" / "c.wav")
    touch(root / "two" / "d.wav")
    (root / "link").symlink_to(tmp_path / "other")
    (root / "self").symlink_to(root)
    (root / "one" / "to_two").symlink_to(root / "two")
    (root / "two" / "to_one").symlink_to(root / "one")
    return root


def test_links_to_folders_are_entered_only_if_set(linked: Path) -> None:
    without = ["a.wav", "one/c.wav", "two/d.wav"]
    assert list_names(linked, linked) == without
    assert list_names(linked, linked / "**" / "*.wav") == without
    assert list_names(linked, linked / "*") == without
    # No folder twice: `two` is met first by way of `one`.
    assert list_names(linked, linked, follow_symlinks=True) == ["a.wav", "link/b.wav", "one/c.wav", "one/to_two/d.wav"]
    followed = list_names(linked, linked / "**" / "*.wav", follow_symlinks=True)
    assert followed == ["a.wav", "link/b.wav", "one/c.wav", "one/to_two/d.wav"]


def test_link_to_a_folder_named_as_source_is_entered(linked: Path) -> None:
    assert list_names(linked, linked / "link") == ["link/b.wav"]
    assert list_names(linked, linked / "link" / "*.wav") == ["link/b.wav"]


def test_links_to_nothing_and_to_themselves_are_listed(tmp_path: Path) -> None:
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")  # does not look like audio
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.wav").symlink_to(tmp_path / "folder")
    expected: dict[str, str | None] = {"dangling.wav": "vanished", "loop.wav": "vanished"}
    for source in (tmp_path, tmp_path / "*", tmp_path / "**" / "*.wav"):
        for follow in (False, True):
            assert list_reasons(tmp_path, source, follow_symlinks=follow) == expected
    assert list_reasons(tmp_path, tmp_path / "loop") == {"loop": "vanished"}
    assert {row["message"] for row in list_rows(tmp_path)} == {"link to nothing"}


def test_pipe_is_listed_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert list_rows(tmp_path) == [
        dict(
            uri=str(tmp_path / "pipe.wav"),
            start_s=None,
            end_s=None,
            size_bytes=0,
            modified_ns=0,
            offset=None,
            reason="unreadable",
            message="is no regular file",
            hides_files=False,
        )
    ]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "closed"
    touch(folder / "a.wav")
    folder.chmod(0)
    if os.access(folder, os.R_OK):
        folder.chmod(0o700)
        pytest.skip("this user can read everything")
    yield folder
    folder.chmod(0o700)


def test_unreadable_folder_is_listed_with_its_reason(tmp_path: Path, closed: Path) -> None:
    touch(tmp_path / "b.wav")
    (tmp_path / "into.wav").symlink_to(closed / "a.wav")
    expected = {"b.wav": None, "closed": "unreadable", "into.wav": "unreadable"}
    for source in (tmp_path, tmp_path / "*", tmp_path / "**" / "*.wav"):
        assert list_reasons(tmp_path, source) == expected
    with pytest.raises(CorpusError, match="cannot be listed"):
        list_rows(closed)


ODD = ["a b.wav", "it's.wav", 'say "x".wav', "new\nline.wav", "100%.wav", "日本.wav", "-rf.wav", "tab\t.wav", "#&;.wav"]


def test_odd_names_are_listed_unchanged(tmp_path: Path) -> None:
    for name in ODD:
        touch(tmp_path / name)
    for source in (tmp_path, tmp_path / "*.wav", tmp_path / "**"):
        assert list_reasons(tmp_path, source) == dict.fromkeys(ODD)
    for name in ODD:
        assert list_names(tmp_path, tmp_path / name) == [name]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=40))
def test_no_name_is_lost(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("names")
    path = touch(root / f"x{name}.wav")
    assert [row["uri"] for row in list_rows(root)] == [str(path)]
    assert [row["uri"] for row in list_rows(path)] == [str(path)]


def test_name_that_is_not_utf8_is_listed_escaped(tmp_path: Path) -> None:
    touch(tmp_path / "good.wav")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.wav", "wb"):
        pass
    assert list_reasons(tmp_path, tmp_path) == {"caf\\xe9.wav": "bad_name", "good.wav": None}


STAT = r"""
from pipeline.corpus.local_files import stat_row
print(ascii(stat_row("/\u65e5.wav")["message"]))
"""


@pytest.mark.parametrize(
    ("path", "message"),
    [("/a\0.wav", "it has a zero byte in it"), ("/\ud800.wav", ", cannot write it")],
)
def test_name_that_no_file_can_have_is_told(path: str, message: str) -> None:
    row = stat_row(path)
    assert row["reason"] == "bad_name"
    assert row["message"].endswith(message)
    row["uri"].encode()


def test_name_that_the_system_cannot_say_has_no_zero_byte() -> None:
    system = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", STAT], env=os.environ | system, capture_output=True, text=True, check=True
    )
    assert "no file can have this name here" in ran.stdout
    assert "zero byte" not in ran.stdout
