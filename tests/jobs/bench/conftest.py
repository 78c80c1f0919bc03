"""A small corpus to measure."""

from pathlib import Path

import pytest

from pipeline.config import Config, make_config
from tests.helpers.fakes import noise, write_wav


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "in").mkdir()
    for name, seconds in (("a", 3.0), ("b", 21.0), ("long", 150.0)):
        write_wav(tmp_path / "in" / f"{name}.wav", noise(seconds))
    (tmp_path / "in" / "broken.mp3").write_text("nothing to hear")
    return make_config({"sources": [str(tmp_path / "in")], "into": str(tmp_path / "index")})
