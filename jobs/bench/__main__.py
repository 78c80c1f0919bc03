"""``python -m jobs.bench --encoder``, which needs torch, transformers and numpy only."""

import sys

from jobs.bench.encoder import main

if __name__ == "__main__":
    if "--encoder" not in sys.argv[1:]:
        sys.exit("say --encoder: the only thing that is measured here so far")
    sys.exit(main(sys.argv[1:]))
