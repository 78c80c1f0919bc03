"""Embeddings equal transformers' own, whatever the batch; checkpoints load exactly or not at all."""

import json
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import PeAudioConfig, PeAudioFeatureExtractor, PeAudioFrameLevelModel, PeAudioModel, PeAudioProcessor

from pipeline.audio.windows import reflect_pad
from pipeline.config import EncodeConfig
from pipeline.encoder import audio_tower
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
from pipeline.errors import ModelError, UsageError
from pipeline.grid import HOP_SAMPLES, Waveform
from tests.helpers.checkpoints import (
    build_model,
    edit_settings,
    edit_weights,
    make_pe_audio,
    make_pe_audio_video,
    make_released_shape,
)

TEXTS = ["glass breaking", "a dog barks far away", "rain on a tin roof " * 8, "someone whistles", "wind"]
PARITY = 1e-4
"""Rounding of float32 through all layers, relative to the length of an embedding."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads on a busy machine wait for each other: ten times slower for networks as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pe_audio(tmp_path_factory.mktemp("one"), seed=0)


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose texts are read after the final norm, as transformers' forward does it whatever its version."""
    return make_pe_audio(tmp_path_factory.mktemp("normed"), seed=0, text={"tie_last_hidden_states": True})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkpoint, of another dimension."""
    return make_pe_audio(tmp_path_factory.mktemp("two"), seed=1, text={"hidden_size": 24})


@pytest.fixture
def copy(one: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(one, tmp_path / "copy"))


def make_sound(seed: int, n_samples: int) -> Waveform:
    """A gliding tone that fades in, over noise."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(n_samples) / 48_000
    tone = np.sin(2 * np.pi * (200 + 300 * seed + 2_000 * time_s) * time_s) * np.linspace(0, 1, n_samples)
    return (0.5 * tone + generator.normal(0, 0.05, n_samples)).astype(np.float32)


def make_windows(n_frames: list[int]) -> list[Waveform]:
    return [make_sound(seed, n * HOP_SAMPLES) for seed, n in enumerate(n_frames)]


def load(clip: Path | str, frame: Path | None = None, frames: bool = True, **settings: Any) -> AudioEncoder:
    """On the CPU, in the precision of the reference where no other is asked for."""
    settings = {"device": "cpu", "precision": "float32", **settings}
    return load_encoder(EncodeConfig(clip_model=str(clip), frame_model=frame and str(frame), **settings), frames)


