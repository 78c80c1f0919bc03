"""The rows that designs search stand for every frame once."""

import numpy as np
import pytest

from jobs.bench.candidate_units import Table, Units, adaptive_pools, each_frame, fixed_pools, make_table
from jobs.bench.synthetic import FILE_FRAMES, MadeVectors


@pytest.fixture(scope="module")
def table() -> Table:
    return make_table(2 * FILE_FRAMES, 12, MadeVectors(0))


def check_tiles(units: Units, table: Table) -> None:
    assert units.starts[0] == 0
    assert (np.diff(units.starts) == units.counts[:-1]).all()
    assert len(units.owners) == len(table.vectors) == units.starts[-1] + units.counts[-1]
    assert len(units.vectors) == len(units.starts)


def test_table_has_whole_files_and_events_of_each_question(table: Table) -> None:
    assert table.vectors.shape == (2 * FILE_FRAMES, 1024)
    scores = table.vectors.astype(np.float32) @ table.questions.T
    for number, events in enumerate(table.events):
        peaks = [scores[first:stop, number].max() for first, stop in events]
        assert peaks == sorted(peaks, reverse=True)
        assert peaks[0] == pytest.approx(scores[:, number].max())
        assert peaks[-1] == pytest.approx(table.worst[number])


@pytest.mark.parametrize("n", [5, 12, 50])
def test_fixed_pools_hold_their_frames(table: Table, n: int) -> None:
    units = fixed_pools(table, n, lambda frames: frames.mean(axis=0), "mean")
    check_tiles(units, table)
    assert units.counts.max() == n
    third = table.vectors[units.starts[2] : units.starts[3]].astype(np.float32)
    assert units.vectors[2] == pytest.approx(third.mean(axis=0), abs=1e-3)


def test_adaptive_pools_come_as_means_with_radii_and_as_nearest_frames(table: Table) -> None:
    means, with_radii, nearest = adaptive_pools(table, 25)
    for units in (means, with_radii, nearest):
        check_tiles(units, table)
        assert len(units.starts) == len(table.vectors) / 25
    assert with_radii.radii is not None
    assert (with_radii.radii > 0).mean() > 0.5  # runs of one frame have none
    frames = table.vectors[nearest.starts[0] : nearest.starts[0] + nearest.counts[0]]
    assert (frames == nearest.vectors[0]).all(axis=1).any()
    assert means.distances(table).mean() < fixed_pools(table, 25, lambda f: f.mean(axis=0), "").distances(table).mean()


def test_each_frame_stands_for_itself(table: Table) -> None:
    check_tiles(each_frame(table), table)
