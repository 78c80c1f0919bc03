"""Tells a watchdog of this process (``pipeline/run/watchdog.py``) that work goes on.

Readers call ``beat`` whenever they read or have decoded something.
"""

import time

_last = time.monotonic()


def beat() -> None:
    """Note that work goes on."""
    global _last
    _last = time.monotonic()


def find_silence_s() -> float:
    """Seconds since the last beat."""
    return time.monotonic() - _last
