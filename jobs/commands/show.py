"""``earshot show``: a picture of a file, with the score curves of texts."""

from typing import Annotated

import typer

from jobs.shared.opening import open_for_question
from jobs.shared.options import Path_, Threshold
from jobs.shared.output import print_line
from jobs.shared.pictures import print_lacking


def show(
    index: Path_,
    uri: Annotated[str, typer.Argument(metavar="URI", help="A file of the index, as `earshot query` lists it.")],
    out: Annotated[str, typer.Option(metavar="FILE", help="The picture: a name that ends in .png, .svg or .pdf.")],
    text: Annotated[
        list[str] | None,
        typer.Option(help="Description of a sound, whose score curve and events are shown; up to five."),
    ] = None,
    start: Annotated[float, typer.Option(help="Start of the part to show, in seconds.", min=0.0)] = 0.0,
    end: Annotated[float | None, typer.Option(help="End of the part to show, in seconds.", min=0.0)] = None,
    threshold: Threshold = 0.3,
) -> None:
    """Draw the spectrogram of a file and, below it, how well each moment fits each text.

    Scores come from the index. Of a file that is gone, they are all that is shown.

    Example: earshot show my-index bells.wav --text "a bell ringing" --out bells.png
    """
    from pipeline.errors import EarshotError
    from pipeline.pictures.figure import check_picture, draw_file, save_figure
    from pipeline.pictures.show import show_file
    from pipeline.search.events import Rules

    check_picture(out)
    rules = Rules(threshold)
    panel = show_file(open_for_question(index, uri), uri, text or [], (start, end), rules)
    if panel.spectrogram is None and not panel.curves:
        raise EarshotError(f"{uri}: {panel.notes[0]}: name one with --text")
    save_figure(draw_file(panel), out)
    print_lacking([panel])
    print_line("; ".join([f"{out}: {panel.title}", *panel.notes]))
