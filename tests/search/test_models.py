"""The models of an index: they must be those that made its vectors."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.encoder.checkpoint import read_identity
from pipeline.errors import IndexMismatch
from pipeline.grid import SAMPLE_RATE_HZ
from pipeline.search.models import QueryModels
from tests.helpers.checkpoints import edit_weights, make_pe_audio
from tests.helpers.ears import GRID
from tests.helpers.ears import index as index
from tests.helpers.fakes import noise
from tests.helpers.tables import write_index

TIES: dict[str, dict[str, Any]] = {"before the norm": {}, "after it": {"tie_last_hidden_states": True}}


def write_index_of(model: Path, path: Path, **changed: Any) -> Path:
    rows = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float16)
    identity = {key: value for key, value in (asdict(read_identity(str(model))) | changed).items() if value != ...}
    write_index(path, {"/a.wav": (rows, rows[:1])}, GRID, model=identity)
    return path


def lower_case(model: Path) -> None:
    values = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(values | {"normalizer": {"type": "Lowercase"}}))


def test_text_is_refused_where_the_tokenizer_has_changed(tmp_path: Path) -> None:
    model = make_pe_audio(tmp_path / "model", text={"hidden_size": 8})
    opened = pipeline.open(str(write_index_of(model, tmp_path / "index")))
    before = opened.search("wind")
    lower_case(model)
    assert opened.search("wind") == before  # with what it has loaded
    opened = pipeline.open(opened.path)
    for ask in (opened.search, opened.locate, opened.embed):
        with pytest.raises(IndexMismatch, match=r"another tokenizer .*; its weights are the same") as caught:
            ask("wind")
        assert "\n" not in str(caught.value)
    assert len(opened.similar(noise(1.0), SAMPLE_RATE_HZ)) == 1  # sounds do not need it


def test_index_without_a_stored_tokenizer_is_still_searched(tmp_path: Path) -> None:
    model = make_pe_audio(tmp_path / "model", text={"hidden_size": 8})
    path = write_index_of(model, tmp_path / "index", tokenizer=...)
    lower_case(model)
    assert len(pipeline.open(str(path)).search("wind")) == 1
    edit_weights(model, lambda state: state["audio_head.proj.weight"].mul_(2))
    with pytest.raises(IndexMismatch, match="other weights"):
        pipeline.open(str(path)).search("wind")


def test_models_of_equal_weights_and_another_text_state_stay_apart(tmp_path: Path) -> None:
    """Clips and frames may come from two checkpoints that differ only in how they read texts."""
    models = [make_pe_audio(tmp_path / name, text={"hidden_size": 8} | tied) for name, tied in TIES.items()]
    assert len({read_identity(str(model)).checksum for model in models}) == 1
    loaded = QueryModels(str(tmp_path))
    clip, frame = (loaded.for_texts(read_identity(str(model))).embed(["wind"])[0] for model in models)
    assert np.abs(clip - frame).max() > 1e-2
