"""The sounds of measurements."""

from pathlib import Path

import soundfile

from jobs.bench.sounds import make_sounds, write_sounds


def test_sounds_are_written_in_each_format_in_turns(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "sounds", make_sounds(3, 0.4), ("wav", "flac"))
    assert [file.name for file in sorted(folder.iterdir())] == ["00000.wav", "00001.flac", "00002.wav"]
    assert all(soundfile.info(file).frames == 19_200 for file in folder.iterdir())


def test_sounds_differ() -> None:
    first, second = make_sounds(2, 0.4)
    assert (first != second).any()
