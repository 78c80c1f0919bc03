"""Labels as text: CSV, JSON lines, Audacity labels, Raven selection tables, DCASE's TSV.

Each format is a function from labels to lines, so it can be written to a file, to a pipe or to a response as it comes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.export.cells import format_json, format_row
from pipeline.export.labels import FIELDS, Label, group_by_recording, place_in_recording
from pipeline.export.names import name_recordings, name_relative
from pipeline.grid import SAMPLE_RATE_HZ

Lines = Iterator[str]

ALWAYS = ("text", "rank", "uri", "start_s", "end_s", "peak_s", "score", "probability")
"""The columns that every CSV has, first; others of ``FIELDS`` follow if a label has a value there."""

IN_JSON = ("rank", "uri", "start_s", "end_s", "score", "probability")
"""What every object has, first, as the objects of ``earshot query --json``."""

METADATA = "metadata."
"""Before the name of a column of metadata that Earshot has a column of the same name for."""

PIECE_CHARACTERS = 1 << 16

RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Begin Path", "File Offset (s)", "Begin File", "Label", "Verdict", "Score", "Probability"),
)
"""The first seven are those that Raven has in every table. Opened beside its recording, a table is read by
``Begin Time (s)``; as a sound selection table, by ``Begin Path`` and ``File Offset (s)``. The last four are notes."""


@dataclass(frozen=True)
class TextFormat:
    """A format of text files.

    ``is_per_recording``: a file for each recording, else one for all. ``tells_status``: it says of a label that its
    content is gone; a format that cannot gets no such label.
    """

    name: str
    suffix: str
    to_lines: Callable[[Sequence[Label]], Lines]
    is_per_recording: bool = False
    tells_status: bool = False


def csv_lines(
    labels: Sequence[Label],
    more: Sequence[Mapping[str, Any]] = (),
    first: Sequence[str] = (),
    last: Sequence[str] = (),
) -> Lines:
    """CSV with a header: the columns ``ALWAYS``, then further fields and metadata that any label has.

    Args:
        more: for each label, values of further columns. first, last: those columns that come first, and last.
    """
    names = [*ALWAYS, *(name for name in FIELDS if name not in ALWAYS and _is_known(labels, name))]
    user = list(dict.fromkeys(name for label in labels for name in label.metadata))
    taken = (*first, *last)
    yield format_row([*first, *names, *(name_column(name, taken) for name in user), *last])
    for label, values in zip(labels, more or [{}] * len(labels), strict=True):
        own = [getattr(label, name) for name in names] + [label.metadata.get(name) for name in user]
        yield format_row([*map(values.get, first), *own, *map(values.get, last)])


def _is_known(labels: Sequence[Label], name: str) -> bool:
    return any(getattr(label, name) is not None for label in labels)


def name_column(name: str, taken: Sequence[str] = ()) -> str:
    """The column of CSV for a column of metadata.

    Args:
        taken: the names of further columns.
    """
    return f"{METADATA}{name}" if name in FIELDS or name in taken or name.startswith(METADATA) else name


def jsonl_lines(labels: Sequence[Label]) -> Lines:
    """JSON lines: the fields of a hit, those of ``FIELDS`` that are known, and ``metadata``."""
    for label in labels:
        values = {name: getattr(label, name) for name in IN_JSON}
        known = {name: getattr(label, name) for name in FIELDS if name not in values}
        values |= {name: value for name, value in known.items() if value is not None}
        yield format_json(values | {"metadata": label.metadata}) + "\n"


def audacity_lines(labels: Sequence[Label]) -> Lines:
    """A label track of one recording for Audacity: start, end and text, separated by tabs.

    A label with frequencies has a second line, as Audacity's manual describes it ("Importing and Exporting Labels").
    """
    for label in labels:
        yield f"{_seconds(label.start_s)}\t{_seconds(label.end_s)}\t{describe(label)}\n"
        if label.low_hz is not None or label.high_hz is not None:
            yield f"\\\t{_audacity_hz(label.low_hz)}\t{_audacity_hz(label.high_hz)}\n"


def raven_lines(labels: Sequence[Label]) -> Lines:
    """A selection table of one recording for Raven: ``RAVEN_COLUMNS``, separated by tabs.

    A label without frequencies reaches from 0 to half the sample rate; to 24 kHz where that is not known.
    """
    yield "\t".join(RAVEN_COLUMNS) + "\n"
    for number, label in enumerate(labels, start=1):
        high_hz = (label.sample_rate_hz or SAMPLE_RATE_HZ) / 2 if label.high_hz is None else label.high_hz
        begin_s = _seconds(label.start_s)
        cells = [str(number), "Spectrogram 1", "1", begin_s, _seconds(label.end_s)]
        cells += [f"{label.low_hz or 0.0:.1f}", f"{high_hz:.1f}"]
        cells += [_one_cell(label.uri), begin_s, _one_cell(label.uri.rpartition("/")[2])]
        cells += [_one_cell(label.text), label.verdict or "", _number(label.score), _number(label.probability)]
        yield "\t".join(cells) + "\n"


def dcase_lines(labels: Sequence[Label]) -> Lines:
    """The TSV of the DCASE challenges: ``filename``, ``onset``, ``offset``, ``event_label``, by file and time.

    Names are paths below the folder that all files have in common.

    Raises:
        UsageError: a label has no text.
    """
    placed = sorted(map(place_in_recording, labels), key=lambda label: (label.uri, label.start_s, label.end_s))
    names = name_relative(label.uri for label in placed)
    yield "filename\tonset\toffset\tevent_label\n"
    for label in placed:
        if not label.text.strip():
            raise UsageError(f"{label.uri}: a hit without a text, which this format needs: name it by --label")
        cells = [_one_cell(names[label.uri]), _seconds(label.start_s), _seconds(label.end_s), _one_cell(label.text)]
        yield "\t".join(cells) + "\n"


TEXT_FORMATS = {
    each.name: each
    for each in (
        TextFormat("csv", ".csv", csv_lines, tells_status=True),
        TextFormat("jsonl", ".jsonl", jsonl_lines, tells_status=True),
        TextFormat("dcase", ".tsv", dcase_lines),
        TextFormat("audacity", ".txt", audacity_lines, is_per_recording=True),
        TextFormat("raven", ".selections.txt", raven_lines, is_per_recording=True),
    )
}


def list_files(labels: Sequence[Label], form: TextFormat) -> Iterator[tuple[str, Lines]]:
    """The files of an export, by name in order, each with its lines.

    A format with a file for all labels has exactly one, ``labels`` with its suffix, also where there is no label.
    """
    if not form.is_per_recording:
        yield f"labels{form.suffix}", form.to_lines(labels)
        return
    groups = group_by_recording(labels)
    for uri, name in name_recordings(groups).items():
        yield f"{name}{form.suffix}", form.to_lines(groups[uri])


def encode_lines(lines: Iterable[str]) -> Iterator[bytes]:
    """The lines as UTF-8, in pieces of about ``PIECE_CHARACTERS`` that end where a line does."""
    waiting: list[str] = []
    n_characters = 0
    for line in lines:
        waiting.append(line)
        n_characters += len(line)
        if n_characters >= PIECE_CHARACTERS:
            yield "".join(waiting).encode()
            waiting, n_characters = [], 0
    yield "".join(waiting).encode()


def describe(label: Label) -> str:
    """A label in a cell: its text, and the verdict of a mark: ``a bell ringing [wrong]``."""
    return _one_cell(f"{label.text} [{label.verdict}]" if label.verdict else label.text)


def _one_cell(text: str) -> str:
    """``text`` without the tabs and line breaks that end a cell in formats without quotes."""
    return " ".join(text.replace("\t", " ").splitlines()).strip()


def _seconds(seconds: float) -> str:
    """To the microsecond."""
    return f"{seconds:.6f}"


def _audacity_hz(frequency_hz: float | None) -> str:
    return f"{-1.0 if frequency_hz is None else frequency_hz:.6f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
