"""``python -m jobs.bench NAME``: the measurements behind the figures of the documentation.

``encoder`` needs torch, transformers and numpy alone, so it runs before typer is imported; ``--encoder`` is its alias.
"""

import sys
from typing import TYPE_CHECKING

from jobs.bench.encoder import main as measure_encoder

if TYPE_CHECKING:
    import typer


def main() -> None:
    """Run a measurement."""
    if sys.argv[1:2] in (["encoder"], ["--encoder"]):
        sys.exit(measure_encoder(sys.argv[2:]))
    make_app()()


def make_app() -> "typer.Typer":
    """The measurements, one command each."""
    import typer

    from jobs.bench.baselines import baselines
    from jobs.bench.candidates import candidates
    from jobs.bench.examine import examine
    from jobs.bench.growth import growth
    from jobs.bench.hostile import hostile
    from jobs.bench.load import load
    from jobs.bench.many import many
    from jobs.bench.reindex import reindex
    from jobs.bench.search import search
    from jobs.bench.serve import serve
    from jobs.bench.start import start
    from jobs.bench.tiles import tiles
    from jobs.bench.windows import windows

    app = typer.Typer(
        name="python -m jobs.bench",
        help="Measure Earshot.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for measurement in (
        baselines,
        candidates,
        examine,
        growth,
        hostile,
        load,
        many,
        reindex,
        search,
        serve,
        start,
        tiles,
        windows,
    ):
        app.command()(measurement)

    @app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def encoder(context: typer.Context) -> None:
        """Measure the encoder beside transformers' own forward, without other packages; `--encoder` is its alias."""
        raise typer.Exit(measure_encoder(context.args))

    return app


if __name__ == "__main__":
    main()
