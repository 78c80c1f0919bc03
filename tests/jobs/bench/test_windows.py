"""What the rules for last windows cost, and the passes of the model that windows make."""

import numpy as np
import pytest

from jobs.bench.windows import BACK, FIT, list_passes, list_windows, make_corpora, measure_cost


def test_each_corpus_has_its_lengths() -> None:
    corpora = make_corpora(2.0)
    assert list(corpora) == ["10 s", "15-30 s", "FSD50K", "hours"]
    ranges = {"10 s": (10.0, 10.03), "15-30 s": (15.0, 30.0), "FSD50K": (0.3, 30.0), "hours": (1800.0, 7200.0)}
    for name, (shortest_s, longest_s) in ranges.items():
        assert shortest_s <= corpora[name].min() <= corpora[name].max() <= longest_s
    assert sum(corpora["10 s"]) == pytest.approx(7200, rel=0.05)


def test_windows_come_longest_file_first() -> None:
    lengths_s = np.array([3.0, 30.0, 10.02])
    assert list_windows(lengths_s, FIT) == [250, 250, 275, 251, 75]
    assert list_windows(lengths_s, BACK) == [250, 250, 250, 250, 250, 250, 75]
    assert sorted(list_windows(lengths_s, FIT, error=0.5)) == [75, 250, 250, 251, 275]


def test_passes_hold_windows_of_one_length_from_one_call() -> None:
    lengths = [250, 145, 250, 145, 250, 250]
    assert list_passes(lengths, per_call=6) == [290, 1000]
    assert list_passes(lengths, per_call=3) == [145, 500, 145, 500]
    assert sum(list_passes(lengths * 99, per_call=100)) == sum(lengths) * 99


def test_fitted_windows_encode_little_twice() -> None:
    figures = list(measure_cost())
    assert len(figures) == 5
    assert not any(figure.is_missed for figure in figures)
