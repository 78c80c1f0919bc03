"""Exports into a folder or a file, step by step: an interrupted one is gone on with by the same request.

The plan is the labels that were found, or the state of the tables: so an export that goes on writes what it would have
written undisturbed, whatever has happened to the index meanwhile. See ``folder``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa

from pipeline.export.cuts import AT_ONCE, GONE, MANIFEST, OpenSound, made, manifest_lines, plan_cuts
from pipeline.export.folder import Folder
from pipeline.export.hits_file import read_hits
from pipeline.export.labels import Label
from pipeline.export.streams import parquet_stream
from pipeline.export.texts import TextFormat, encode_lines, jsonl_lines, list_files
from pipeline.export.vectors import State, VectorTable, select_ids

LABELS_AT_ONCE = 500
"""Labels whose vectors go into one file."""

LEFT_OUT = "earshot_left_out"
"""The entry of a Parquet file's metadata that lists the labels without vectors, JSON: the fields of ``Problem``."""

Asked = dict[str, Any]
"""What was asked for, JSON."""

FindLabels = Callable[[], Sequence[Label]]
"""Finds the labels of an export. It is not called where an export goes on."""

FindSounds = Callable[[Sequence[Label]], OpenSound]
"""Told all labels of an export, gives what opens the recording of each."""

OnProgress = Callable[[int, int], None]
"""Told how many steps are done, and of how many."""


@dataclass(frozen=True)
class Problem:
    """A label of which something could not be exported."""

    uri: str
    start_s: float
    reason: str
    message: str


@dataclass
class Exported:
    """What an export has written."""

    n_labels: int = 0
    n_rows: int = 0
    """Of tables of vectors."""
    names: list[str] = field(default_factory=list)
    """The files, in order."""
    problems: list[Problem] = field(default_factory=list)


def export_texts(folder: Folder, request: Asked, find_labels: FindLabels, form: TextFormat) -> Exported:
    """Write the files of a text format into a folder.

    Raises:
        UsageError: as ``Folder.begin``.
    """
    labels = _begin(folder, request, find_labels)
    here, gone = (labels, []) if form.tells_status else part_gone(labels)
    done = Exported(len(here), problems=list_gone(gone))
    for name, lines in list_files(here, form):
        folder.write(name, encode_lines(lines))
        done.names.append(name)
    folder.finish()
    return done


def part_gone(labels: Sequence[Label]) -> tuple[list[Label], list[Label]]:
    """The labels whose content is there, and the others: their times would be those of another sound."""
    return [each for each in labels if each.status != "gone"], [each for each in labels if each.status == "gone"]


def list_gone(labels: Sequence[Label]) -> list[Problem]:
    """The problem that each of these labels is."""
    return [Problem(label.uri, label.start_s, "vanished", GONE) for label in labels]


def explain_uncut(label: Label, values: Mapping[str, Any]) -> Problem:
    """The problem of a label that could not be cut, from its values in the manifest."""
    return Problem(label.uri, label.start_s, values["reason"], values["message"])


def explain_missing(uri: str, start_s: float, table: VectorTable) -> Problem:
    """The problem of a label without stored vectors."""
    return Problem(uri, start_s, "vanished", f"the index has no vectors of {table.name} there")


def say_left_out(problems: Sequence[Problem]) -> dict[str, str]:
    """The entry of a Parquet file's metadata about the labels that it lacks; none if it has all."""
    return {LEFT_OUT: json.dumps(list(map(asdict, problems)))} if problems else {}


def export_cuts(
    folder: Folder,
    request: Asked,
    find_labels: FindLabels,
    find_sounds: FindSounds,
    on_progress: OnProgress = lambda done, all: None,
) -> Exported:
    """Cut the labels out of their recordings, into a folder, and write a manifest.

    A recording that is gone is a row of the manifest with the reason, and one of ``problems``.

    Args:
        request: with ``format`` (``wav`` or ``flac``) and ``padding_s``.

    Raises:
        UsageError: as ``Folder.begin``.
    """
    labels, container = _begin(folder, request, find_labels), request["format"]
    open_sound = find_sounds(labels)
    cuts, all_values = plan_cuts(labels, container, request["padding_s"]), list[dict[str, Any]]()
    for step, first in enumerate(range(0, len(cuts), AT_ONCE)):
        some = folder.find_note(step)
        if some is None:
            some = []
            for cut in cuts[first : first + AT_ONCE]:
                with made(cut, container, open_sound) as (pieces, values):
                    if pieces is not None:
                        folder.write(cut.name, pieces)
                some.append(values)
                on_progress(first + len(some), len(cuts))
            folder.note(step, some)
        all_values += some
        on_progress(len(all_values), len(cuts))
    folder.write(MANIFEST, encode_lines(manifest_lines(cuts, all_values)))
    folder.finish()
    return Exported(
        len(labels),
        names=[*(cut.name for cut, values in zip(cuts, all_values, strict=True) if "file" in values), MANIFEST],
        problems=[
            explain_uncut(cut.label, values) for cut, values in zip(cuts, all_values, strict=True) if "reason" in values
        ],
    )


