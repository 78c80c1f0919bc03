"""Numbers of things, durations, sizes and paths in messages."""

import os


def count(number: int, what: str) -> str:
    """``1, file`` -> ``1 file``; ``2000, file`` -> ``2,000 files``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def show_duration(seconds: float) -> str:
    """``90`` -> ``90 s``, ``400`` -> ``6.7 min``, ``9000`` -> ``2.5 h``, ``4e6`` -> ``1,111 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360_000 else f"{seconds / 3600:,.0f} h"


def show_bytes(n_bytes: float) -> str:
    """``1536000`` -> ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def show_path(path: str) -> str:
    """The path, relative to the current folder if it is below that."""
    return path.removeprefix(os.getcwd() + os.sep)
