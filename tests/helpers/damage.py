"""Planting defects in the tables of an index."""

from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.config import Config
from pipeline.grid import Grid
from pipeline.index import journal
from pipeline.index.handle import find_index
from pipeline.index.repair import mark_damaged
from pipeline.index.search_settings import ALL_PARTITIONS
from pipeline.index.tables import latest_version
from pipeline.index.vector_build import NAME
from pipeline.index.vector_index import find_damage
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import live
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.tables import draw_vectors, write_index


def publish(path: str) -> None:
    """What is in the tables now becomes what the journal names."""
    versions = {name: latest_version(path, name) for name in journal.read_published(path).versions}
    seq = journal.read_published(path).seq + 1
    journal.publish(journal.open_journal(path), [journal.make_row(seq, "f" * 32, "f" * 32, "maintain", versions)])


def largest_file(path: Path | str, name: str) -> Path:
    """The largest data file of a table."""
    return max(Path(journal.table_uri(path, name), "data").iterdir(), key=lambda file: file.stat().st_size)


def damage_vector_index(path: Path | str, name: str, how: str = "lost", segment: int = 0) -> None:
    """Damage the files of a segment of the published vector index of a table."""
    table = find_index(path).live.open(name)
    [index] = [index for index in table.describe_indices() if index.name == NAME]
    store, folder = storage.find_store(f"{journal.table_uri(path, name)}/_indices/{index.segments[segment].uuid}")
    for file in store.ls(folder, detail=False):
        data = store.cat_file(file)
        quarter = len(data) // 4
        match how:
            case "lost":
                store.rm_file(file)
            case "cut":
                store.pipe_file(file, data[: 2 * quarter])
            case "overwritten":
                noise = np.random.default_rng(1).bytes(2 * quarter)
                store.pipe_file(file, data[:quarter] + noise + data[3 * quarter :])


def damage_partition(path: Path | str, name: str) -> None:
    """Damage the published vector index of a table where the search for zero does not read it."""
    table = find_index(path).live.open(name)
    [index] = [index for index in table.describe_indices() if index.name == NAME]
    file = Path(journal.table_uri(path, name), "_indices", index.segments[0].uuid, "auxiliary.idx")
    whole, size = file.read_bytes(), file.stat().st_size // 16
    for at in range(size, 12 * size, size):
        file.write_bytes(whole[:at] + np.random.default_rng(1).bytes(size) + whole[at + size :])
        table = lance.dataset(journal.table_uri(path, name))
        if find_damage(table) is None and find_damage(table, ALL_PARTITIONS) is not None:
            return
    raise AssertionError("each search for zero meets the damage")


def fail_as_engine(error: Exception) -> Callable[..., Any]:
    """A function of any arguments that raises ``error``, as if it were Lance's own."""

    def fail(*_: object, **options: object) -> None:
        raise error

    return FunctionType(fail.__code__, {"__name__": "lance.dataset"}, closure=fail.__closure__)


def append(path: str, name: str, where: str, **changes: Any) -> None:
    rows = table(path, name).to_table(filter=where)
    for column, value in changes.items():
        at = rows.schema.get_field_index(column)
        values = pa.array([value] * len(rows), rows.schema.field(column).type)
        rows = rows.set_column(at, rows.schema.field(column), values)
    lance.write_dataset(rows, journal.table_uri(path, name), mode="append")


def append_instead(path: str, name: str, where: str, **changes: Any) -> None:
    rows = table(path, name).to_table(filter=where)
    append(path, name, where, **changes)
    [column] = changes
    table(path, name).delete(f"{where} AND {column} = {rows[column][0].as_py()}")


def first(path: str, name: str, column: str, where: str = "true") -> str:
    return str(table(path, name).to_table(columns=[column], filter=where)[column][0].as_py())


def rewrite(path: str, name: str, where: str, change: Callable[[Any], Any]) -> None:
    """Replace rows by the same with changed vectors (n, D), and publish that."""
    rows = table(path, name).to_table(filter=where)
    field = rows.schema.field("vector")
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1).copy()
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(change(vectors).astype(np.float16).reshape(-1)), field.type.list_size
    )
    changed = rows.set_column(rows.schema.get_field_index("vector"), field, column)
    table(path, name).delete(where)
    lance.write_dataset(changed, journal.table_uri(path, name), mode="append")
    publish(path)


def write_cut(path: Path, table: str, size: str, part: float = 0.5) -> Path:
    """An index of which the largest data file of a table is cut. Lance reads files of some size in another way."""
    rng = np.random.default_rng(0)
    n_frames, n_characters = {"small": (300, 10), "large": (70_000, 200_000)}[size]
    vectors = draw_vectors(rng, n_frames, Grid(250, 10))
    words = pa.table({"uri": ["/a.wav"], "words": [rng.bytes(n_characters // 2).hex()]})
    write_index(path, {"/a.wav": vectors}, Grid(250, 10), metadata=words)
    file = largest_file(path, table)
    data = file.read_bytes()
    assert len(data) > 100_000 or size == "small" or table == "frames"
    file.write_bytes(data[: int(len(data) * part)])
    return path


Defect = tuple[Callable[[str], object], str, str]
"""What plants a defect in the index at a path, the table that ``verify`` names for it, and a part of what it says."""


def check_found_and_repaired(config: Config, plant: Callable[[str], object], name: str, said: str) -> None:
    before = live(config.into)
    plant(config.into)
    publish(config.into)
    findings = verify_index(config.into)
    assert any(finding.table == name and said in finding.what for finding in findings), findings
    mark_damaged(config.into, findings)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
    assert live(config.into) == before
