"""Measure what files that are made to do harm cost: seconds, and memory beside that of a process that reads nothing.

    python -m jobs.bench hostile                       # all kinds: takes four minutes, and 1 GB of memory to make them
    python -m jobs.bench hostile sounds --side 1000

``sounds``: covers of 16,000 x 16,000, FLAC that decodes to days of silence, and honest silence of three hours.
``shards``: tar files whose headers are of gigabytes, or take time by the square of their bytes. ``tables``: Parquet and
Arrow files with audio in which a few bytes stand for gigabytes. ``manifests``: the same in tables that name files. A
process of its own reads each: it lists the source, reads its metadata and decodes its files by the functions that runs
call, but encodes nothing. What is said is the reason and the message of its rows, or the error.

``decoder``: a run of six files, with native code in place of one file's decoder that does not come back. It is given up
after ``--silence`` seconds with its batch, and once more alone.

Seconds are by the clock; processor time is beside them, which a busy machine changes less. Memory is the peak of a
process (VmHWM). The exit code is 1 where it is more than 512 MB above that of an empty one.
"""

import hashlib
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jobs.bench import hostile_sounds, hostile_tables, hostile_tars
from jobs.bench.figures import Figure, call_fresh, measure_and_report, read_memory
from jobs.shared.options import Json
from pipeline.errors import EarshotError
from pipeline.schema import Row
from pipeline.words import count, show_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.config import DecodeConfig
    from pipeline.grid import Grid

MOST_MORE_BYTES = 512 * 10**6
GIB = 2**30
STUCK = "stuck.wav"
SAID = 3
"""Different rows that are shown of an input."""

READERS = (
    *("pipeline.audio.decode", "pipeline.corpus.discover", "pipeline.run.decode_stage"),
    *("pyarrow.parquet", "pyarrow.json", "pyarrow.csv"),
)
"""What a process imports before it reads, also if it reads nothing."""


class What(StrEnum):
    """A kind of input; the module describes each."""

    SOUNDS = "sounds"
    SHARDS = "shards"
    TABLES = "tables"
    MANIFESTS = "manifests"
    DECODER = "decoder"


class Input(NamedTuple):
    """A file that is made to do harm, or an honest one that looks like it."""

    what: str
    name: str
    write: Callable[[Path], object]


# --- inputs -----------------------------------------------------------------------------------------------------------


def list_sounds(side: int, hours: float) -> Iterator[Input]:
    harmless = hostile_sounds.make_sound()
    yield Input("harmless: a second of wav", "harmless.wav", partial(_write, data=harmless))
    mp3, png = hostile_sounds.make_sound("MP3"), hostile_sounds.make_png(side)
    flac = hostile_sounds.claim_samples(hostile_sounds.make_sound("FLAC"))
    for n_covers in (1, 3):
        covered = hostile_sounds.with_pictures(mp3, [png] * n_covers)
        what = f"mp3 with {count(n_covers, 'cover')} of {side:,} x {side:,}"
        yield Input(what, f"{n_covers}.mp3", partial(_write, data=covered))
    for states_length, how in ((True, ""), (False, ", which states no length")):
        silence = hostile_sounds.make_silent_flac(36 * 3_600, states_length=states_length)
        yield Input(f"36 h of silence in 28 kB{how}", f"{states_length}.flac", partial(_write, data=silence))
    yield Input("a second whose header promises 397 h", "claim.flac", partial(_write, data=flac))
    thin = hostile_sounds.make_silent_flac(round(3_600 * hours))
    yield Input(f"honest: {hours:g} h of silence, as thin as FLAC can be", "thin.flac", partial(_write, data=thin))
    honest = partial(hostile_sounds.write_silence, hours=hours)
    yield Input(f"honest: {hours:g} h of silence, by libsndfile", "honest.flac", honest)


def list_shards() -> Iterator[Input]:
    write, special = hostile_tars.write_between, hostile_tars.make_special
    for name, kind in (("pax", tarfile.XHDTYPE), ("long-name", tarfile.GNUTYPE_LONGNAME)):
        header = hostile_tars.make_header("special", kind, 3 * GIB)
        what = f"tar with a {name} header of 3 GiB"
        yield Input(what, f"{name}.tar", partial(write, attack=header, zeros=3 * GIB))
    header = special(tarfile.XHDTYPE, b"2 " * 500_000)
    yield Input("tar with attributes that take quadratic time", "quadratic.tar", partial(write, attack=header))
    header = special(tarfile.XHDTYPE, hostile_tars.make_record("path", b"n" * 5_000 + b".wav"))
    member = hostile_tars.make_header("x.wav")
    yield Input("tar with a name of 5 kB", "name.tar", partial(write, attack=header + member))
    header = hostile_tars.make_header("x.wav", size=-512)
    yield Input("tar whose member has -512 bytes", "negative.tar", partial(write, attack=header))


