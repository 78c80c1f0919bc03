"""The command ``earshot``: one sub-command per module of ``jobs``."""

import re
import sys
from io import TextIOWrapper

import typer
from typer.exceptions import TyperException

from jobs.bench.command import bench
from jobs.demo import demo
from jobs.failures import failures
from jobs.history import history
from jobs.index import index
from jobs.info import info
from jobs.interrupt import leave, stopping
from jobs.jobs import jobs
from jobs.locate import locate
from jobs.logs import logs
from jobs.optimize import optimize
from jobs.plan import plan
from jobs.query import query
from jobs.reindex import reindex
from jobs.restore import restore
from jobs.similar import similar
from jobs.status import status
from jobs.stop import stop
from jobs.submit import submit
from jobs.verify import verify
from pipeline.errors import EarshotError, RayDied, without_credentials

app = typer.Typer(
    help="Make sound searchable: index audio files, then find clips and moments by words or by sounds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(demo, index, reindex, plan, query, similar, locate, info, failures, history, restore, verify, optimize),
    *(submit, status, logs, stop, jobs, bench),
):
    app.command()(command)


def main() -> None:
    """Run a command; what a person can act on is one line on stderr, and the exit code says which kind it was."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names on a terminal that is not UTF-8
    try:
        with stopping():
            sys.exit(app(standalone_mode=False))
    except RayDied as error:
        print(f"earshot: {error}", file=sys.stderr)
        leave(error.exit_code)  # in order it would wait for what is dead
    except EarshotError as error:
        print(f"earshot: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except TyperException as error:
        # A wrong call; said by typer it would be a box of five lines. Empty: `earshot` alone has shown its help.
        if message := " ".join(error.format_message().split()):
            context = getattr(error, "ctx", None)
            command = " ".join(["earshot", *([context.info_name] if context and context.parent else [])])
            print(f"earshot: {message.rstrip('.')}; see `{command} --help`", file=sys.stderr)
        sys.exit(2)
    except (OSError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if "lance" not in said.lower():
            raise
        if answer := re.search(r"Generic (?!Local|memory)\w+ error: (?:.*? - )?(.*?)(?:, /\S+\.rs|$)", said):
            code = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", answer[1])
            said = f"{code[1]}: {code[2]}" if code else answer[1]
            print(
                f"earshot: the object store does not give the index: {without_credentials(said)[:300]}; check its URL,"
                " the store's address and region, and the credentials in the environment",
                file=sys.stderr,
            )
            sys.exit(1)
        print(f"earshot: the index is damaged: {said[:300]}; restore its folder from a copy", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
