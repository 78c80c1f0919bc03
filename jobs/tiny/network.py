"""The network of ``earshot-tiny``: tokenizer, sizes and start values before training, and how to save it afterwards.

The architecture is PE-Audio's own with every part made small. A network this narrow does not learn from the library's
start values, so the codec starts as a coarse filter bank.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    ModernBertConfig,
    PeAudioConfig,
    PeAudioEncoderConfig,
    PeAudioFeatureExtractor,
    PeAudioModel,
    PeAudioProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from jobs.tiny.captions import CAPTIONS, DISTRACTORS
from jobs.tiny.synth import CLASSES
from pipeline.grid import SAMPLE_RATE_HZ

CODEC_STRIDES = [8, 10, 12, 2]
"""Their product is 1920, as in the released models, but sequences get short early: five times faster on a CPU."""

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing tokenizer of 600 entries, learnt from the training captions alone."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL_TOKENS, initial_alphabet=letters)
    captions = [caption for label in CLASSES for caption in CAPTIONS[label].train] + list(DISTRACTORS.train)
    tokenizer.train_from_iterator(captions, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def build_config() -> PeAudioConfig:
    """The sizes of the model: everything small, the frame grid as in the released checkpoints."""
    audio = PeAudioEncoderConfig(
        dac_config={
            "model_type": "dac",
            "encoder_hidden_size": 8,
            "downsampling_ratios": CODEC_STRIDES,
            "codebook_dim": 64,
            "sampling_rate": SAMPLE_RATE_HZ,
        },
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=24,
    )
    special = {f"{name}_token_id": SPECIAL_TOKENS.index(f"[{name.upper()}]") for name in ("pad", "cls", "sep")}
    text = ModernBertConfig(
        vocab_size=600,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=special["cls_token_id"],
        eos_token_id=special["sep_token_id"],
        tie_last_hidden_states=True,  # transformers then reads the state after the final norm, as training does
        **special,
    )
    return PeAudioConfig(text_config=text.to_dict(), audio_config=audio.to_dict())


@torch.no_grad()
def initialise(model: PeAudioModel) -> None:
    """Start values for a narrow network: with the library's deviation of 0.02, its signals would vanish."""
    encoder = model.audio_encoder
    for module in encoder.modules():
        if isinstance(module, nn.Conv1d | nn.Linear):
            module.weight.normal_(std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                module.bias.zero_()
    for block in encoder.embedder.dac_encoder.block:
        for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
            nn.init.zeros_(unit.conv2.weight)
    start_as_filter_bank(encoder.embedder.dac_encoder)
    nn.init.normal_(encoder.patch_embedder.class_embedding)
    model.text_audio_logit_scale.fill_(10.0)
    model.text_audio_logit_bias.fill_(-5.0)


def embed_texts(model: PeAudioModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Text embeddings (texts, dim), from the last state of the model's ``text_model``."""
    tokens = tokenizer(list(texts), return_tensors="pt", padding=True)
    hidden = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    embeddings: Tensor = model.text_audio_head(hidden[:, 0])
    return embeddings


HIGH_HZ = (3_000, 4_200, 5_600, 7_500, 10_500, 15_000)
MIDDLE_HZ = tuple(range(300, 3_000, 300))
LOW_HZ = (30, 50, 75, 105, 140, 175, 210, 245)


def hann(n_taps: int) -> Tensor:
    """A Hann window (n_taps,) of sum 1, without its zeros."""
    window = torch.hann_window(n_taps + 2, periodic=False)[1:-1]
    return window / window.sum()


def band_pair(centre_hz: float, rate_hz: float, n_taps: int) -> Tensor:
    """Two filters (2, n_taps) in quadrature that pass a band of unit height around ``centre_hz``."""
    angle = 2 * math.pi * centre_hz * (torch.arange(n_taps) - (n_taps - 1) / 2) / rate_hz
    return 2 * hann(n_taps) * torch.stack([angle.cos(), angle.sin()])


def start_as_filter_bank(dac: Any) -> None:
    """Start the codec as a coarse filter bank; from noise it takes far longer to find pitch.

    Each stride splits the frequencies that its rate can still carry into bands, in quadrature, and passes the rest on,
    low-passed. The activation squares, so the low-pass of the next stride turns a pair into the energy of its band.
    Unassigned channels stay random, and all others keep a little noise.
    """
    first, second, third, last = (block.conv1.weight for block in dac.block)
    dac.conv1.weight.mul_(6.0)  # sounds are quiet: the random channels must reach the curved part of the activation
    dac.conv1.weight[0] = 0.0
    dac.conv1.weight[0, 0, 3] = 1.0
    for weight, n_assigned in ((first, 13), (second, 25), (third, 46), (last, 64)):
        weight.mul_(0.3)
        weight[:n_assigned].mul_(0.3)
    first[0, 0] += 0.5 * hann(16)
    for band, centre_hz in enumerate(HIGH_HZ):
        first[1 + 2 * band : 3 + 2 * band, 0] += 4 * band_pair(centre_hz, 48_000, 16)
        second[band, 1 + 2 * band : 3 + 2 * band] += 2 * hann(20)
    for band, centre_hz in enumerate(MIDDLE_HZ):
        second[6 + 2 * band : 8 + 2 * band, 0] += 8 * band_pair(centre_hz, 6_000, 20)
        third[6 + band, 6 + 2 * band : 8 + 2 * band] += 2 * hann(24)
        third[21 + band, 6 + 2 * band : 8 + 2 * band] += 4 * torch.sign(torch.arange(24) - 11.5) * hann(24)
    second[24, 0] += hann(20)
    for band in range(len(HIGH_HZ)):
        third[band, band] += 2 * hann(24)
        third[15 + band, band] += 4 * torch.sign(torch.arange(24) - 11.5) * hann(24)
    for band, centre_hz in enumerate(LOW_HZ):
        third[30 + 2 * band : 32 + 2 * band, 24] += 8 * band_pair(centre_hz, 600, 24)
    last[:64] += 0.25 * torch.eye(64)[:, :, None]
    dac.conv2.weight.mul_(0.3)
    dac.conv2.weight[:, :, 1] += torch.eye(128)


def save(model: PeAudioModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write everything that ``from_pretrained`` reads, without padding, which the processor would inherit."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    model.save_pretrained(out)
    PeAudioProcessor(feature_extractor=PeAudioFeatureExtractor(), tokenizer=tokenizer).save_pretrained(out)
