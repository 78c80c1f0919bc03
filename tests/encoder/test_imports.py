"""The encoder runs where torch, transformers and numpy are installed and nothing else of the project's packages is."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OTHERS = [
    "ray",
    "lancedb",
    "lance",
    "pyarrow",
    "soundfile",
    "soxr",
    "av",
    "pydantic",
    "typer",
    "rich",
    "fsspec",
    "yaml",
]
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({OTHERS}))\n"


def run(program: str) -> str:
    command = [sys.executable, "-c", BLOCK + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_of_the_encoder_imports_without_other_packages() -> None:
    program = (
        "import importlib, pkgutil, pipeline.encoder\n"
        "for module in pkgutil.iter_modules(pipeline.encoder.__path__, 'pipeline.encoder.'):\n"
        "    importlib.import_module(module.name); print(module.name)"
    )
    assert "pipeline.encoder.audio_tower" in run(program).split()


def test_bench_of_the_encoder_starts_without_other_packages() -> None:
    program = (
        "import runpy; sys.argv = ['jobs.bench', '--encoder', '--help']\nrunpy.run_module('jobs.bench', {}, '__main__')"
    )
    assert "--seconds" in run(program)
