"""A name becomes a checkpoint on this machine, and its files an identity."""

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import PeAudioFrameLevelModel

from pipeline.encoder.checkpoint import ModelIdentity, find_checkpoint, read_identity
from pipeline.encoder.text_encoder import load_text_encoder
from pipeline.encoder.text_tower import read_text_tower
from pipeline.errors import ModelError
from tests.helpers.checkpoints import edit_settings, edit_weights, make_released_shape
from tests.helpers.encoders import assert_close, load, make_windows, one_line
from tests.helpers.processes import print_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of hub models, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_hub_model_is_taken_from_the_cache(one: Path, cache: Path, revision: str | None) -> None:
    model = cache / "models--someone--ears"
    shutil.copytree(one, model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    identity = read_identity("someone/ears", revision)
    assert (identity.name, identity.revision) == ("someone/ears", COMMIT)
    assert identity.checksum == read_identity(str(one)).checksum


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("revision", [None, COMMIT])
def test_hub_model_out_of_reach_fails_quickly(
    cache: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    pauses_s: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses_s.append)  # before it is tried again
    with pytest.raises(ModelError, match=r"^facebook/pe-av-base: .*cannot be downloaded: connect once") as caught:
        load_text_encoder("facebook/pe-av-base", revision)
    one_line(caught)
    assert sum(pauses_s) < 5


@pytest.mark.parametrize("name", ["nothing", "./nothing", "~/nothing/here", "/nothing/here", "a b/c", "a/--b"])
def test_impossible_model_names_fail_at_once(cache: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"^{name}: ") as caught:
        read_identity(name)
    one_line(caught)


def test_folder_is_named_by_its_absolute_path(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(one.parent)
    monkeypatch.setenv("HOME", str(one.parent))
    names = {read_identity(name).name for name in (str(one), one.name, f"./{one.name}", f"~/{one.name}")}
    assert names == {str(one)}


def test_the_identity_is_read_from_the_files(one: Path, two: Path) -> None:
    identity = read_identity(str(two))
    assert (identity.dimension, identity.logit_scale, identity.logit_bias) == (24, 11.0, -5.0)
    assert ModelIdentity(**json.loads(json.dumps(asdict(identity)))) == identity
    assert load(one, two).frame_identity == load_text_encoder(str(two)).identity == identity
    assert identity.checksum != read_identity(str(one)).checksum


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_logit_bias_is_read_in_any_precision(copy: Path, dtype: torch.dtype) -> None:
    edit_weights(copy, lambda state: state.update(text_audio_logit_bias=torch.tensor([-5.25], dtype=dtype)))
    assert read_identity(str(copy)).logit_bias == -5.25


def test_the_checksum_changes_with_every_tensor(copy: Path) -> None:
    seen = {read_identity(str(copy)).checksum}
    keys = load_file(copy / "model.safetensors").keys()
    for key in keys:
        edit_weights(copy, lambda state, key=key: state[key].mul_(1.01).add_(1e-4))  # type: ignore[misc]
        seen.add(read_identity(str(copy)).checksum)
    assert len(seen) == len(keys) + 1


@pytest.mark.parametrize("row", [0, 100, 199])
def test_checksum_reads_three_places_of_a_large_tensor(copy: Path, row: int) -> None:
    key = "text_model.embeddings.tok_embeddings.weight"  # 200 rows of 128 bytes
    before = read_identity(str(copy)).checksum
    edit_weights(copy, lambda state: state[key][row].add_(1e-4))
    assert read_identity(str(copy)).checksum != before


def test_the_checksum_changes_with_a_setting(copy: Path) -> None:
    before = read_identity(str(copy)).checksum
    settings = json.loads((copy / "config.json").read_text())["text_config"]
    edit_settings(copy, text_config=settings | {"norm_eps": 0.1})
    assert read_identity(str(copy)).checksum != before


def test_copying_saving_and_sharding_keep_the_checksum(one: Path, tmp_path: Path) -> None:
    model = PeAudioFrameLevelModel.from_pretrained(one)
    shutil.copytree(one, tmp_path / "sharded")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    assert len([*(tmp_path / "sharded").glob("model-*.safetensors")]) > 2
    whole, sharded = read_identity(str(one)), read_identity(str(tmp_path / "sharded"))
    assert (sharded.checksum, sharded.logit_scale) == (whole.checksum, whole.logit_scale)
    windows = make_windows([5])
    assert_close(load(tmp_path / "sharded").encode(windows)[0], load(one).encode(windows)[0])


def test_reading_an_identity_imports_no_heavy_library(one: Path) -> None:
    script = (
        "import sys; from pipeline.encoder.checkpoint import read_identity; read_identity(sys.argv[1]);"
        "print(sorted({'torch', 'transformers', 'ray', 'lance', 'pydantic', 'pyarrow'} & sys.modules.keys()))"
    )
    assert print_of(script, one) == "[]\n"


def count_bytes_read() -> int:
    """Bytes that this process has read from files so far, without mapped files."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar:")))


@pytest.mark.slow
def test_a_checkpoint_of_released_size_is_described_from_few_bytes_and_loaded(tmp_path: Path) -> None:
    folder = str(make_released_shape(tmp_path))
    before = count_bytes_read()
    assert read_identity(folder).dimension == 1024
    assert count_bytes_read() - before < 10e6
    tower = read_text_tower(find_checkpoint(folder, None))
    assert tower is not None
    assert sum(weight.size for weight in tower._weights.values()) + tower._tokens._mapped.size == 322_288_640
    assert load_text_encoder(folder).embed(["wind"]).shape == (1, 1024)
