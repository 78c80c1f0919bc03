"""Each row has every column of ``files``, fits its types, and says what became of the file."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.audio.decoder_versions import DECODER, find_correction
from pipeline.corpus.corpus_file import CorpusFile
from pipeline.errors import FileFailure
from pipeline.planning.file_rows import (
    copied_row,
    damaged_row,
    deleted_row,
    empty_row,
    failed_row,
    indexed_row,
    lost_rows,
    mtime_changed_row,
    unreadable_row,
    with_checksums,
)
from pipeline.schema import Row

AUDIO_ID = schema.make_audio_id("hash")
DECODED = empty_row("/a.wav", AUDIO_ID) | {"size_bytes": 9, "modified_ns": 1, "content_hash": "hash", "n_clips": 2}
DECODED |= {"duration_s": 1.0, "codec": "pcm"}
INDEXED = with_checksums(indexed_row(DECODED, 25, None), 7, 8)
FAILURE = FileFailure("decode", "corrupt", "why")


def differences(row: Row, other: Row) -> dict[str, Any]:
    """The columns of ``row`` that ``other`` has differently. Both must be whole rows of ``files``."""
    files = schema.without(schema.FILES, "batch_id")
    assert row.keys() == other.keys() == set(files.names)
    assert pa.Table.from_pylist([row], schema=files).to_pylist() == [row]
    return {name: value for name, value in row.items() if value != other[name]}


def test_an_empty_row_has_ids_and_nothing_else() -> None:
    file_id = schema.make_file_id("/a.wav", AUDIO_ID)
    expected = {"uri": "/a.wav", "audio_id": AUDIO_ID, "file_id": file_id, "n_clips": 0, "n_frames": 0}
    row = empty_row("/a.wav", AUDIO_ID)
    assert {name: value for name, value in row.items() if value is not None} == expected
    row["n_clips"] = 3
    assert empty_row("/a.wav", AUDIO_ID)["n_clips"] == 0


def test_a_truncated_file_is_indexed_with_a_reason() -> None:
    indexed = {"status": "indexed", "n_frames": 25}
    assert differences(indexed_row(DECODED, 25, None), DECODED) == indexed
    why = {"stage": "decode", "reason": "truncated", "message": "half of it"}
    assert differences(indexed_row(DECODED, 25, "half of it"), DECODED) == indexed | why


def test_an_index_without_frames_has_no_frames_of_an_encoded_file() -> None:
    row = indexed_row(DECODED, 25, None)
    assert differences(with_checksums(row, 7, 8), row) == {"clips_checksum": 7, "frames_checksum": 8}
    assert differences(with_checksums(row, 7, None), row) == {"clips_checksum": 7, "n_frames": 0}


def test_a_copy_has_the_content_of_its_holder_at_its_own_place() -> None:
    file_id = schema.make_file_id("/b.wav", AUDIO_ID)
    expected = {"uri": "/b.wav", "file_id": file_id, "modified_ns": 5}
    assert differences(copied_row(INDEXED, "/b.wav", 5), INDEXED) == expected
    assert differences(mtime_changed_row(INDEXED, 5), INDEXED) == {"modified_ns": 5}


def test_a_failure_keeps_what_was_learnt_of_the_file() -> None:
    why = {"status": "failed", "stage": "decode", "reason": "corrupt", "message": "why", "n_clips": 0}
    assert differences(failed_row(DECODED, FAILURE), DECODED) == why


@pytest.mark.parametrize(("uri", "size_bytes"), [("/a.wav", 9), ("/a.tar#b.wav", 9), ("/a.parquet#0", None)])
def test_an_unreadable_file_has_no_content(uri: str, size_bytes: int | None) -> None:
    file = CorpusFile(uri, None, None, 9, 1, None)
    known = {"size_bytes": size_bytes, "modified_ns": 1, "status": "failed"}
    known |= {"stage": "decode", "reason": "corrupt", "message": "why"}
    row = unreadable_row(file, FAILURE)
    assert differences(row, empty_row(uri, None)) == {name: value for name, value in known.items() if value is not None}
    assert unreadable_row({"uri": uri, "size_bytes": 9, "modified_ns": 1}, FAILURE) == row


def test_all_files_of_lost_batches_fail() -> None:
    rows = [
        {"batch_id": batch_id, "audios": [{"size_bytes": 9, "uris": uris, "modified_ns": [1] * len(uris)}]}
        for batch_id, uris in (("0", ["/a.wav"]), ("1", ["/b.wav", "/c.gsm"]))
    ]
    lost = lost_rows(pa.Table.from_pylist(rows, schema=schema.PLANNED), {"1"}, FAILURE)
    unreadable = [unreadable_row(CorpusFile(uri, None, None, 9, 1, None), FAILURE) for uri in ("/b.wav", "/c.gsm")]
    assert lost == [row | {"decoder": DECODER} for row in unreadable]


def test_lost_file_is_not_decoded_again_for_corrections_that_were_made_before() -> None:
    audios = [{"size_bytes": 9, "uris": ["/a.g722", "/b.gsm"], "modified_ns": [1, 1]}]
    planned = pa.Table.from_pylist([{"batch_id": "0", "audios": audios}], schema=schema.PLANNED)
    lost = lost_rows(planned, {"0"}, FileFailure("decode", "crashed", "why"))
    assert [find_correction(row) for row in lost] == [None, None]
    assert None not in [find_correction(row | {"decoder": None}) for row in lost]


def test_a_damaged_file_is_read_again_and_a_deleted_one_stays_deleted() -> None:
    row = damaged_row(INDEXED)
    assert (row["status"], row["stage"], row["reason"]) == ("failed", "read", "damaged")
    assert (row["audio_id"], row["content_hash"], row["n_clips"], row["n_frames"]) == (None, None, 0, 0)
    assert (row["uri"], row["size_bytes"], row["modified_ns"]) == ("/a.wav", 9, 1)
    deleted = deleted_row(INDEXED)
    assert damaged_row(deleted | {"n_clips": 2}) == deleted


def test_a_deleted_file_keeps_what_was_known_of_it() -> None:
    deleted = {"status": "deleted", "n_clips": 0, "n_frames": 0, "clips_checksum": None, "frames_checksum": None}
    assert differences(deleted_row(INDEXED), INDEXED) == deleted
    assert differences(deleted_row(failed_row(DECODED, FAILURE)), DECODED) == {"status": "deleted", "n_clips": 0}
