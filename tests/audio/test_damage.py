"""Damage counts for the ranges that it lies in."""

import io
import math

import pytest

from pipeline.audio.damage import Damage
from pipeline.audio.decode import open_audio
from tests.helpers.bursts import make_bursts, make_film
from tests.helpers.sounds import encode, scribble


def make_damage(*events: tuple[float, str, int]) -> Damage:
    """Damage at times in seconds: gaps that end then, packets that do not decode, bytes that are lost."""
    damage = Damage()
    for damage.now_s, kind, size in events:
        match kind:
            case "gap":
                damage.note_gap(float(size))
            case "packet":
                damage.note_packet("bad")
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
    damage.few_bytes = 2_000
    assert damage.describe(0, 20) is None
    assert damage.describe(0, 30) == "3,000 bytes of this range do not decode"
    assert damage.describe(10, math.inf) == "12,000 bytes of this range do not decode"
    damage.few_bytes = 9_000
    assert damage.describe(30, 90) is None


def describe(data: bytes, first_s: int, stop_s: int | None) -> str | None:
    """Why a range of a sound counts as truncated."""
    with open_audio(io.BytesIO(data)) as audio:
        for _ in audio.blocks(first_s * 48_000, None if stop_s is None else stop_s * 48_000):
            pass
        return audio.truncated


@pytest.mark.parametrize(
    ("first_s", "stop_s", "missing_s"), [(10, 14, None), (17, 19, 2.0), (18, 24, 3.0), (22, 24, None), (22, None, None)]
)
def test_gap_in_a_later_link_of_a_chain_has_its_place(
    first_s: int, stop_s: int | None, missing_s: float | None
) -> None:
    """12 s of vorbis, and behind them opus whose packets from 5 s on come 4 s later."""
    late = make_film("ogg", "libopus", None, move_s=lambda time_s: 4.0 * (time_s >= 5.0))
    data = encode("ogg_vorbis", make_bursts(48_000, 2), 48_000) + late
    found = describe(data, first_s, stop_s)
    assert (found is None) is (missing_s is None)
    assert found is None or float(found.split()[0]) == pytest.approx(missing_s, abs=0.05)


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "4000000"}


def test_what_has_no_place_is_told_behind_bad_packets() -> None:
    """Some of the first of three boxes of 4 s is noise, and the third one is cut off."""
    film = scribble(make_film("mp4", "aac", None, options=FRAGMENTS), 0.1, 0.15)
    cut = film[: film.rindex(b"moof") + 50]
    assert "packets cannot be decoded" in (describe(cut, 0, None) or "")
    assert describe(cut, 5, None) == "its last box is cut off"
    assert describe(cut, 5, 7) is None
    assert describe(film, 5, None) is None


FLAC = encode("flac", make_bursts(48_000, 2), 48_000)


@pytest.mark.parametrize("is_second", [False, True])
@pytest.mark.parametrize(
    ("first_s", "stop_s", "missing_s"),
    [(2, None, 3.07), (7, None, 2.05), (10, None, None), (2, 4, None), (5, 8, 2.03), (7, 8, 1.0), (10, 12, None)],
)
def test_damage_of_joined_flac_has_its_place(
    is_second: bool, first_s: int, stop_s: int | None, missing_s: float | None
) -> None:
    """Two FLAC files of 12 s, of which one has no sound from 5.97 to 9.05 s. Times count from where that one begins."""
    broken = scribble(FLAC, 0.5, 0.55)
    data, begin_s = (FLAC + broken, 12) if is_second else (broken + FLAC, 0)
    found = describe(data, begin_s + first_s, None if stop_s is None else begin_s + stop_s)
    assert (found is None) is (missing_s is None)
    assert found is None or "s of this range are missing" in found
    assert found is None or float(found.split()[0]) == pytest.approx(missing_s, abs=0.05)


@pytest.mark.parametrize("is_second", [False, True])
def test_damage_of_joined_flac_is_told_of_ranges_of_the_other_one_that_reach_it(is_second: bool) -> None:
    broken = scribble(FLAC, 0.5, 0.55)
    data = FLAC + broken if is_second else broken + FLAC
    assert describe(data, 9 if is_second else 13, 11 if is_second else None) is None
    assert "s of this range are missing" in (describe(data, 5, 20 if is_second else 13) or "")


def test_healthy_sound_has_none() -> None:
    assert Damage().describe(0, math.inf) is None
