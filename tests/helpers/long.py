"""Long recordings, decoded in parts and in one piece."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.config import Config, DecodeConfig
from pipeline.grid import Grid
from pipeline.index.tables import write_rows
from pipeline.run.decode_stage import decode_batch
from pipeline.run.dispatch import Stages
from pipeline.run.encode_stage import encode_windows
from pipeline.run.split_stage import split_batch
from pipeline.run.write_stage import write_windows
from tests.helpers.contents import read
from tests.helpers.fakes import GRID, FakeEncoder

PART_S = 4.0


def decode(planned: dict[str, Any], grid: Grid = GRID) -> list[dict[str, Any]]:
    blocks = decode_batch(planned, DecodeConfig(), grid, block_windows=3)
    decoded: list[dict[str, Any]] = pa.concat_tables(blocks).to_pylist()
    return decoded


def in_parts(encoder: FakeEncoder, at_once: list[int] | None = None) -> Stages:
    """Stages without Ray: they decode the parts of a recording one after the other, the last one first."""

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        grid = config.window.grid
        for batch in batches.to_pylist():
            parts = split_batch(batch, config.decode, grid, PART_S)
            if at_once is not None:
                at_once.append(len(parts))
            for part in reversed(parts):
                for block in decode_batch(part, config.decode, grid, block_windows=3):
                    encoded = encode_windows(block, encoder)
                    yield from write_windows(encoded, frames_schema, partial(write_rows, config.into)).to_pylist()

    return stages


def in_one_piece(encoder: FakeEncoder) -> Stages:
    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        whole = [batch | {"part": {"first": 0, "stop": None}} for batch in batches.to_pylist()]
        yield from in_parts(encoder)(pa.Table.from_pylist(whole, schema=batches.schema), config, frames_schema)

    return stages


def published(config: Config) -> dict[str, list[Any]]:
    files = ["uri", "audio_id", "status", "reason", "message", "n_clips", "n_frames"]
    files += ["duration_s", "expected_duration_s"]
    clips = read(config.into, "clips", ["clip_id", "start_s", "end_s", "duration_s", "vector"])
    frames = read(config.into, "frames", ["audio_id", "frame", "start_s", "vector"])
    return {
        "files": sorted(read(config.into, "files", files), key=lambda row: str(row["uri"])),
        "clips": sorted(clips, key=lambda row: str(row["clip_id"])),
        "frames": sorted(frames, key=lambda row: (row["audio_id"], row["frame"])),
    }