def export_label_vectors(
    folder: Folder,
    request: Asked,
    find_labels: FindLabels,
    table: VectorTable,
    on_progress: OnProgress = lambda done, all: None,
) -> Exported:
    """Write the stored vectors of labels as Parquet into a folder, a file for each ``LABELS_AT_ONCE`` of them.

    Args:
        table: in the state that the index is in now; an export that goes on reads its former state.

    Raises:
        UsageError: as ``Folder.begin`` and ``State.open``.
    """
    plan = folder.begin(request, lambda: _plan(find_labels(), table.state))
    labels, table = _read_labels(plan), _pin(table, plan)
    columns = table.label_columns
    done = Exported(len(labels))
    for step, first in enumerate(range(0, max(1, len(labels)), LABELS_AT_ONCE)):
        some, name = labels[first : first + LABELS_AT_ONCE], f"{table.name}-{step:05d}.parquet"
        note = folder.find_note(step)
        if note is None:
            missing: list[Label] = []
            counted = _Counted(table.read_labels(some, missing))

            def say_missing(missing: Sequence[Label] = missing) -> dict[str, str]:
                return say_left_out([explain_missing(label.uri, label.start_s, table) for label in missing])

            folder.write(name, parquet_stream(counted, columns, ["vector"], say_missing))
            note = {"n_rows": counted.n_rows, "missing": [[label.uri, label.start_s] for label in missing]}
            folder.note(step, note)
        done.n_rows += note["n_rows"]
        done.names.append(name)
        done.problems += [explain_missing(uri, start_s, table) for uri, start_s in note["missing"]]
        on_progress(first + len(some), len(labels))
    folder.finish()
    return done


def export_all_vectors(
    folder: Folder,
    request: Asked,
    table: VectorTable,
    where: str | None = None,
    on_progress: OnProgress = lambda done, all: None,
) -> Exported:
    """Write a whole table of vectors as Parquet into a folder: a file for each fragment of the table, and
    ``files.parquet``, which says which files they belong to.

    Args:
        table: as in ``export_label_vectors``. where: SQL over the columns of ``files``: only vectors of these files.

    Raises:
        UsageError: as ``Folder.begin`` and ``State.open``.
    """
    table = _pin(table, folder.begin(request, lambda: _plan([], table.state)))
    files = table.state.read_files(where)
    ids = None if where is None else select_ids(files, table.name)
    columns, n_parts = table.columns, table.n_parts
    done = Exported(names=["files.parquet"])
    folder.write("files.parquet", parquet_stream(files.to_batches(), files.schema))
    for step in range(n_parts):
        name, note = f"{table.name}-{step:05d}.parquet", folder.find_note(step)
        if note is None:
            rows = _Counted(table.read_part(step, ids))
            if not rows.is_empty:
                folder.write(name, parquet_stream(rows, columns, ["vector"]))
            note = {"n_rows": rows.n_rows}
            folder.note(step, note)
        done.n_rows += note["n_rows"]
        done.names += [name] if note["n_rows"] else []
        on_progress(step + 1, n_parts)
    if not done.n_rows:  # so that a reader finds the columns
        folder.write(f"{table.name}-00000.parquet", parquet_stream([], columns, ["vector"]))
        done.names.append(f"{table.name}-00000.parquet")
    folder.finish()
    return done


class _Counted:
    """Counts the rows that pass, and knows beforehand whether there are any."""

    def __init__(self, rows: Iterator[pa.RecordBatch]) -> None:
        self._rows, self.n_rows = rows, 0
        self._first = next(rows, None)

    @property
    def is_empty(self) -> bool:
        return self._first is None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in chain([] if self._first is None else [self._first], self._rows):
            self.n_rows += batch.num_rows
            yield batch


# --- plans ------------------------------------------------------------------------------------------------------------


def _begin(folder: Folder, request: Asked, find_labels: FindLabels) -> list[Label]:
    return _read_labels(folder.begin(request, lambda: _plan(find_labels())))


def _plan(labels: Sequence[Label], state: State | None = None) -> dict[str, Any]:
    """The labels as JSON lines, and the state of the tables that vectors are read from."""
    lines = {"labels": "".join(jsonl_lines(labels))}
    if state is None:
        return lines
    return lines | {"path": state.path, "seq": state.seq, "versions": state.versions}


def _read_labels(plan: dict[str, Any]) -> list[Label]:
    return read_hits("the plan", plan["labels"].encode())


def _pin(table: VectorTable, plan: dict[str, Any]) -> VectorTable:
    """The table in the state that the plan names."""
    state = State(plan["path"], plan["seq"], plan["versions"], table.state.settings)
    return VectorTable(state, table.name, table.precision)
