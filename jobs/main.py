"""The command ``earshot``: one sub-command per module of ``jobs``."""

import os
import sys
import traceback

import typer
from typer.exceptions import TyperException

from jobs.bench.command import bench
from jobs.commands.check import check
from jobs.commands.demo import demo
from jobs.commands.failures import failures
from jobs.commands.history import history
from jobs.commands.index import index
from jobs.commands.info import info
from jobs.commands.jobs import jobs
from jobs.commands.locate import locate
from jobs.commands.logs import logs
from jobs.commands.optimize import optimize
from jobs.commands.plan import plan
from jobs.commands.query import query
from jobs.commands.reindex import reindex
from jobs.commands.restore import restore
from jobs.commands.similar import similar
from jobs.commands.status import status
from jobs.commands.stop import stop
from jobs.commands.submit import submit
from jobs.commands.verify import verify
from jobs.shared.explain import explain
from jobs.shared.interrupt import leave, stopping
from jobs.shared.output import prepare, print_error, print_log
from pipeline.credentials import without_credentials
from pipeline.errors import EarshotError, RayDied
from pipeline.index.engine_errors import is_panic

app = typer.Typer(
    help="Make sound searchable: index audio files, then find clips and moments by words or by sounds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(demo, index, reindex, plan, query, similar, locate, info, failures, history, restore, verify, optimize),
    *(submit, status, logs, stop, jobs, bench, check),
):
    app.command()(command)


def main() -> None:
    """Run a command; what a person can act on is one line on stderr, and the exit code says which kind it was."""
    prepare()
    try:
        with stopping():
            sys.exit(app(standalone_mode=False))
    except RayDied as error:
        print_error(f"earshot: {error}")
        leave(error.exit_code)  # in order it would wait for what is dead
    except EarshotError as error:
        print_error(f"earshot: {error}")
        sys.exit(error.exit_code)
    except TyperException as error:
        # A wrong call; said by typer it would be a box of five lines. Empty: `earshot` alone has shown its help.
        if message := " ".join(error.format_message().split()):
            context = getattr(error, "ctx", None)
            command = " ".join(["earshot", *([context.info_name] if context and context.parent else [])])
            print_error(f"earshot: {message.rstrip('.')}; see `{command} --help`")
        sys.exit(2)
    except BrokenPipeError:  # whoever reads, as `head` does, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed at the exit
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
