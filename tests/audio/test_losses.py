"""Bytes that do not decode are counted between packets that do."""

import pytest

from pipeline.audio.losses import Losses


@pytest.mark.parametrize(
    ("packets", "rest", "lost_bytes"),
    [
        ([(400, True)] * 9, 0, None),
        ([(9_000, False), *[(400, True)] * 9, (9_000, False)], 0, None),  # tags
        ([*[(400, True)] * 9, (1_600, False), *[(400, True)] * 9], 0, None),
        ([*[(400, True)] * 9, (1_601, False), *[(400, True)] * 9], 0, 1_601),
        ([*[(400, True)] * 9, (20_000, True), *[(400, True)] * 9], 0, 19_600),
        ([*[(400, True)] * 9, (8_000, True), *[(400, True)] * 9], 0, None),  # a frame of another size
        ([*[(400, True)] * 9, (2_000, False), (400, True), (2_000, False)], 0, None),  # what looks like a frame
        ([(400, True)] * 9, 8_192, None),
        ([(400, True)] * 9, 8_193, 8_193),
        ([(400, False)] * 9, 90_000, None),  # nothing decodes: that is another failure
    ],
)
def test_bytes_that_do_not_decode_are_counted(
    packets: list[tuple[int, bool]], rest: int, lost_bytes: int | None
) -> None:
    losses, at = Losses(lambda at: at), 1_000
    for size_bytes, decodes in packets:
        losses.note(size_bytes, at, decodes=decodes)
        at += size_bytes
    expected = None if lost_bytes is None else f"{lost_bytes:,} bytes of the sound do not decode"
    assert losses.describe(at + rest) == expected


def test_tags_are_no_sound_that_is_lost() -> None:
    tags = {1_800: 31_800, 33_800: 73_800}
    losses = Losses(lambda at: tags.get(at, at))
    for at in (1_000, 1_400, 31_800, 32_200, 32_600, 33_000, 33_400):
        losses.note(400, at, decodes=True)
    assert losses.describe(73_800) is None
    assert losses.describe(73_800 + 8_193) == "8,193 bytes of the sound do not decode"
