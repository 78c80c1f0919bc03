"""What commands say about the pictures that they draw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.shared.output import print_error

if TYPE_CHECKING:
    from pipeline.pictures.figure import Panel


def print_lacking(panels: Sequence["Panel"]) -> None:
    """Say which characters of names and texts are shown as escapes, for want of a font."""
    from pipeline.pictures.figure import find_lacking

    if lacking := find_lacking(panels):
        shown = lacking if len(lacking) <= 20 else f"{lacking[:20]}…"
        print_error(
            f"earshot: no font here has {shown}: the picture shows codes instead; install one such as Noto Sans"
        )
