"""Damage counts for the ranges that it lies in."""

import io
import math

import pytest

from pipeline.audio.damage import Damage
from pipeline.audio.decode import open_audio
from tests.helpers.bursts import make_bursts, make_film
from tests.helpers.sounds import encode


def make_damage(*events: tuple[float, str, int]) -> Damage:
    """Damage at times in seconds: gaps that end then, packets that do not decode, bytes that are lost."""
    damage = Damage()
    for damage.now_s, kind, size in events:
        match kind:
            case "gap":
                damage.note_gap(float(size))
            case "packet":
                damage.note_packet(ValueError("bad"))
            case "bytes":
                damage.note_bytes(size)
    damage.now_s, damage.n_packets = 100.0, 5_000
    return damage


@pytest.mark.parametrize(
    ("first_s", "stop_s", "missing_s"),
    [
        (0, math.inf, 7),
        (0, 5, None),
        (0, 5.05, None),  # too little to be heard
        (0, 6, 1),
        (6, 7, 1),
        (7, 30, 5),
        (9, 29, 2),
        (9, 27, None),
        (30, math.inf, None),
    ],
)
def test_gaps_count_as_far_as_they_lie_in_the_range(first_s: float, stop_s: float, missing_s: float | None) -> None:
    damage = make_damage((9.0, "gap", 4), (30.0, "gap", 3))
    expected = missing_s and f"{missing_s:.3f} s of this range are missing, and taken as silence"
    assert damage.describe(first_s, stop_s) == expected


def test_packets_count_where_they_are_more_than_healthy_files_have() -> None:
    damage = make_damage(*[(50.0 + number, "packet", 0) for number in range(5)])
    assert damage.describe(0, 50) is None
    assert damage.describe(51, 53) is None
    assert damage.describe(51, 54) == "3 packets of this range cannot be decoded: bad"
    assert damage.describe(0, math.inf) is None  # five of 5,000


def test_lost_bytes_count_where_they_are_more_than_healthy_files_have() -> None:
    damage = make_damage((20.0, "bytes", 3_000), (40.0, "bytes", 9_000))
    assert damage.describe(0, 20, 2_000) is None
    assert damage.describe(0, 30, 2_000) == "3,000 bytes of this range do not decode"
    assert damage.describe(10, math.inf, 2_000) == "12,000 bytes of this range do not decode"
    assert damage.describe(30, 90, 9_000) is None


@pytest.mark.parametrize(
    ("first_s", "stop_s", "missing_s"), [(10, 14, None), (17, 19, 2.0), (18, 24, 3.0), (22, 24, None), (22, None, None)]
)
def test_gap_in_a_later_link_of_a_chain_has_its_place(
    first_s: int, stop_s: int | None, missing_s: float | None
) -> None:
    """12 s of vorbis, and behind them opus whose packets from 5 s on come 4 s later."""
    late = make_film("ogg", "libopus", None, move_s=lambda time_s: 4.0 * (time_s >= 5.0))
    data = encode("ogg_vorbis", make_bursts(48_000, 2), 48_000) + late
    with open_audio(io.BytesIO(data)) as audio:
        for _ in audio.blocks(first_s * 48_000, None if stop_s is None else stop_s * 48_000):
            pass
        found = audio.truncated
    assert (found is None) is (missing_s is None)
    assert found is None or float(found.split()[0]) == pytest.approx(missing_s, abs=0.05)


def test_healthy_sound_has_none() -> None:
    assert Damage().describe(0, math.inf) is None
