"""Commands, arguments, options and defaults of ``earshot`` stay as they are.

Whoever changes a line of ``SURFACE`` changes what people have typed into scripts: say so in CHANGELOG.md.
"""

import re
from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

from jobs.main import app

ROOT = Path(__file__).parents[2]

SURFACE = """
demo
    FOLDER              default earshot-demo
    --json              flag
index
    SOURCES             optional (many)
    --into              optional
    --model             optional
    --frame-model       optional
    --frames            optional
    --metadata          optional
    --move-source       optional (2)
    --forget            optional (many)
    --allow-deletions   flag
    --rebuild           flag
    --json              flag
reindex
    INDEX               required
    --check             optional
    --retry-failed      flag
    --reason            optional
    --full              flag
    --allow-deletions   flag
    --rebuild           flag
    --json              flag
plan
    INDEX               required
    --check             optional
    --retry-failed      flag
    --reason            optional
    --full              flag
    --allow-deletions   flag
    --rebuild           flag
    --json              flag
query
    INDEX               required
    TEXT                required
    -k                  default 10
    --where             optional
    --all-windows       flag
    --json              flag
similar
    INDEX               required
    SOUND               required
    --start             default 0.0
    --end               optional
    -k                  default 10
    --where             optional
    --all-windows       flag
    --json              flag
locate
    INDEX               required
    TEXT                required
    -k                  default 10
    --threshold         default 0.3
    --min-duration      default 0.0
    --merge-gap         default 0.2
    --where             optional
    --json              flag
info
    INDEX               required
    --json              flag
failures
    INDEX               required
    --json              flag
history
    INDEX               required
    --json              flag
restore
    INDEX               required
    --batch             required
verify
    INDEX               required
    --deep              flag
    --sample            optional
    --repair            flag
    --allow-deletions   flag
    --json              flag
optimize
    INDEX               required
    --keep-hours        optional
    --json              flag
submit
    CONFIG              required
    --address           optional
    --wait              flag
    --ship              flag
    --python            default python
    --allow-deletions   flag
    --rebuild           flag
    --json              flag
status
    WHAT                optional
    --address           optional
    --json              flag
logs
    JOB                 required
    -f, --follow        flag
    --address           optional
    --json              flag
stop
    JOB                 required
    --address           optional
    --json              flag
jobs
    --address           optional
    --json              flag
bench
    SOURCES             optional (many)
    --model             default earshot-tiny
    --frame-model       optional
    --hours             default 10000.0
    --profile           flag
    --json              flag
check
    --model             default earshot-tiny
    --frame-model       optional
    --json              flag
"""


def describe_surface() -> str:
    """Each command, and below it its parameters: its spelling, whether it is required, and its default."""
    lines = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        lines.append(name)
        for parameter in command.params:
            is_option = parameter.opts[0].startswith("-")
            typed = ", ".join([*parameter.opts, *parameter.secondary_opts]) if is_option else parameter.name.upper()
            if getattr(parameter, "is_flag", False):
                default = "flag, on by default" if parameter.default else "flag"
            elif parameter.required:
                default = "required"
            else:
                default = "optional" if parameter.default is None else f"default {parameter.default}"
            many = " (many)" if parameter.nargs == -1 or getattr(parameter, "multiple", False) else ""
            lines.append(f"    {typed:<19} {default}{many}" + (f" ({parameter.nargs})" if parameter.nargs > 1 else ""))
    return "\n".join(lines)


def test_commands_and_options_are_those_that_people_know() -> None:
    assert describe_surface().splitlines() == SURFACE.strip().splitlines()


def test_help_and_documents_name_every_command() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    documents = (ROOT / "README.md").read_text() + (ROOT / "jobs/README.md").read_text()
    for command in re.findall(r"^\w+", SURFACE, re.MULTILINE):
        assert f" {command} " in text
        assert f"earshot {command}" in documents
        assert "Example: earshot" in CliRunner().invoke(app, [command, "--help"]).stdout
