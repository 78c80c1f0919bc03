"""The reference of a check is transformers' own, and both states of a text are read."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import EncodeConfig
from pipeline.encoder.encoder import load_encoder
from pipeline.encoder.parity import LARGEST_DIFFERENCE, cosine, relative
from pipeline.encoder.reference import TEXTS, Heard, find_models, make_reference
from pipeline.encoder.text_encoder import load_text_encoder
from tests.helpers.checkpoints import make_pe_audio
from tests.helpers.encoders import make_windows

pytestmark = pytest.mark.usefixtures("one_thread")


def settings(clip: Path, frame: Path | None = None) -> EncodeConfig:
    return EncodeConfig(clip_model=str(clip), frame_model=frame and str(frame), device="cpu", precision="float32")


def test_clip_model_serves_frames_where_no_frame_model_is_named(one: Path, two: Path) -> None:
    assert [(model.role, model.name) for model in find_models(settings(one))] == [
        ("clip", str(one)),
        ("frame", str(one)),
    ]
    assert [model.name for model in find_models(settings(one, two))] == [str(one), str(two)]


@pytest.mark.parametrize("normed", [True, False])
def test_reference_matches_earshot_for_sounds_and_texts(normed: bool, tmp_path: Path) -> None:
    text: dict[str, Any] = {"tie_last_hidden_states": True} if normed else {}
    folder = make_pe_audio(tmp_path, text=text)
    models, sounds = find_models(settings(folder)), make_windows([5, 5])
    heard = Heard.of(load_encoder(settings(folder)), sounds, models)
    for model in models:
        reference = make_reference(model, sounds, "cpu")
        assert relative(heard.audio[model.role], reference.audio) < LARGEST_DIFFERENCE
        read, other = (reference.after_norm, reference.before_norm)[:: 1 if normed else -1]
        assert relative(load_text_encoder(str(folder)).embed(TEXTS), read) < LARGEST_DIFFERENCE
        assert cosine(read, other).max() < 0.99
