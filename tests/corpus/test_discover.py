"""What is listed, under which name, and in which order; nothing that looks like audio is left out in silence."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpus.discover import list_corpus
from pipeline.errors import CorpusError
from pipeline.schema import LISTED
from tests.helpers.files import touch


def rows(*sources: Path | str, **config: Any) -> list[dict[str, Any]]:
    table = list_corpus([str(source) for source in sources], CorpusConfig(**config))
    assert table.schema == LISTED
    listed: list[dict[str, Any]] = table.to_pylist()
    return listed


def names(root: Path, *sources: Path | str, **config: Any) -> list[str]:
    return [os.path.relpath(row["uri"], root) for row in rows(*sources, **config)]


def reasons(root: Path, *sources: Path | str, **config: Any) -> dict[str, str | None]:
    return {os.path.relpath(row["uri"], root): row["reason"] for row in rows(*sources, **config)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("b.wav", "a.FLAC", "notes.txt", "wav", "sub/c.mp3", "sub/deep/d.opus", "z/.hidden.wav", ".h/e.wav"):
        touch(root / name)
    return root


# --- folders ----------------------------------------------------------------------------------------------------------


def test_folder_is_searched_through(tree: Path) -> None:
    assert names(tree, tree) == ["a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.opus"]


def test_row_says_where_how_big_and_when(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.wav", b"12345")
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    expected = dict(
        uri=str(path), start_s=None, end_s=None, size_bytes=5, modified_ns=1_600_000_000_123_456_789, offset=None
    )
    expected |= dict(reason=None, message=None, hides_files=False)
    assert rows(tmp_path) == [expected]


@pytest.mark.parametrize("year", [-9999, 0, 1600, 1901, 2262, 2300, 9999])
def test_times_that_fit_in_no_column_are_the_nearest_that_do(tmp_path: Path, year: int) -> None:
    path = touch(tmp_path / "a.wav")
    seconds = round((year - 1970) * 31_556_952)
    try:
        os.utime(path, ns=(seconds * 10**9, seconds * 10**9))
    except (OSError, OverflowError):
        pytest.skip("no file has such a time here")
    wanted = path.stat().st_mtime_ns  # where a file system has no such times, it has another one
    [row] = rows(tmp_path)
    assert row["modified_ns"] == max(-(2**63), min(wanted, 2**63 - 1)) == storage.stat_file(str(path))[1]


def test_extensions_are_overridden(tree: Path) -> None:
    assert names(tree, tree, extensions=["txt", ".MP3", "*.opus"]) == ["notes.txt", "sub/c.mp3", "sub/deep/d.opus"]
    everything = ["a.FLAC", "b.wav", "notes.txt", "sub/c.mp3", "sub/deep/d.opus", "wav"]
    assert names(tree, tree, extensions=["*"]) == everything


def test_hidden_is_taken_when_asked_or_named(tree: Path) -> None:
    with_hidden = [".h/e.wav", "a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.opus", "z/.hidden.wav"]
    assert names(tree, tree, hidden=True) == with_hidden
    assert names(tree, tree / ".h") == [".h/e.wav"]
    assert names(tree, tree / "z" / ".hidden.wav") == ["z/.hidden.wav"]


def test_file_as_source_is_taken_whatever_its_extension(tree: Path) -> None:
    assert names(tree, tree / "notes.txt", tree / "wav") == ["notes.txt", "wav"]


def test_file_urls_are_the_paths_that_they_name(tree: Path) -> None:
    as_paths = list_corpus([str(tree)])
    assert list_corpus([f"file://{tree}"]).equals(as_paths)
    assert list_corpus([str(tree), f"file://{tree}"]).equals(as_paths)
    manifest = tree.parent / "named.csv"
    manifest.write_text("uri\n" + "".join(f"file://{uri}\n" for uri in as_paths["uri"].to_pylist()))
    assert list_corpus([str(manifest)])["uri"].equals(as_paths["uri"])


def test_relative_and_home_sources(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "sub")
    monkeypatch.setenv("HOME", str(tree / "sub"))
    for source in (".", "deep/..", "~", "../sub", "*"):
        assert names(tree, source) == ["sub/c.mp3", "sub/deep/d.opus"]


def test_overlapping_sources_give_one_row_in_one_order(tree: Path) -> None:
    once = rows(tree)
    assert rows(tree, tree / "sub", tree / "b.wav", tree / "**" / "*.mp3", f"{tree}/") == once
    assert rows(tree / "b.wav", tree / "sub" / ".." / "sub", tree) == once
    assert [row["uri"] for row in once] == sorted(row["uri"] for row in once)


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.wav", "*.nothing", "**/*.nothing"])
def test_missing_source_is_an_error_of_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(CorpusError) as error:
        rows(tree, source)
    assert str(error.value).startswith(f"{source}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["", "*.txt", "empty"])
def test_sources_without_audio_are_an_error_of_one_line(tmp_path: Path, source: str) -> None:
    touch(tmp_path / "in" / "notes.txt")
    (tmp_path / "in" / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"^\S+in/\S*: no file with an audio file's extension"):
        rows(f"{tmp_path}/in/{source}")
    with pytest.raises(CorpusError, match=r"extension \['rec'\]"):
        rows(f"{tmp_path}/in/{source}", extensions=["rec"])
    assert names(tmp_path, f"{tmp_path}/in/{source}", touch(tmp_path / "a.wav")) == ["a.wav"]


@pytest.mark.parametrize("source", ["", "*", "**", "**/*", "z", "*/*"])
def test_the_folder_left_out_is_not_entered(tree: Path, source: str) -> None:
    touch(tree / "z" / "y.wav")
    listed = list_corpus([f"{tree}/{source}", str(touch(tree.parent / "x"))], CorpusConfig(), str(tree / "sub"))
    assert not [uri for uri in listed["uri"].to_pylist() if "/sub/" in uri]
    assert listed.num_rows >= 1


def test_the_index_cannot_be_what_is_indexed(tree: Path) -> None:
    with pytest.raises(CorpusError, match=r"tree: the index cannot be the folder that is indexed; use .*tree-index"):
        list_corpus([str(tree)], CorpusConfig(), f"{tree}/sub/..")


# --- patterns ---------------------------------------------------------------------------------------------------------


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
def test_glob(tree: Path, pattern: str, expected: list[str]) -> None:
    assert names(tree, tree / pattern) == expected


def test_glob_with_hidden(tree: Path) -> None:
    assert names(tree, tree / "**" / "*.wav", hidden=True) == [".h/e.wav", "b.wav", "z/.hidden.wav"]
    assert names(tree, tree / "**" / "*.txt", extensions=["*"]) == ["notes.txt"]


@pytest.mark.parametrize("name", ["[ab].wav", "take *.wav", "what?.wav"])
def test_path_that_exists_is_taken_as_it_stands(tmp_path: Path, name: str) -> None:
    for each in (name, "a.wav", "take 2.wav", "whats.wav"):
        touch(tmp_path / each)
    assert names(tmp_path, tmp_path / name) == [name]


def test_pattern_below_a_folder_whose_name_looks_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "[raw]" / "a.wav")
    touch(tmp_path / "r" / "b.wav")
    assert names(tmp_path, tmp_path / "[raw]" / "*.wav") == ["[raw]/a.wav"]
    monkeypatch.chdir(tmp_path / "[raw]")
    assert names(tmp_path, "*.wav") == ["[raw]/a.wav"]
    assert names(tmp_path, "**/*.wav") == ["[raw]/a.wav"]


# --- links ------------------------------------------------------------------------------------------------------------


def test_link_to_a_file_is_a_file_under_its_own_name(tmp_path: Path) -> None:
    target = touch(tmp_path / "far" / "x.dat", b"123")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.wav").symlink_to(target)
    (root / "link.dat").symlink_to(target)  # known by the name of the link, which is no audio
    assert [(row["uri"], row["size_bytes"]) for row in rows(root)] == [(str(root / "link.wav"), 3)]


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


def test_links_to_folders_are_entered_only_when_asked(linked: Path) -> None:
    without = ["a.wav", "one/c.wav", "two/d.wav"]
    assert names(linked, linked) == without
    assert names(linked, linked / "**" / "*.wav") == without
    assert names(linked, linked / "*") == without
    # No folder twice: `two` is met first by way of `one`.
    assert names(linked, linked, follow_symlinks=True) == ["a.wav", "link/b.wav", "one/c.wav", "one/to_two/d.wav"]
    followed = names(linked, linked / "**" / "*.wav", follow_symlinks=True)
    assert followed == ["a.wav", "link/b.wav", "one/c.wav", "one/to_two/d.wav"]


def test_link_to_a_folder_named_as_source_is_entered(linked: Path) -> None:
    assert names(linked, linked / "link") == ["link/b.wav"]
    assert names(linked, linked / "link" / "*.wav") == ["link/b.wav"]


def test_links_to_nothing_and_to_themselves_are_listed(tmp_path: Path) -> None:
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")  # does not look like audio
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.wav").symlink_to(tmp_path / "folder")
    expected: dict[str, str | None] = {"dangling.wav": "vanished", "loop.wav": "vanished"}
    for source in (tmp_path, tmp_path / "*", tmp_path / "**" / "*.wav"):
        for follow in (False, True):
            assert reasons(tmp_path, source, follow_symlinks=follow) == expected
    assert reasons(tmp_path, tmp_path / "loop") == {"loop": "vanished"}
    assert {row["message"] for row in rows(tmp_path)} == {"link to nothing"}


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_pipe_is_listed_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert rows(tmp_path) == [
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


def test_closed_folder_is_listed(tmp_path: Path, closed: Path) -> None:
    touch(tmp_path / "b.wav")
    (tmp_path / "into.wav").symlink_to(closed / "a.wav")
    expected = {"b.wav": None, "closed": "unreadable", "into.wav": "unreadable"}
    for source in (tmp_path, tmp_path / "*", tmp_path / "**" / "*.wav"):
        assert reasons(tmp_path, source) == expected
    with pytest.raises(CorpusError, match="cannot be listed"):
        rows(closed)


# --- names ------------------------------------------------------------------------------------------------------------

ODD = ["a b.wav", "it's.wav", 'say "x".wav', "new\nline.wav", "100%.wav", "日本.wav", "-rf.wav", "tab\t.wav", "#&;.wav"]


def test_any_name_is_listed_as_it_is(tmp_path: Path) -> None:
    for name in ODD:
        touch(tmp_path / name)
    for source in (tmp_path, tmp_path / "*.wav", tmp_path / "**"):
        assert reasons(tmp_path, source) == dict.fromkeys(ODD)
    for name in ODD:
        assert names(tmp_path, tmp_path / name) == [name]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=40))
def test_no_name_is_lost(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("names")
    path = touch(root / f"x{name}.wav")
    assert [row["uri"] for row in rows(root)] == [str(path)]
    assert [row["uri"] for row in rows(path)] == [str(path)]


def test_name_that_is_not_utf8_is_shown_escaped(tmp_path: Path) -> None:
    touch(tmp_path / "good.wav")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.wav", "wb"):
        pass
    assert reasons(tmp_path, tmp_path) == {"caf\\xe9.wav": "bad_name", "good.wav": None}


def test_a_json_file_is_told_what_tables_are_called(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(CorpusError, match=r"x.json: is no audio, and no table by its name: .*\.jsonl"):
        list_corpus([str(tmp_path / "x.json")])