def assert_close(rows: npt.ArrayLike, expected: npt.ArrayLike) -> None:
    rows, expected = np.asarray(rows), np.asarray(expected)
    assert rows.shape == expected.shape
    error = np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert error.max(initial=0.0) < PARITY


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """The least cosine of corresponding rows."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / norms).min())


def run_transformers(folder: Path, sound: Waveform, text: str) -> tuple[Any, Any]:
    """The outputs of both of transformers' models for one sound and one text, through its processor."""
    inputs = PeAudioProcessor.from_pretrained(folder)(
        audio=[sound], text=[text], sampling_rate=48_000, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        clip, frame = (m.from_pretrained(folder).eval()(**inputs) for m in (PeAudioModel, PeAudioFrameLevelModel))
    return clip, frame


# ---- Equal to transformers


@pytest.mark.parametrize("n_samples", [1_920, 40_000, 96_000])
def test_equals_the_forward_of_transformers(normed: Path, n_samples: int) -> None:
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
    # Logits of this model are up to 300, which rounding is relative to, and most probabilities are 0 or 1.
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


# ---- Batches


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


def test_a_text_does_not_depend_on_its_batch(one: Path) -> None:
    encoder = load_text_encoder(str(one))
    together = encoder.embed(TEXTS)
    assert_close(together, np.concatenate([encoder.embed([text]) for text in TEXTS]))
    assert cosine(together[:-1], together[1:]) < 0.9


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
def test_what_is_stored_is_rounded_once(one: Path, precision: Literal["float32", "bfloat16"]) -> None:
    windows, settings = make_windows([5, 5, 8]), EncodeConfig(clip_model=str(one), device="cpu", precision=precision)
    clips, frames = load_encoder(settings, output="float16").encode(windows)
    expected_clips, expected_frames = load_encoder(settings).encode(windows)
    assert clips.dtype == np.float16
    assert np.array_equal(clips, expected_clips.astype(np.float16))
    assert frames is not None
    assert expected_frames is not None
    for rows, expected in zip(frames, expected_frames, strict=True):
        assert np.array_equal(rows, expected.astype(np.float16))


def test_what_float16_has_no_room_for_is_not_finite(one: Path) -> None:
    encoder = load_encoder(EncodeConfig(clip_model=str(one), device="cpu", precision="float32"), output="float16")
    windows = make_windows([5, 8])
    encoder.encode(windows)
    head = encoder._tower.clip._head
    with torch.no_grad():
        [*head.parameters()][-1].mul_(1e6)
    with pytest.raises(NonFiniteError, match="windows 0, 1 of 2"):
        encoder.encode(windows)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_finite_numbers_are_told_from_others(dtype: Any) -> None:
    largest = np.finfo(dtype).max
    for number in (0.0, -0.0, 1.0, largest, -largest, np.finfo(dtype).smallest_subnormal):
        assert is_finite(np.array([1, number], dtype))
    for number in (np.nan, -np.nan, np.inf, -np.inf):
        assert not is_finite(np.array([[1], [number]], dtype))


# ---- One model or two


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the calls of the codec and of the transformer behind it."""
    seen = {"Codec": 0, "Transformer": 0}
    for part in (audio_tower.Codec, audio_tower.Transformer):

        def count(self: Any, values: Any, part: Any = part, call: Any = part.__call__) -> Any:
            seen[part.__name__] += 1
            return call(self, values)

        monkeypatch.setattr(part, "__call__", count)
    return seen


def test_one_checkpoint_for_both_is_one_pass(one: Path, copy: Path, passes: dict[str, int]) -> None:
    windows = make_windows([5, 5, 8])
    for frame in (None, one, copy):  # left out, named twice, and the same weights in another place
        passes.update(Codec=0, Transformer=0)
        encoder = load(one, frame)
        encoder.encode(windows)
        assert passes == {"Codec": 2, "Transformer": 2}  # one for each length
        assert encoder.frame_identity is not None
        assert encoder.frame_identity.checksum == encoder.clip_identity.checksum


def test_two_checkpoints_each_give_their_own_output(one: Path, two: Path, passes: dict[str, int]) -> None:
    windows = make_windows([5, 8])
    clips, frames = load(one, two).encode(windows)
    assert passes == {"Codec": 4, "Transformer": 4}
    assert frames is not None
    assert_close(clips, load(one).encode(windows)[0])
    for rows, expected in zip(frames, load(two).encode(windows)[1] or [], strict=True):
        assert rows.shape[1] == 24
        assert_close(rows, expected)


def test_equal_codecs_run_once_for_two_models(one: Path, two: Path, tmp_path: Path, passes: dict[str, int]) -> None:
    windows = make_windows([5, 5, 8])
    frame = Path(shutil.copytree(two, tmp_path / "frame"))
    codec = {name: tensor for name, tensor in load_file(one / "model.safetensors").items() if is_codec(name)}
    edit_weights(frame, lambda weights: weights.update(codec))
    both = load(one, frame)
    clips, frames = both.encode(windows)
    assert passes == {"Codec": 2, "Transformer": 4}
    assert both.clip_identity.checksum != read_identity(str(frame)).checksum
    assert_close(clips, load(one).encode(windows)[0])
    assert frames is not None
    for rows, expected in zip(frames, load(frame).encode(windows)[1] or [], strict=True):
        assert rows.shape[1] == 24
        assert_close(rows, expected)


def test_a_codec_with_one_other_number_runs_by_itself(one: Path, copy: Path, passes: dict[str, int]) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[next(name for name in weights if is_codec(name))].view(-1)[0] += 1e-3

    edit_weights(copy, change)
    load(one, copy).encode(make_windows([5]))
    assert passes == {"Codec": 2, "Transformer": 2}


def is_codec(name: str) -> bool:
    return name.startswith(("audio_encoder.embedder.dac_encoder", "audio_encoder.embedder.bottleneck"))


def test_frames_can_be_left_out(one: Path, two: Path, passes: dict[str, int]) -> None:
    encoder = load(one, two, frames=False)
    clips, frames = encoder.encode(make_windows([5]))
    assert (clips.shape, frames, encoder.frame_identity) == ((1, 32), None, None)
    assert passes == {"Codec": 1, "Transformer": 1}


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
def test_the_precision_is_that_which_the_cpu_is_fast_at(
    cpu: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    assert resolve_precision("auto", "cpu") == precision


# ---- Checkpoints that hold more than the audio model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        {"num_hidden_layers": 3, "hidden_size": 48, "intermediate_size": 40},
        {"layer_types": ["full_attention"] * 4, "local_attention": 4},
        {"layer_types": ["sliding_attention"] * 4, "local_attention": 4},
        {"rope_parameters": {"full_attention": {"rope_theta": 50.0}, "sliding_attention": {"rope_theta": 20.0}}},
        {"norm_eps": 0.3},
    ],
)
def test_audio_video_checkpoints_keep_their_own_text_settings(text: dict[str, Any], tied: bool, tmp_path: Path) -> None:
    text = text | {"tie_last_hidden_states": True}  # as transformers' forward reads texts whatever its version
    folder = make_pe_audio_video(tmp_path, text=text, tied=tied)
    reference = PeAudioModel.from_pretrained(make_pe_audio(tmp_path / "reference", text=text)).eval()
    encoder = load_text_encoder(str(folder))
    default = load_text_encoder(str(make_pe_audio(tmp_path / "default", text={"tie_last_hidden_states": True})))
    sound = make_sound(0, 9_600)
    for i, query in enumerate(TEXTS):
        inputs = PeAudioProcessor.from_pretrained(tmp_path / "reference")(
            audio=[sound], text=[query], sampling_rate=48_000, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            expected = reference(**inputs)
        assert_close(encoder.embed([query]), expected.text_audio_embeds.numpy())
        if i == 0:
            assert_close(load(folder).encode([sound])[0], expected.audio_embeds.numpy())
    if "num_hidden_layers" not in text:  # the same weights with the usual settings would give something else
        assert np.abs(default.embed(TEXTS) - encoder.embed(TEXTS)).max() > 1e-2


def test_the_plain_way_to_load_them_would_take_other_text_settings(tmp_path: Path) -> None:
    folder = make_pe_audio_video(tmp_path)
    assert PeAudioConfig.from_pretrained(folder).text_config.hidden_size == 1024  # what PeAudioModel would go by
    assert read_identity(str(folder)).dimension == 32


# ---- Text


def test_the_text_encoder_holds_no_audio_weights(one: Path) -> None:
    model = build_model()
    read = [p for name, p in model.named_parameters() if name.startswith("text_") and "final_norm" not in name]
    text = sum(p.numel() for p in read)
    held = load_text_encoder(str(one))._model
    assert sum(p.numel() for p in held.parameters()) == text < 0.5 * sum(p.numel() for p in model.parameters())


def test_texts_are_refused_rather_than_cut(one: Path) -> None:
    encoder = load_text_encoder(str(one))
    with pytest.raises(UsageError, match=r"too long: .* takes 256"):
        encoder.embed(["glass breaking " * 300])
    for empty in ("", " \n"):
        with pytest.raises(UsageError, match="is empty"):
            encoder.embed(["glass", empty])


# ---- Checkpoints that do not load exactly


def one_line(error: pytest.ExceptionInfo[ModelError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


LOADERS = [load, load_text_encoder]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("key", ["audio_encoder.norm.weight", "text_model.final_norm.weight", "audio_head.proj.weight"])
def test_missing_weights_are_refused(copy: Path, loader: Any, key: str) -> None:
    edit_weights(copy, lambda state: state.pop(key))
    with pytest.raises(ModelError) as caught:
        loader(str(copy))
    assert key in one_line(caught)
    assert "missing" in str(caught.value)


@pytest.mark.parametrize("key", ["text_audio_logit_scale", "text_audio_logit_bias"])
def test_missing_scalars_are_refused(copy: Path, key: str) -> None:
    edit_weights(copy, lambda state: state.pop(key))
    with pytest.raises(ModelError, match=f"missing {key}"):
        read_identity(str(copy))


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("key", ["audio_encoder.layers.2.mlp.up_proj.weight", "text_model.more.weight", "other.weight"])
def test_unexpected_weights_are_refused(copy: Path, loader: Any, key: str) -> None:
    edit_weights(copy, lambda state: state.update({key: torch.zeros(3)}))
    with pytest.raises(ModelError) as caught:
        loader(str(copy))
    assert f"1 unexpected ({key})" in one_line(caught)


def test_unexpected_weights_of_the_audio_model_are_refused_among_others(tmp_path: Path) -> None:
    folder = make_pe_audio_video(tmp_path)
    load(folder)  # with keys of the video and the audio-video model in it
    key = "audio_model.audio_encoder.layers.2.mlp.up_proj.weight"
    edit_weights(folder, lambda state: state.update({key: torch.zeros(3)}))
    with pytest.raises(ModelError, match=f"1 unexpected .{key}"):
        load(folder)


@pytest.mark.parametrize("loader", LOADERS)
def test_weights_of_another_shape_are_refused(copy: Path, loader: Any) -> None:
    edit_weights(copy, lambda state: state.update({"audio_encoder.norm.weight": torch.ones(47)}))
    with pytest.raises(ModelError) as caught:
        loader(str(copy))
    assert "1 of another shape (audio_encoder.norm.weight)" in one_line(caught)


def test_many_problems_are_counted_and_the_first_are_listed(copy: Path) -> None:
    edit_weights(copy, lambda state: [state.pop(k) for k in [*state] if k.startswith("audio_encoder.layers.0.mlp")])
    edit_weights(copy, lambda state: [state.pop(k) for k in [*state] if k.startswith("audio_encoder.layers.0.self")])
    with pytest.raises(ModelError, match=r"9 missing \(\S+, \S+, \S+, \.\.\.\)"):
        load(copy)


def spoil_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def cut_off(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])


def change_hop(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["audio_config"]["dac_config"]["downsampling_ratios"] = [2, 8, 10, 10]
    edit_settings(folder, audio_config=settings["audio_config"])
    edit_weights(folder, lambda state: state.update({LAST_STRIDE: state[LAST_STRIDE][..., :20].clone()}))


LAST_STRIDE = "audio_encoder.embedder.dac_encoder.block.3.conv1.weight"

SPOILS = {
    r"has no config.json$": lambda folder: (folder / "config.json").unlink(),
    r"has no tokenizer.json and no model.safetensors$": lambda folder: (
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        (folder / "tokenizer.json").unlink(),
    ),
    r"of type bert, not PE-Audio": lambda folder: edit_settings(folder, model_type="bert"),
    r"config.json cannot be read": spoil_json,
    r"cannot be loaded: .*hidden_size": lambda folder: edit_settings(folder, text_config={"hidden_size": "wide"}),
    r"shorter than its header says": cut_off,
    r"no readable safetensors file": lambda folder: (folder / "model.safetensors").write_bytes(b"no model at all"),
    r"has frames of 1600 samples": change_hop,
}


@pytest.mark.parametrize("message", SPOILS)
def test_broken_checkpoints_are_told_in_one_line(copy: Path, message: str) -> None:
    SPOILS[message](copy)
    with pytest.raises(ModelError, match=message) as caught:
        load(copy)
    assert str(copy) in one_line(caught)


def test_loading_prints_nothing(copy: Path) -> None:
    """In a process of its own, since transformers keeps the stream that it found when it was imported."""
    edit_weights(copy, lambda state: state.pop("audio_encoder.norm.weight"))
    script = (
        "import sys; from pipeline.errors import ModelError\n"
        "from pipeline.encoder.text_encoder import load_text_encoder\n"
        "try: load_text_encoder(sys.argv[1])\n"
        "except ModelError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(copy)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


# ---- Names


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of hub models, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_model_is_taken_from_the_cache(one: Path, cache: Path, revision: str | None) -> None:
    model = cache / "models--someone--ears"
    shutil.copytree(one, model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    identity = read_identity("someone/ears", revision)
    assert (identity.name, identity.revision) == ("someone/ears", COMMIT)
    assert identity.checksum == read_identity(str(one)).checksum


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_hub_model_out_of_reach_is_told_quickly(
    cache: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    pauses_s: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses_s.append)  # before it is tried again
    with pytest.raises(ModelError, match=r"^facebook/pe-av-base: .*cannot be downloaded: connect once") as caught:
        load_text_encoder("facebook/pe-av-base", revision)
    one_line(caught)
    assert sum(pauses_s) < 5


@pytest.mark.parametrize("name", ["nothing", "./nothing", "~/nothing/here", "/nothing/here", "a b/c", "a/--b"])
def test_what_can_be_no_model_is_told_at_once(cache: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"^{name}: ") as caught:
        read_identity(name)
    one_line(caught)


def test_a_folder_is_known_by_its_absolute_path(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(one.parent)
    monkeypatch.setenv("HOME", str(one.parent))
    names = {read_identity(name).name for name in (str(one), one.name, f"./{one.name}", f"~/{one.name}")}
    assert names == {str(one)}


# ---- Identity


def test_the_identity_is_read_from_the_files(one: Path, two: Path) -> None:
    identity = read_identity(str(two))
    assert (identity.dimension, identity.logit_scale, identity.logit_bias) == (24, 11.0, -5.0)
    assert ModelIdentity.from_dict(json.loads(json.dumps(identity.to_dict()))) == identity
    assert load(one, two).frame_identity == load_text_encoder(str(two)).identity == identity
    assert identity.checksum != read_identity(str(one)).checksum


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_scalars_are_read_in_any_precision(copy: Path, dtype: torch.dtype) -> None:
    edit_weights(copy, lambda state: state.update(text_audio_logit_bias=torch.tensor([-5.25], dtype=dtype)))
    assert read_identity(str(copy)).logit_bias == -5.25


def test_the_checksum_changes_with_every_tensor(copy: Path) -> None:
    seen = {read_identity(str(copy)).checksum}
    keys = load_file(copy / "model.safetensors").keys()
    for key in keys:
        edit_weights(copy, lambda state, key=key: state[key].mul_(1.01).add_(1e-4))  # type: ignore[misc]
        seen.add(read_identity(str(copy)).checksum)
    assert len(seen) == len(keys) + 1


@pytest.mark.parametrize("row", [0, 100, 199])
def test_the_checksum_looks_at_three_places_of_a_large_tensor(copy: Path, row: int) -> None:
    key = "text_model.embeddings.tok_embeddings.weight"  # 200 rows of 128 bytes
    before = read_identity(str(copy)).checksum
    edit_weights(copy, lambda state: state[key][row].add_(1e-4))
    assert read_identity(str(copy)).checksum != before


def test_the_checksum_changes_with_a_setting(copy: Path) -> None:
    before = read_identity(str(copy)).checksum
    settings = json.loads((copy / "config.json").read_text())["text_config"]
    edit_settings(copy, text_config=settings | {"norm_eps": 0.1})
    assert read_identity(str(copy)).checksum != before


def test_the_checksum_outlives_copying_saving_and_sharding(one: Path, tmp_path: Path) -> None:
    model = PeAudioFrameLevelModel.from_pretrained(one)
    shutil.copytree(one, tmp_path / "sharded")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    assert len([*(tmp_path / "sharded").glob("model-*.safetensors")]) > 2
    whole, sharded = read_identity(str(one)), read_identity(str(tmp_path / "sharded"))
    assert (sharded.checksum, sharded.logit_scale) == (whole.checksum, whole.logit_scale)
    windows = make_windows([5])
    assert_close(load(tmp_path / "sharded").encode(windows)[0], load(one).encode(windows)[0])


def test_describing_a_model_needs_no_torch(one: Path) -> None:
    script = (
        "import sys; from pipeline.encoder.checkpoint import read_identity; read_identity(sys.argv[1]);"
        "print(sorted({'torch', 'transformers', 'ray', 'lance', 'pydantic', 'pyarrow'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(one)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- The model that comes with the project


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


def count_bytes_read() -> int:
    """What this process has read from files so far, but for those that it maps."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar:")))


