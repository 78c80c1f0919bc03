"""An index opened for a question: by asking a server that runs on it, or here.

A server has everything loaded and answers in a fraction of a second. Whatever goes wrong there, a wrong call included,
is done again in this process, so that results and messages are the same with and without a server.
"""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.shared import servers
from jobs.shared.output import print_error
from pipeline import storage

if TYPE_CHECKING:
    from pipeline.search.client import Index
    from pipeline.search.found import Events, Hit


class Question:
    """The questions of the commands to one index. The methods are those of ``pipeline.search.client.Index``.

    Args:
        path: of the index.
        words: the text or the sound of the command, for messages about swapped arguments.
        use_server: ask the server that runs on the index, if there is one.
        verbose: say on stderr who answered.
    """

    def __init__(self, path: str, words: str, *, use_server: bool = True, verbose: bool = False) -> None:
        self._path, self._words, self._verbose = path, words, verbose
        self._index: Index | None = None
        self._server = self._find_server() if use_server else None
        if self._server is None:
            self.open_here()

    def search(self, text: str, k: int, **options: Any) -> "list[Hit]":
        return self._ask("search", {"text": text, "k": k, **options})  # type: ignore[no-any-return]

    def locate(self, text: str, k: int, **options: Any) -> "Events":
        return self._ask("locate", {"text": text, "k": k, **options})  # type: ignore[no-any-return]

    def similar_to_file(self, sound: str, k: int, **options: Any) -> "list[Hit]":
        """A server compares with files of its index. Any other file of this machine is sent to it."""
        arguments = {"sound": sound, "k": k, **options}
        if self._server is None:
            return self.open_here().similar_to_file(**arguments)
        uri = sound if storage.is_url(sound) else os.path.abspath(sound)
        try:
            return self._call("similar_to_file", arguments | {"sound": uri})  # type: ignore[no-any-return]
        except servers.NoAnswer as refusal:
            if refusal.status != 404 or not _may_send(sound):
                return self._give_up(refusal, "similar_to_file", arguments)  # type: ignore[no-any-return]
        return self._ask("similar_to_file", arguments, Path(sound))  # type: ignore[no-any-return]

    def count_indexed(self, where: str) -> int:
        return self._ask("count_indexed", {"where": where})  # type: ignore[no-any-return]

    def _find_server(self) -> "servers.Running | None":
        running = servers.find_server(self._path)
        if running is None:
            self._say(f"no server of this version runs on {self._path}: answering here")
            return None
        try:
            servers.check_alive(running)
        except servers.NoAnswer as error:
            self._say(f"{error}: answering here")
            return None
        return running

    def _ask(self, name: str, arguments: dict[str, Any], sound: Path | None = None) -> Any:
        try:
            return self._call(name, arguments, sound)
        except servers.NoAnswer as error:
            return self._give_up(error, name, arguments)

    def _call(self, name: str, arguments: dict[str, Any], sound: Path | None = None) -> Any:
        """The answer of the server, or of the index opened here.

        Raises:
            NoAnswer: the server does not answer, or refuses.
        """
        if self._server is None:
            return getattr(self.open_here(), name)(**arguments)
        state, found = servers.call(self._server, name, arguments, sound)
        self._say(f"answered by the server at {self._server.address}, from state {state}")
        return found

    def _give_up(self, error: "servers.NoAnswer", name: str, arguments: dict[str, Any]) -> Any:
        self._say(f"{error}: answering here")
        self._server = None
        return getattr(self.open_here(), name)(**arguments)

    def open_here(self) -> "Index":
        """The index, opened in this process."""
        if self._index is None:
            self._index = open_for_question(self._path, self._words)
        return self._index

    def _say(self, text: str) -> None:
        if self._verbose:
            print_error(f"earshot: {text}")


def _may_send(sound: str) -> bool:
    try:
        return os.path.isfile(sound) and os.path.getsize(sound) <= servers.MAX_SENT_BYTES - 10_000
    except (OSError, ValueError):
        return False


def open_for_question(index: str, question: str) -> "Index":
    """The index at ``index``, before any model is loaded.

    Raises:
        IndexMissing: there is none; if there is one at ``question``, the arguments were swapped.
    """
    import pipeline
    from pipeline.errors import EarshotError, IndexMissing

    try:
        return pipeline.open(index)
    except IndexMissing as error:
        try:
            pipeline.open(question)
        except (EarshotError, OSError, ValueError):
            raise error from None
        raise IndexMissing(
            f"{index}: no index here, but {question} is one: name the index first, {shlex.quote(question)}"
            f" {shlex.quote(index)}"
        ) from None
