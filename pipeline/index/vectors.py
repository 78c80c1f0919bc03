"""A column of vectors in, a matrix of numbers out."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def to_matrix(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float16]:
    """A column of vectors as an array (n, D), also where n is 0."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    matrix: npt.NDArray[np.float16] = whole.flatten().to_numpy(zero_copy_only=False)
    return matrix.reshape(-1, column.type.list_size)
