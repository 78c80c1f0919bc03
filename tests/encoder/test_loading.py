"""Checkpoints load exactly or not at all, and no code of their folders runs."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PeAudioConfig, PeAudioModel, PeAudioProcessor

from pipeline.encoder.checkpoint import find_checkpoint, read_identity
from pipeline.encoder.loading import load_model
from pipeline.encoder.text_encoder import load_text_encoder
from pipeline.errors import ModelError
from pipeline.grid import Grid
from tests.helpers.checkpoints import edit_settings, edit_weights, make_pe_audio, make_pe_audio_video
from tests.helpers.encoders import TEXTS, assert_close, load, make_sound, one_line
from tests.helpers.processes import ROOT, run_python
from tests.helpers.tables import write_index

PLANTED = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nclass Planted: pass\n"

TOKENIZER = {"auto_map": {"AutoTokenizer": ["planted.Planted", "planted.Planted"]}, "tokenizer_class": "Planted"}
OLD_TOKENIZER = {"auto_map": ["planted.Planted", "planted.Planted"], "tokenizer_class": "Planted"}
MODEL = {"auto_map": {"AutoConfig": "planted.Planted", "AutoModel": "planted.Planted", "AutoTokenizer": "planted.P"}}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "a tokenizer": ("tokenizer_config.json", TOKENIZER),
    "a tokenizer, as once written": ("tokenizer_config.json", OLD_TOKENIZER),
    "a model": ("config.json", MODEL),
    "a text tower": ("config.json", {"text_config": MODEL}),
}


def plant(folder: Path, way: str) -> Path:
    """Make a checkpoint name code of its folder. Returns the file that this code would write."""
    file, values = WAYS[way]
    marker = folder / "it-ran"
    (folder / "planted.py").write_text(PLANTED.format(marker=str(marker)))
    path = folder / file
    settings = json.loads(path.read_text())
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(settings.get(key), dict)
        settings[key] = settings[key] | value if both else value
    path.write_text(json.dumps(settings))
    return marker


def run_on_a_terminal(command: list[str], typed: str) -> tuple[int, str]:
    """Run a command on a terminal where the answers have been typed ahead."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 1)[0]:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
    else:
        process.kill()
    code = process.wait()
    os.close(ours)
    return code, shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [make_pe_audio, make_pe_audio_video])
def test_a_checkpoint_that_names_code_is_refused_in_one_line(make: Any, way: str, tmp_path: Path) -> None:
    marker = plant(make(tmp_path), way)
    with pytest.raises(ModelError, match=r"config.json names code to run \(`auto_map`\)") as caught:
        load_text_encoder(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_empty_auto_map_is_accepted(tmp_path: Path) -> None:
    path = make_pe_audio(tmp_path) / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {}}))
    load_text_encoder(str(tmp_path))


@pytest.mark.parametrize("way", ["a tokenizer", "a model"])
def test_query_on_a_terminal_neither_asks_nor_runs_code(way: str, tmp_path: Path) -> None:
    model, index = make_pe_audio(tmp_path / "model"), tmp_path / "index"
    zeros = np.zeros((10, 8), np.float16)
    write_index(index, {"/a.wav": (zeros, zeros[:1])}, Grid(), model=asdict(read_identity(str(model))))
    marker = plant(model, way)
    code, shown = run_on_a_terminal([sys.executable, "-m", "jobs.main", "query", str(index), "wind"], "y\n" * 8)
    assert code == 2, shown
    assert f"earshot: {model}: " in shown
    assert "names code to run" in shown
    assert "[y/N]" not in shown
    assert not marker.exists()


def test_loaders_of_transformers_run_no_code_either(tmp_path: Path) -> None:
    """Earshot also forbids the loaders of transformers to run code, in case they find some that it does not."""
    folder = make_pe_audio(tmp_path)
    checkpoint = find_checkpoint(str(folder), None)
    marker = plant(folder, "a tokenizer")
    script = (
        "import sys; from pathlib import Path; from pipeline.encoder.checkpoint import Checkpoint\n"
        "from pipeline.errors import ModelError; from pipeline.encoder.loading import load_model, load_tokenizer\n"
        "checkpoint = Checkpoint(sys.argv[1], None, Path(sys.argv[1]))\n"
        "load_model(checkpoint, 'float32')\n"
        "try: load_tokenizer(checkpoint)\n"
        "except ModelError as error: print('refused', error)\n"
    )
    code, shown = run_on_a_terminal([sys.executable, "-c", script, str(checkpoint.folder)], "y\n" * 8)
    assert (code, marker.exists()) == (0, False), shown
    assert "[y/N]" not in shown


