"""The script ``earshot``: what must happen before ``jobs.main`` can be imported, and after it has returned.

Imports take a second, so Ctrl-C is handled from the first line on. Ray takes up to a minute to end in order, so a Ray
that this process started is killed.
"""

import sys

from jobs.shared.interrupt import leave, stopping


def main() -> None:
    """Run the command."""
    with stopping():
        from jobs.main import main

        try:
            main()
        except SystemExit as error:
            ray_health = sys.modules.get("pipeline.run.ray_health")
            if ray_health and ray_health.owns_ray():
                leave(error.code if isinstance(error.code, int) else int(error.code is not None))
            raise


if __name__ == "__main__":
    main()
