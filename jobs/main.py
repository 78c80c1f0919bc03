"""The app behind ``earshot``: one command for each module of ``jobs.commands``, and one line for every error.

``jobs.start`` is the script; jobs on a cluster run ``python -m jobs.main``.
"""

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

import pipeline
from jobs.commands.bench import bench
from jobs.commands.check import check
from jobs.commands.demo import demo
from jobs.commands.export import export
from jobs.commands.failures import failures
from jobs.commands.history import history
from jobs.commands.index import index
from jobs.commands.info import info
from jobs.commands.jobs import jobs
from jobs.commands.locate import locate
from jobs.commands.logs import logs
from jobs.commands.mark import mark
from jobs.commands.optimize import optimize
from jobs.commands.plan import plan
from jobs.commands.query import query
from jobs.commands.reindex import reindex
from jobs.commands.restore import restore
from jobs.commands.serve import serve
from jobs.commands.show import show
from jobs.commands.similar import similar
from jobs.commands.status import status
from jobs.commands.stop import stop
from jobs.commands.submit import submit
from jobs.commands.verify import verify
from jobs.shared.explain import explain
from jobs.shared.interrupt import leave, stopping
from jobs.shared.output import prepare, print_error, print_line, print_log
from pipeline.credentials import without_credentials
from pipeline.errors import EarshotError, RayDied
from pipeline.index.engine_errors import is_panic


def unwrap(docstring: str) -> str:
    """Each paragraph in one line: a terminal breaks lines where it ends."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(docstring).split("\n\n"))


app = typer.Typer(
    help="Make sound searchable: index audio files, then find clips and moments by words or by sounds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(demo, index, reindex, plan, query, similar, locate, show, mark, export, serve, info),
    *(failures, history, restore, verify, optimize),
    *(submit, status, logs, stop, jobs, bench, check),
):
    app.command(help=unwrap(command.__doc__ or ""))(command)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print_line(f"earshot {pipeline.__version__}")
        raise typer.Exit


@app.callback()
def earshot(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of ``earshot`` itself."""


def main(run: Callable[..., Any] = app, **how: Any) -> None:
    """Run a command, print any error as one line on stderr, and exit with the code of its kind.

    Args:
        run: the app; a test may put a function in its place. how: more arguments of ``run``.
    """
    prepare()
    try:
        with stopping():
            sys.exit(run(standalone_mode=False, **how))
    except RayDied as error:
        print_error(f"earshot: {error}")
        leave(error.exit_code)  # an ordinary exit would wait for the dead Ray
    except EarshotError as error:
        print_error(f"earshot: {error}")
        sys.exit(error.exit_code)
    except TyperException as error:
        # Typer would print a box of five lines. The message is empty where `earshot` alone has shown its help.
        if message := " ".join(error.format_message().split()):
            context = getattr(error, "ctx", None)
            command = " ".join(["earshot", *([context.info_name] if context and context.parent else [])])
            print_error(f"earshot: {message.rstrip('.')}; see `{command} --help`")
        sys.exit(2)
    except BrokenPipeError:  # the reader, like `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the exit still flushes stdout
        sys.exit(1)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if os.environ.get("EARSHOT_DEBUG"):
            print_log(map(without_credentials, traceback.format_exception(error)), to_stderr=True)
        print_error(f"earshot: {without_credentials(explain(error))}")
        sys.exit(1)


if __name__ == "__main__":
    main()
