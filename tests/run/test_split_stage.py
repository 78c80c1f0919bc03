"""The plan says which recordings are long; ``test_long`` splits them."""

from pipeline import schema
from pipeline.run.split_stage import PART_S, estimate_batch, is_long
from pipeline.schema import Row

BATCH = schema.make_batch_id("test", 1)


def planned(*seconds: float) -> Row:
    return {"batch_id": BATCH, "audios": [{"estimated_s": estimated_s} for estimated_s in seconds]}


def test_a_batch_is_as_long_as_its_audios_are_estimated() -> None:
    assert estimate_batch(planned()) == 0
    assert estimate_batch(planned(1.5, 600.0)) == 601.5


def test_only_a_recording_alone_in_its_batch_is_long() -> None:
    assert is_long(planned(3 * PART_S))
    assert not is_long(planned(3 * PART_S - 1))
    assert not is_long(planned(3 * PART_S, 3 * PART_S))
    assert is_long(planned(30.0), part_s=10.0)
