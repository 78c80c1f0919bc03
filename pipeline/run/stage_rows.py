"""What every stage adds to its rows: an error that ends the run, and the seconds that the stage took."""

import pyarrow as pa

from pipeline import schema
from pipeline.errors import EarshotError
from pipeline.schema import Row


def error_row(edge: pa.Schema, batch_id: str, error: Exception) -> pa.Table:
    """The row that travels on when a stage fails and no file is at fault. It ends the run."""
    said = " ".join(str(error).split())
    said = said if isinstance(error, EarshotError) else f"{type(error).__name__}: {said}"
    row = {"batch_id": batch_id, "error": said, "last": False, "precision": "", "audio_s": 0.0}
    row |= {"seq": -1, "first_seq": -1, "stop_seq": -1, "decode_s": 0.0, "encode_s": 0.0, "write_s": 0.0}
    lists: Row = {"windows": [], "files": [], "frame_fragments": []} if edge is schema.RECEIPTS else {}
    return pa.Table.from_pylist([row | lists], schema=edge)


def note_seconds(table: pa.Table, stage: str, seconds: float) -> pa.Table:
    """The same rows, with the seconds that a stage took to make them in the first row: sums stay right however the rows
    are cut later."""
    if not table.num_rows:
        return table
    name = f"{stage}_s"
    column = pa.array([seconds, *[0.0] * (table.num_rows - 1)], pa.float64())
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
