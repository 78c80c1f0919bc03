"""Files that hold no sound."""

from pathlib import Path

import pytest


def touch(path: Path, data: bytes = b"sound") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with audio, other files and hidden ones."""
    root = tmp_path / "tree"
    for name in ("b.wav", "a.FLAC", "notes.txt", "wav", "sub/c.mp3", "sub/deep/d.opus", "z/.hidden.wav", ".h/e.wav"):
        touch(root / name)
    return root
