"""A column of vectors becomes a matrix."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.index.vectors import to_matrix


@pytest.mark.parametrize("n_rows", [0, 1, 5])
def test_column_becomes_a_matrix_of_its_rows(n_rows: int) -> None:
    rows = np.arange(n_rows * 3, dtype=np.float16).reshape(n_rows, 3)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 3)
    for each in (column, pa.chunked_array([column[:1], column[1:]], column.type)):
        assert to_matrix(each).shape == (n_rows, 3)
        assert (to_matrix(each) == rows).all()
    assert (to_matrix(column[2:]) == rows[2:]).all()  # a part of an array
