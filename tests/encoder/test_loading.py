"""A checkpoint may come from anybody: no code of its folder runs, whoever answers on the terminal."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.encoder.checkpoint import find_checkpoint, read_identity
from pipeline.encoder.text_encoder import load_text_encoder
from pipeline.errors import ModelError
from pipeline.grid import Grid
from tests.helpers.checkpoints import make_pe_audio, make_pe_audio_video
from tests.helpers.tables import write_index

ROOT = Path(__file__).parents[2]

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
    """Let a checkpoint name code of its folder; returns the file that is there once that has run."""
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
    """Run a command whose input and output are a terminal, where something has been typed ahead."""
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


def test_an_empty_list_of_code_is_none(tmp_path: Path) -> None:
    path = make_pe_audio(tmp_path) / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {}}))
    load_text_encoder(str(tmp_path))


@pytest.mark.parametrize("way", ["a tokenizer", "a model"])
def test_a_query_on_a_terminal_neither_asks_nor_runs_it(way: str, tmp_path: Path) -> None:
    model, index = make_pe_audio(tmp_path / "model"), tmp_path / "index"
    zeros = np.zeros((10, 8), np.float16)
    write_index(index, {"/a.wav": (zeros, zeros[:1])}, Grid(), model=read_identity(str(model)).to_dict())
    marker = plant(model, way)
    code, shown = run_on_a_terminal([sys.executable, "-m", "jobs.main", "query", str(index), "wind"], "y\n" * 8)
    assert code == 2, shown
    assert f"earshot: {model}: " in shown
    assert "names code to run" in shown
    assert "[y/N]" not in shown
    assert not marker.exists()


def test_even_unnoticed_it_would_not_run(tmp_path: Path) -> None:
    """The loaders of transformers are told so as well, should they look for code where Earshot does not."""
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


def test_attention_that_settings_name_on_the_hub_is_not_fetched(tmp_path: Path) -> None:
    path = make_pe_audio(tmp_path) / "config.json"
    settings = json.loads(path.read_text())
    for part in (settings, settings["text_config"], settings["audio_config"]):
        part["attn_implementation"] = part["_attn_implementation"] = "someone/attention"
    path.write_text(json.dumps(settings))
    model = load_text_encoder(str(tmp_path))._model
    assert model.config._attn_implementation == model.text_model.config._attn_implementation == "sdpa"
