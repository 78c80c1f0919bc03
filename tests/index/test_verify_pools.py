"""Pools that are missing, wrong or of nobody are found, and made of the stored frames again."""

from collections import Counter

import lance
import pyarrow as pa
import pytest

from pipeline.config import Config
from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.index.repair import mark_damaged
from pipeline.index.verify import verify_index
from pipeline.index.verify_deep import compare
from pipeline.run.driver import index_corpus
from tests.helpers.contents import check_pools
from tests.helpers.damage import Defect, append, first, publish, rewrite
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place


def longest(path: str) -> str:
    """The audio with the most pools."""
    [(audio_id, _)] = Counter(table(path, "pools").to_table()["audio_id"].to_pylist()).most_common(1)
    return str(audio_id)


def of_longest(path: str) -> str:
    return f"audio_id = '{longest(path)}'"


DEFECTS: dict[str, Defect] = {
    "an audio without pools": (lambda path: table(path, "pools").delete(of_longest(path)), "pools", "once"),
    "a pool that is missing": (
        lambda path: table(path, "pools").delete(f"{of_longest(path)} AND first_frame = 0"),
        "pools",
        "they do not hold each of the frames 0 to",
    ),
    "a pool that is there twice": (
        lambda path: append(path, "pools", f"{of_longest(path)} AND first_frame = 0"),
        "pools",
        "once",
    ),
    "a pool that holds too few frames": (
        lambda path: table(path, "pools").update({"n_frames": "n_frames - 1"}, where=of_longest(path)),
        "pools",
        "once",
    ),
    "a pool that is not finite": (
        lambda path: rewrite(path, "pools", of_longest(path), lambda vectors: vectors * float("nan")),
        "pools",
        "or are not finite",
    ),
    "pools of an unknown audio": (
        lambda path: append(path, "pools", of_longest(path), audio_id="f" * 32),
        "pools",
        "pools without a file",
    ),
    "pools of an unknown batch": (
        lambda path: table(path, "pools").update({"batch_id": f"'{'e' * 32}'"}, where=of_longest(path)),
        "pools",
        "their batch is not in the journal",
    ),
    "no pools at all": (lambda path: table(path, "pools").delete("true"), "pools", "once"),
}


@pytest.mark.parametrize("n_one_by_one", [0, 100])
@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found_and_mended_without_encoding(
    config: Config, defect: str, n_one_by_one: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.backfill.AUDIOS_TO_MEND", n_one_by_one)
    plant, name, said = DEFECTS[defect]
    plant(config.into)
    publish(config.into)
    findings = verify_index(config.into)
    assert any(finding.table == name and said in finding.what for finding in findings), findings
    assert mark_damaged(config.into, findings) == 0
    assert verify_index(config.into) == []
    check_pools(config.into)


@pytest.mark.parametrize(("frame", "begins"), [(1, "audio_id"), (0, None), (0, "e" * 32)])
def test_wrong_beginning_of_an_audio_is_found(config: Config, frame: int, begins: str | None) -> None:
    path = config.into
    rows = table(path, "frames").to_table(filter=of_longest(path)).to_pylist()
    rows[frame]["begins"] = rows[frame]["audio_id"] if begins == "audio_id" else begins
    changed = pa.Table.from_pylist(rows, schema=table(path, "frames").schema)
    table(path, "frames").delete(of_longest(path))
    lance.write_dataset(changed, journal.table_uri(path, "frames"), mode="append")
    publish(path)
    assert [each.what for each in verify_index(path) if each.audio_id is not None] == [
        "a vector is not finite, or a time or `begins` is wrong"
    ]


def test_vectors_that_are_no_means_are_found_by_comparing_with_frames(config: Config) -> None:
    rewrite(config.into, "pools", of_longest(config.into), lambda vectors: vectors + 0.1)
    assert [finding for finding in verify_index(config.into) if finding.table != "pools"] == []
    found = compare(open_index(config.into).live, WideEncoder(), None).findings
    assert {finding.table for finding in found} == {"pools"}
    assert "is not the mean of its frames" in found[0].what
    assert found[0].audio_id == longest(config.into)
    assert mark_damaged(config.into, found) == 0
    assert compare(open_index(config.into).live, WideEncoder(), None).findings == []
    check_pools(config.into)


def test_pools_of_damaged_frames_are_taken_out_with_them(config: Config) -> None:
    uri = first(config.into, "files", "uri", of_longest(config.into))
    table(config.into, "frames").delete(f"{of_longest(config.into)} AND frame = 0")
    table(config.into, "pools").delete(of_longest(config.into))
    publish(config.into)
    findings = [finding for finding in verify_index(config.into) if finding.uri is not None]
    assert {(finding.table, finding.uri) for finding in findings} == {("frames", uri), ("pools", uri)}
    assert mark_damaged(config.into, findings) == 1
    check_pools(config.into)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
    check_pools(config.into)
