"""Tables that are made to take time or memory, for the measurement ``hostile`` and for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.bench.hostile_sounds import make_sound

MIB = 2**20


def make_audio(sounds: Any) -> pa.StructArray:
    """A column of audio as `datasets` writes it."""
    names = [f"{number}.wav" for number in range(len(sounds))]
    return pa.StructArray.from_arrays([pa.array(sounds, pa.binary()), pa.array(names)], ["bytes", "path"])


# --- with audio -------------------------------------------------------------------------------------------------------


def write_bomb(path: Path, names: list[str], **columns: Any) -> Path:
    """A table of some bytes, whose texts are stored once however often they occur."""
    different = sorted(set(names))
    places = {name: number for number, name in enumerate(different)}
    numbers = pa.array([places[name] for name in names], pa.int32())
    audio = pa.StructArray.from_arrays(
        [pa.array([b"x"] * len(names)), pa.DictionaryArray.from_arrays(numbers, different)], ["bytes", "path"]
    )
    table = pa.table({"audio": audio, **columns})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    return path


def write_large_texts(path: Path, n_rows: int = 15_000) -> Path:
    """Five columns whose text of 60 kB all rows share."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * n_rows), ["x" * 60_000])
    return write_bomb(path, ["n"] * n_rows, **dict.fromkeys("abcde", text))


def write_large_page(path: Path) -> Path:
    """A page of 100 MiB in some kilobytes."""
    table = pa.table({"audio": make_audio([bytes(100 * MIB)])})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    return path


def write_shared_sound(path: Path, n_rows: int = 40) -> Path:
    """Rows that hold the same 8 MB, which take a few kilobytes on disk."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * n_rows, pa.int32()), [bytes(8 * MIB)])
    names = pa.array([f"{number}.wav" for number in range(n_rows)])
    table = pa.table({"audio": pa.StructArray.from_arrays([values, names], ["bytes", "path"])})
    pq.write_table(table, path, compression="zstd", store_schema=False, dictionary_pagesize_limit=2**30)
    return path


def write_many_columns(path: Path, n_columns: int) -> Path:
    """Columns of numbers beside four rows of sound."""
    columns: dict[str, Any] = {f"c{number}": [1] * 4 for number in range(n_columns)}
    pq.write_table(pa.table({"audio": make_audio([make_sound()] * 4), **columns}), path)
    return path


def write_arrow(path: Path, table: pa.Table, codec: str | None, rows_at_once: int) -> Path:
    """An Arrow stream in compressed batches."""
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows_at_once)
    return path


def write_compressed_arrow(path: Path, n_rows: int = 20) -> Path:
    """Rows of 50 MB that take some kilobytes."""
    return write_arrow(path, pa.table({"audio": make_audio([bytes(50 * MIB)] * n_rows)}), "zstd", 1)


# --- manifests --------------------------------------------------------------------------------------------------------


def write_repeated_uris(path: Path) -> Path:
    """Five gigabytes of one uri."""
    uris = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000, pa.int32()), ["x" * MIB])
    pq.write_table(pa.table({"uri": uris}), path, compression="zstd", store_schema=False)
    return path


def write_many_rows(path: Path) -> Path:
    """Five million rows in 39 kB."""
    uris = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5_000_000, np.int32)), ["a.wav"])
    pq.write_table(pa.table({"uri": uris, "n": np.zeros(5_000_000)}), path, compression="zstd", store_schema=False)
    return path


def write_wide_list(path: Path) -> Path:
    """Missing lists, each with room for a million values."""
    pq.write_table(pa.table({"uri": ["a.wav"] * 200, "x": pa.nulls(200, pa.list_(pa.int8(), MIB))}), path)
    return path


def write_sparse_json(path: Path) -> Path:
    """Each of 200,000 rows has room for 9,000 columns."""
    names = ",".join(f'"k{number}":1' for number in range(9_000))
    path.write_text(f'{{"uri":"a.wav",{names}}}\n' + "{}\n" * 200_000)
    return path


def write_nested_json(path: Path) -> Path:
    """The same in an object."""
    names = ",".join(f'"k{number}":{{"a":1}}' for number in range(9_000))
    path.write_text(f'{{"uri":"a.wav","x":{{{names}}}}}\n' + "{}\n" * 200_000)
    return path


def write_long_name_json(path: Path) -> Path:
    """The paths of the inner names have 9 GB."""
    names = ",".join(f'"k{number}":1' for number in range(9_000))
    path.write_text(f'{{"uri":"a.wav","{"n" * MIB}":{{{names}}}}}\n' + "{}\n" * 200_000)
    return path


def write_json_row(path: Path, n_bytes: int) -> Path:
    """One row of JSON of so many bytes, which take no room on the disk."""
    with path.open("wb") as file:
        file.write(b'{"uri":"')
        file.truncate(n_bytes)
    return path


def write_tiny_pages(path: Path, n_rows: int) -> Path:
    """A page of Parquet for each row."""
    options = {"data_page_size": 1, "write_batch_size": 1, "use_dictionary": False, "compression": "none"}
    pq.write_table(pa.table({"uri": ["a"] * n_rows}), path, write_statistics=False, **options)
    return path


def write_wide_csv(path: Path, n_columns: int = 400_000) -> Path:
    """A header of very many columns."""
    path.write_text(",".join(map(str, range(n_columns))) + "\n")
    return path