def test_attention_named_on_the_hub_is_not_fetched(tmp_path: Path) -> None:
    path = make_pe_audio(tmp_path) / "config.json"
    settings = json.loads(path.read_text())
    for part in (settings, settings["text_config"], settings["audio_config"]):
        part["attn_implementation"] = part["_attn_implementation"] = "someone/attention"
    path.write_text(json.dumps(settings))
    model = load_model(find_checkpoint(str(tmp_path), None), "float32")
    assert model.config._attn_implementation == model.text_model.config._attn_implementation == "sdpa"


LOADERS = [load, load_text_encoder]
"""Both refuse a checkpoint that is not whole. A question reads nothing of the audio tower; the checksum covers it."""


@pytest.mark.parametrize(
    ("loader", "key"),
    [
        *product(LOADERS, ["text_model.final_norm.weight", "audio_head.proj.weight", "text_audio_head.proj.weight"]),
        (load, "audio_encoder.norm.weight"),
    ],
)
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


@pytest.mark.parametrize(
    ("loader", "key"),
    [
        *product(LOADERS, ["text_model.more.weight", "text_audio_head.more.weight", "other.weight"]),
        (load, "audio_encoder.layers.2.mlp.up_proj.weight"),
    ],
)
def test_unexpected_weights_are_refused(copy: Path, loader: Any, key: str) -> None:
    edit_weights(copy, lambda state: state.update({key: torch.zeros(3)}))
    with pytest.raises(ModelError) as caught:
        loader(str(copy))
    assert f"1 unexpected ({key})" in one_line(caught)


def test_unexpected_weights_of_the_audio_model_are_refused_among_others(tmp_path: Path) -> None:
    folder = make_pe_audio_video(tmp_path)
    load(folder)  # although it has keys of the video and the audio-video model
    key = "audio_model.audio_encoder.layers.2.mlp.up_proj.weight"
    edit_weights(folder, lambda state: state.update({key: torch.zeros(3)}))
    with pytest.raises(ModelError, match=f"1 unexpected .{key}"):
        load(folder)


@pytest.mark.parametrize(
    ("loader", "key"), [*product(LOADERS, ["text_model.final_norm.weight"]), (load, "audio_encoder.norm.weight")]
)
def test_weights_of_another_shape_are_refused(copy: Path, loader: Any, key: str) -> None:
    edit_weights(copy, lambda state: state.update({key: torch.ones(47)}))
    with pytest.raises(ModelError) as caught:
        loader(str(copy))
    assert f"1 of another shape ({key})" in one_line(caught)


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
def test_broken_checkpoints_fail_in_one_line(copy: Path, message: str) -> None:
    SPOILS[message](copy)
    with pytest.raises(ModelError, match=message) as caught:
        load(copy)
    assert str(copy) in one_line(caught)


def test_loading_prints_nothing(copy: Path) -> None:
    """In a fresh process, since transformers keeps the stream that it found when it was imported."""
    edit_weights(copy, lambda state: state.pop("text_model.final_norm.weight"))
    script = (
        "import sys; from pipeline.errors import ModelError\n"
        "from pipeline.encoder.text_encoder import load_text_encoder\n"
        "try: load_text_encoder(sys.argv[1])\n"
        "except ModelError as error: print(error)\n"
    )
    done = run_python("-c", script, copy)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


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
    if "num_hidden_layers" not in text:  # the same weights with the usual settings give other embeddings
        assert np.abs(default.embed(TEXTS) - encoder.embed(TEXTS)).max() > 1e-2


def test_transformers_alone_would_use_other_text_settings(tmp_path: Path) -> None:
    folder = make_pe_audio_video(tmp_path)
    assert PeAudioConfig.from_pretrained(folder).text_config.hidden_size == 1024  # PeAudioModel would use this
    assert read_identity(str(folder)).dimension == 32
