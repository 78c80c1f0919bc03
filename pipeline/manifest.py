"""A manifest in, the files that it names out: a table in CSV, JSON lines or Parquet with a column ``uri``."""

import io
import os
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.errors import CorpusError
from pipeline.read import one_line

_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")
_NOT_YET = ("start_s", "end_s")


def is_manifest(path: str) -> bool:
    """Whether a file is taken for a manifest, by its name."""
    return path.lower().endswith(_SUFFIXES)


def read_uris(path: str) -> list[str]:
    """The files that a manifest names, once each: absolute, relative ones from the folder of the manifest.

    Raises:
        CorpusError: it cannot be read, has no column ``uri`` of text, a row without one, or ranges of files.
    """
    table = _read(path)
    if "uri" not in table.column_names:
        raise CorpusError(f"{path}: a manifest needs a column `uri`, and this has only {', '.join(table.column_names)}")
    if ranges := [name for name in _NOT_YET if name in table.column_names]:
        raise CorpusError(f"{path}: column {ranges[0]}: parts of files cannot be indexed; leave it out for whole files")
    uris = table["uri"]
    if not pa.types.is_string(uris.type) and not pa.types.is_large_string(uris.type):
        raise CorpusError(f"{path}: column `uri` is {uris.type}, and should be text")
    if uris.null_count:
        row = next(number for number, uri in enumerate(uris.to_pylist(), start=1) if uri is None)
        raise CorpusError(f"{path}: row {row} has no uri")
    folder = path.rsplit("/", 1)[0] if storage.is_url(path) else os.path.dirname(path)
    return [_absolute(folder, uri) for uri in dict.fromkeys(uris.to_pylist())]


def _absolute(folder: str, uri: str) -> str:
    if storage.is_url(uri):
        return storage.absolute(uri)
    if storage.is_url(folder) and not uri.startswith(("/", "~")):
        return storage.join(folder, uri)
    return os.path.normpath(os.path.join(folder, os.path.expanduser(uri)))


def _read(path: str) -> pa.Table:
    """The table, whole."""
    try:
        with storage.fetched(path) as source, open(source, "rb") if isinstance(source, str) else source as file:
            return _parse(path.lower(), file)
    except CorpusError:
        raise
    except Exception as error:  # each store has errors of its own, and each reader
        raise CorpusError(f"{path}: cannot be read as a manifest: {one_line(error)}") from None


def _parse(name: str, file: Any) -> pa.Table:
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        return pq.read_table(file)
    if name.endswith(".csv"):
        from pyarrow import csv

        # `null` and `NA` may be names.
        options = csv.ConvertOptions(column_types={"uri": pa.string()}, strings_can_be_null=True, null_values=[""])
        parse = csv.ParseOptions(newlines_in_values=True)
        return csv.read_csv(io.BytesIO(file.read()), convert_options=options, parse_options=parse)
    from pyarrow import json

    return json.read_json(io.BytesIO(file.read()))
