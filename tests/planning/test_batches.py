"""Contents are packed into batches, longest first."""

from dataclasses import asdict
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schema
from pipeline.corpus.corpus_file import CorpusFile, ExaminedFile, Stored
from pipeline.planning.batches import MAX_FILES_PER_BATCH, group_copies, group_rows, pack, pack_alone
from pipeline.planning.file_rows import copied_row, deleted_row
from pipeline.planning.plan import Plan
from pipeline.schema import Row
from tests.helpers.plans import known_row

RANGES = {"": (None, None), "#t=,1": (None, 1.0), "#t=1": (1.0, None), "#t=0.5,2": (0.5, 2.0)}
RECORDINGS = ("a.wav", "b.opus", "c.wav", "d.wav", "p.parquet#0", "p.parquet#1", "q.arrow#0")


def make_file(recording: str, part: str = "", estimated_s: float = 1.0) -> CorpusFile:
    offset = int(recording.split("#")[1]) if "#" in recording else None
    return CorpusFile(f"{recording}{part}", *RANGES[part], 9, 1, offset, estimated_s=estimated_s)


def audios_of(batches: pa.Table) -> list[list[list[str]]]:
    """By batch, the uris of each content."""
    return [[audio["uris"] for audio in row["audios"]] for row in batches.to_pylist()]


files = st.builds(
    make_file, st.sampled_from(RECORDINGS), st.sampled_from(sorted(RANGES)), st.sampled_from([0.5, 1, 4, 9])
)


@given(
    files=st.lists(files, unique_by=lambda file: file.uri),
    copies=st.dictionaries(st.integers(0, 9), st.integers(1, 2)),
    batch_s=st.sampled_from([1.0, 4.0, 20.0]),
)
def test_batches_hold_each_content_once_within_bounds(
    files: list[CorpusFile], copies: dict[int, int], batch_s: float
) -> None:
    contents = [[file] for file in files]
    for number, files_of in enumerate(contents):
        files_of += [make_file(f"copy{number}.{k}.wav") for k in range(copies.get(number, 0))]
    batches = pack(contents, batch_s, "run")
    assert batches["batch_id"].to_pylist() == [schema.make_batch_id("run", k + 1) for k in range(batches.num_rows)]
    packed = audios_of(batches)
    assert sorted(uris for audios in packed for uris in audios) == sorted(
        [file.uri for file in files_of] for files_of in contents
    )
    for row in batches.to_pylist():
        assert len(row["audios"]) == 1 or sum(audio["estimated_s"] for audio in row["audios"]) <= batch_s

    seconds = [audio["estimated_s"] for row in batches.to_pylist() for audio in row["audios"]]
    if not any(file.time_range for file in files):
        assert seconds == sorted(seconds, reverse=True)
        sums = [[audio["estimated_s"] for audio in row["audios"]] for row in batches.to_pylist()]
        # Not needlessly many: the first content of a batch would not have fitted into the one before.
        assert all(sum(a) + b[0] > batch_s for a, b in pairwise(sums))


def test_contents_that_are_only_examined_are_packed_more_densely() -> None:
    """Unless another file needs the content encoded."""
    plain = [[make_file(f"{number}.wav", estimated_s=10.0)] for number in range(100)]
    examined: list[list[CorpusFile]] = [
        [ExaminedFile(**asdict(file), stored=Stored(1, 10.0, None)) for file in files] for files in plain
    ]
    mixed = [[*files, make_file(f"copy of {files[0].uri}", estimated_s=10.0)] for files in examined]
    assert [pack(contents, 100.0, "run").num_rows for contents in (plain, examined, mixed)] == [17, 4, 17]
    looks = [audio["look"] for row in pack(mixed, 100.0, "run").to_pylist() for audio in row["audios"]]
    assert set(looks) == {None}


@pytest.mark.parametrize("other", [Stored(2, 10.0, "a note"), Stored(2, 9.0, None)])
def test_content_of_which_the_index_says_two_things_is_not_examined(other: Stored) -> None:
    def look(*stored: Stored) -> list[tuple[int | None, float | None, str | None]]:
        files = [ExaminedFile(**asdict(make_file("a.wav")), stored=each) for each in stored]
        audios = [audio for row in pack([[*files]], 100.0, "run").to_pylist() for audio in row["audios"]]
        return [(audio["look"], audio["stored_s"], audio["stored_note"]) for audio in audios]

    assert look(Stored(1, 10.0, None), other) == [(None, None, None)]
    assert look(other, other._replace(look=1)) == [other]


def test_rows_of_a_table_are_packed_in_their_order() -> None:
    """They are read one after the other; ranges of a recording are, too."""
    table = [[make_file(f"p.parquet#{number}")] for number in (10, 2, 1)]
    assert audios_of(pack(table, 100.0, "run")) == [[[f"p.parquet#{number}"] for number in (1, 2, 10)]]
    ranges = [[make_file("a.wav", part)] for part in ("#t=1", "#t=,1", "#t=0.5,2")]
    assert audios_of(pack(ranges, 100.0, "run")) == [[["a.wav#t=,1"], ["a.wav#t=0.5,2"], ["a.wav#t=1"]]]


@pytest.mark.parametrize("batch_s", [30.0, 60.0, 100.0])
def test_ranges_of_a_recording_share_a_batch_if_they_fit_into_one(batch_s: float) -> None:
    others = [[make_file(f"{k}.wav", estimated_s=20.0)] for k in range(5)]
    ranges = [[make_file("a.wav", part, 10.0)] for part in RANGES]
    packed = audios_of(pack(others + ranges, batch_s, "run"))
    assert sum(any(uris[0].startswith("a.wav") for uris in audios) for audios in packed) == (2 if batch_s < 40 else 1)


