"""The files that a manifest names are looked up, many objects of one folder at once."""

from pathlib import Path

import fsspec
import pytest

from pipeline import storage
from pipeline.corpus import manifest_files
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.manifest_files import list_manifest
from tests.helpers.stores import Flaky, put
from tests.helpers.stores import flaky as flaky


def test_folder_with_far_more_objects_is_not_listed_to_its_end(
    flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_files, "MANY", 2)
    monkeypatch.setattr(manifest_files, "SEEN_PER_WANTED", 3)
    for k in range(10):
        put(f"{flaky}/{k}.wav", b"a")
    (tmp_path / "m.csv").write_text(f"uri\n{flaky}/2.wav\n{flaky}/8.wav\n")
    Flaky.calls.clear()
    rows = list_corpus([str(tmp_path / "m.csv")]).to_pylist()
    assert [(row["size_bytes"], row["reason"]) for row in rows] == [(1, None)] * 2
    assert Flaky.calls["info"] == 1  # of the one that had not come after six


@pytest.mark.parametrize("kind", ["flaky", "s3"])
def test_many_objects_of_a_folder_are_looked_up_by_listing_it(
    kind: str, flaky: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue("bucket") if kind == "s3" else flaky
    uris = [f"{base}/many/{k}.wav" for k in range(manifest_files.MANY)] + [f"{base}/few/{k}.wav" for k in range(3)]
    for uri in uris:
        fsspec.filesystem(kind).pipe_file(uri, uri.encode())
    manifest = tmp_path / "corpus.csv"
    manifest.write_text("\n".join(["uri", *uris, f"{base}/many/gone.wav"]))
    asked: list[str] = []

    def stat_file(path: str) -> tuple[int, int]:
        asked.append(path)
        return storage.stat_file(path)

    rows = {row["uri"]: row for row in list_manifest(str(manifest), stat_file)}
    assert len(asked) == 4  # the few, and the one that is missing
    assert rows[storage.absolute(f"{base}/many/gone.wav")]["reason"] == "vanished"
    for uri in uris:
        row = rows[storage.absolute(uri)]
        assert (row["size_bytes"], row["modified_ns"]) == storage.stat_file(uri)
    for n_errors, error in ((4, OSError("no")), (1, PermissionError("forbidden"))):  # then each is asked for
        Flaky.errors["ls"] = [error] * n_errors
        if kind == "flaky":
            assert list_corpus([str(manifest)]).num_rows == len(rows)
            assert not Flaky.errors["ls"]
