"""Meta's package gets the sounds and tokens of a check, and its embeddings come back by role."""

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from pipeline.encoder.checkpoint import find_checkpoint
from pipeline.encoder.loading import load_tokenizer
from pipeline.encoder.parity import LARGEST_DIFFERENCE, relative
from pipeline.encoder.perception_models import embed, find
from pipeline.encoder.text_encoder import load_text_encoder
from tests.helpers.encoders import TEXTS, load, make_windows
from tests.helpers.perception_models import FakePerceptionModels

pytestmark = pytest.mark.usefixtures("one_thread")


def is_installed() -> bool:
    try:
        metadata.version("perception_models")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(is_installed(), reason="perception_models is installed")
def test_package_that_is_not_installed_is_none() -> None:
    assert find() is None


def test_embeddings_come_by_role_and_texts_from_the_state_before_the_norm(one: Path) -> None:
    sounds = make_windows([5, 5])
    tokens = [load_tokenizer(find_checkpoint(str(one), None))(text)["input_ids"] for text in TEXTS[:2]]
    clips, frames = load(one).encode(sounds)
    expected = {"clip": clips, "frame": np.stack(frames or [])}
    for role, rows in expected.items():
        package = FakePerceptionModels(one)
        audio, texts = embed(package, role, "facebook/pe-av-tiny", sounds, tokens)
        assert package.asked == ["pe-av-tiny"]
        assert audio.shape == rows.shape
        assert relative(audio, rows) < LARGEST_DIFFERENCE
        assert relative(texts, load_text_encoder(str(one)).embed(TEXTS[:2])) < LARGEST_DIFFERENCE
