"""The text tower in numpy embeds texts as transformers does, and leaves to transformers what it does not know."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.encoder.checkpoint import find_checkpoint
from pipeline.encoder.text_encoder import TransformersTokenizer, TransformersTower, load_text_encoder
from pipeline.encoder.text_tower import gelu, read_text_tower
from pipeline.encoder.tokenizer import PlainTokenizer, read_plain_tokenizer
from tests.helpers.checkpoints import edit_settings, edit_weights, make_pe_audio, make_pe_audio_video
from tests.helpers.encoders import TEXTS
from tests.helpers.processes import print_of

LARGEST_DIFFERENCE = 1e-5

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_hidden_layers": 3, "hidden_size": 48, "intermediate_size": 40},
    {"layer_types": ["full_attention"] * 4, "local_attention": 4},
    {"layer_types": ["sliding_attention"] * 4, "local_attention": 4},
    {"rope_parameters": {"full_attention": {"rope_theta": 50.0}, "sliding_attention": {"rope_theta": 20.0}}},
    {"norm_eps": 0.3},
    {"tie_last_hidden_states": True},
]


def compare(folder: Path, n_tokens: tuple[int, ...] = (1, 7, 100)) -> None:
    checkpoint = find_checkpoint(str(folder), None)
    tower, reference = read_text_tower(checkpoint), TransformersTower(checkpoint)
    assert tower is not None
    assert tower.most_positions == reference.most_positions
    rng = np.random.default_rng(0)
    for length in n_tokens:
        ids = rng.integers(4, 100, (3, length))
        expected = reference.embed(ids)
        found = tower.embed(ids)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < LARGEST_DIFFERENCE * np.linalg.norm(expected, axis=1).min()


@pytest.mark.parametrize("text", SETTINGS)
def test_embeddings_are_those_of_transformers(text: dict[str, Any], tmp_path: Path) -> None:
    compare(make_pe_audio(tmp_path, text=text))


@pytest.mark.parametrize("tied", [True, False])
def test_checkpoints_of_several_models_have_the_text_tower_of_their_audio_model(tied: bool, tmp_path: Path) -> None:
    compare(make_pe_audio_video(tmp_path, tied=tied))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_the_size_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_pe_audio(tmp_path)
    state = {key: value.to(dtype) for key, value in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    compare(folder)


def test_settings_may_be_written_as_older_versions_did(tmp_path: Path) -> None:
    folder = make_pe_audio(tmp_path, text={"layer_types": None})
    text = json.loads((folder / "config.json").read_text())["text_config"]
    for key in ("layer_types", "rope_parameters"):
        text.pop(key)
    older = {"global_attn_every_n_layers": 2, "global_rope_theta": 70.0, "local_rope_theta": 30.0, "local_attention": 6}
    compare(edit_settings(folder, text_config=text | older))


def test_bundled_model_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    compare(find_checkpoint("earshot-tiny", None).folder)


@pytest.mark.slow
def test_tower_of_the_released_width_and_depth(tmp_path: Path) -> None:
    """22 layers of 1,024 numbers and 16 heads, and texts longer than local attention reaches."""
    text = {"hidden_size": 1024, "intermediate_size": 2624, "num_hidden_layers": 22, "num_attention_heads": 16}
    compare(make_pe_audio(tmp_path, text=text | {"max_position_embeddings": 8192}), n_tokens=(9, 300))


@pytest.mark.parametrize(
    "text",
    [
        {"hidden_activation": "relu"},
        {"norm_bias": True},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}},
    ],
)
def test_other_settings_are_left_to_transformers(text: dict[str, Any], tmp_path: Path) -> None:
    folder = make_pe_audio(tmp_path, text=text)
    assert read_text_tower(find_checkpoint(str(folder), None)) is None
    assert np.isfinite(load_text_encoder(str(folder)).embed(TEXTS)).all()


@pytest.mark.parametrize(
    "text", [None, [], {"model_type": "bert"}, {"hidden_size": "wide"}, {"num_hidden_layers": 2.5}]
)
def test_settings_that_make_no_sense_are_left_to_transformers(text: Any, tmp_path: Path) -> None:
    folder = make_pe_audio(tmp_path)
    stored = json.loads((folder / "config.json").read_text())["text_config"]
    edit_settings(folder, text_config=stored | text if isinstance(text, dict) else text)
    assert read_text_tower(find_checkpoint(str(folder), None)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("text_model.layers.1.attn_norm.weight"),
        lambda state: state.update({"text_model.layers.0.attn_norm.weight": torch.ones(32)}),
        lambda state: state.update({"text_audio_head.proj.bias": torch.ones(32)}),
        lambda state: state.update({"text_model.final_norm.weight": torch.ones(31)}),
        lambda state: state.update({"other.weight": torch.ones(3)}),
    ],
)
def test_other_weights_are_left_to_transformers(change: Any, tmp_path: Path) -> None:
    folder = edit_weights(make_pe_audio(tmp_path), change)
    assert read_text_tower(find_checkpoint(str(folder), None)) is None


def test_gelu_is_exact_to_float32() -> None:
    x = np.concatenate([np.linspace(-9, 9, 100_001), [-1e30, 1e30, 0.0]]).astype(np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert (np.abs(gelu(x) - expected)[:-3] <= 1e-7 * np.maximum(1, np.abs(x[:-3]))).all()
    assert gelu(x)[-3:].tolist() == [0.0, np.float32(1e30), 0.0]


def test_text_is_embedded_without_torch_and_transformers() -> None:
    program = (
        "import sys\nfrom pipeline.encoder.text_encoder import load_text_encoder\n"
        "load_text_encoder('earshot-tiny').embed(['a bell'])\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys()))"
    )
    assert print_of(program) == "[]\n"


# --- tokens -----------------------------------------------------------------------------------------------------------

WORDS = [*TEXTS, "[CLS] a bell [SEP]", "É ü 雨  two  spaces", "Glass\nBREAKING!", "x" * 300]


def read_tokenizer(folder: Path) -> PlainTokenizer | None:
    checkpoint = find_checkpoint(str(folder), None)
    return read_plain_tokenizer(
        checkpoint.folder / "tokenizer.json", checkpoint.tokenizer, *checkpoint.tokenizer_settings
    )


def edit_tokenizer(folder: Path, **values: Any) -> Path:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def as_in_version_4(folder: Path) -> Path:
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    decoder = {str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added}
    return edit_tokenizer(
        folder,
        tokenizer_class="PreTrainedTokenizerFast",
        added_tokens_decoder=decoder,
        clean_up_tokenization_spaces=True,
        extra_special_tokens={},
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=8192,
    )


def test_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    folders = [make_pe_audio(tmp_path / "a"), as_in_version_4(make_pe_audio(tmp_path / "b"))]
    for folder, text in product([*folders, find_checkpoint("earshot-tiny", None).folder], WORDS):
        plain, reference = read_tokenizer(folder), TransformersTokenizer(find_checkpoint(str(folder), None))
        assert plain is not None
        assert plain.tokenize(text) == reference.tokenize(text), text
        assert plain.model_max_length == reference.model_max_length


def test_leftovers_of_the_last_call_do_not_cut_a_text(tmp_path: Path) -> None:
    folder = make_pe_audio(tmp_path)
    file = folder / "tokenizer.json"
    leftovers = {"truncation": {"max_length": 3, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}}
    whole = read_tokenizer(folder)
    file.write_text(json.dumps(json.loads(file.read_text()) | leftovers))
    cut = read_tokenizer(folder)
    assert whole is not None
    assert cut is not None
    assert cut.tokenize(WORDS[0]) == whole.tokenize(WORDS[0])


@pytest.mark.parametrize(
    "values",
    [
        {"tokenizer_class": "BertTokenizer"},
        {"do_lower_case": True},
        {"add_prefix_space": True},
        {"cls_token": "<another>"},
        {"extra_special_tokens": ["<new>"]},
        {"added_tokens_decoder": {"9": {"content": "<new>", "special": True}}},
        {"added_tokens_decoder": {"2": {"content": "[CLS]", "lstrip": True}}},
    ],
)
def test_other_tokenizers_are_left_to_transformers(values: dict[str, Any], tmp_path: Path) -> None:
    assert read_tokenizer(edit_tokenizer(make_pe_audio(tmp_path), **values)) is None
