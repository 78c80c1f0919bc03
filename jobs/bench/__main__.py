"""``python -m jobs.bench``: as ``earshot bench``, or ``--encoder`` (torch and transformers suffice), or ``--peers``."""

import sys

if __name__ == "__main__":
    if "--encoder" in sys.argv[1:]:
        from jobs.bench.encoder import main

        sys.exit(main(sys.argv[1:]))
    if "--peers" in sys.argv[1:]:
        from jobs.bench.baselines import main

        sys.exit(main(sys.argv[1:]))
    from jobs.main import main as run_command

    sys.argv.insert(1, "bench")
    run_command()
