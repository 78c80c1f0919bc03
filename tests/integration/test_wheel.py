"""The wheel has everything: installed without the checkout, it runs the demo."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "jobs")
MODEL = "pipeline/encoder/models/earshot-tiny"
DATA = {"pipeline/py.typed", "jobs/py.typed", "pipeline/search/questions.txt"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves files in the folder that it is built from."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")], folder)
    [built] = folder.glob("earshot-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel. It sees the installed dependencies, but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    # A path in a .pth file is added to sys.path; the .pth files there, such as that of the checkout, are not read.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    options = ["--no-deps", "--no-index", "--ignore-installed", "--quiet"]
    run([str(folder / "bin/python"), "-m", "pip", "install", *options, str(wheel)], folder)
    return folder


def run(command: list[str], folder: Path) -> str:
    """Run a command from a folder, without the variables that could make the checkout importable; returns stdout."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_has_every_module_and_the_model_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(file.relative_to(ROOT)) for name in PACKAGES for file in (ROOT / name).rglob("*.py")}
    model = {str(file.relative_to(ROOT)) for file in (ROOT / MODEL).iterdir()}
    assert len(model) >= 5
    assert (modules | model | DATA) - names == set()
    assert not [name for name in names if name.startswith("tests/")]


def test_installed_wheel_runs_the_demo(environment: Path, tmp_path: Path) -> None:
    where = "import jobs, pipeline; print(jobs.__file__, pipeline.__file__)"
    imported = run([str(environment / "bin/python"), "-c", where], tmp_path).split()
    assert all(file.startswith(str(environment)) for file in imported)
    assert "5 of 5 right" in run([str(environment / "bin/earshot"), "demo"], tmp_path)
    assert (tmp_path / "earshot-demo" / "index" / "files.lance").is_dir()
