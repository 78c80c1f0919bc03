"""The colours of both themes: enough contrast (WCAG 2.2), and colour-blind people can tell them apart."""

import re
from typing import Any

import numpy as np
import pytest

from jobs.serve.page_files import PAGE
from tests.helpers.colours import EYES, measure_contrast, measure_distance, read_colour

CSS = (PAGE / "style.css").read_text()
COLOUR = r"#[0-9a-f]{3,6}"
THEMES = ("light", "dark")

SURFACES = ("back", "panel", "raised", "notice-back", "error-back")
TEXTS = ("text", "quiet", "accent", "right", "wrong", "unsure")
"""Variables of what lies behind, and of what may be written on any of it."""

ON_OTHERS = {"on-accent": "accent", "panel": "text", "back": "wrong"}
"""Texts on what else is filled: chosen buttons, words over the page, the button that records."""

LINES = {"edge": "back panel raised", "accent": "back panel raised", "text": "raised"}
"""Edges of controls, the focus and the threshold, and what they lie on."""


def read_variables(theme: str) -> dict[str, Any]:
    """The colour of each variable of the root."""
    root = CSS[CSS.index(":root {") : CSS.index(":root[")]
    pairs = re.findall(rf"--([\w-]+): light-dark\(({COLOUR}), ({COLOUR})\)", root)
    return {name: read_colour(both[THEMES.index(theme)]) for name, *both in pairs}


def read_curves(theme: str) -> list[Any]:
    """The colours of the lanes."""
    pairs = re.findall(rf"\.colour-\d \{{ --curve: light-dark\(({COLOUR}), ({COLOUR})\)", CSS)
    return [read_colour(both[THEMES.index(theme)]) for both in pairs]


def read_background(rule: str, theme: str) -> Any:
    """The background of a rule that has one of its own."""
    found = re.search(rf"{re.escape(rule)} .*?background: light-dark\(({COLOUR}), ({COLOUR})\)", CSS)
    assert found is not None
    return read_colour(found[1 + THEMES.index(theme)])


def mix(colour: Any, behind: Any, share: float) -> Any:
    return share * colour + (1 - share) * behind


def test_every_colour_of_a_text_or_a_surface_is_looked_at() -> None:
    texts = set(re.findall(r"(?<![\w-])color: var\(--([\w-]+)\)", CSS))
    assert texts == {*TEXTS, *ON_OTHERS}
    filled = set(re.findall(r"background: var\(--([\w-]+)\)", CSS))
    assert filled == {*SURFACES, *ON_OTHERS.values()}
    assert {name for name in read_variables("light") if name != "line"} == {*texts, *filled, *LINES}


@pytest.mark.parametrize("theme", THEMES)
def test_texts_have_a_contrast_of_4_5(theme: str) -> None:
    colours = read_variables(theme)
    current, error = read_background(".card[aria-current]", theme), read_background(".status.is-error", theme)
    pairs = [(text, surface, colours[surface]) for text in TEXTS for surface in SURFACES]
    pairs += [(text, "the current card", current) for text in TEXTS]
    pairs += [(text, other, colours[other]) for text, other in ON_OTHERS.items()]
    pairs += [("panel", "an error over the page", error)]
    found = {(text, where): measure_contrast(colours[text], behind) for text, where, behind in pairs}
    assert {pair: value for pair, value in found.items() if value < 4.5} == {}


@pytest.mark.parametrize("theme", THEMES)
def test_edges_focus_and_curves_have_a_contrast_of_3(theme: str) -> None:
    colours = read_variables(theme)
    found = {
        (line, where): measure_contrast(colours[line], colours[where])
        for line, places in LINES.items()
        for where in places.split()
    }
    curves = read_curves(theme)
    assert len(curves) == 5
    for number, curve in enumerate(curves):
        for share in (0.0, 0.2):  # beside an event, and over one
            behind = mix(curve, colours["raised"], share)
            found[f"colour-{number}", f"{share}"] = measure_contrast(curve, behind)
    assert {pair: value for pair, value in found.items() if value < 3} == {}


def test_words_and_marks_show_in_a_picture() -> None:
    """Words have a ground of their own, which is dark enough where the picture is white. Marks have letters, too."""
    assert re.search(r"\.frequency \{[^}]*background: #000a; color: #fff;", CSS)
    ground = mix(np.zeros(3), np.full(3, 255.0), 0xAA / 0xFF)
    assert measure_contrast(np.full(3, 255.0), ground) > 4.5
    marks = re.findall(rf"\.mark\.is-\w+ \{{ border-color: ({COLOUR})", CSS)
    assert len(marks) == 3
    assert min(measure_contrast(read_colour(mark), np.zeros(3)) for mark in marks) > 3


@pytest.mark.parametrize("seen_by", EYES)
def test_colour_blind_people_tell_lanes_and_verdicts_apart(seen_by: Any) -> None:
    for theme in THEMES:
        colours = read_variables(theme)
        assert measure_distance(np.array(read_curves(theme)), seen_by) > 0.2
        assert measure_distance(np.array([colours[name] for name in ("right", "wrong", "unsure")]), seen_by) > 0.2
    marks = re.findall(rf"\.mark\.is-\w+ \{{ border-color: ({COLOUR})", CSS)
    assert measure_distance(np.array([read_colour(mark) for mark in marks]), seen_by) > 0.2
