"""The documents tell the truth: commands run and print what is shown, options exist, links and paths lead somewhere.

A fence says what its commands need: ``sh network``, ``sh cluster`` and ``sh gpu`` are not run, nor is ``sh example``,
whose files are anyone's. Their options are checked all the same.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest
import typer

from jobs.bench.__main__ import make_app
from jobs.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "node_modules") for part in path.relative_to(ROOT).parts)
)
README = ROOT / "README.md"
NOT_RUN = {"network", "cluster", "gpu", "example"}

_FENCE = re.compile(r"^```(?P<language>\w*)(?P<needs>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    language: str
    needs: frozenset[str]
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines that a person types."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line] if self.language in ("sh", "bash") else []


def read_blocks(path: Path) -> list[Block]:
    return [
        Block(match["language"], frozenset(match["needs"].split()), match["text"])
        for match in _FENCE.finditer(path.read_text(encoding="utf-8"))
    ]


def read_prose(path: Path) -> str:
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- what is written --------------------------------------------------------------------------------------------------


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def slugs(path: Path) -> Iterator[str]:
    """The anchors of a document, as GitHub makes them of its headings."""
    for heading in re.findall(r"^#+ (.*)$", read_prose(path), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        yield re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read_prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        document = (path.parent / place).resolve() if place else path
        assert document.exists(), target
        if anchor:
            assert anchor in set(slugs(document)), target


def has_module(dotted: str) -> bool:
    """Whether a module exists, or the one before the last dot defines the name after it."""
    *parts, last = dotted.split(".")
    places = [ROOT.joinpath(*parts, last), ROOT.joinpath(*parts)]
    if places[0].is_dir() or places[0].with_suffix(".py").exists():
        return True
    file = places[1] / "__init__.py" if places[1].is_dir() else places[1].with_suffix(".py")
    return file.exists() and re.search(rf"\b{last}\b", file.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=name)
def test_paths_of_the_code_exist(path: Path) -> None:
    """A file, a folder or a module that inline code names, from the root or from the document's own folder."""
    code = re.findall(r"`([^`\n]+)`", read_prose(path))
    for text in code:
        if re.fullmatch(r"(pipeline|jobs|tests|configs)/[\w/.-]*|\w+\.py", text):
            assert (ROOT / text).exists() or (path.parent / text).exists(), text
        for module in re.findall(r"\b((?:pipeline|jobs|tests)(?:\.[a-z_]+)+)\b(?!\()", text):
            assert has_module(module), text


def test_names_of_the_guide_for_changes_exist() -> None:
    """A row of the table names functions, constants and classes: each stands in a file of that row."""
    rows = re.findall(r"^\|.*`.*\|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        spans = re.findall(r"`([^`]+)`", row)
        files = [ROOT / text for text in spans if "/" in text]
        code = "".join(path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".js"))
        for text in spans:
            if re.fullmatch(r"[A-Za-z_]\w*|[A-Z]\w+\.\w+", text) and text not in ("files", "clips", "locate"):
                assert re.search(rf"\b{text.split('.')[-1]}\b", code), row


def test_tests_of_odd_input_exist() -> None:
    """Each row names tests, and behind them the file in which they stand."""
    rows = [
        line for line in (ROOT / "tests" / "README.md").read_text(encoding="utf-8").splitlines() if "`test_" in line
    ]
    assert len(rows) > 40
    for row in rows:
        named = list[str]()
        for text in re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1]):
            if text.startswith("test_"):
                named.append(text)
                continue
            code = (ROOT / text).read_text(encoding="utf-8")
            assert named, row
            assert all(f"def {test}(" in code for test in named), row
            named = []
        assert not named, row


PROGRAMS = {"earshot": app, "python -m jobs.bench": make_app()}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_commands_and_options_exist(path: Path, program: str) -> None:
    """Whole calls in blocks are parsed; in the text, commands and options are looked up by name."""
    group = typer.main.get_group(PROGRAMS[program])
    with typer.Context(group) as context:
        for call in (call for block in read_blocks(path) for call in block.commands if call.startswith(f"{program} ")):
            words = shlex.split(call.removeprefix(program), comments=True)
            command_name, *arguments = takewhile(lambda word: word not in ("|", ">"), words)
            command = group.get_command(context, command_name)
            assert command is not None, call
            command.make_context(command_name, arguments)
        for call in re.findall(rf"`{program} ([^`]+)`", read_prose(path)):
            command_name, *arguments = call.split()
            if command_name.startswith("-") or command_name.isupper():  # of the program itself, or a placeholder
                continue
            command = group.get_command(context, command_name)
            assert command is not None, call
            options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
            assert {argument for argument in arguments if re.match(r"--?[a-z]", argument)} <= options, call


