"""``python -m jobs.bench growth`` on tiny indexes."""

from inspect import signature
from pathlib import Path

import pytest

from jobs.bench.growth import Steps, growth, measure_growth
from jobs.bench.synthetic import CLIPS_PER_FILE, FILE_FRAMES
from pipeline.index import vector_index
from pipeline.index.handle import find_index
from pipeline.index.vector_index import VECTORS_TO_INDEX, read_index
from pipeline.index.verify import verify_index

N_FILES, N_ROUNDS = 10, 2


def test_growth_of_an_index_is_measured_beside_one_without_vector_indexes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 50)
    figures = list(measure_growth(tmp_path, N_FILES * FILE_FRAMES, 16, N_ROUNDS))
    values = {figure.what: figure.value for figure in figures}
    assert [what for what in values if "twice" not in what] == [
        "full build, 15,000 frames",
        "1 % more, mean of 2",
        "commit",
        "segments of clips",
        "segments of pools",
    ]
    assert [value for what, value in values.items() if "twice" in what] == [0, 0]
    assert values["commit"] > 0
    for name, is_indexed in (("with", True), ("without", False)):
        live = find_index(tmp_path / name).live
        assert live.open("files").count_rows() == N_FILES + N_ROUNDS
        for table in ("clips", "pools"):
            assert (read_index(live.open(table)) is not None) == is_indexed
        assert verify_index(str(tmp_path / name)) == []


def test_too_few_rows_for_a_vector_index_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no table has 10,000 rows"):
        list(measure_growth(tmp_path, FILE_FRAMES, 16, 1))


def test_by_default_clips_and_pools_have_vector_indexes() -> None:
    n_files = -(-signature(growth).parameters["rows"].default // FILE_FRAMES)
    assert n_files * CLIPS_PER_FILE >= VECTORS_TO_INDEX


def test_steps_begin_where_the_one_before_ends() -> None:
    steps = Steps()
    for name in ("vectors clips", "compact clips", "vectors clips", "publish"):
        steps(name)
    taken = steps.take()
    assert taken.keys() == {"", "vectors clips", "compact clips", "publish"}
    assert all(cost.seconds >= 0 for cost in taken.values())
    assert steps.take().keys() == {""}
