"""Fixtures: an index that a run has made, a copy of it to damage, and the number of a process that has ended."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import Config, make_config
from pipeline.run.driver import index_corpus
from tests.helpers.contents import SECTIONS
from tests.helpers.fakes import noise, write_wav
from tests.helpers.runs import WideEncoder, in_place


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("verify")
    (root / "in").mkdir()
    for name, length_s in (("a", 0.3), ("b", 1.7), ("c", 2.5)):
        write_wav(root / "in" / f"{name}.wav", noise(length_s, seed=int(10 * length_s)))
    shutil.copyfile(root / "in" / "b.wav", root / "in" / "copy of b.wav")
    (root / "in" / "broken.wav").write_text("no sound")
    config = make_config({"sources": [str(root / "in")], "into": str(root / "index"), **SECTIONS})
    index_corpus(config, stages=in_place(WideEncoder()))
    return config


@pytest.fixture
def config(whole: Config, tmp_path: Path) -> Config:
    shutil.copytree(whole.into, tmp_path / "index")
    return whole.model_copy(update={"into": str(tmp_path / "index")})


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
