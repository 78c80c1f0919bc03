"""The model card states the figures of the checkpoint."""

import dataclasses
import re
from pathlib import Path

import pytest

from jobs.tiny.card import CARD, HISTORY, MEASURES, write_quality
from jobs.tiny.evaluate import CHECKPOINT, Exam, Quality
from jobs.tiny.synth import CLASSES


def test_model_card_states_the_measured_figures(quality: Quality) -> None:
    card = (CHECKPOINT / "README.md").read_text()
    for name, text in MEASURES.items():
        (told,) = re.findall(rf"^\| {re.escape(text)} \| (\S+) \|$", card, re.MULTILINE)
        assert float(told) == pytest.approx(getattr(quality, name), abs=0.01), text
    for label in CLASSES:
        ((n_clips, *told),) = re.findall(rf"^\| {label} \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", card, re.MULTILINE)
        measured = [quality.precision_at_10_by_class, quality.frame_f1_by_class, quality.event_f1_by_class]
        assert int(n_clips) == quality.clips_by_class[label]
        assert [float(value) for value in told] == pytest.approx([by[label] for by in measured], abs=0.01)


def test_write_quality_changes_one_section_only(exam: Exam, quality: Quality, tmp_path: Path) -> None:
    told, card = (CHECKPOINT / "README.md").read_text(), tmp_path / "README.md"
    card.write_text(told)
    write_quality(card, exam, dataclasses.replace(quality, event_f1=0.123))
    changed = [line for line in card.read_text().splitlines() if line not in told.splitlines()]
    assert "| event micro-F1 | 0.123 |" in changed
    assert all(line.startswith("|") for line in changed)
    assert card.read_text().partition(HISTORY)[1:] == told.partition(HISTORY)[1:]
    assert CARD.endswith(HISTORY + "\n")  # training makes other weights, so its card has no history
    card.write_text("# another card\n")
    with pytest.raises(ValueError, match="0 sections"):
        write_quality(card, exam, quality)
