"""What the routes of a server share: the open states, the models, the threads."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from jobs.serve import limits
from jobs.serve.models import SharedModels
from jobs.serve.room import Room
from jobs.serve.sounds import Sounds
from jobs.serve.states import State, StateGone, States
from jobs.serve.workers import Pool, Workers
from pipeline.audio.excerpt import open_excerpt
from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.errors import EarshotError
from pipeline.index import engine_errors
from pipeline.schema import Row
from pipeline.search.client import Index
from pipeline.search.presence import Presence, Presences

T = TypeVar("T")


@dataclass
class Service:
    """A server of one index, apart from HTTP."""

    states: States
    models: SharedModels
    workers: Workers = field(default_factory=Workers)
    presences: Presences = field(default_factory=Presences)
    sounds: Sounds = field(default_factory=lambda: Sounds(open_excerpt))
    uploads: Room = field(default_factory=lambda: Room("uploads", limits.MAX_UPLOADS_BYTES))
    bodies: Room = field(default_factory=lambda: Room("JSON bodies", limits.MAX_BODIES_BYTES))
    hits: Room = field(default_factory=lambda: Room("exports of hits", limits.MAX_BODIES_BYTES))
    sounds_sent: Room = field(default_factory=lambda: Room("sounds that are sent", limits.MAX_SOUNDS))
    exports_sent: Room = field(default_factory=lambda: Room("exports that are sent", limits.MAX_EXPORTS))

    async def ask(
        self,
        request: Request,
        at: int | None,
        work: Callable[[State], T],
        pool: Pool | None = None,
        *,
        close: Callable[[T], object] | None = None,
    ) -> T:
        """What ``work`` finds in a state, in a thread of ``pool``; by default, that of questions. See ``Pool.run``.

        Raises:
            StateGone: the state is not open, or clean-up has deleted its tables. ClientGone: nobody waits any more.
        """
        state = self.states.get(at)

        def run() -> T:
            try:
                return work(state)
            except Exception as error:
                if engine_errors.is_damage(error) and state.number < self.states.find_newest(fresh=True):
                    raise StateGone(
                        f"state {state.number} of {self.states.path} is gone: clean-up has deleted its tables; take"
                        " over the newest state"
                    ) from None
                raise

        return await (pool or self.workers.questions).run(request, run, close=close)

    async def find_presence(self, request: Request, file: Row, pool: Pool | None = None) -> Presence:
        """What has become of the file of a row of ``files``, looked at in a thread of ``pool``.

        A file that has to be hashed to tell has a pool of its own: nothing else waits for it.
        """
        glance = (pool or self.workers.questions).run(request, lambda: self.presences.glance(file))
        if (seen := await glance) is not None:
            return seen
        return await self.workers.hashing.run(request, lambda: self.presences.find(file))

    def warm_up(self) -> None:
        """Load the text models in another thread, and open what every question needs, so that the first one is quick.

        An error is met again by the first question, whose asker is told.
        """
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        index = self.states.current.index
        try:
            for which in ("clip_model", "frame_model"):
                if index.settings[which]:
                    self.models.for_texts(ModelIdentity(**index.settings[which]))
            _ = self.states.current.counts
            if self.states.current.counts["indexed"]:
                index.search("a sound", 1)
                if self.states.current.has_frames:
                    index.locate("a sound", 1)
        except (EarshotError, OSError, ValueError, RuntimeError):
            return


def open_service(path: str) -> Service:
    """A server of the newest published state of the index at ``path``.

    Raises:
        EarshotError: there is no index, or this version cannot read it.
    """
    models = SharedModels(path)
    return Service(States(path, lambda: Index(path, models)), models)


def milliseconds_since(began: float) -> float:
    """Since ``time.perf_counter()`` was ``began``."""
    return round(1000 * (time.perf_counter() - began), 1)
