"""Commands, arguments, options and defaults of ``earshot`` stay as they are.

Whoever changes a line of ``SURFACE`` changes what people have typed into scripts: say so in CHANGELOG.md.
"""

import re
from pathlib import Path

import click
from typer.main import get_command
from typer.testing import CliRunner

from jobs.main import app

ROOT = Path(__file__).parents[2]

SURFACE = """
demo [FOLDER=earshot-demo] [--json]
index [SOURCES...] [--into X] [--model X] [--frame-model X] [--frames X] [--metadata X] [--move-source X X]
    [--forget X...] [--allow-deletions] [--rebuild] [--json]
reindex INDEX [--check X] [--retry-failed] [--reason X] [--keep-decoder] [--full] [--allow-deletions] [--rebuild]
    [--json]
plan INDEX [--check X] [--retry-failed] [--reason X] [--keep-decoder] [--full] [--allow-deletions] [--rebuild] [--json]
query INDEX TEXT [-k X=10] [--where X] [--all-windows] [--exact] [--json] [--no-server] [--verbose]
similar INDEX SOUND [--start X=0.0] [--end X] [-k X=10] [--where X] [--all-windows] [--exact] [--json] [--no-server]
 [--verbose]
locate INDEX TEXT [-k X=10] [--threshold X=0.3] [--min-duration X=0.0] [--merge-gap X=0.2] [--where X] [--exact]
    [--picture X] [--json] [--no-server] [--verbose]
show INDEX URI --out X [--text X...] [--start X=0.0] [--end X] [--threshold X=0.3]
mark INDEX [FILE] [--start X] [--end X] [--text X] [--verdict X] [--score X] [--who X] [--from X] [--history] [--csv]
    [--json]
export INDEX --format X [--query X...] [--locate X...] [--hits X] [--marks] [--out X] [--verdict X] [--label X]
 [-k X=100] [--threshold X=0.3] [--min-duration X=0.0] [--merge-gap X=0.2] [--where X] [--all-windows] [--exact]
 [--padding X=0.0] [--precision X=float32] [--json]
serve INDEX [--port X=8765] [--host X=127.0.0.1] [--allowed-host X...] [--no-browser]
info INDEX [--json]
failures INDEX [--reason X] [--json]
history INDEX [--json]
restore INDEX --batch X
verify INDEX [--deep] [--sample X] [--repair] [--allow-deletions] [--json]
optimize INDEX [--keep-hours X] [--recall X] [--json]
submit CONFIG [--address X] [--wait] [--ship] [--python X=python] [--allow-deletions] [--rebuild] [--json]
status [WHAT] [--address X] [--json]
logs JOB [-f/--follow] [--address X] [--json]
stop JOB [--address X] [--json]
jobs [--address X] [--json]
bench [SOURCES...] [--model X=earshot-tiny] [--frame-model X] [--hours X=10000.0] [--seconds X=60.0] [--profile] [--json]
check [--model X=earshot-tiny] [--frame-model X] [--json]
"""  # noqa: E501


def describe(parameter: click.Parameter) -> str:
    """A parameter as in a line of usage: in brackets if it is optional, X for each value, and its default."""
    is_flag = getattr(parameter, "is_flag", False)
    name = str(parameter.name).upper()
    if parameter.opts[0].startswith("-"):
        name = "/".join([*parameter.opts, *parameter.secondary_opts]) + " X" * (0 if is_flag else parameter.nargs)
    name += "..." if parameter.nargs == -1 or getattr(parameter, "multiple", False) else ""
    if parameter.required:
        return name
    return f"[{name}]" if parameter.default is None or parameter.default is False else f"[{name}={parameter.default}]"


def test_commands_and_options_are_those_that_people_know() -> None:
    commands: dict[str, click.Command] = get_command(app).commands  # type: ignore[attr-defined]
    found = [" ".join([name, *map(describe, command.params)]) for name, command in commands.items()]
    assert found == re.sub(r"\n +", " ", SURFACE).strip().splitlines()


def test_help_breaks_no_line_before_the_terminal_ends() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert [each for each in command.help.split("\n\n") if "\n" in each] == [], name


def test_help_and_documents_name_every_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    documents = (ROOT / "README.md").read_text() + (ROOT / "jobs/README.md").read_text()
    for command in re.findall(r"^\w+", SURFACE, re.MULTILINE):
        assert f" {command} " in text
        assert f"earshot {command}" in documents
        assert "Example: earshot" in CliRunner().invoke(app, [command, "--help"]).stdout
