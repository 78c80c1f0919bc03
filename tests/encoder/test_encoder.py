"""Embeddings equal those of transformers, whatever else is in the batch."""

import pickle
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PeAudioFeatureExtractor

from pipeline.audio.windows import reflect_pad
from pipeline.config import EncodeConfig
from pipeline.encoder.checkpoint import BUNDLED, ModelIdentity, read_identity
from pipeline.encoder.encoder import (
    AudioEncoder,
    NonFiniteError,
    is_finite,
    load_encoder,
    probability,
    resolve_precision,
)
from pipeline.encoder.text_encoder import load_text_encoder
from pipeline.errors import UsageError
from pipeline.grid import HOP_SAMPLES, Waveform
from tests.helpers.checkpoints import edit_weights, make_pe_audio
from tests.helpers.encoders import PARITY, TEXTS, assert_close, cosine, load, make_sound, make_windows, run_transformers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose texts are read after the final norm, as every version of transformers' forward does."""
    return make_pe_audio(tmp_path_factory.mktemp("normed"), seed=0, text={"tie_last_hidden_states": True})


@pytest.mark.parametrize("n_samples", [1_920, 40_000, 96_000])
def test_embeddings_match_the_forward_of_transformers(normed: Path, n_samples: int) -> None:
    sound = make_sound(3, n_samples)
    clips, frames = load(normed).encode([reflect_pad(sound)])
    texts = load_text_encoder(str(normed)).embed(TEXTS[1:2])
    clip, frame = run_transformers(normed, sound, TEXTS[1])
    assert frames is not None
    assert clips.dtype == frames[0].dtype == texts.dtype == np.float32
    assert frames[0].shape == (-(-n_samples // HOP_SAMPLES), 32)
    assert_close(clips, clip.audio_embeds.numpy())
    assert_close(frames[0], frame.audio_embeds[0].numpy())
    assert_close(texts, clip.text_audio_embeds.numpy())
    # Rounding is relative to the logits, which reach 300 here; most probabilities are 0 or 1.
    identity, logits = read_identity(str(normed)), clip.logits_audio_text.numpy()
    largest = float(identity.logit_scale * np.linalg.norm(clips) * np.linalg.norm(texts))
    found = identity.logit_scale * clips @ texts.T + identity.logit_bias
    np.testing.assert_allclose(found, logits, rtol=0, atol=PARITY * largest)
    small = torch.linspace(-8, 8, 17, dtype=torch.float64)
    dots = (small.numpy() - identity.logit_bias) / identity.logit_scale
    np.testing.assert_allclose(probability(dots, identity), torch.sigmoid(small).numpy(), rtol=1e-6)


@pytest.mark.parametrize("n_samples", [1_920, 1_921, 3_839, 50_000])
def test_windows_are_padded_as_the_feature_extractor_does(n_samples: int) -> None:
    sound = make_sound(0, n_samples)
    expected = PeAudioFeatureExtractor()([sound], sampling_rate=48_000, return_tensors="np")["input_values"]
    np.testing.assert_array_equal(reflect_pad(sound), expected[0, 0])


def test_probabilities_neither_overflow_nor_warn() -> None:
    identity = ModelIdentity("m", None, "0", 4, logit_scale=10.0, logit_bias=-5.0)
    np.testing.assert_allclose(probability([[-1e6, 0.5], [0.0, 1e6]], identity), [[0, 0.5], [0.0066929, 1]], atol=1e-7)


def test_an_embedding_does_not_depend_on_its_batch(one: Path) -> None:
    windows = make_windows([5, 12, 5, 1, 12, 5, 5, 30])
    encoder = load(one, batch_windows=3)
    clips, frames = encoder.encode(windows)
    alone = [encoder.encode([window]) for window in windows]
    assert frames is not None
    assert [len(rows) for rows in frames] == [5, 12, 5, 1, 12, 5, 5, 30]
    for i, (clip, frame) in enumerate(alone):
        assert frame is not None
        assert_close(clips[i], clip[0])
        assert_close(frames[i], frame[0])
        assert cosine(frames[i], frame[0]) > 0.999999
    assert cosine(clips[:-1], clips[1:]) < 0.99  # so the windows do differ


def test_no_windows_and_no_texts_give_no_rows(one: Path) -> None:
    clips, frames = load(one).encode([])
    assert clips.shape == (0, 32)
    assert frames == []
    assert load_text_encoder(str(one)).embed([]).shape == (0, 32)


def test_bfloat16_stays_close_and_comes_out_as_float32(one: Path) -> None:
    windows = make_windows([12, 25])
    clips, frames = load(one).encode(windows)
    rough_clips, rough_frames = load(one, precision="bfloat16").encode(windows)
    assert frames is not None
    assert rough_frames is not None
    assert rough_clips.dtype == np.float32
    assert 0.999 < cosine(clips, rough_clips) < 1
    assert min(map(cosine, frames, rough_frames)) > 0.97  # the worst of 37 frames


@pytest.mark.parametrize("window", [np.zeros(1_921), np.zeros(0), np.zeros((1, 1_920)), np.zeros(1_920, np.int16)])
def test_windows_must_be_whole_frames_of_float32(one: Path, window: Any) -> None:
    with pytest.raises(ValueError, match=r"window 1 is .* of shape"):
        load(one, frames=False).encode([np.zeros(1_920, np.float32), window])


def test_windows_without_a_finite_embedding_are_named(one: Path) -> None:
    windows = make_windows([5, 5, 5, 9])
    windows[1][7] = np.nan
    windows[3][7] = np.inf
    with pytest.raises(NonFiniteError, match="windows 1, 3 of 4") as caught:
        load(one).encode(windows)
    assert caught.value.windows == pickle.loads(pickle.dumps(caught.value)).windows == (1, 3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_float16_output_is_rounded_once(one: Path, precision: Literal["float32", "bfloat16"]) -> None:
    windows, settings = make_windows([5, 5, 8]), EncodeConfig(clip_model=str(one), device="cpu", precision=precision)
    clips, frames = load_encoder(settings, output="float16").encode(windows)
    expected_clips, expected_frames = load_encoder(settings).encode(windows)
    assert clips.dtype == np.float16
    assert np.array_equal(clips, expected_clips.astype(np.float16))
    assert frames is not None
    assert expected_frames is not None
    for rows, expected in zip(frames, expected_frames, strict=True):
        assert np.array_equal(rows, expected.astype(np.float16))


def test_number_too_large_for_float16_is_not_finite(one: Path) -> None:
    encoder = load_encoder(EncodeConfig(clip_model=str(one), device="cpu", precision="float32"), output="float16")
    windows = make_windows([5, 8])
    encoder.encode(windows)
    head = encoder._tower.clip._head
    with torch.no_grad():
        [*head.parameters()][-1].mul_(1e6)
    with pytest.raises(NonFiniteError, match="windows 0, 1 of 2"):
        encoder.encode(windows)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_is_finite_tells_nan_and_infinity(dtype: Any) -> None:
    largest = np.finfo(dtype).max
    for number in (0.0, -0.0, 1.0, largest, -largest, np.finfo(dtype).smallest_subnormal):
        assert is_finite(np.array([1, number], dtype))
    for number in (np.nan, -np.nan, np.inf, -np.inf):
        assert not is_finite(np.array([[1], [number]], dtype))


def count_passes(encoder: AudioEncoder, windows: list[Waveform]) -> tuple[int, int]:
    """How often the codec and the transformer behind it run, by the names that they give to torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        encoder.encode(windows)
    counts = {event.key: event.count for event in profiler.key_averages()}
    return counts["codec end"], counts["transformer"]


def test_one_checkpoint_for_clips_and_frames_runs_once(one: Path, copy: Path) -> None:
    windows = make_windows([5, 5, 8])
    for frame in (None, one, copy):  # left out, named twice, and the same weights in another place
        encoder = load(one, frame)
        assert count_passes(encoder, windows) == (2, 1)  # the codec once for each length
        assert encoder.frame_identity is not None
        assert encoder.frame_identity.checksum == encoder.clip_identity.checksum


def test_two_checkpoints_each_give_their_own_output(one: Path, two: Path) -> None:
    windows = make_windows([5, 8])
    both = load(one, two)
    assert count_passes(both, windows) == (4, 2)
    clips, frames = both.encode(windows)
    assert frames is not None
    assert_close(clips, load(one).encode(windows)[0])
    for rows, expected in zip(frames, load(two).encode(windows)[1] or [], strict=True):
        assert rows.shape[1] == 24
        assert_close(rows, expected)


def test_equal_codecs_run_once_for_two_models(one: Path, two: Path, tmp_path: Path) -> None:
    windows = make_windows([5, 5, 8])
    frame = Path(shutil.copytree(two, tmp_path / "frame"))
    codec = {name: tensor for name, tensor in load_file(one / "model.safetensors").items() if is_codec(name)}
    edit_weights(frame, lambda weights: weights.update(codec))
    both = load(one, frame)
    assert count_passes(both, windows) == (2, 2)
    clips, frames = both.encode(windows)
    assert both.clip_identity.checksum != read_identity(str(frame)).checksum
    assert_close(clips, load(one).encode(windows)[0])
    assert frames is not None
    for rows, expected in zip(frames, load(frame).encode(windows)[1] or [], strict=True):
        assert rows.shape[1] == 24
        assert_close(rows, expected)


def test_a_codec_with_one_other_number_runs_by_itself(one: Path, copy: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[next(name for name in weights if is_codec(name))].view(-1)[0] += 1e-3

    edit_weights(copy, change)
    assert count_passes(load(one, copy), make_windows([5])) == (2, 2)


def is_codec(name: str) -> bool:
    return name.startswith(("audio_encoder.embedder.dac_encoder", "audio_encoder.embedder.bottleneck"))


def test_frames_can_be_left_out(one: Path, two: Path) -> None:
    encoder = load(one, two, frames=False)
    clips, frames = encoder.encode(make_windows([5]))
    assert (clips.shape, frames, encoder.frame_identity) == ((1, 32), None, None)
    assert count_passes(encoder, make_windows([5])) == (1, 1)


def test_device_and_precision_are_reported(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = resolve_precision("auto", "cpu")
    for precision, used in (("auto", fast), ("bfloat16", "bfloat16"), ("float32", "float32")):
        encoder = load(one, precision=precision)
        assert (encoder.device, encoder.precision) == ("cpu", used)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no GPU"):
        load_encoder(EncodeConfig(clip_model=str(one), device="cuda"))


@pytest.mark.parametrize(
    ("cpu", "precision"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "float32"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, "bfloat16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "avx2": True}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({}, "float32"),
    ],
)
def test_automatic_precision_suits_the_cpu(
    cpu: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    assert resolve_precision("auto", "cpu") == precision


def test_the_bundled_model_loads_by_name() -> None:
    identity = read_identity(BUNDLED)
    assert (identity.name, identity.revision) == (BUNDLED, None)
    encoder = load(BUNDLED)
    clips, frames = encoder.encode(make_windows([50, 10]))
    texts = load_text_encoder(BUNDLED).embed(["a bell", "rising sweep"])
    assert frames is not None
    assert [rows.shape for rows in (clips, *frames, texts)] == [(n, identity.dimension) for n in (2, 50, 10, 2)]
    clip, frame = run_transformers(
        Path(__file__).parents[2] / "pipeline/encoder/models" / BUNDLED, make_windows([50])[0], "a bell"
    )
    assert_close(clips[0], clip.audio_embeds[0].numpy())
    assert_close(frames[0], frame.audio_embeds[0].numpy())
    assert_close(texts[0], clip.text_audio_embeds[0].numpy())
