"""Ids depend on exactly what they identify, and never change between versions."""

import pyarrow as pa
import pytest

from pipeline import schema


def test_ids_of_an_existing_index_stay() -> None:
    assert schema.digest("audio", "00") == schema.make_audio_id("00")
    assert schema.make_audio_id("00") == "0b7eb460a69152880e41e7652cdd56b6"
    assert schema.make_audio_id("00", "#t=1,2", "raw=gsm,8000") == "aa6c7eaedf8963c4486ed4d8a7644a71"
    assert (
        schema.make_file_id("/a.wav", None) == schema.make_file_id("/a.wav", "") == "8964dba61937d10797d92a4c15cd0bba"
    )
    assert schema.make_batch_id("run", 3) == "4195804b1e98cd26927f58e9eaa9b881"
    assert schema.make_clip_id("file", 240) == "a33607400965cb0fc9184c56d611ac3f"


@pytest.mark.parametrize(("one", "other"), [(("ab", "c"), ("a", "bc")), (("a", ""), ("a",)), (("é",), ("e\u0301",))])
def test_boundaries_and_letters_of_parts_count(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert schema.digest(*one) != schema.digest(*other)
    assert len(schema.digest(*one)) == 32


def test_columns_that_are_not_reserved_are_metadata() -> None:
    table = pa.schema([*schema.FILES, ("mic", pa.string())])
    assert schema.metadata_columns(table) == pa.schema([("mic", pa.string())])
    assert schema.without(table, "mic") == schema.FILES


def test_each_format_adds_at_least_two_nullable_columns() -> None:
    for names in schema.FILES_SINCE.values():
        assert len(names) >= 2
        assert all(schema.FILES.field(name).nullable for name in names)
