"""``python -m jobs.bench``: with ``--encoder`` it needs torch, transformers and numpy only."""

import sys

if __name__ == "__main__":
    if "--encoder" in sys.argv[1:]:
        from jobs.bench.encoder import main

        sys.exit(main(sys.argv[1:]))
    import typer

    from jobs.bench.command import bench

    typer.run(bench)
