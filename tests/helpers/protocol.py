"""Runs that die at a step of the commit protocol."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from pipeline.index import journal
from pipeline.index.maintenance import optimize_index
from pipeline.index.vector_index import Step
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.run.driver import index_corpus
from tests.helpers.building import make_here
from tests.helpers.contents import KnownCorpus
from tests.helpers.runs import WideEncoder, in_place

Act = Callable[[Config, journal.Failpoint], object]


def index(config: Config, failpoint: journal.Failpoint = lambda step: None, **others: Any) -> object:
    vectors = VectorUpkeep(make_here)
    return index_corpus(config, stages=in_place(WideEncoder()), failpoint=failpoint, vectors=vectors, **others)


def rebuild(config: Config, failpoint: journal.Failpoint = lambda step: None) -> object:
    return index(config, failpoint, rebuild=True)


def optimize(config: Config, failpoint: journal.Failpoint = lambda step: None) -> object:
    return optimize_index(config.into, 0.0, failpoint, VectorUpkeep(make_here))


def fill(corpus: KnownCorpus) -> None:
    for number, name in enumerate(("a.wav", "b.wav", "c.wav", "sub/d.wav", "sub/e.wav")):
        corpus.put(name, number + 1)


def edit(corpus: KnownCorpus) -> None:
    """Some of everything: files that are changed, moved, doubled, deleted, new or broken, or have another mtime."""
    corpus.put("a.wav", 5)
    corpus.move("b.wav", "sub/b.wav")
    corpus.put("doubled.wav", 3)
    corpus.delete("sub/d.wav")
    corpus.put("new.wav", 0)
    corpus.put("c.wav", 7)
    corpus.touch("sub/e.wav")


def edit_again(corpus: KnownCorpus) -> None:
    corpus.swap("a.wav", "new.wav")
    corpus.put("c.wav", 2)
    corpus.put("sub/e.wav", 6)
    corpus.delete("doubled.wav")
    corpus.put("x.wav", 4)


def change(corpus: KnownCorpus) -> Act:
    fill(corpus)
    index(corpus.config)
    edit(corpus)
    return index


def tidy(corpus: KnownCorpus) -> Act:
    change(corpus)(corpus.config, lambda step: None)
    return optimize


def make_anew(corpus: KnownCorpus) -> Act:
    change(corpus)(corpus.config, lambda step: None)
    edit_again(corpus)
    return rebuild


class Died(BaseException):
    """Not an Exception: nothing in the code under test may handle it."""


def die_at(step: str, nth: int, act: Act, config: Config) -> bool:
    """Run, and die at the ``nth`` time it comes to a step, from 1; returns whether it did."""
    left = nth

    def failpoint(name: str) -> None:
        nonlocal left
        left -= name == step
        if left == 0 and name == step:
            raise Died

    try:
        act(config, failpoint)
    except Died:
        return True
    return False


@dataclass
class Dying:
    """Makes steps in this process, and dies in the one that builds the index of ``table``."""

    table: str
    step: str
    left: int

    def __call__(self, table: Any, step: Step, tick: Any) -> None:
        make_here(table, step, failpoint=self._die if step.name == self.table else lambda name: None)

    def _die(self, name: str) -> None:
        self.left -= name == self.step
        if self.left == 0 and name == self.step:
            raise Died