def list_tables() -> Iterator[Input]:
    names = ["n" * 1_000_000] * 2_000
    yield Input("2,000 names of 1 MB", "names.parquet", partial(hostile_tables.write_bomb, names=names))
    many = list(map(str, range(200_000)))
    yield Input(
        "200,000 rows that share a byte of audio", "rows.parquet", partial(hostile_tables.write_bomb, names=many)
    )
    yield Input("15,000 rows that share five texts of 60 kB", "texts.parquet", hostile_tables.write_large_texts)
    yield Input("a page of 100 MiB in some kilobytes", "page.parquet", hostile_tables.write_large_page)
    yield Input("40 rows that share 8 MiB", "shared.parquet", hostile_tables.write_shared_sound)
    yield Input("20 rows of 50 MiB, compressed", "rows.arrow", hostile_tables.write_compressed_arrow)
    for n_columns in (9_000, 20_000):
        write = partial(hostile_tables.write_many_columns, n_columns=n_columns)
        yield Input(f"{n_columns:,} columns beside the audio", f"{n_columns}.parquet", write)


def list_manifests() -> Iterator[Input]:
    yield Input("5,000 names of 1 MiB", "names.parquet", hostile_tables.write_repeated_uris)
    yield Input("5,000,000 rows in some kilobytes", "rows.parquet", hostile_tables.write_many_rows)
    yield Input("missing lists of 1,048,576 values", "lists.parquet", hostile_tables.write_wide_list)
    yield Input("200,000 rows of JSON for 9,000 names", "sparse.jsonl", hostile_tables.write_sparse_json)
    yield Input("the same below a name of 1 MiB", "long.jsonl", hostile_tables.write_long_name_json)
    yield Input("a row of CSV with 400,000 cells", "wide.csv", hostile_tables.write_wide_csv)
    write = partial(hostile_tables.write_json_row, n_bytes=3 * GIB)
    yield Input("a row of JSON of 3 GiB", "row.jsonl", write)
    write = partial(hostile_tables.write_tiny_pages, n_rows=1_100_000)
    yield Input("1,100,000 pages of Parquet", "pages.parquet", write)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


# --- measuring --------------------------------------------------------------------------------------------------------


def read_nothing() -> dict[str, Any]:
    """The peak of memory of a process that has imported what ``read_source`` uses."""
    for name in READERS:
        import_module(name)
    return {"peak_bytes": read_memory()["VmHWM"]}


def read_source(source: str) -> dict[str, Any]:
    """List a source, read its metadata and decode its files. Returns what is said, the seconds on the clock and of
    processors, and the peak in bytes."""
    read_nothing()
    began, processor_s = time.perf_counter(), time.process_time()
    try:
        said = _summarize(*read_rows(source))
    except EarshotError as error:
        said = f"error: {error}"
    said = said.replace(f"{Path(source).parent}/", "")
    return {
        "said": said,
        "seconds": time.perf_counter() - began,
        "processor_s": time.process_time() - processor_s,
        "peak_bytes": read_memory()["VmHWM"],
    }


def read_rows(source: str) -> tuple[list[Row], Sequence[str]]:
    """The rows that a run would write of the files of a source, without clips, and the notes on its metadata.

    Raises:
        EarshotError: the source cannot be listed, or its metadata cannot be read.
    """
    import pyarrow as pa

    from pipeline.config import CorpusConfig, DecodeConfig, RunConfig
    from pipeline.corpus.corpus_file import CorpusFile
    from pipeline.corpus.discover import list_corpus
    from pipeline.corpus.metadata import read_metadata
    from pipeline.grid import Grid
    from pipeline.planning.batches import pack
    from pipeline.run.decode_stage import decode_batch

    config, manifests = CorpusConfig(), list[str]()
    listed = list_corpus([source], config, manifests=manifests)
    notes = read_metadata(listed, manifests, config, pa.schema([])).notes
    rows = listed.to_pylist()
    found = [row for row in rows if row["reason"]]
    files = [CorpusFile.of_listed(row) for row in rows if not row["reason"]]
    hours = RunConfig().max_file_hours
    for planned in pack([[file] for file in files], 300.0, "0" * 32).to_pylist():
        for block in decode_batch(planned, DecodeConfig(), Grid(250, 10), max_hours=hours):
            found += [row for of_content in block["files"].to_pylist() for row in of_content or []]
    return found, notes