@given(lengths=st.lists(st.integers(1, 3), max_size=6), data=st.data())
def test_contents_of_lost_batches_are_packed_alone(lengths: list[int], data: st.DataObject) -> None:
    contents = [[make_file(f"{k}.wav", estimated_s=10.0)] for k in range(sum(lengths))]
    batches = pack(contents, 30.0, "run")
    ids = batches["batch_id"].to_pylist()
    lost = data.draw(st.sets(st.sampled_from(ids))) if ids else set[str]()
    alone = pack_alone(batches, lost, "run", batches.num_rows)
    expected = [audio for row in batches.to_pylist() if row["batch_id"] in lost for audio in row["audios"]]
    assert alone["audios"].to_pylist() == [[audio] for audio in expected]
    assert alone["part"].to_pylist() == [{"first": 0, "stop": None}] * len(expected)
    assert not set(ids) & set(alone["batch_id"].to_pylist())


def test_batches_hold_a_limited_number_of_files() -> None:
    most = MAX_FILES_PER_BATCH
    alone = [[make_file(f"{k}.wav", estimated_s=1e-3)] for k in range(most + 1)]
    assert list(map(len, audios_of(pack(alone, 1e9, "run")))) == [most, 1]
    same = [[make_file(f"{k}.wav", estimated_s=1e-3) for k in range(most + 1)], [make_file("x.wav", estimated_s=1e-4)]]
    assert audios_of(pack(same, 1e9, "run")) == [[[file.uri for file in files]] for files in same]


def test_a_small_corpus_is_packed_into_several_batches() -> None:
    def count(n_files: int, seconds: float, batch_s: float = 300.0) -> list[float]:
        contents = [[CorpusFile(f"{k}.wav", None, None, 1, 0, None, estimated_s=seconds)] for k in range(n_files)]
        rows = pack(contents, batch_s, "0" * 32).to_pylist()
        return [len(row["audios"]) * seconds for row in rows]

    assert count(24, 10.0) == [30.0] * 8
    assert count(3, 5.0) == [15.0]
    assert count(100, 10.0) == [60.0] * 16 + [40.0]
    assert count(1000, 10.0) == [300.0] * 33 + [100.0]
    assert count(100, 10.0, batch_s=20.0) == [20.0] * 50


# --- groups of rows that need no decoding -----------------------------------------------------------------------------


URIS = [f"{name}.wav" for name in "abcdef"]


@given(
    before=st.dictionaries(st.sampled_from(URIS), st.sampled_from(["one", "two", "three"])),
    moves=st.dictionaries(st.sampled_from(URIS), st.integers(0, 5)),
    max_files=st.integers(1, 4),
    max_rows=st.integers(1, 6),
)
def test_a_copy_shares_its_group_with_whatever_becomes_of_its_holder(
    before: dict[str, str], moves: dict[str, int], max_files: int, max_rows: int
) -> None:
    """Files swap places, move on in chains, and are copied several times."""
    rows = {uri: known_row(uri, content, 1) for uri, content in before.items()}
    plan = Plan(deleted=[deleted_row(row) for uri, row in rows.items() if uri not in moves])
    for uri, number in moves.items():
        holder = rows[sorted(rows)[number % len(rows)]] if rows else None
        if holder is not None and holder["uri"] != uri:
            plan.copies.append((copied_row(holder, uri, 2), holder["file_id"]))
            plan.holders[holder["uri"]] = holder["file_id"]
    groups = list(group_copies(plan, max_rows, max_files))
    copied = [row["uri"] for copies, _ in groups for row, _ in copies]
    assert sorted(copied) == sorted(row["uri"] for row, _ in plan.copies)
    taken = [row["uri"] for _, deleted in groups for row in deleted]
    assert sorted(taken) == sorted({row["uri"] for row in plan.deleted} & plan.holders.keys())

    place = {row["uri"]: number for number, (copies, _) in enumerate(groups) for row, _ in copies}
    place |= {row["uri"]: number for number, (_, deleted) in enumerate(groups) for row in deleted}
    uri_of = {row["file_id"]: uri for uri, row in rows.items()}
    for row, holder_id in plan.copies:
        assert place.get(uri_of[holder_id], place[row["uri"]]) == place[row["uri"]]


def test_unrelated_copies_are_grouped_within_bounds() -> None:
    holder = known_row("a.wav", "one", 1) | {"n_clips": 3}
    plan = Plan(copies=[(copied_row(holder, f"{k}.wav", 1), holder["file_id"]) for k in range(5)])
    plan.holders = {"a.wav": holder["file_id"]}
    assert [len(copies) for copies, _ in group_copies(plan, 1_000, 2)] == [2, 2, 1]
    assert [len(copies) for copies, _ in group_copies(plan, 6, 1_000)] == [2, 2, 1]


@given(n_clips=st.lists(st.integers(0, 9), max_size=9), max_clips=st.integers(1, 12), max_files=st.integers(1, 4))
def test_ledger_rows_are_grouped_in_order_within_bounds(n_clips: list[int], max_clips: int, max_files: int) -> None:
    rows: list[Row] = [{"n_clips": n} for n in n_clips]
    groups = list(group_rows(rows, max_clips, max_files))
    assert [row for group in groups for row in group] == rows
    for group in groups:
        assert len(group) <= max_files
        assert len(group) == 1 or sum(row["n_clips"] for row in group) <= max_clips
