"""Figures for people: a spectrogram, and below it on the same time axis the score curves of texts and their events.

Each figure is an object of its own: nothing here touches matplotlib's state, so several threads may draw.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.pictures.colours import TEXT_COLOURS, scale
from pipeline.pictures.fonts import find_families, shorten, show_text
from pipeline.pictures.missing import missing
from pipeline.pictures.spectrogram import Spectrogram
from pipeline.pictures.times import choose_ticks, show_tick
from pipeline.search.curves import Curve
from pipeline.search.events import Rules

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing(error, "matplotlib") from None

KINDS = (".png", ".svg", ".pdf")
"""Extensions of the files that figures are written to."""

DPI = 120
_RANGE_DB = 70.0
"""Levels shown, down from the loudest."""

_STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 3)))
"""Lines of several texts differ in style, too."""

_GREY, _PALE = "#555555", "#E8E8E8"


@dataclass(frozen=True, eq=False)
class Panel:
    """A span of a file. Without a spectrogram, ``notes`` tell why there is none.

    ``event`` is the event that the panel is about, in seconds, if it is about one; ``caption`` stands beside the title.
    """

    title: str
    start_s: float
    end_s: float
    spectrogram: Spectrogram | None
    curves: Sequence[Curve]
    rules: Rules
    notes: Sequence[str] = ()
    event: tuple[float, float] | None = None
    caption: str = ""


def find_lacking(panels: Sequence[Panel]) -> str:
    """The characters of titles and texts that no font here has; the figure shows escapes in their place."""
    texts = [text for panel in panels for text in (panel.title, *(curve.text for curve in panel.curves))]
    return "".join(sorted(find_families(map(show_text, texts))[1]))


@dataclass(frozen=True, slots=True)
class _Box:
    """A part of a sheet, in inches from its upper left corner."""

    left: float
    top: float
    width: float
    height: float


class _Sheet:
    """A figure on which everything has its place in inches, and in fonts that have its characters."""

    def __init__(self, width: float, height: float, texts: Sequence[str]) -> None:
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self._width, self._height = width, height
        self.families, self.lacking = find_families(map(show_text, texts))

    def add_axes(self, box: _Box) -> Axes:
        left, width = box.left / self._width, box.width / self._width
        return self.figure.add_axes((left, 1 - (box.top + box.height) / self._height, width, box.height / self._height))

    def write(self, left: float, top: float, text: str, size: float = 9.0, **how: Any) -> None:
        """One line of text whose upper left corner is given."""
        self.figure.text(
            left / self._width,
            1 - top / self._height,
            show_text(text, self.lacking),
            size=size,
            va="top",
            family=self.families,
            parse_math=False,
            **how,
        )


# --- a file -----------------------------------------------------------------------------------------------------------

_WIDTH, _LEFT, _RIGHT = 12.0, 0.75, 0.9
_WAVES, _CURVES, _LANE, _AXIS = 3.2, 1.5, 0.36, 0.5


def draw_file(panel: Panel) -> Figure:
    """A figure of one span, with a lane of events for each curve."""
    texts = [curve.text for curve in panel.curves]
    top = 0.45 + 0.2 * len(panel.notes)
    below = (0.12 + _CURVES + 0.1 + _LANE * len(texts)) if texts else 0.0
    sheet = _Sheet(_WIDTH, top + _WAVES + below + _AXIS, [panel.title, *texts, *panel.notes])
    sheet.write(_LEFT, 0.12, shorten(panel.title, 100), 12.0, weight="bold")
    for number, note in enumerate(panel.notes):
        sheet.write(_LEFT, 0.4 + 0.2 * number, shorten(note, 150), 9.0, color=_GREY)
    width = _WIDTH - _LEFT - _RIGHT
    waves = sheet.add_axes(_Box(_LEFT, top, width, _WAVES))
    levels = _draw_spectrogram(waves, panel)
    if levels is not None:
        bar = sheet.figure.colorbar(levels, cax=sheet.add_axes(_Box(_WIDTH - _RIGHT + 0.1, top, 0.12, _WAVES)))
        bar.set_label("level, dB of full scale", size=8)
        bar.ax.tick_params(labelsize=8)
    last = curves = waves
    at = top + _WAVES + 0.12
    if texts:
        curves = sheet.add_axes(_Box(_LEFT, at, width, _CURVES))
        _draw_curves(curves, panel)
        at += _CURVES + 0.1
        for number, curve in enumerate(panel.curves):
            last = sheet.add_axes(_Box(_LEFT, at + 0.17, width, _LANE - 0.19))
            _draw_lane(last, panel, number)
            sheet.write(_LEFT, at + 0.01, shorten(curve.text, 90), 8.5, color=_colour(number))
            # Apart from the text, which may run from right to left.
            sheet.write(_LEFT + width, at + 0.01, _count_events(curve, panel.rules), 8.5, color=_GREY, ha="right")
            at += _LANE
    for axes in {waves, curves, last}:
        _label_time(axes, panel, shows_labels=axes is last, n_most=12)
    last.set_xlabel("time", size=9)
    return sheet.figure


def _count_events(curve: Curve, rules: Rules) -> str:
    events = curve.events(rules)
    if not events:
        return f"no event, best probability {curve.probabilities.max():.3f}" if len(curve.scores) else "no frames"
    best = max(events, key=lambda event: event.score)
    n_events = "1 event" if len(events) == 1 else f"{len(events):,} events"
    return f"{n_events}, best probability {best.probability:.3f} at {show_tick(best.peak_s, 0.01)}"


def _draw_lane(axes: Axes, panel: Panel, number: int) -> None:
    """The events of one curve as bars."""
    curve = panel.curves[number]
    least_s = 0.0015 * (panel.end_s - panel.start_s)  # shorter ones could not be seen
    events = curve.events(panel.rules)
    bars = [(event.start_s, max(event.end_s - event.start_s, least_s)) for event in events]
    axes.broken_barh(bars, (0, 1), facecolor=_colour(number))
    axes.set(xlim=(panel.start_s, panel.end_s), ylim=(0, 1), xticks=[], yticks=[], facecolor=_PALE)
    for spine in axes.spines.values():
        spine.set_visible(False)


# --- events of several files ------------------------------------------------------------------------------------------

_CELL_WIDTH, _CELL_WAVES, _CELL_CURVE, _GAP = 5.6, 1.7, 0.8, 0.35


def draw_events(title: str, panels: Sequence[Panel]) -> Figure:
    """A figure with one panel for each event, two beside each other; each with the curve of its text."""
    n_columns = min(2, max(1, len(panels)))
    n_rows = -(-len(panels) // n_columns)
    cell = 0.22 + _CELL_WAVES + 0.12 + _CELL_CURVE + 0.3 + _GAP
    width = 0.65 + n_columns * _CELL_WIDTH + (n_columns - 1) * 0.75 + 0.3
    texts = [title, *(text for panel in panels for text in (panel.title, *panel.notes))]
    sheet = _Sheet(width, 0.6 + n_rows * cell - _GAP / 2, texts)
    sheet.write(0.65, 0.14, shorten(title, 50 * n_columns), 12.0, weight="bold")
    for number, panel in enumerate(panels):
        row, column = divmod(number, n_columns)
        left, top = 0.65 + column * (_CELL_WIDTH + 0.75), 0.6 + row * cell
        sheet.write(left, top, shorten(panel.title, 52), 9.0)
        sheet.write(left + _CELL_WIDTH, top, panel.caption, 9.0, ha="right")
        waves = sheet.add_axes(_Box(left, top + 0.22, _CELL_WIDTH, _CELL_WAVES))
        _draw_spectrogram(waves, panel)
        curve = sheet.add_axes(_Box(left, top + 0.34 + _CELL_WAVES, _CELL_WIDTH, _CELL_CURVE))
        _draw_curves(curve, panel)
        curve.yaxis.label.set_fontsize(7)
        _label_time(waves, panel, shows_labels=False, n_most=7)
        _label_time(curve, panel, shows_labels=True, n_most=7)
    return sheet.figure


# --- parts ------------------------------------------------------------------------------------------------------------


def _draw_spectrogram(axes: Axes, panel: Panel) -> Any:
    """The spectrogram, or what is known in its place; returns the image, for a bar of levels."""
    axes.set_xlim(panel.start_s, panel.end_s)
    if panel.spectrogram is None:
        axes.set(yticks=[], facecolor=_PALE)
        why = panel.notes[0].partition(";")[0] if panel.notes else "no sound to show"
        axes.text(
            0.5, 0.5, show_text(shorten(why, 80)), transform=axes.transAxes, ha="center", va="center", color=_GREY
        )
        axes.texts[-1].set_parse_math(False)
        return None
    found = panel.spectrogram
    loudest = max(float(found.levels_db.max()), -100.0)
    image = axes.imshow(
        found.levels_db,
        cmap=ListedColormap(scale() / 255),
        aspect="auto",
        interpolation="nearest",
        extent=(found.start_s, found.end_s, found.low_hz / 1_000, found.high_hz / 1_000),
        vmin=loudest - _RANGE_DB,
        vmax=loudest,
    )
    axes.set_xlim(panel.start_s, panel.end_s)
    axes.set_ylabel("kHz", size=9)
    axes.tick_params(axis="y", labelsize=8)
    if panel.event is not None:
        for edge_s in panel.event:
            axes.axvline(edge_s, color="white", linewidth=1.0, linestyle=(0, (4, 2)))
    return image


def _draw_curves(axes: Axes, panel: Panel) -> None:
    """The probability of each text over time, the threshold, and the event that the panel is about."""
    if panel.event is not None:
        axes.axvspan(*panel.event, color=_colour(0), alpha=0.2, linewidth=0)
    for number, curve in enumerate(panel.curves):
        times_s, values = thin(curve.times_s, curve.probabilities)
        style = _STYLES[number % len(_STYLES)]
        axes.plot(times_s, values, color=_colour(number), linestyle=style, linewidth=1.3)
    axes.axhline(panel.rules.threshold, color=_GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.text(1.005, panel.rules.threshold, f"{panel.rules.threshold:g}", transform=axes.get_yaxis_transform(), size=8)
    axes.texts[-1].set(color=_GREY, va="center")
    axes.set(xlim=(panel.start_s, panel.end_s), ylim=(-0.03, 1.03), yticks=(0, 0.5, 1))
    axes.set_ylabel("probability", size=9)
    axes.tick_params(axis="y", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label_time(axes: Axes, panel: Panel, *, shows_labels: bool, n_most: int) -> None:
    ticks_s, step_s = choose_ticks(panel.start_s, panel.end_s, n_most)
    axes.set_xticks(ticks_s, [show_tick(tick_s, step_s) for tick_s in ticks_s] if shows_labels else [])
    axes.tick_params(axis="x", labelsize=8, length=3)


def _colour(number: int) -> str:
    return TEXT_COLOURS[number % len(TEXT_COLOURS)]


_MOST_POINTS = 2_000


def thin(
    times_s: npt.NDArray[np.float64], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A curve (n,) with fewer points: of each group, the least and the largest value stay, in order of time."""
    n_each = -(-len(values) // (_MOST_POINTS // 2))
    if n_each <= 2:
        return times_s, values
    begins = np.arange(0, len(values), n_each)
    groups = [slice(begin, begin + n_each) for begin in begins]
    kept = np.array(
        [begin + where for begin, group in zip(begins, groups, strict=True) for where in _ends(values[group])]
    )
    return times_s[kept], values[kept]


def _ends(values: npt.NDArray[np.float64]) -> list[int]:
    return sorted({int(values.argmin()), int(values.argmax())})


def save_figure(figure: Figure, path: str) -> None:
    """Write a figure to a file; its extension is one of ``KINDS``.

    Raises:
        UsageError: another extension, or the file cannot be written.
    """
    check_picture(path)
    file = io.BytesIO()
    figure.savefig(file, format=Path(path).suffix[1:].lower())
    try:
        Path(path).write_bytes(file.getvalue())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def check_picture(path: str) -> None:
    """Refuse a file that no figure can be written to, before anything is drawn.

    Raises:
        UsageError: its extension is not one of ``KINDS``, or its folder does not exist.
    """
    if Path(path).suffix.lower() not in KINDS:
        raise UsageError(f"{path}: the name of a picture ends in {', '.join(KINDS)}")
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {Path(path).parent}")
