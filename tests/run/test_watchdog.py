"""A decoder that does not return is noticed; one that works, or waits for its consumer, is left alone."""

import re
import threading
import time
from collections.abc import Iterator

import pytest

from pipeline import heartbeat
from pipeline.config import RunConfig
from pipeline.heartbeat import beat
from pipeline.run.watchdog import Limits, Watchdog

SHORT_S = 0.2


class Word:
    """Takes the word of a watchdog, and lets its decoder go on."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.came = threading.Event()

    def __call__(self, why: str) -> None:
        self.said.append(why)
        self.came.set()


def watch(items: Iterator[int], word: Word, silence_s: float = SHORT_S, total_s: float = 1e9) -> Iterator[int]:
    return Watchdog(Limits(silence_s, total_s), word, check_s=0.01).watch(items)


def test_silence_is_noticed() -> None:
    word = Word()

    def decode() -> Iterator[int]:
        yield 1
        assert word.came.wait(60)
        yield 2

    assert list(watch(decode(), word)) == [1, 2]
    assert len(word.said) == 1
    assert re.match(r"its decoder read and gave nothing for \d+ s", word.said[0])


def test_work_without_an_end_is_noticed() -> None:
    word = Word()

    def decode() -> Iterator[int]:
        while not word.came.is_set():
            beat()
            time.sleep(0.001)
        yield 1

    assert list(watch(decode(), word, silence_s=1e9, total_s=SHORT_S)) == [1]
    assert word.said == ["its decoder had not come to an end after 0 s (run.decoder_s_per_byte)"]


def test_decoder_that_reads_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its own beats tell: without them, it would have been silent for ever."""
    dog = Watchdog(Limits(60.0, 1e9), Word(), check_s=1e9)

    def decode() -> Iterator[str | None]:
        monkeypatch.setattr(heartbeat, "_last", float("-inf"))
        yield dog._find_fault()
        beat()
        yield dog._find_fault()

    silent, reading = dog.watch(decode())
    assert silent is not None
    assert reading is None


def test_time_of_the_consumer_does_not_count() -> None:
    dog = Watchdog(Limits(1e9, 1e9), Word(), check_s=1e9)
    for _ in dog.watch(iter([1, 2])):
        before = dog._worked_s
        time.sleep(SHORT_S)
        assert dog._worked_s == before
        assert dog._find_fault() is None


def test_errors_pass_and_end_the_watch() -> None:
    def decode() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    n_threads = threading.active_count()
    with pytest.raises(ValueError, match="broken"):
        list(watch(decode(), Word()))
    until = time.monotonic() + 60
    while threading.active_count() > n_threads and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= n_threads


def test_a_call_is_watched() -> None:
    word = Word()
    dog = Watchdog(Limits(SHORT_S, 1e9), word, check_s=0.01)
    assert dog.call(lambda: word.came.wait(60)) is True
    assert len(word.said) == 1


def test_small_files_get_ten_minutes_and_large_ones_hours() -> None:
    default = RunConfig().decoder_s_per_byte
    small = Limits.for_bytes(28_000, 300.0, default)
    assert small.silence_s == 300.0
    assert small.total_s == pytest.approx(601.4)
    assert 12 * 3600 < Limits.for_bytes(10**9, 300.0, default).total_s < 24 * 3600
    assert Limits.for_bytes(10**6, 300.0, 1e-3).total_s == pytest.approx(1600.0)


@pytest.mark.parametrize("bytes_per_s", [750, 1_600, 16_000, 144_000])
@pytest.mark.parametrize("hours", [0.1, 4.0, 200.0])
def test_no_honest_decoder_meets_the_limit(bytes_per_s: int, hours: float) -> None:
    """Thin speech, GSM, mp3 and wav of 24 bits, at 27 times real time."""
    audio_s = hours * 3600
    limits = Limits.for_bytes(int(audio_s * bytes_per_s), 300.0, RunConfig().decoder_s_per_byte)
    assert limits.total_s > audio_s / 27
