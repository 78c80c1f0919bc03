"""The command line: names, exit codes, and one line for every mistake."""

import re
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from jobs.main import app, main
from pipeline.grid import Grid
from tests.helpers.commands import run_main
from tests.helpers.processes import ROOT, print_of, run_python
from tests.helpers.tables import SILENT, write_index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "index"
    write_index(path, {"/a.wav": SILENT}, Grid())
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["info", "{tmp}/nothing"], 2, "no index here"),
        (["query", "{index}", "  "], 2, "the query is empty"),
        (["locate", "{index}", "x", "--threshold", "1.5"], 2, "not a probability"),
        (["locate", "{index}", "x", "--min-duration=-1"], 2, "--min-duration"),
        (["similar", "{index}", "{tmp}/none.wav"], 2, "none.wav"),
        (["similar", "{index}", "README.md"], 1, "README.md"),
        (["similar", "{index}", "README.md", "--start", "3", "--end", "2"], 2, "--end"),
        (["index", "{tmp}/nothing", "--into", "{tmp}/ix"], 2, "no such file or folder"),
        (["index", "{tmp}/*.wav", "--into", "{tmp}/ix"], 2, "matches no file"),
        (["index", "{tmp}"], 2, "--into"),
        (["index", "README.md", "--into", "{tmp}/ix", "--model", "{tmp}"], 2, "config.json"),
        (["index", "README.md", "--into", "{tmp}/ix", "--frames", "some"], 2, "'some'"),
        (["index", "{tmp}/none.yaml"], 2, "none.yaml"),
        (["index", "{tmp}/bad.yaml"], 2, "unknown key `encode.modle`"),
        (["index", "{tmp}/bad.yaml", "--into", "{tmp}/ix"], 2, "leave out --into"),
        (["query", "{index}", "x", "-k", "0"], 2, "-k"),
        (["nonsense"], 2, "nonsense"),
        (["qurey", "{index}", "x"], 2, "Did you mean 'query'?"),
        (["query", "a bell", "{index}"], 2, "{index} is one: name the index first, {index} 'a bell'"),
        (["locate", "a bell", "{index}"], 2, "name the index first"),
        (["similar", "{tmp}/a.wav", "{index}"], 2, "name the index first"),
        (["query", "{tmp}/nothing", "x"], 2, "no index here"),
        (["query", "{index}"], 2, "see `earshot query --help`"),
        (["info", "{index}", "--yaml"], 2, "--yaml"),
        (["index", "{tmp}/sounds", "--into", "{tmp}/ix"], 1, "no file with an audio file's extension"),
        (["index", "README.md", "--into", "{tmp}/ix", "--model", "nobody/nothing"], 2, "nobody/nothing: is not here"),
        (["index", "README.md", "--into", "{tmp}/ix", "--model", "nothing"], 2, "nothing: no such model"),
        (["index", "README.md", "--into", "{index}", "--model", "earshot-tiny"], 2, "built with clip_model none"),
        (["index", "README.md", "--into", "README.md"], 1, "README.md: cannot be written: a file is in the way"),
        (["status", "{tmp}/nothing"], 2, "no record of a run here"),
        (["submit", "{tmp}/none.yaml"], 2, "none.yaml"),
        (["submit", "{tmp}/bad.yaml"], 2, "unknown key `encode.modle`"),
        (["jobs", "--address", "head:8265"], 2, "--address head:8265: expected the URL of the dashboard"),
        (["logs", "x", "--address", "http://127.0.0.1:1"], 1, "http://127.0.0.1:1: no Ray cluster answers here"),
    ],
)
def test_mistake_is_one_line(
    arguments: list[str], code: int, said: str, index: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "bad.yaml").write_text("sources: [x]\ninto: y\nencode: {modle: z}\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = run_main(*(text.format(tmp=tmp_path, index=index) for text in arguments))
    out, err = capsys.readouterr()
    assert (found, out) == (code, ""), err
    assert said.format(index=index) in err
    assert re.fullmatch(r"earshot: [^\n]+\n", err)
    assert not (tmp_path / "ix").exists()


def test_importing_the_library_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'ray', 'lance', 'lancedb', 'pyarrow', 'numpy', 'soundfile', 'av'}"
    code = f"import sys, pipeline; print(sorted({heavy} & sys.modules.keys()))"
    assert print_of(code) == "[]\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['earshot', '--help']\n"
        "from jobs.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'ray', 'lance', 'lancedb', 'pyarrow'} & sys.modules.keys()))"
    )
    assert print_of(code).splitlines()[-1] == "[]"


def test_mistake_sets_the_exit_code_of_the_process() -> None:
    result = run_python("-m", "jobs.main", "info", "nothing-here")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"earshot: nothing-here: no index here[^\n]+\n", result.stderr)


def test_any_file_name_prints_on_an_ascii_terminal(tmp_path: Path) -> None:
    write_index(tmp_path / "index", {"/ü/雨.wav": SILENT}, Grid())
    code = (
        "import sys; sys.argv = ['earshot', 'info', sys.argv[1]]; from jobs.main import main\n"
        "try: main()\nexcept SystemExit: pass\nprint('/ü/雨.wav')"
    )
    assert print_of(code, tmp_path / "index", PYTHONIOENCODING="ascii").splitlines()[-1] == r"/\xfc/\u96e8.wav"


def test_info_and_failures_show_any_column_name(tmp_path: Path) -> None:
    uri = "/a\n\u202e[/x].wav"
    metadata = pa.table({"uri": [uri], "[/x]": ["[/y]"]})
    write_index(tmp_path / "i", {uri: SILENT}, Grid(), {}, metadata)
    result = CliRunner().invoke(app, ["info", str(tmp_path / "i")])
    assert result.exit_code == 0, result.exception
    assert "[/x] (string)" in result.stdout
    assert CliRunner().invoke(app, ["failures", str(tmp_path / "i")]).stdout == "no failures\n"


@pytest.mark.parametrize(
    "arguments", [["info", "/no\x1b[31m\u202e[/x]"], ["info", "x", "--no\x1b[31m\u202e[/x]"], ["\x1b[31m\u202e[/x]"]]
)
def test_mistake_escapes_control_characters(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(*arguments) == 2
    err = capsys.readouterr().err
    assert r"\x1b[31m\u202e[/x]" in err
    assert err.count("\n") == 1


def test_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def warn(**_: object) -> int:
        warnings.simplefilter("always")
        warnings.warn("it is slower:\nno compiler\x1b[31m, https://h/a?token=ab", RuntimeWarning, stacklevel=1)
        return 0

    with warnings.catch_warnings(), pytest.raises(SystemExit) as exit:
        main(warn)
    assert exit.value.code == 0
    said = "earshot: warning: it is slower: no compiler\\x1b[31m, https://h/a?token=***\n"
    assert capsys.readouterr() == ("", said)


def test_closed_pipe_prints_nothing() -> None:
    code = "from jobs.main import main; import sys; sys.argv = ['earshot', '--help']; main()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_version_is_that_of_the_distribution() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.stdout == f"earshot {metadata.version('earshot')}\n"


def test_shell_completes_commands() -> None:
    done = CliRunner().invoke(
        app,
        [],
        prog_name="earshot",
        env={"_EARSHOT_COMPLETE": "complete_bash", "COMP_WORDS": "earshot lo", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["locate", "logs"]
