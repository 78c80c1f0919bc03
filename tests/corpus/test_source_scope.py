"""Whether a file lies within the sources is judged by names, whether it exists or not."""

from pathlib import Path

import pytest

from pipeline.corpus.source_scope import SourceScope, places_above, read_manifests


@pytest.mark.parametrize(
    ("source", "inside", "outside"),
    [
        ("/in", ["/in", "/in/a.wav", "/in/b/c.wav", "/in/s.tar#a.wav", "/in/a.wav#t=1,2"], ["/inner/a.wav", "/a.wav"]),
        ("/in/", ["/in/a.wav"], ["/in2"]),
        ("/in/a.wav", ["/in/a.wav", "/in/a.wav#t=1"], ["/in/b.wav", "/in"]),
        ("/in/*.wav", ["/in/a.wav", "/in/b.wav/c.flac"], ["/in/a.mp3", "/in/b/a.wav"]),
        ("/in/*/x", ["/in/a/x", "/in/a/x/b.wav"], ["/in/x", "/in/a/y"]),
        ("/in/**/x", ["/in/x", "/in/a/b/x", "/in/a/x/b.wav"], ["/in/a/y", "/x"]),
        ("/in/**", ["/in", "/in/a.wav", "/in/b/c.wav"], ["/out/a.wav"]),
        ("/in/[ab].wav", ["/in/a.wav", "/in/[ab].wav"], ["/in/c.wav"]),
        ("s3://b/in/*", ["s3://b/in/a.wav", "s3://b/in/s.tar#m.wav"], ["s3://c/in/a.wav"]),
        ("/in/s.tar", ["/in/s.tar#a.wav", "/in/s.tar#b/c.wav#t=1"], ["/in/t.tar#a.wav"]),
    ],
)
def test_a_source_holds_what_it_names_or_matches(source: str, inside: list[str], outside: list[str]) -> None:
    scope = SourceScope(["/another", source])
    assert [uri for uri in inside if not scope.holds(uri)] == []
    assert [uri for uri in outside if scope.holds(uri)] == []


def test_only_the_very_paths_are_sources() -> None:
    scope = SourceScope(["/in/", "/x/*"])
    assert scope.is_source("/in")
    assert scope.is_source("/x/*")
    assert not scope.is_source("/x/a")
    assert scope.is_named("/x/a")
    assert not scope.is_named("/in/a")


def test_places_above_go_from_the_inside_out() -> None:
    assert list(places_above("/a/b/s.tar#c/d.wav")) == ["/a/b/s.tar#c", "/a/b/s.tar", "/a/b", "/a"]


def test_manifests_that_can_be_read_tell_their_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("uri,start_s\nx.wav,\ny.wav,2\n")
    (tmp_path / "b.csv").write_text("no uri\n1\n")
    names = {f"{tmp_path}/x.wav", f"{tmp_path}/y.wav#t=2"}
    assert read_manifests([f"{tmp_path}/a.csv", f"{tmp_path}/b.csv", f"{tmp_path}/missing.csv", str(tmp_path)]) == names
    assert read_manifests([f"{tmp_path}/*.csv"]) == names
