"""Figures show what they are given, on one time axis, whatever the names and texts are."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.errors import UsageError
from pipeline.pictures.figure import Panel, draw_events, draw_file, find_lacking, save_figure, thin
from pipeline.pictures.fonts import find_families, shorten, show_text
from pipeline.pictures.spectrogram import Spectrogram
from pipeline.pictures.times import choose_ticks, show_tick
from pipeline.search.curves import Curve
from pipeline.search.events import Holder, Rules

IDENTITY = ModelIdentity("none", None, "0" * 32, 8, 2.0, -1.0)


def make_curve(text: str, n_frames: int = 500) -> Curve:
    scores = np.sin(np.arange(n_frames) / 40).astype(np.float32)
    return Curve("/a.wav", "0" * 32, text, 0, scores, IDENTITY, Holder("/a.wav", n_frames * 0.04, {}))


def make_panel(title: str = "a.wav", texts: tuple[str, ...] = ("a bell",), **changes: Any) -> Panel:
    levels_db = np.random.default_rng(0).uniform(-90, -20, (40, 100)).astype(np.float32)
    values: dict[str, Any] = {
        "title": title,
        "start_s": 0.0,
        "end_s": 20.0,
        "spectrogram": Spectrogram(levels_db, 0.0, 20.0, 0.0, 24_000.0),
        "curves": [make_curve(text) for text in texts],
        "rules": Rules(0.5),
    }
    return Panel(**values | changes)


ODD = [
    "$x_1$ and $\\frac",
    "line\nbreak\tand \u202ereversed",
    "собака лает",
    "نباح كلب",
    "犬が吠える",
    "",
    "a" * 300,
    "\ud800",
]


@pytest.mark.parametrize("text", ODD)
def test_any_text_is_drawn_without_a_warning(text: str, tmp_path: Path) -> None:
    panel = make_panel(f"/sounds/{text}.wav", (text, "rain"), notes=[text])
    for number, figure in enumerate((draw_file(panel), draw_events(text, [panel, panel, panel]))):
        save_figure(figure, str(tmp_path / f"{number}.png"))
        with Image.open(tmp_path / f"{number}.png") as picture:
            assert picture.width > 1_000


def test_all_axes_share_the_time() -> None:
    panel = make_panel(texts=("a bell", "rain", "wind"), start_s=2.0, end_s=11.0)
    axes = [each for each in draw_file(panel).axes if each.get_xlim() == (2.0, 11.0)]
    assert len(axes) == 5  # spectrogram, curves, and a lane for each text
    assert len({(each.get_position().x0, each.get_position().x1) for each in axes}) == 1
    assert all(each.get_position().y1 < axes[0].get_position().y0 for each in axes[1:])


def test_lanes_have_the_events_of_their_text() -> None:
    panel = make_panel()
    figure = draw_file(panel)
    [bars] = figure.axes[-1].collections
    times_s = [np.asarray(path.vertices)[:, 0] for path in bars.get_paths()]
    spans = [(each_s.min(), each_s.max()) for each_s in times_s]
    events = panel.curves[0].events(panel.rules)
    assert len(events) > 1
    np.testing.assert_allclose(spans, [(event.start_s, event.end_s) for event in events], atol=1e-6)
    written = [text.get_text() for text in figure.texts]
    assert "a bell" in written
    assert any(text.startswith(f"{len(events)} events, best probability 0.731") for text in written)


def test_panel_without_sound_still_has_its_curve() -> None:
    figure = draw_file(make_panel(spectrogram=None, notes=["the file is gone"]))
    assert "the file is gone" in [text.get_text() for text in figure.texts]
    assert any(line.get_xdata().size == 500 for each in figure.axes for line in each.lines)  # type: ignore[union-attr]


def test_thin_curve_keeps_its_peaks() -> None:
    times_s = np.arange(1_000_000, dtype=np.float64) * 0.04
    values = np.zeros(len(times_s))
    values[[5, 123_456, 999_999]] = [0.9, 1.0, -0.5]
    fewer_s, found = thin(times_s, values)
    assert len(found) <= 2_000
    assert dict(zip(fewer_s, found, strict=True)) | {times_s[5]: 0.9, times_s[123_456]: 1.0, times_s[-1]: -0.5} == dict(
        zip(fewer_s, found, strict=True)
    )
    assert (np.diff(fewer_s) > 0).all()


def test_picture_has_a_known_extension_and_a_folder(tmp_path: Path) -> None:
    figure = draw_file(make_panel())
    for name, begins in (("a.svg", b"<?xml"), ("a.PDF", b"%PDF"), ("a.png", b"\x89PNG")):
        save_figure(figure, str(tmp_path / name))
        assert (tmp_path / name).read_bytes().startswith(begins)
    with pytest.raises(UsageError, match=r"a\.jpg: the name of a picture ends in \.png, \.svg, \.pdf"):
        save_figure(figure, str(tmp_path / "a.jpg"))
    with pytest.raises(UsageError, match="there is no folder"):
        save_figure(figure, str(tmp_path / "none" / "a.png"))
    (tmp_path / "b.png").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        save_figure(figure, str(tmp_path / "b.png"))


# --- fonts and times --------------------------------------------------------------------------------------------------


def test_fonts_are_named_for_what_they_have() -> None:
    families, lacking = find_families(["Dog", "собака", "σκύλος"])
    assert families == ["DejaVu Sans"]
    assert not lacking
    _, lacking = find_families(["a\ufdd0"])  # no font has what is no character
    assert lacking == {"\ufdd0"}
    assert show_text("a\ufdd0b", lacking) == "a\\ufdd0b"
    assert find_lacking([make_panel("a\U000f0123")]) in ("", "\U000f0123")


def test_text_is_shortened_in_its_middle() -> None:
    assert shorten("short", 10) == "short"
    assert shorten("0123456789abcdef", 10) == "012…abcdef"
    assert shorten("犬" * 20, 10) == "犬…犬犬犬"


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (0.0, 10.0, ["0:00", "0:01", "0:02"]),
        (3.8, 4.5, ["0:03.8", "0:03.9", "0:04.0"]),
        (0.0, 43_200.0, ["0:00", "1:00:00", "2:00:00"]),
        (59.99, 60.03, ["0:59.990", "0:59.995", "1:00.000"]),
        (0.0, 900_000.0, ["0:00", "24:00:00", "48:00:00"]),
    ],
)
def test_ticks_are_round_and_few(start_s: float, end_s: float, expected: list[str]) -> None:
    ticks_s, step_s = choose_ticks(start_s, end_s, 12)
    assert [show_tick(tick_s, step_s) for tick_s in ticks_s][:3] == expected
    assert 2 <= len(ticks_s) <= 13
    assert all(start_s - 1e-6 <= tick_s <= end_s + 1e-6 for tick_s in ticks_s)


def test_figure_may_be_kept_in_memory() -> None:
    file = io.BytesIO()
    draw_file(make_panel(texts=())).savefig(file)
    assert file.getvalue()
