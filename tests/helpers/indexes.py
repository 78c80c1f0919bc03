"""What an index holds, for comparison with another."""

from pathlib import Path
from typing import Any

import lance
import numpy as np
import soundfile

from pipeline.index import journal
from pipeline.index.tables import open_published
from tests.helpers.contents import check_pools


def write_corpus(folder: Path, n_files: int) -> Path:
    folder.mkdir()
    for number in range(n_files):
        rng = np.random.default_rng(number)
        soundfile.write(folder / f"{number:02d}.flac", rng.normal(0, 0.1, int(rng.uniform(0.2, 3) * 48_000)), 48_000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


def live_rows(index: Path) -> dict[str, list[str]]:
    """Ids and times of every table, without what differs from run to run."""
    columns = {
        "files": ["file_id", "audio_id", "uri", "status", "stage", "reason", "duration_s", "n_clips", "n_frames"],
        "clips": ["clip_id", "file_id", "uri", "start_s", "end_s"],
        "frames": ["audio_id", "frame", "start_s"],
    }
    return {
        name: sorted(map(str, open_published(index, name).to_table(columns=names).to_pylist()))
        for name, names in columns.items()
    }


def vectors(index: Path, name: str, keys: list[str]) -> dict[tuple[Any, ...], Any]:
    rows = open_published(index, name).to_table(columns=[*keys, "vector"]).to_pylist()
    return {tuple(row[key] for key in keys): np.array(row["vector"], np.float32) for row in rows}


def check_same(index: Path, other: Path) -> None:
    """Two indexes have the same rows, whose vectors differ by rounding at most."""
    assert live_rows(index) == live_rows(other)
    check_pools(str(index))
    check_pools(str(other))
    for name, keys in (("clips", ["clip_id"]), ("frames", ["audio_id", "frame"])):
        found, expected = vectors(index, name, keys), vectors(other, name, keys)
        assert expected.keys() == found.keys()
        for key, vector in expected.items():
            assert vector @ found[key] >= 0.9999 * np.linalg.norm(vector) * np.linalg.norm(found[key])


def count_batches(index: Path) -> int:
    if not journal.exists(index):
        return 0
    kinds: list[str] = journal.read_journal(index)["kind"].to_pylist()
    return kinds.count("index")


def table(path: str, name: str) -> Any:
    return lance.dataset(journal.table_uri(path, name))
