"""The column of audio is found by its type, its name and what `datasets` writes about it."""

import pyarrow as pa
import pytest

from pipeline.corpus.audio_column import NoAudioError, find_column
from pipeline.errors import CorpusError
from tests.helpers.shards import AUDIO, feature


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"sound": pa.binary()}, "sound"),
        ({"sound": pa.large_binary(), "path": pa.string()}, "sound"),
        ({"sound": AUDIO, "label": pa.string()}, "sound"),
        ({"audio": AUDIO, "picture": AUDIO}, "audio"),
        ({"uri": pa.string(), "audio": pa.binary()}, "audio"),
        ({"uri": pa.string(), "picture": pa.binary()}, None),
        ({"label": pa.string()}, None),
        ({"sound": pa.struct([("bytes", pa.string())])}, None),
    ],
)
def test_audio_column_is_found_by_type_and_name(columns: dict[str, pa.DataType], chosen: str | None) -> None:
    schema = pa.schema(list(columns.items()))
    if chosen is None:
        with pytest.raises(NoAudioError):
            find_column(schema)
    else:
        assert find_column(schema).data.split(".")[0] == chosen


def test_features_of_datasets_name_the_audio_column() -> None:
    struct = [("picture", AUDIO), ("voice", AUDIO), ("noise", AUDIO)]
    assert find_column(pa.schema(struct, metadata=feature("voice"))).data == "voice.bytes"
    with pytest.raises(CorpusError, match=r"several columns hold bytes \(voice, noise\): call the one with audio"):
        find_column(pa.schema(struct, metadata=feature("voice", "noise")))
    odd = {b"huggingface": b'{"info": {"features": [1]}}'}
    assert find_column(pa.schema(struct[:1], metadata=odd)).data == "picture.bytes"
