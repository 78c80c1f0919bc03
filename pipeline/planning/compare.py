"""Compares a file with its ledger row: whether it is as it was, and why it is decoded if it is not."""

from pipeline.audio.decoder_versions import Correction
from pipeline.corpus.corpus_file import CorpusFile, has_size
from pipeline.schema import Row


def looks_unchanged(row: Row, old: Row) -> bool:
    """Whether a LISTED row says what the ledger says; a file that cannot be listed, that it still cannot be."""
    if row["reason"] is not None:
        return bool(old["status"] == "failed" and old["reason"] == row["reason"])
    return is_as_it_was(row, old)


def is_as_it_was(file: CorpusFile | Row, old: Row) -> bool:
    """Whether size and time are those of a ledger row that depends on the bytes."""
    # Where a store tells no time, only the bytes say whether it is the same file.
    same_time = file["modified_ns"] != 0 and old["modified_ns"] == file["modified_ns"]
    return bool(has_same_size(file, old) and same_time and is_of_its_bytes(old))


def is_same(file: CorpusFile, old: Row) -> bool:
    """Whether a file has the bytes of its ledger row: by their hashes, or by size and time where one is unknown."""
    if file.content_hash is not None and old["content_hash"] is not None:
        return bool(file.content_hash == old["content_hash"])
    return is_as_it_was(file, old)


def has_same_size(file: CorpusFile | Row, old: Row) -> bool:
    """Whether a file is as large as the ledger has it, or has no size before it is read."""
    return bool(not has_size(file["uri"], file["offset"]) or old["size_bytes"] == file["size_bytes"])


def is_of_its_bytes(old: Row) -> bool:
    """Whether a ledger row depends on the bytes alone. "Could not be read" does not: the file may be readable now."""
    return bool(old["status"] == "indexed" or (old["status"] == "failed" and old["stage"] in ("decode", "encode")))


def explain_decoding(
    file: CorpusFile, old: Row | None, group: list[CorpusFile], correction: Correction | None
) -> tuple[str, str]:
    """The action and reason for a file that is decoded, or that shares the decoding of another file in ``group``."""
    if correction:
        return "redecoded" if file.stored is None else "examined", correction.what
    if group:
        return "duplicate", f"has the bytes of {group[0].uri}"
    if old is None:
        return "new", "not in the index"
    if old["status"] == "failed" and not is_of_its_bytes(old):
        return "retried", f"could not be read before: {old['reason']}"
    if is_same(file, old):
        return "retried", "asked for" if old["status"] == "indexed" else f"failed before: {old['reason']}"
    if not has_same_size(file, old):
        return "changed", "another size"
    return "changed", "another time" if None in (file.content_hash, old["content_hash"]) else "other bytes"
