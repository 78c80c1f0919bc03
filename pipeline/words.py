"""Numbers of things in messages."""


def count(number: int, what: str) -> str:
    """``1, file`` -> ``1 file``; ``2000, file`` -> ``2,000 files``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
