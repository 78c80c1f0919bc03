"""What the rules for last windows cost, and the passes of the model that windows make."""

import numpy as np
import pytest

from jobs.bench.windows import BACK, FIT, list_calls, list_files, list_passes, make_corpora, measure_cost


def test_each_corpus_has_its_lengths() -> None:
    corpora = make_corpora(2.0)
    assert list(corpora) == ["10 s", "15-30 s", "FSD50K", "hours"]
    ranges = {"10 s": (10.0, 10.03), "15-30 s": (15.0, 30.0), "FSD50K": (0.3, 30.0), "hours": (1800.0, 7200.0)}
    for name, (shortest_s, longest_s) in ranges.items():
        assert shortest_s <= corpora[name].min() <= corpora[name].max() <= longest_s
    assert sum(corpora["10 s"]) == pytest.approx(7200, rel=0.05)


def test_windows_come_longest_file_first() -> None:
    lengths_s = np.array([3.0, 30.0, 10.02])
    assert list_files(lengths_s, FIT) == [[250, 250, 275], [251], [75]]
    assert list_files(lengths_s, BACK) == [[250] * 4, [250] * 2, [75]]
    assert sorted(list_files(lengths_s, FIT, error=0.5)) == [[75], [250, 250, 275], [251]]


def test_calls_hold_so_many_rows_and_what_remains_of_blocks() -> None:
    files = [[250]] * 64  # 30 files fill a batch, and so a block of 60 rows
    assert [len(call) for call in list_calls(files, rows_per_call=1_000)] == [64]
    assert [len(call) for call in list_calls(files, rows_per_call=80)] == [40, 20, 4]
    assert [len(call) for call in list_calls(files, rows_per_call=40)] == [20, 10, 20, 10, 4]
    long = [[250] * 100]  # blocks of 32 windows
    assert [len(call) for call in list_calls(long, rows_per_call=1)] == [1] * 100
    assert [len(call) for call in list_calls(long, rows_per_call=50)] == [50, 50]
    assert sum(map(sum, list_calls(files + long, 77))) == sum(map(sum, files + long))


def test_passes_hold_windows_of_one_call_longest_first() -> None:
    lengths = [250, 145, 250, 145, 250, 250]
    assert list(list_passes([lengths])) == [[250] * 4, [145] * 2]
    assert list(list_passes([lengths[:3], lengths[3:]])) == [[250, 250, 145], [250, 250, 145]]
    assert list(list_passes([[375] + [25] * 40])) == [[375] + [25] * 25, [25] * 15]


def test_fitted_windows_encode_little_twice() -> None:
    figures = list(measure_cost())
    assert len(figures) == 5
    assert not any(figure.is_missed for figure in figures)
