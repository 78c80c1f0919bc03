"""The progress of work in steps: a bar on a terminal, a line every few seconds elsewhere. Both go to stderr."""

import time
from typing import TYPE_CHECKING

from jobs.shared.display import LINE_EVERY_S
from jobs.shared.output import make_console, to_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Steps:
    """Shows how many steps are done, and of how many; call it with both. Work that ends soon shows nothing elsewhere.

    Args:
        doing: what is done, such as ``cutting``. what: what is counted, such as ``sounds``.
    """

    def __init__(self, doing: str, what: str, *, json: bool, console: "Console | None" = None) -> None:
        self._doing, self._what, self._quiet = doing, what, json
        self._console = console or make_console(to_stderr=True)
        self._bar: Progress | None = None
        self._shown_at = time.monotonic()

    def __enter__(self) -> "Steps":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if not self._quiet and self._console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console)
            self._task = self._bar.add_task(self._doing, total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, n_done: int, n_all: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=n_done, total=n_all)
        elif not self._quiet and time.monotonic() - self._shown_at >= LINE_EVERY_S:
            self._shown_at = time.monotonic()
            line = f"{self._doing}: {n_done:,} of {n_all:,} {self._what}"
            self._console.print(to_text(line), soft_wrap=True)
