"""Where the command ``earshot`` begins, and ends: Ctrl-C is minded while all else is still being imported, and while a
Ray that was started for the command ends."""

import sys

from jobs.shared.interrupt import leave, stopping


def main() -> None:
    """Run the command."""
    with stopping():
        from jobs.main import main

        try:
            main()
        except SystemExit as error:
            watch = sys.modules.get("pipeline.run.ray_health")
            if watch and watch.owns_ray():
                leave(error.code if isinstance(error.code, int) else int(error.code is not None))
            raise


if __name__ == "__main__":
    main()
