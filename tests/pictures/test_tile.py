"""Tiles are pictures of levels, in colours that people can read."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.pictures.colours import TEXT_COLOURS, scale
from pipeline.pictures.tile import DARKEST_DB, RANGE_DB, Kind, draw_tile, to_steps
from tests.helpers.colours import EYES, LUMINANCE, measure_distance, read_colour, to_linear


@pytest.mark.parametrize("seen_by", EYES)
def test_louder_is_lighter_for_everyone(seen_by: Any) -> None:
    light = (to_linear(scale()) @ seen_by.T) @ LUMINANCE
    assert (np.diff(light) > -1e-3).all()
    lightness = np.cbrt(light.clip(0))
    steps = np.diff(lightness[::16])
    assert steps.min() > 0.3 * steps.max()
    assert light[0] < 0.01
    assert light[-1] > 0.8


@pytest.mark.parametrize("seen_by", EYES)
def test_colours_of_texts_differ_and_show_on_white(seen_by: Any) -> None:
    colours = np.array([read_colour(text) for text in TEXT_COLOURS])
    contrasts = 1.05 / (to_linear(colours) @ seen_by.T @ LUMINANCE + 0.05)
    assert contrasts.min() > 3
    assert measure_distance(colours, seen_by) > 0.2


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_tile_has_a_pixel_for_each_level(kind: Kind) -> None:
    levels_db = np.tile(np.linspace(DARKEST_DB, DARKEST_DB + RANGE_DB, 64, dtype=np.float32), (32, 1))
    data = draw_tile(levels_db, kind=kind)
    picture = Image.open(io.BytesIO(data))
    assert picture.format == kind.upper()
    assert picture.size == (64, 32)
    found = np.asarray(picture.convert("RGB")).astype(float)
    expected = scale()[to_steps(levels_db)].astype(float)
    assert np.abs(found - expected).mean() < (1e-9 if kind == "png" else 8)


def test_gain_is_added_and_ends_are_held() -> None:
    levels_db = np.array([-500.0, DARKEST_DB, -60.0, DARKEST_DB + RANGE_DB, 60.0], np.float32)
    assert to_steps(levels_db).tolist()[:2] == [0, 0]
    assert to_steps(levels_db).tolist()[3:] == [255, 255]
    assert np.array_equal(to_steps(levels_db, 12.0), to_steps(levels_db + np.float32(12.0)))


@pytest.mark.parametrize(("library", "module"), [("PIL", "tile"), ("matplotlib", "figure"), ("matplotlib", "fonts")])
def test_missing_library_is_one_line(library: str, module: str) -> None:
    program = f"import sys; sys.modules[{library!r}] = None; import pipeline.pictures.{module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    name = "pillow" if library == "PIL" else library
    assert done.returncode == 1
    assert f"UsageError: pictures need {name}" in done.stderr.splitlines()[-1]
    assert "pip install 'earshot[serve]'" in done.stderr
