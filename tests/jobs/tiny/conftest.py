"""The bundled checkpoint and the held-out exam."""

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from jobs.tiny.evaluate import CHECKPOINT, Exam, Quality, load, make_exam, measure
from pipeline.encoder.encoder import load_audio_model, make_tower
from pipeline.encoder.malloc import keep_freed_memory

torch.set_num_threads(1)  # in so small a network, two threads wait for each other


keep_freed_memory()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return load(CHECKPOINT)[1]


@pytest.fixture(scope="session")
def exam() -> Exam:
    return make_exam(held_out=True)


@pytest.fixture(scope="session")
def quality(exam: Exam, tokenizer: PreTrainedTokenizerBase) -> Quality:
    """The quality with Earshot's tower; `test_parity` compares it with transformers' own forward."""
    taken = load_audio_model(str(CHECKPOINT))
    return measure(load(CHECKPOINT)[0], tokenizer, exam, make_tower(taken, taken, "cpu", "float32"))
