"""Texts are embedded from the state that a checkpoint was trained with, whatever transformers' forward does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import PeAudioFeatureExtractor, PeAudioModel, PreTrainedTokenizerFast

from jobs.tiny.evaluate import encode_texts
from jobs.tiny.evaluate import load as load_for_the_exam
from jobs.tiny.network import build_config
from pipeline.encoder.checkpoint import find_checkpoint, read_identity
from pipeline.encoder.text_encoder import TransformersTower, load_text_encoder
from pipeline.errors import ModelError, UsageError
from tests.helpers.checkpoints import build_model, edit_settings, make_pe_audio, make_pe_audio_video
from tests.helpers.encoders import TEXTS, assert_close, cosine

KEY = "tie_last_hidden_states"
LARGEST_DIFFERENCE = 1e-5

pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[..., Path]


def embed_by_layers(folder: Path, text: str, normed: bool) -> Any:
    """The embedding (D,) of a text, computed layer by layer with the model that the checkpoint was made from."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = build_model(0)
    tower = model.text_model
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    x = tower.embeddings(input_ids=ids)
    positions = torch.arange(ids.shape[1])[None]
    apart = (positions[0][:, None] - positions[0]).abs()
    seen = {
        "full_attention": torch.zeros(apart.shape),
        "sliding_attention": torch.where(apart <= model.config.text_config.local_attention // 2, 0.0, -torch.inf),
    }
    for layer in tower.layers:
        turns = tower.rotary_emb(x, positions, layer.attention_type)
        x = layer(x, attention_mask=seen[layer.attention_type][None, None], position_embeddings=turns)
    if normed:
        x = tower.final_norm(x)
        torch.testing.assert_close(x, tower(input_ids=ids).last_hidden_state, rtol=1e-4, atol=1e-4)
    return model.text_audio_head(x[:, 0])[0].numpy()


def write_key(folder: Path, value: Any) -> Path:
    """Write into config.json which state is read; ``...`` omits the key."""
    text = json.loads((folder / "config.json").read_text())["text_config"]
    text.pop(KEY, None)
    return edit_settings(folder, text_config=text if value is ... else text | {KEY: value})


@pytest.mark.parametrize("make", [make_pe_audio, make_pe_audio_video])
@pytest.mark.parametrize(("value", "normed"), [(..., False), (None, False), (False, False), (True, True)])
def test_text_is_read_before_the_final_norm_unless_the_checkpoint_says_otherwise(
    make: Make, value: Any, normed: bool, tmp_path: Path
) -> None:
    folder = write_key(make(tmp_path), value)
    embeddings = load_text_encoder(str(folder)).embed(TEXTS)
    exam = encode_texts(*load_for_the_exam(folder), TEXTS)
    for text, embedding, other_way in zip(TEXTS, embeddings, exam, strict=True):
        expected, wrong = (embed_by_layers(folder, text, state) for state in (normed, not normed))
        assert np.linalg.norm(embedding - expected) < LARGEST_DIFFERENCE * np.linalg.norm(expected)
        assert np.linalg.norm(other_way - expected) < LARGEST_DIFFERENCE * np.linalg.norm(expected)
        assert embedding @ wrong / np.linalg.norm(embedding) / np.linalg.norm(wrong) < 0.99


@pytest.mark.skipif(
    tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 18), reason="this transformers ignores the key"
)
@pytest.mark.parametrize("value", [True, False])
def test_text_embeddings_match_a_transformers_that_knows_the_key(value: bool, tmp_path: Path) -> None:
    folder = write_key(make_pe_audio(tmp_path), value)
    sound = PeAudioFeatureExtractor()([np.zeros(1920, np.float32)], sampling_rate=48_000, return_tensors="pt")
    for text in TEXTS:
        ids = PreTrainedTokenizerFast.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
        made = PeAudioModel.from_pretrained(folder).eval()(input_ids=ids, input_values=sound["input_values"])
        expected = made.text_audio_embeds[0].numpy()
        embedding = load_text_encoder(str(folder)).embed([text])[0]
        assert np.linalg.norm(embedding - expected) < LARGEST_DIFFERENCE * np.linalg.norm(expected)


@pytest.mark.parametrize("value", ["true", 1, []])
def test_other_values_of_the_key_are_refused(value: Any, tmp_path: Path) -> None:
    folder = write_key(make_pe_audio(tmp_path), value)
    with pytest.raises(ModelError, match=rf"config.json: text_config.{KEY} is .*, not true or false") as caught:
        load_text_encoder(str(folder))
    assert "\n" not in str(caught.value)


def test_key_does_not_change_the_checksum(tmp_path: Path) -> None:
    """A checkpoint may get the key after its index was made: no sound's vector depends on it."""
    folder = make_pe_audio(tmp_path)
    found = {read_identity(str(write_key(folder, value))).checksum for value in (..., True, False)}
    assert len(found) == 1


def test_another_kind_of_text_tower_is_refused(tmp_path: Path) -> None:
    folder = make_pe_audio(tmp_path)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_settings(folder, text_config={"model_type": "bert", "hidden_size": text["hidden_size"]})
    with pytest.raises(ModelError, match="reads texts with bert; only modernbert can be used"):
        load_text_encoder(str(folder))


def test_the_bundled_model_keeps_its_vectors_and_its_checksum() -> None:
    """It was trained on the state after the norm, and existing indexes know it by this checksum."""
    identity = read_identity("earshot-tiny")
    assert identity.checksum == "f8a77fb0a78c9e038f232cdc158cd3471fb21123de878db7e45b8a7233c5c3b4"
    embedding = load_text_encoder("earshot-tiny").embed(["a bell"])[0]
    np.testing.assert_allclose(embedding[:3], [0.27873695, -0.00070687, 0.0019683], atol=1e-5)


def test_training_writes_the_key(tmp_path: Path) -> None:
    build_config().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["text_config"][KEY] is True


def test_a_text_does_not_depend_on_its_batch(one: Path) -> None:
    encoder = load_text_encoder(str(one))
    together = encoder.embed(TEXTS)
    assert_close(together, np.concatenate([encoder.embed([text]) for text in TEXTS]))
    assert cosine(together[:-1], together[1:]) < 0.9


def test_a_tower_of_transformers_holds_no_audio_weights(one: Path) -> None:
    model = build_model()
    read = [p for name, p in model.named_parameters() if name.startswith("text_") and "final_norm" not in name]
    text = sum(p.numel() for p in read)
    held = TransformersTower(find_checkpoint(str(one), None)).model
    assert sum(p.numel() for p in held.parameters()) == text < 0.5 * sum(p.numel() for p in model.parameters())


def test_texts_are_refused_rather_than_cut(one: Path) -> None:
    encoder = load_text_encoder(str(one))
    with pytest.raises(UsageError, match=r"too long: .* takes 256"):
        encoder.embed(["glass breaking " * 300])
    for empty in ("", " \n"):
        with pytest.raises(UsageError, match="is empty"):
            encoder.embed(["glass", empty])
