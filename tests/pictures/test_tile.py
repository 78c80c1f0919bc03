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

DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
PROTANOPIA = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
"""How the commonest kinds of colour-blindness see linear RGB (Machado, Oliveira and Fernandes, 2009)."""

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def to_linear(colours: Any) -> Any:
    coded = colours / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("seen_by", [np.eye(3), DEUTERANOPIA, PROTANOPIA])
def test_louder_is_lighter_for_everyone(seen_by: Any) -> None:
    light = (to_linear(scale()) @ seen_by.T) @ LUMINANCE
    assert (np.diff(light) > -1e-3).all()
    lightness = np.cbrt(light.clip(0))
    steps = np.diff(lightness[::16])
    assert steps.min() > 0.3 * steps.max()
    assert light[0] < 0.01
    assert light[-1] > 0.8


@pytest.mark.parametrize("seen_by", [np.eye(3), DEUTERANOPIA, PROTANOPIA])
def test_colours_of_texts_differ_and_show_on_white(seen_by: Any) -> None:
    colours = np.array([[int(text[at : at + 2], 16) for at in (1, 3, 5)] for text in TEXT_COLOURS])
    seen = to_linear(colours) @ seen_by.T
    contrasts = 1.05 / (seen @ LUMINANCE + 0.05)
    assert contrasts.min() > 3
    coded = seen.clip(0, 1) ** (1 / 2.4)
    apart = np.linalg.norm(coded[:, None] - coded[None], axis=2)[np.triu_indices(len(coded), 1)]
    assert apart.min() > 0.2


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
