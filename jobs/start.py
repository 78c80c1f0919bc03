"""Where the command ``earshot`` begins: Ctrl-C is minded from here on, while all else is still being imported."""

from jobs.interrupt import stopping


def main() -> None:
    """Run the command."""
    with stopping():
        from jobs.main import main

        main()


if __name__ == "__main__":
    main()
