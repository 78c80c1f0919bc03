"""The vectors of consecutive frames in, rows of the table ``frames`` out."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.grid import frames_to_seconds


def frame_rows(
    audio_id: str, batch_id: str, first_frame: int, vectors: npt.NDArray[np.float16], frames_schema: pa.Schema
) -> pa.RecordBatch:
    """Rows of ``frames`` for the vectors (n, D) of the frames of an audio from ``first_frame`` on."""
    n_frames, dimension = vectors.shape
    frames = range(first_frame, first_frame + n_frames)
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension)
    columns = {
        "audio_id": pa.repeat(audio_id, n_frames),
        "frame": pa.array(frames, pa.int32()),
        "start_s": pa.array(map(frames_to_seconds, frames), pa.float64()),
        "batch_id": pa.repeat(batch_id, n_frames),
        "vector": values.cast(frames_schema.field("vector").type),
        schema.BEGINS: pa.array([audio_id if frame == 0 else None for frame in frames], schema.ID),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in frames_schema.names], schema=frames_schema)
