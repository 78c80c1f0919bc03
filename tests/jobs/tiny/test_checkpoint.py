"""The bundled checkpoint finds and localises sounds it never heard; the same network untrained does not."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoProcessor, PeAudioFrameLevelModel, PeAudioModel, PreTrainedTokenizerBase

from jobs.tiny.captions import CAPTIONS
from jobs.tiny.evaluate import CHECKPOINT, Exam, Quality, load, measure
from jobs.tiny.evaluate import find_events as find
from jobs.tiny.synth import Event, make_scene
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ

PRECISION_FLOOR = 0.98


FRAME_F1_FLOOR = 0.92


def test_words_find_clips(quality: Quality) -> None:
    assert quality.precision_at_10 >= PRECISION_FLOOR
    assert min(quality.precision_at_10_by_class.values()) >= 0.95


def test_words_find_frames(quality: Quality) -> None:
    assert quality.frame_f1 >= FRAME_F1_FLOOR
    assert min(quality.frame_f1_by_class.values()) >= 0.80  # bells reach 0.85
    assert quality.short_clip_frame_f1 >= FRAME_F1_FLOOR


def test_most_edges_are_within_two_frames(quality: Quality) -> None:
    assert quality.onset_error_median_s <= 0.04
    assert quality.offset_error_median_s <= 0.04
    assert quality.onset_error_p90_s <= 0.08


def test_lone_short_events_are_found_and_unknown_words_find_little(quality: Quality) -> None:
    assert quality.short_event_recall >= 0.9
    assert quality.distractor_frame_rate <= 0.02


def test_untrained_network_fails_the_same_thresholds(exam: Exam, tokenizer: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(0)
    untrained = PeAudioModel(AutoConfig.from_pretrained(CHECKPOINT))
    trained = load(CHECKPOINT)[0]
    untrained.text_audio_logit_scale.data.copy_(trained.text_audio_logit_scale.data)
    untrained.text_audio_logit_bias.data.copy_(trained.text_audio_logit_bias.data)
    chance = measure(untrained, tokenizer, dataclasses.replace(exam, clips=exam.clips[::9]))
    assert chance.precision_at_10 < PRECISION_FLOOR
    assert chance.frame_f1 < FRAME_F1_FLOOR


@pytest.mark.parametrize("kind", [PeAudioModel, PeAudioFrameLevelModel])
def test_both_models_load_every_weight(kind: type[PeAudioModel]) -> None:
    model, report = kind.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not any(report.values()), report
    assert model.config.model_type == "pe_audio"
    assert model.config.audio_config.dac_config.hop_length == HOP_SAMPLES


def test_clip_and_frame_model_share_their_weights() -> None:
    clip = PeAudioModel.from_pretrained(CHECKPOINT).state_dict()
    frame = PeAudioFrameLevelModel.from_pretrained(CHECKPOINT).state_dict()
    assert clip.keys() == frame.keys()
    assert all(torch.equal(clip[name], frame[name]) for name in clip)


def test_processor_feeds_the_models_own_forward() -> None:
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    waveform, _ = make_scene(np.random.default_rng(0), 4.0, [Event("high_tone", 1.0, 2.0)], held_out=True)
    caption = CAPTIONS["high_tone"].held_out[0]
    inputs = processor(
        text=[caption], audio=[waveform], sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", padding=True
    )
    with torch.inference_mode():
        logits = PeAudioFrameLevelModel.from_pretrained(CHECKPOINT).eval()(**inputs).logits_audio_text[0, 0]
    ((start_s, end_s),) = find(logits.numpy())
    assert start_s == pytest.approx(1.0, abs=0.09)
    assert end_s == pytest.approx(2.0, abs=0.09)


def test_checkpoint_is_small_and_names_no_path() -> None:
    files = list(CHECKPOINT.iterdir())
    assert sum(path.stat().st_size for path in files) < 6_000_000
    for path in files:
        if path.suffix == ".json":
            assert not re.search(r'"/\w|\w:\\\\|/home/|/tmp/', path.read_text()), path.name
