"""The inference path matches transformers, whatever the shapes and tiles."""

import copy
import math
from typing import Any

import pytest
import torch

from pipeline.encoder.audio_codec import Codec, equal_codecs
from pipeline.encoder.audio_tower import Tower
from pipeline.encoder.audio_transformer import Transformer
from tests.helpers.checkpoints import build_model
from tests.helpers.encoders import PARITY, error, make_embedder, noise, run_plainly

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> Any:
    return build_model().eval()


@pytest.mark.parametrize("tile_bytes", [2**8, 2**12, 2**15, None])
@pytest.mark.parametrize("ratios", [[2, 3, 5], [3, 2], [2, 8, 10]])
@pytest.mark.parametrize(("n", "hops"), [(1, 1), (1, 40), (3, 2), (2, 77)])
def test_codec_in_tiles_matches_transformers(ratios: list[int], n: int, hops: int, tile_bytes: int | None) -> None:
    embedder = make_embedder(ratios)
    codec = Codec(embedder, "cpu", torch.float32)
    codec.tile_bytes = tile_bytes
    samples = noise(n, hops * math.prod(ratios))
    assert error(codec(samples), run_plainly(embedder, samples)) < PARITY


@pytest.mark.parametrize("alpha", [0.0, 1e-12, -1e-7, 1e-5, -2.0, 40.0])
def test_codec_matches_transformers_for_any_alpha(alpha: float) -> None:
    embedder = make_embedder([2, 4], alpha)
    samples = noise(2, 160)
    assert error(Codec(embedder, "cpu", torch.float32)(samples), run_plainly(embedder, samples)) < PARITY


def test_codec_accepts_convolutions_with_another_output_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = make_embedder([2, 4])
    samples = noise(2, 160)
    expected = run_plainly(embedder, samples)
    convolve = torch.nn.functional.conv2d
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *given, **rest: convolve(*given, **rest).contiguous())
    assert error(Codec(embedder, "cpu", torch.float32)(samples), expected) < PARITY


def test_tiles_cover_every_sound_once(model: Any) -> None:
    codec = Codec(model.audio_encoder.embedder, "cpu", torch.float32)
    for tile_bytes in (2**9, 2**14, 2**30, None):
        codec.tile_bytes = tile_bytes
        seen = torch.zeros(5, 130)
        for some, start, stop in codec._list_tiles(5, 130, 64):
            seen[some, start:stop] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("settings", [{}, {"attention_bias": True}, {"num_key_value_heads": 1}])
def test_transformer_matches_transformers(settings: dict[str, Any]) -> None:
    model = build_model(audio=settings).eval()
    for name, weight in model.audio_encoder.named_parameters():
        if name.endswith(("norm.weight", "proj.bias")):  # initially they are all ones or zeros
            weight.add_(torch.rand_like(weight) * 0.5)
    encoder = model.audio_encoder
    samples = noise(2, 9 * 1920)
    expected = encoder(samples[:, None])
    features = run_plainly(encoder.embedder, samples)
    [(clips, frames)] = Transformer(copy.deepcopy(model), "cpu", torch.float32)([features])
    assert error(clips, model.audio_head(expected.pooler_output)) < PARITY
    assert error(frames, model.audio_head(expected.last_hidden_state)) < PARITY


@pytest.mark.parametrize("settings", [{}, {"num_key_value_heads": 1}])
def test_sounds_of_many_lengths_in_one_pass_are_those_of_a_pass_each(settings: dict[str, Any]) -> None:
    model = build_model(audio=settings).eval()
    tower = Tower(model, model, "cpu", torch.float32)
    sounds = [noise(n, frames * 1920) for n, frames in ((2, 9), (1, 1), (3, 4))]
    for samples, (clips, frames) in zip(sounds, tower.embed(sounds), strict=True):
        alone_clips, alone_frames = tower(samples)
        assert clips.shape == alone_clips.shape
        assert error(clips, alone_clips) < PARITY
        assert frames is not None
        assert alone_frames is not None
        assert frames.shape == alone_frames.shape
        assert error(frames, alone_frames) < PARITY


def test_tower_keeps_no_second_copy_of_rearranged_weights(model: Any) -> None:
    taken = copy.deepcopy(model)
    Tower(taken, taken, "cpu", torch.float32)
    left = {name for name, _ in taken.audio_encoder.named_parameters()}
    assert not [name for name in left if "dac_encoder" in name or "q_proj" in name or "gate_proj" in name]


def test_codecs_are_equal_only_if_every_weight_is(model: Any) -> None:
    other = copy.deepcopy(model)
    assert equal_codecs(model.audio_encoder, other.audio_encoder)
    other.audio_encoder.embedder.data_proj.weight.add_(1)  # belongs to the transformer
    assert equal_codecs(model.audio_encoder, other.audio_encoder)
    other.audio_encoder.embedder.dac_encoder.conv2.bias[-1] += 1e-4
    assert not equal_codecs(model.audio_encoder, other.audio_encoder)
    assert not equal_codecs(make_embedder_of([2, 3]), make_embedder_of([3, 2]))


def make_embedder_of(ratios: list[int]) -> Any:
    holder = torch.nn.Module()
    holder.embedder = make_embedder(ratios)
    return holder
