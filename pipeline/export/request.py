"""An export as it is asked for: which labels, in which format. It becomes a stream of bytes, or files in a folder."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import pyarrow as pa

from pipeline.audio.sound_writer import Container
from pipeline.errors import UsageError, suggest
from pipeline.export.cuts import cut_files
from pipeline.export.exporting import (
    Exported,
    OnProgress,
    Problem,
    explain_missing,
    explain_uncut,
    export_all_vectors,
    export_cuts,
    export_label_vectors,
    export_texts,
    list_gone,
    part_gone,
    say_left_out,
)
from pipeline.export.folder import Folder
from pipeline.export.hits_file import read_hits
from pipeline.export.labels import Label
from pipeline.export.recordings import Recordings
from pipeline.export.sources import Answer, Questions, ask, check_verdicts, complete_labels, read_marks
from pipeline.export.streams import parquet_stream, zip_stream
from pipeline.export.texts import TEXT_FORMATS, encode_lines, list_files
from pipeline.export.vectors import Precision, State, Table, VectorTable, select_ids
from pipeline.search.client import Index
from pipeline.storage import absolute

CUTS: tuple[Container, ...] = ("wav", "flac")
VECTORS: dict[str, Table] = {"clip-vectors": "clips", "frame-vectors": "frames"}
FORMATS = (*TEXT_FORMATS, *CUTS, *VECTORS)


@dataclass(frozen=True)
class Request:
    """What is to be exported.

    Args:
        form: one of ``FORMATS``. hits: the content of a file of hits, and ``hits_name`` its name for messages.
        label: the text of hits in that file that have none. marks: the marks, too; ``verdicts``: only those with one of
            these; by default all, and for ``dcase``, which has no column for them, ``right``.
        padding_s: more of the recording before and after each cut. precision: of vectors.

    Raises:
        UsageError: an unknown value, or values that do not fit together.
    """

    form: str
    questions: Questions = field(default_factory=Questions)
    hits: bytes | None = None
    hits_name: str = "hits"
    label: str | None = None
    marks: bool = False
    verdicts: tuple[str, ...] | None = None
    padding_s: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise UsageError(f"--format {self.form}: expected {', '.join(FORMATS)}{suggest(self.form, FORMATS)}")
        if self.is_of_all and self.form not in VECTORS:
            raise UsageError("nothing to export: give --query, --locate, --hits or --marks")
        if self.questions.where is not None and not (
            self.is_of_all or self.questions.queries or self.questions.locates
        ):
            raise UsageError("--where: is for --query and --locate, and for the vectors of whole files")
        if self.verdicts is not None and not self.marks:
            raise UsageError("--verdict: give --marks too")
        check_verdicts(self.verdicts or ())
        if self.label is not None and self.hits is None:
            raise UsageError("--label: give --hits too")
        if self.padding_s and self.form not in CUTS:
            raise UsageError("--padding: is for --format wav or flac")
        if self.precision not in ("float32", "float16"):
            raise UsageError(f"--precision {self.precision}: expected float32 or float16")

    @property
    def is_of_all(self) -> bool:
        """Whether there are no labels, so that the vectors of the whole index are meant."""
        return not (self.questions.queries or self.questions.locates or self.hits is not None or self.marks)

    @property
    def is_one_file(self) -> bool:
        """Whether the format has one file for all labels, of text."""
        return self.form in TEXT_FORMATS and not TEXT_FORMATS[self.form].is_per_recording

    def identify(self, index: str) -> dict[str, Any]:
        """What makes two requests to an index the same export, JSON."""
        named = {name: getattr(self, name) for name in ("label", "marks", "verdicts", "padding_s", "precision")}
        digest = None if self.hits is None else hashlib.sha256(self.hits).hexdigest()
        return {"index": absolute(index), "format": self.form, "hits": digest} | named | asdict(self.questions)


@dataclass(frozen=True)
class Stream:
    """An export as bytes: ``name`` of the file, its content in pieces, and the labels that are left out of it."""

    name: str
    pieces: Iterator[bytes]
    problems: list[Problem] = field(default_factory=list)
    knows_problems: bool = True
    """Whether ``problems`` is complete from the beginning. Else it is once all pieces were read, and the file says
    itself what is left out: see ``to_stream``."""


def find_labels(index: Index, request: Request) -> Answer:
    """The labels of a request: hits of its texts, then those of its file, then marks.

    Raises:
        UsageError: as ``Index.search``, ``Index.locate`` and ``read_hits``.
    """
    given = [] if request.hits is None else read_hits(request.hits_name, request.hits)
    if request.label is not None:
        given = [label if label.text else replace(label, text=request.label) for label in given]
    found = ask(index, request.questions)
    labels = found.labels + complete_labels(index, given)
    if request.marks:
        right = ("right",) if request.form == "dcase" else ()
        labels += read_marks(index, right if request.verdicts is None else request.verdicts)
    return Answer(labels, found.is_cut)


def to_stream(index: Index, request: Request, labels: list[Label]) -> Stream:
    """The export as one stream; a zip archive where it is several files.

    What cut audio lacks is in its manifest, and what a Parquet file of labels lacks is in its metadata
    (``exporting.LEFT_OUT``). Other errors may come while the stream is read.

    Args:
        labels: from ``find_labels``.

    Raises:
        UsageError: the index has no frames.
    """
    form = request.form
    if form in VECTORS:
        return _stream_vectors(index, request, labels)
    if form in CUTS:
        problems: list[Problem] = []
        files: Iterable[tuple[str, Iterable[bytes]]] = cut_files(
            labels,
            form,
            Recordings(index, labels).open,
            request.padding_s,
            lambda label, values: problems.append(explain_uncut(label, values)),
        )
        return Stream(f"{form}.zip", zip_stream(files), problems, knows_problems=False)
    labels, gone = (labels, []) if TEXT_FORMATS[form].tells_status else part_gone(labels)
    texts = list_files(labels, TEXT_FORMATS[form])
    if request.is_one_file:
        name, lines = next(texts)
        return Stream(name, encode_lines(lines), list_gone(gone))
    return Stream(f"{form}.zip", zip_stream((name, encode_lines(lines)) for name, lines in texts), list_gone(gone))


def _stream_vectors(index: Index, request: Request, labels: list[Label]) -> Stream:
    table, where = _open_vectors(index, request), request.questions.where
    if not request.is_of_all:
        problems: list[Problem] = []

        def read() -> Iterator[pa.RecordBatch]:
            missing: list[Label] = []
            yield from table.read_labels(labels, missing)
            problems.extend(explain_missing(label.uri, label.start_s, table) for label in missing)

        pieces = parquet_stream(read(), table.label_columns, ["vector"], lambda: say_left_out(problems))
        return Stream(f"{table.name}.parquet", pieces, problems, knows_problems=False)
    files = table.state.read_files(where)
    ids = None if where is None else select_ids(files, table.name)
    rows = (batch for number in range(table.n_parts) for batch in table.read_part(number, ids))
    both = [
        ("files.parquet", parquet_stream(files.to_batches(), files.schema)),
        (f"{table.name}.parquet", parquet_stream(rows, table.columns, ["vector"])),
    ]
    return Stream(f"{request.form}.zip", zip_stream(both))


def export_into(
    index: Index, request: Request, out: str, on_progress: OnProgress = lambda done, all: None
) -> tuple[Exported, Answer]:
    """Write the files of an export into a folder, a path or a URL; an interrupted one goes on.

    Returns:
        What was written, and the labels, if they were looked for: not where an export goes on.

    Raises:
        UsageError: as ``find_labels`` and ``Folder.begin``.
    """
    answer, folder, asked = Answer(), Folder(out), request.identify(index.path)

    def find() -> list[Label]:
        nonlocal answer
        answer = find_labels(index, request)
        return answer.labels

    if request.form in TEXT_FORMATS:
        return export_texts(folder, asked, find, TEXT_FORMATS[request.form]), answer
    if request.form in CUTS:
        return export_cuts(folder, asked, find, lambda labels: Recordings(index, labels).open, on_progress), answer
    table, where = _open_vectors(index, request), request.questions.where
    if not request.is_of_all:
        return export_label_vectors(folder, asked, find, table, on_progress), answer
    return export_all_vectors(folder, asked, table, where, on_progress), answer


def _open_vectors(index: Index, request: Request) -> VectorTable:
    """The table of vectors, in the state of the index; a wrong ``where`` is refused.

    Raises:
        UsageError: it is wrong, or the index has no frames.
    """
    if request.is_of_all and request.questions.where is not None:
        index.to_arrow("files", ["file_id"], request.questions.where)
    live = index.live
    state = State(live.path, live.seq, live.versions, live.settings)
    return VectorTable(state, VECTORS[request.form], cast(Precision, request.precision))
