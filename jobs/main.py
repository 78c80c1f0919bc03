"""The command ``earshot``: one sub-command per module of ``jobs``."""

import sys

import typer

from jobs.demo import demo
from jobs.failures import failures
from jobs.index import index
from jobs.info import info
from jobs.locate import locate
from jobs.query import query
from jobs.similar import similar
from pipeline.errors import EarshotError

app = typer.Typer(
    help="Make sound searchable: index audio files, then find clips and moments by words or by sounds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, index, query, similar, locate, failures, info):
    app.command()(command)


def main() -> None:
    """Run a command; what a person can act on is one line on stderr, and the exit code says which kind it was."""
    try:
        app()
    except EarshotError as error:
        print(f"earshot: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
