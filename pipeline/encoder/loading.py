"""A checkpoint in, transformers' model and tokenizer out: exactly as stored, or an error in one line.

A checkpoint may come from anybody, so no code from its folder runs, and none that its settings name.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.encoder.checkpoint import Checkpoint, name_some
from pipeline.errors import ModelError, one_line
from pipeline.grid import HOP_SAMPLES

TEXT_TOWER = "modernbert"
"""The type of text model in every released checkpoint, and the only one whose final norm ``load_model`` knows."""


def load_model(checkpoint: Checkpoint, precision: str) -> Any:
    """The complete PeAudioModel on the CPU, in evaluation mode.

    Its ``text_model`` ends in the state that texts are embedded from: without the final norm, unless the checkpoint was
    trained with it.

    Args:
        precision: ``auto`` keeps that of the file.

    Raises:
        ModelError: the checkpoint does not load exactly.
    """
    import torch

    model, info = load_with_transformers(checkpoint, "PeAudioModel", precision)
    _check_loaded(checkpoint, info)
    # Not `hop_length`, which may be a stale copy of this product.
    hop = math.prod(model.config.audio_config.dac_config.downsampling_ratios)
    if hop != HOP_SAMPLES:
        raise ModelError(f"{checkpoint.name}: has frames of {hop} samples; only models with {HOP_SAMPLES} can be used")
    if not checkpoint.reads_normed_text:
        model.text_model.final_norm = torch.nn.Identity()
    return model.eval()


def load_with_transformers(checkpoint: Checkpoint, kind: str, precision: str) -> tuple[Any, dict[str, Any]]:
    """transformers' model of the class ``kind``, unchanged, and its loader's report on the weights.

    Raises:
        ModelError: transformers cannot load it.
    """
    import torch
    import transformers

    config = _read_config(checkpoint)
    with _loading(checkpoint.name):
        model, info = getattr(transformers, kind).from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=precision if precision == "auto" else getattr(torch, precision),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `info` names them, and they are refused in one line
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",  # otherwise the settings could name code on the hub
        )
    return model, info


def _read_config(checkpoint: Checkpoint) -> Any:
    from transformers import PeAudioConfig

    with _loading(checkpoint.name):
        settings = checkpoint.settings
        audio = settings.get("audio_config")
        if settings["model_type"] == "pe_audio_video":
            # Otherwise PeAudioModel would use the defaults of its class. Reading the settings of a video model through
            # transformers needs a package for images before 5.20.
            audio = (settings.get("audio_video_config") or {}).get("audio_config")
        config = PeAudioConfig(text_config=settings.get("text_config"), audio_config=audio)
    if config.text_config.model_type != TEXT_TOWER:
        raise ModelError(
            f"{checkpoint.name}: reads texts with {config.text_config.model_type}; only {TEXT_TOWER} can be used"
        )
    return config


def _check_loaded(checkpoint: Checkpoint, info: dict[str, Any]) -> None:
    mismatched = {key for key, *_shapes in info["mismatched_keys"]}
    unexpected = set(info["unexpected_keys"]) - ignored_weights(checkpoint, info)
    kinds = {"missing": info["missing_keys"], "unexpected": unexpected, "of another shape": mismatched}
    problems = [f"{len(keys)} {kind} ({name_some(keys)})" for kind, keys in kinds.items() if keys]
    if problems:
        raise ModelError(f"{checkpoint.name}: does not load exactly, of its weights {', '.join(problems)}")


def ignored_weights(checkpoint: Checkpoint, info: dict[str, Any]) -> set[str]:
    """Weights in the file that belong to other models. Unknown weights of the audio model itself are not among them.

    Args:
        info: the report of ``load_with_transformers``.
    """
    if checkpoint.settings["model_type"] != "pe_audio_video":
        return set()
    ours = ("audio_model.", "audio_encoder.", "audio_head.", "text_model.", "text_audio_head.", "text_audio_logit_")
    return {key for key in info["unexpected_keys"] if not key.startswith(ours)}


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer, as transformers loads it.

    Raises:
        ModelError: transformers cannot load it.
    """
    from transformers import AutoTokenizer

    with _loading(checkpoint.name):
        return AutoTokenizer.from_pretrained(
            checkpoint.folder, config=_read_config(checkpoint), local_files_only=True, trust_remote_code=False
        )


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Silence transformers' progress bar and report, and say in one line why it cannot load."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging

    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError) as error:
        raise ModelError(f"{name}: cannot be loaded: {one_line(error, 300)}") from error
    except (StrictDataclassError, SafetensorError) as error:
        raise ModelError(f"{name}: cannot be loaded: {one_line(error, 300)}") from error
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()