def test_measurements_that_results_cite_exist() -> None:
    """With the values of their options; short calls leave out ``python -m jobs.bench``."""
    group = typer.main.get_group(PROGRAMS["python -m jobs.bench"])
    names, prose = "|".join(group.commands), read_prose(ROOT / "jobs" / "bench" / "RESULTS.md")
    calls = re.findall(rf"`(?:python -m jobs\.bench )?((?:{names})(?: [^`]+)?)`", prose)
    assert len(calls) > 10
    for call in calls:
        command_name, *arguments = shlex.split(call)
        with typer.Context(group):
            group.commands[command_name].make_context(command_name, arguments)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_make_has_its_targets(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    assert {*re.findall(r"`make ([\w-]+)`", text), *re.findall(r"^make ([\w-]+)", text, re.MULTILINE)} <= targets


def test_readme_marks_only_what_cannot_run_here() -> None:
    for block in read_blocks(README):
        assert block.needs <= NOT_RUN - {"example"}


# --- what is run ------------------------------------------------------------------------------------------------------


def mask(line: str) -> list[str]:
    """The words of a line; names of files, measured numbers and rules differ from machine to machine. Counts do not."""
    line = re.sub(r"\S+\.(wav|flac|mp3|ogg|m4a|opus)\b", "FILE", line)
    return re.sub(r"─+", "─", re.sub(r"\d+:\d\d(\.\d+)?|\d+\.\d+", "0", line)).split()


def shown(block: Block) -> list[tuple[str, list[str]]]:
    """Each command of a block, and the lines that it is said to print."""
    calls: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            calls.append((line.removeprefix("$ "), []))
        elif line.strip():
            calls[-1][1].append(line)
    return calls


class Shell:
    """Runs commands in a folder, with ``earshot`` of this checkout and the home of nobody."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.demo: list[str] = []
        """What ``earshot demo`` printed, which is run once."""
        script = folder / "bin" / "earshot"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m jobs.main "$@"\n')
        script.chmod(0o755)
        self._environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
            "PATH": f"{script.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "COLUMNS": "80",
        }

    def run(self, *command: str) -> list[str]:
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=self._folder, env=self._environment, timeout=800, check=False
        )
        assert result.returncode == 0, (command, result.stdout, result.stderr)
        return [line for line in result.stdout.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell in which the blocks of README have been run up to the first search."""
    folder = tmp_path_factory.mktemp("readme")
    shell = Shell(folder)
    demo = next(call for block in read_blocks(README) for call in block.commands if call == "earshot demo")
    shell.demo = shell.run("bash", "-c", demo)
    (folder / "sounds").symlink_to(folder / "earshot-demo" / "sounds")
    return shell


@pytest.mark.slow
def test_commands_of_readme_print_what_it_shows(shell: Shell) -> None:
    calls = [call for block in read_blocks(README) if block.language == "console" for call in shown(block)]
    assert len(calls) >= 5
    for command, lines in calls:
        printed = shell.demo if command == "earshot demo" else shell.run("bash", "-c", command)
        if lines[-1] == "...":
            lines = lines[:-1]
            printed = printed[: len(lines)]
        assert list(map(mask, printed)) == list(map(mask, lines)), command


@pytest.mark.slow
def test_blocks_of_readme_run(shell: Shell) -> None:
    blocks = [block for block in read_blocks(README) if block.language == "sh" and not block.needs]
    assert blocks
    for block in blocks:
        shell.run("bash", "-euc", block.text)


@pytest.mark.slow
def test_python_of_readme_runs(shell: Shell) -> None:
    [example] = [block.text for block in read_blocks(README) if block.language == "python"]
    lines = shell.run(sys.executable, "-c", example)
    assert len(lines) == 5
    *hits, start_s, like = lines
    assert all("sounds" in line for line in (*hits, like))
    assert float(start_s) == pytest.approx(3.8, abs=0.05)
