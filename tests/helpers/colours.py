"""How people see colours: contrast, and what those who are colour-blind can tell apart."""

from typing import Any

import numpy as np

DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
PROTANOPIA = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
"""How the commonest kinds of colour-blindness see linear RGB (Machado, Oliveira and Fernandes, 2009)."""

EYES = (np.eye(3), DEUTERANOPIA, PROTANOPIA)

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def read_colour(text: str) -> Any:
    """The RGB (3,) of ``#rgb`` or ``#rrggbb``, from 0 to 255."""
    digits = text.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    return np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)], float)


def to_linear(colours: Any) -> Any:
    """RGB (..., 3) from 0 to 255 as amounts of light."""
    coded = colours / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def measure_contrast(one: Any, other: Any) -> float:
    """The contrast of two colours (3,), from 1 to 21 (WCAG 2.2)."""
    darker, lighter = sorted(float(to_linear(colour) @ LUMINANCE) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def measure_distance(colours: Any, seen_by: Any) -> float:
    """How far those two of some colours (n, 3) lie apart that are most alike to these eyes; black and white: 1.7."""
    seen = (to_linear(colours) @ seen_by.T).clip(0, 1) ** (1 / 2.4)
    return float(np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(len(seen), 1)].min())
