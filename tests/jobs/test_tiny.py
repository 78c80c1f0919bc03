"""The bundled checkpoint finds and localises sounds it never heard; the same network untrained does not."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoProcessor, PeAudioFrameLevelModel, PeAudioModel, PreTrainedTokenizerBase

from jobs.tiny.card import CARD, HISTORY, MEASURES, write_quality
from jobs.tiny.evaluate import CHECKPOINT, Exam, Quality, load, make_exam, match_events, measure
from jobs.tiny.evaluate import find_events as find
from jobs.tiny.synth import CAPTIONS, CLASSES, DISTRACTORS, Event, make_scene
from pipeline.encoder.encoder import load_audio_model, make_tower
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ

PRECISION_FLOOR = 0.95
FRAME_F1_FLOOR = 0.90


torch.set_num_threads(1)  # two threads of so small a network wait for each other
keep_freed_memory()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load(CHECKPOINT)[1]


@pytest.fixture(scope="module")
def exam() -> Exam:
    return make_exam(held_out=True)


@pytest.fixture(scope="module")
def quality(exam: Exam, tokenizer: PreTrainedTokenizerBase) -> Quality:
    """Of the way that an index goes; `test_parity` compares it with that of transformers' own forward."""
    taken = load_audio_model(str(CHECKPOINT))
    return measure(load(CHECKPOINT)[0], tokenizer, exam, make_tower(taken, taken, "cpu", "float32"))


def test_held_out_exam_has_enough_of_every_class(exam: Exam) -> None:
    assert min(sum(label in clip.labels for clip in exam.clips) for label in CLASSES) >= 20
    assert all(len(captions) >= 6 for captions in exam.captions.values())


def test_validation_exam_asks_training_captions_only() -> None:
    exam = make_exam(held_out=False)
    assert all(set(exam.captions[label]) <= set(CAPTIONS[label].train) for label in CLASSES)
    assert set(exam.distractors) <= set(DISTRACTORS.train)


def test_words_find_clips(quality: Quality) -> None:
    assert quality.precision_at_10 >= PRECISION_FLOOR
    assert min(quality.precision_at_10_by_class.values()) >= 0.8


def test_words_find_frames(quality: Quality) -> None:
    assert quality.frame_f1 >= FRAME_F1_FLOOR
    assert min(quality.frame_f1_by_class.values()) >= 0.75  # rising sweeps reach 0.79
    assert quality.short_clip_frame_f1 >= FRAME_F1_FLOOR


def test_edges_are_within_two_frames_mostly(quality: Quality) -> None:
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


def test_model_card_tells_the_numbers_measured(quality: Quality) -> None:
    card = (CHECKPOINT / "README.md").read_text()
    for name, text in MEASURES.items():
        (told,) = re.findall(rf"^\| {re.escape(text)} \| (\S+) \|$", card, re.MULTILINE)
        assert float(told) == pytest.approx(getattr(quality, name), abs=0.01), text
    for label in CLASSES:
        ((n_clips, *told),) = re.findall(rf"^\| {label} \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", card, re.MULTILINE)
        measured = [quality.precision_at_10_by_class, quality.frame_f1_by_class, quality.event_f1_by_class]
        assert int(n_clips) == quality.clips_by_class[label]
        assert [float(value) for value in told] == pytest.approx([by[label] for by in measured], abs=0.01)


def test_model_card_takes_new_numbers_in_one_section_only(exam: Exam, quality: Quality, tmp_path: Path) -> None:
    told, card = (CHECKPOINT / "README.md").read_text(), tmp_path / "README.md"
    card.write_text(told)
    write_quality(card, exam, dataclasses.replace(quality, event_f1=0.123))
    changed = [line for line in card.read_text().splitlines() if line not in told.splitlines()]
    assert "| event micro-F1 | 0.123 |" in changed
    assert all(line.startswith("|") for line in changed)
    assert card.read_text().partition(HISTORY)[1:] == told.partition(HISTORY)[1:]
    assert CARD.endswith(HISTORY + "\n")  # training makes other weights: it begins without a history
    card.write_text("# another card\n")
    with pytest.raises(ValueError, match="0 sections"):
        write_quality(card, exam, quality)


def test_events_begin_above_the_threshold_and_go_on_a_little_below_it() -> None:
    logits = np.array([-5, -1.5, -0.5, 2, -1.5, -5, -1.5, -5, 1], np.float32)
    np.testing.assert_allclose(find(logits), [(0.08, 0.2), (0.32, 0.36)])


def test_an_event_matches_once_and_only_within_the_collar() -> None:
    true = [Event("bell", 1.0, 2.0), Event("bell", 3.0, 4.0)]
    np.testing.assert_allclose(match_events([(1.04, 2.0), (1.16, 1.2), (3.3, 4.0)], true), [(0.04, 0.0)], atol=1e-9)
