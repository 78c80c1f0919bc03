"""The colours of pictures: one scale for levels, and a few for texts. They differ in lightness, not in hue alone, so
people who are colour-blind can tell them apart, and a print in grey stays readable."""

from functools import cache

import numpy as np
import numpy.typing as npt

N_STEPS = 256

TEXT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#882255", "#111111")
"""For one text each. After Okabe and Ito's palette (2008), the light ones replaced: lines on white need contrast."""

_HUES = ((0.00, 0.02, 275.0), (0.25, 0.13, 300.0), (0.50, 0.16, 5.0), (0.75, 0.15, 50.0), (1.00, 0.06, 100.0))
"""Chroma and hue (degrees) of OKLCh at these heights of the scale: from dark blue over purple and orange to cream."""

_LIGHTNESS = (0.10, 0.97)
"""Of OKLab, at both ends; in between it grows evenly, so equal steps of level are equal steps to the eye."""


@cache
def scale() -> npt.NDArray[np.uint8]:
    """The colours of levels from low to high: sRGB (256, 3).

    Source: Björn Ottosson, "A perceptual color space for image processing" (OKLab, 2020).
    """
    heights, chromas, hues = np.array(_HUES).T
    hues = np.degrees(np.unwrap(np.radians(hues)))
    at = np.linspace(0, 1, N_STEPS)
    lightness, chroma = np.interp(at, (0, 1), _LIGHTNESS), np.interp(at, heights, chromas)
    angle = np.radians(np.interp(at, heights, hues))
    for _ in range(40):  # towards grey until the screen can show it; lightness stays
        linear = _to_linear_rgb(lightness, chroma * np.cos(angle), chroma * np.sin(angle))
        is_outside = ((linear < -1e-6) | (linear > 1 + 1e-6)).any(axis=1)
        if not is_outside.any():
            break
        chroma = np.where(is_outside, 0.95 * chroma, chroma)
    linear = linear.clip(0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * coded).astype(np.uint8)


def _to_linear_rgb(lightness: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """OKLab (n,) each, as linear sRGB (n, 3)."""
    to_cones = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    cones = (to_cones @ np.stack([np.asarray(lightness), np.asarray(a), np.asarray(b)])) ** 3
    return np.asarray((to_rgb @ cones).T)