def _summarize(rows: Sequence[Row], notes: Sequence[str]) -> str:
    counts = Counter(map(_describe, rows))
    said = [text if n == 1 else f"{n:,} times {text}" for text, n in counts.most_common(SAID)]
    said += [f"{count(len(counts) - SAID, 'other')}"] if len(counts) > SAID else []
    return "; ".join(said + ([f"{count(len(notes), 'note')} such as: {notes[0]}"] if notes else []))


def _describe(row: Row) -> str:
    told = f"{row['reason']}: {row['message']}" if row["reason"] else ""
    if row.get("status") != "indexed":
        return told
    return f"indexed, {row['duration_s']:,.1f} s" + (f" ({told})" if told else "")


def measure(folder: Path, inputs: Callable[[], Iterator[Input]], what: What) -> Iterator[Figure]:
    """Time and memory of each input, in a process of its own."""
    empty_mb = call_fresh(read_nothing)["peak_bytes"] / 1e6
    for each in inputs():
        source = folder / each.name
        each.write(source)
        found = call_fresh(read_source, str(source))
        detail = f"processor time {found['processor_s']:.2f} s; {found['said']}"
        yield Figure(what, f"{each.what}: time", found["seconds"], "s", None, detail)
        detail = f"an empty process {empty_mb:.0f} MB; the file {show_bytes(source.stat().st_size)}"
        limit_mb = round(empty_mb + MOST_MORE_BYTES / 1e6)
        yield Figure(what, f"{each.what}: memory", found["peak_bytes"] / 1e6, "MB", limit_mb, detail)
        source.unlink()


# --- a decoder that does not return -----------------------------------------------------------------------------------


def decode_forever(planned: Row, config: "DecodeConfig", grid: "Grid", *limits: Any) -> "Iterator[pa.Table]":
    """``decode_batch``, but native code that does not return stands in for the decoder of ``STUCK``."""
    from pipeline.run.decode_stage import decode_batch

    if any(uri.endswith(STUCK) for audio in planned["audios"] for uri in audio["uris"]):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    yield from decode_batch(planned, config, grid, *limits)


def run_stuck(folder: str, silence_s: str) -> dict[str, Any]:
    """A run of six files of which one does not come back. Returns what its row says, and the seconds."""
    import pipeline
    from pipeline.config import make_config
    from pipeline.run.driver import index_corpus
    from pipeline.run.workers import workers_on_ray

    into = f"{folder}-index"
    run = {"decoder_silence_s": float(silence_s)}
    config = make_config({"sources": [folder], "into": into, "run": run, "encode": {"device": "cpu"}})
    began = time.perf_counter()
    index_corpus(config, stages=workers_on_ray(decode=decode_forever))
    seconds = time.perf_counter() - began
    rows = pipeline.open(into).to_arrow("files").to_pylist()
    return {"said": _summarize(rows, []), "seconds": seconds}


def measure_decoder(folder: Path, silence_s: float) -> Iterator[Figure]:
    """A run in a process of its own."""
    from jobs.bench.sounds import make_sounds, write_sounds

    sounds = write_sounds(folder / "sounds", make_sounds(6, 2.0))
    (sounds / "00003.wav").rename(sounds / STUCK)
    found = call_fresh(run_stuck, str(sounds), str(silence_s))
    what = f"a decoder that does not return, limit {silence_s:g} s: the run"
    yield Figure(What.DECODER, what, found["seconds"], "s", None, found["said"])


def hostile(
    what: Annotated[list[What] | None, typer.Argument(help="Kinds of input; by default all.")] = None,
    side: Annotated[int, typer.Option(min=1, help="Pixels of the side of a cover.")] = 16_000,
    hours: Annotated[float, typer.Option(min=0.02, help="Length of honest silence.")] = 3.0,
    silence: Annotated[float, typer.Option(min=5, help="`run.decoder_silence_s`.")] = 10.0,
    json: Json = False,
) -> None:
    """Measure the time and memory that files take that are made to do harm: four minutes."""
    inputs: dict[What, Callable[[], Iterator[Input]]] = {
        What.SOUNDS: partial(list_sounds, side, hours),
        What.SHARDS: list_shards,
        What.TABLES: list_tables,
        What.MANIFESTS: list_manifests,
    }
    measurements: list[Callable[[Path], Iterator[Figure]]] = [
        partial(measure, inputs=inputs[each], what=each)
        if each in inputs
        else partial(measure_decoder, silence_s=silence)
        for each in what or What
    ]
    measure_and_report("what hostile files cost", measurements, json=json)
