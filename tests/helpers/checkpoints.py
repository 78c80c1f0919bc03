"""Small PE-Audio checkpoints with random weights of a realistic scale, made in about a second."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PeAudioConfig, PeAudioFeatureExtractor, PeAudioModel, PeAudioProcessor, PreTrainedTokenizerFast

TEXT: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "cls_token_id": 2,
    "bos_token_id": 2,
    "sep_token_id": 3,
    "eos_token_id": 3,
}
AUDIO: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "head_dim": 16,
    "dac_config": {"encoder_hidden_size": 4, "downsampling_ratios": [2, 8, 10, 12], "codebook_dim": 16},
}
VISION = {"model_type": "timm_wrapper", "architecture": "vit_pe_core_large_patch14_336", "num_classes": 1024}
SENTENCES = ["a dog barks far away", "glass breaking", "rain on a tin roof", "someone whistles", "wind 0123456789.,"]


JUDGED = ["clip model", "clip embeddings", "frame embeddings", "text embeddings of the clip model", "batches"]
JUDGED += ["bfloat16"]
"""What ``earshot check`` judges of one checkpoint, in its order."""


def make_pe_audio(
    folder: Path, seed: int = 0, text: dict[str, Any] | None = None, audio: dict[str, Any] | None = None
) -> Path:
    """Save a checkpoint of type ``pe_audio``; ``text`` and ``audio`` override settings of the towers."""
    model = build_model(seed, text, audio)
    model.save_pretrained(folder)
    save_processor(folder)
    return folder


def make_pe_audio_video(folder: Path, seed: int = 0, text: dict[str, Any] | None = None, tied: bool = True) -> Path:
    """Save a checkpoint of type ``pe_audio_video``, as far as an audio model reads one.

    transformers builds the complete model with vision packages only, and versions before 5.20 even its settings, so
    these are written as they lie on the disk. It keeps one copy of the shared text tower, under
    ``text_model.``; with ``tied`` false there is a second one under ``audio_model.text_model.``.
    """
    model = build_model(seed, text)
    state = {f"audio_model.{key}": value.clone() for key, value in model.state_dict().items()}
    for key in [key for key in state if key.startswith("audio_model.text_model.")]:
        shared = state.pop(key) if tied else state[key].clone()
        state[key.removeprefix("audio_model.")] = shared
    width = model.config.text_config.hidden_size
    for key in ("audio_video_head", "text_audio_video_head", "video_model.video_head", "audio_plus_text_head"):
        state[f"{key}.proj.weight"] = torch.randn(width, width)
    state["audio_video_encoder.output.weight"] = torch.randn(width, width)
    audio = {"model_type": "pe_audio_video_encoder", "audio_config": model.config.audio_config.to_dict()}
    settings = {
        "model_type": "pe_audio_video",
        "architectures": ["PeAudioVideoModel"],
        "text_config": model.config.text_config.to_dict(),
        "audio_video_config": audio | {"video_config": {"model_type": "pe_video_encoder", "vision_config": VISION}},
    }
    (folder / "config.json").write_text(json.dumps(settings, default=str))
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    save_processor(folder)
    return folder


def build_model(seed: int = 0, text: dict[str, Any] | None = None, audio: dict[str, Any] | None = None) -> PeAudioModel:
    """A model whose signals neither vanish nor explode, so that differences show.

    The default initialisation has a deviation of 0.02, which starves narrow layers: each is scaled by its inputs. The
    text tower's last norm is uneven, so that it shows whether a text was read before or after it.
    """
    torch.manual_seed(seed)
    config = PeAudioConfig(text_config={**TEXT, **(text or {})}, audio_config={**AUDIO, **(audio or {})})
    model = PeAudioModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "alpha" not in name:
                weight.normal_(0, 1.0 if "embed" in name.rsplit(".", 2)[-2] else weight[0].numel() ** -0.5)
        model.text_model.final_norm.weight.copy_(torch.linspace(0.1, 4.0, config.text_config.hidden_size))
        model.text_audio_logit_scale.fill_(10.0 + seed)
        model.text_audio_logit_bias.fill_(-5.0)
    return model


def save_processor(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    PeAudioProcessor(PeAudioFeatureExtractor(), fast).save_pretrained(folder)


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """Apply ``change`` to the weights by name, in place."""
    state = {key: value.clone() for key, value in load_file(folder / "model.safetensors").items()}
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def edit_settings(folder: Path, **values: Any) -> Path:
    """Replace settings at the top level of config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def make_released_shape(folder: Path) -> Path:
    """A checkpoint of the default size (606 million parameters, 2.4 GB) with zeros for weights; takes some 10 s."""
    with torch.device("meta"):
        model = PeAudioModel(PeAudioConfig())
    model.config.save_pretrained(folder)
    save_file(
        {key: torch.zeros(value.shape) for key, value in model.state_dict().items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    save_processor(folder)
    return folder
