"""Which runs may write to an index: those whose settings give the same vectors."""

from typing import Any

import pytest

from pipeline.config import make_config
from pipeline.errors import ConfigError, IndexMismatch
from pipeline.index.settings import check_settings, index_settings, known_values

SMALLEST = {"into": "/index", "sources": ["/sounds"]}
CLIP = {"name": "tiny", "revision": None, "checksum": "a" * 32, "dimension": 8, "logit_scale": 1.5}
FRAME = CLIP | {"name": "frames", "checksum": "b" * 32, "tokenizer": "d" * 32}


def made(clip: Any = CLIP, frame: Any = FRAME, **sections: Any) -> dict[str, Any]:
    return index_settings(make_config(SMALLEST | sections), clip, frame)


def test_settings_of_the_same_vectors_agree() -> None:
    stored = made()
    check_settings("x", stored, made())
    moved = CLIP | {"name": "/elsewhere/tiny", "revision": "abc"}
    others: dict[str, Any] = {"encode": {"device": "cpu", "batch_windows": 3}, "run": {"batch_s": 9}}
    check_settings("x", stored, made(moved, corpus={"hidden": True}, store={"checkpoint_rows": 5}, **others))
    check_settings("x", made(frame=None, store={"frames": "none"}), made(frame=None, store={"frames": "none"}))


def test_index_from_before_tokenizers_were_stored_accepts_any() -> None:
    assert "tokenizer" not in CLIP
    check_settings("x", made(), made(CLIP | {"tokenizer": "e" * 32}))
    with pytest.raises(IndexMismatch, match="weights cccccccc"):
        check_settings("x", made(), made(CLIP | {"tokenizer": "e" * 32, "checksum": "c" * 32}))


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        (made(clip=CLIP | {"checksum": "c" * 32}), ["clip_model tiny (weights aaaaaaaa), not tiny (weights cccccccc)"]),
        (made(clip=CLIP | {"logit_scale": 2.0}), ["clip_model"]),
        (
            made(frame=FRAME | {"tokenizer": "e" * 32}),
            ["frame_model frames and its tokenizer (dddddddd), not that of frames (eeeeeeee), whose weights are"],
        ),
        (made(frame=CLIP), ["frame_model frames", "not tiny"]),
        (made(frame=None, store={"frames": "none"}), ["frame_model frames", "not none", "frames all, not none"]),
        (made(window={"length_s": 5.0}), ["window", "10.0", "5.0"]),
        (made(decode={"resampler": "VHQ"}), ["decode", "'HQ'", "'VHQ'"]),
    ],
)
def test_settings_of_other_vectors_are_refused_with_the_difference(other: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(IndexMismatch) as error:
        check_settings("/index", made(), other)
    assert str(error.value).startswith("/index: built with ")
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_that_were_retired_are_left_out_of_a_stored_configuration() -> None:
    config = make_config({"sources": ["a"], "into": "b", "run": {"batch_s": 7}, "store": {"frames": "none"}})
    stored = config.model_dump(mode="json")
    older = stored | {
        "colour": "blue",
        "run": {**stored["run"], "haste": 3},
        "store": {**stored["store"], "old": {"x": 1}},
    }
    assert known_values(stored) == stored
    assert known_values(older) == stored
    assert make_config(known_values(older)) == config
    with pytest.raises(ConfigError, match="unknown key `colour`"):  # in a file that somebody writes it is a mistake
        make_config(older)