@pytest.mark.slow
def test_a_checkpoint_of_released_size_is_described_from_few_bytes_and_loaded(tmp_path: Path) -> None:
    folder = str(make_released_shape(tmp_path))
    before = count_bytes_read()
    assert read_identity(folder).dimension == 1024
    assert count_bytes_read() - before < 10e6
    text = load_text_encoder(folder)
    assert sum(p.numel() for p in text._model.parameters()) == 322_287_618  # without the final norm's 1,024


@pytest.mark.slow
def test_kept_memory_is_used_again() -> None:
    """Passes map next to no fresh memory: counted in page faults, in a process of its own.

    The median of some passes: the first ones after the setting, and now and then another, still grow the pool.
    """
    code = """
import resource, statistics
import numpy as np, torch
from pipeline.config import EncodeConfig
from pipeline.encoder.encoder import load_encoder
from pipeline.encoder.malloc import keep_freed_memory
torch.set_num_threads(1)
encoder = load_encoder(EncodeConfig(clip_model="earshot-tiny", device="cpu"))
windows = [np.zeros(100 * 1920, np.float32)] * 2
def count_faults():
    passes = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        encoder.encode(windows)
        passes.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return int(statistics.median(passes[1:]))
print(count_faults(), keep_freed_memory(), count_faults())
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    before, can, after = done.stdout.split()
    if can == "False":
        pytest.skip("no glibc")
    assert int(after) < int(before) / 5
