"""The marks of a time axis."""

import math

_STEPS_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30]
_STEPS_S += (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)


def choose_ticks(start_s: float, end_s: float, n_most: int) -> tuple[list[float], float]:
    """Up to so many round times in a span, in seconds, and how far apart they are."""
    duration_s = end_s - start_s
    day_s = _STEPS_S[-1] * math.ceil(duration_s / _STEPS_S[-1] / n_most)
    step_s = next((step_s for step_s in _STEPS_S if duration_s / step_s <= n_most), day_s)
    first, last = math.ceil(start_s / step_s - 1e-9), math.floor(end_s / step_s + 1e-9)
    return [number * step_s for number in range(first, last + 1)][: n_most + 1], step_s


def show_tick(time_s: float, step_s: float) -> str:
    """``75.5, 0.5`` -> ``1:15.5``: as many digits as the step needs."""
    digits = max(0, math.ceil(-math.log10(step_s) - 1e-9)) if step_s < 1 else 0
    units = round(time_s * 10**digits)
    seconds, fraction = divmod(units, 10**digits)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{shown}:{seconds:02d}" + (f".{fraction:0{digits}d}" if digits else "")
