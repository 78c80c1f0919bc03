"""How many bytes the newest version of an index has on the disk: its rows, and what only serves the search."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.index import journal
from pipeline.index.tables import open_published
from pipeline.index.vector_index import NAME

HALF_BYTES = 2


@dataclass(frozen=True)
class TableBytes:
    """Rows of ``frames`` or ``clips``, bytes of their data and scalar indexes, and bytes that speed up their search."""

    n_rows: int
    n_plain: int
    n_extra: int

    def describe(self, with_extra: bool, dimension: int) -> dict[str, float]:
        """Bytes a row, and the share of the extra ones in those of the vectors."""
        n_bytes = self.n_plain + (self.n_extra if with_extra else 0)
        share = self.n_extra / max(1, self.n_rows * dimension * HALF_BYTES)
        rows = max(1, self.n_rows)
        return {"bytes_per_row": round(n_bytes / rows, 1), "extra_share": round(share, 4) if with_extra else 0.0}


def count_bytes(index: str) -> dict[str, TableBytes]:
    """The bytes of ``frames`` and ``clips``. Pools serve the search of frames."""
    published = journal.read_published(index)
    tables = {name: open_published(index, name, published) for name in published.versions}
    found = {}
    for name in ("frames", "clips"):
        plain, extra = _count(tables[name])
        if name == "frames" and "pools" in tables:
            extra += sum(_count(tables["pools"]))
        found[name] = TableBytes(tables[name].count_rows(), plain, extra)
    return found


def _count(table: Any) -> tuple[int, int]:
    """Bytes of the data and scalar indexes of a table, and of its vector index."""
    folder = Path(table.uri.removeprefix("file://"))
    files = [file.path for fragment in table.get_fragments() for file in fragment.data_files()]
    plain, extra = sum((folder / "data" / file).stat().st_size for file in files), 0
    for index in table.list_indices():
        parts = (folder / "_indices" / index["uuid"]).rglob("*")
        n_bytes = sum(part.stat().st_size for part in parts if part.is_file())
        plain, extra = (plain, extra + n_bytes) if index["name"] == NAME else (plain + n_bytes, extra)
    return plain, extra
