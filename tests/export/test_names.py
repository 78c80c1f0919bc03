"""Names of exported files: any system can hold them, no two are the same, and they stay the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export.names import MOST_BYTES, make_safe, make_slug, name_recordings, name_relative

LETTERS = st.characters(exclude_categories=["Cs"])


@given(st.text(LETTERS, max_size=200))
def test_any_name_becomes_one_that_windows_and_linux_can_hold(name: str) -> None:
    safe = make_safe(name)
    assert 0 < len(safe.encode()) <= MOST_BYTES
    assert not set(safe) & set('<>:"/\\|?*')
    assert not any(unicodedata.category(char) == "Cc" for char in safe)
    assert not safe.startswith((" ", "."))
    assert not safe.endswith((" ", "."))
    assert make_safe(name) == safe


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("bell.wav", "bell.wav"),
        ("鳥の声 (1).flac", "鳥の声 (1).flac"),
        ("हिन्दी.mp3", "हिन्दी.mp3"),
        ("12:30?.wav", "12_30_.wav"),
        ("CON.wav", "_CON.wav"),
        ("lpt1", "_lpt1"),
        ("console.wav", "console.wav"),
        ("..", "_"),
        ("\u202eevil", "_evil"),
    ],
)
def test_names_keep_what_they_can(name: str, safe: str) -> None:
    assert make_safe(name) == safe


def test_long_names_stay_apart_when_they_are_cut() -> None:
    names = {make_safe("長" * 200 + end) for end in ("1", "2")}
    assert len(names) == 2
    assert all(name.startswith("長長") and len(name.encode()) <= MOST_BYTES for name in names)


@given(st.sets(st.text(st.sampled_from("aAbé/_~2.:"), min_size=1, max_size=6).map(lambda text: f"/sounds/{text}")))
def test_no_two_recordings_share_a_name_in_any_case(uris: set[str]) -> None:
    names = name_recordings(uris)
    assert list(names) == sorted(uris)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names.values()}) == len(uris)
    assert name_recordings(sorted(uris, reverse=True)) == names


def test_recordings_of_one_name_are_told_apart_by_their_folders() -> None:
    names = name_recordings(["/s/a/x.wav", "/s/b/x.wav", "/s/b/X.wav"])
    assert names == {"/s/a/x.wav": "a_x.wav", "/s/b/X.wav": "b_X.wav", "/s/b/x.wav": "b_x.wav~2"}


def test_relative_names_leave_out_the_common_folder_alone() -> None:
    assert name_relative(["/s/x.wav"]) == {"/s/x.wav": "x.wav"}
    shard, other = "s3://b/s/1.tar#deep/x.wav", "s3://b/s/1.tar#deep/y.wav"
    assert name_relative([shard, other]) == {shard: "1.tar#deep/x.wav", other: "1.tar#deep/y.wav"}
    assert name_relative(["/a/x.wav", "s3://b/x.wav"]) == {"/a/x.wav": "/a/x.wav", "s3://b/x.wav": "s3://b/x.wav"}


@pytest.mark.parametrize(
    ("text", "slug"),
    [("a bell, ringing!", "a-bell-ringing"), ("犬が吠える", "犬が吠える"), ("हिन्दी गाना", "हिन्दी-गाना"), ("?!", "")],
)
def test_slugs_keep_letters_of_every_script(text: str, slug: str) -> None:
    assert make_slug(text) == slug
