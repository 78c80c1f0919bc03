"""``earshot check`` calls correct models right and faulty ones wrong, line by line."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.commands.check import make_sounds
from pipeline.config import EncodeConfig
from pipeline.encoder.batching import Rows
from pipeline.encoder.check import Finding, check
from pipeline.encoder.encoder import NonFiniteError, load_encoder
from pipeline.errors import ModelError
from pipeline.grid import Waveform
from tests.helpers.checkpoints import JUDGED, make_pe_audio, make_pe_audio_video
from tests.helpers.perception_models import FakePerceptionModels

pytestmark = pytest.mark.usefixtures("one_thread")


def look(clip: Path | str, frame: Path | None = None, **fakes: Any) -> dict[str, Finding]:
    models = EncodeConfig(clip_model=str(clip), frame_model=frame and str(frame), device="cpu")
    found = list(check(models, make_sounds(), timed_s=0, **fakes))
    assert len({finding.what for finding in found}) == len(found)
    return {finding.what: finding for finding in found}


def wrong(found: dict[str, Finding]) -> list[str]:
    return [what for what, finding in found.items() if finding.verdict == "wrong"]


def right(found: dict[str, Finding]) -> list[str]:
    return [what for what, finding in found.items() if finding.verdict == "right"]


class Off:
    """An encoder that changes the embeddings of a correct one."""

    def __init__(self, settings: EncodeConfig) -> None:
        self._encoder = load_encoder(settings)
        self.compiled = False

    def compile(self) -> None:
        pass

    def encode(self, windows: Sequence[Waveform]) -> tuple[Rows, list[Rows] | None]:
        clips, frames = self._encoder.encode(windows)
        return self.change(clips, windows), [self.change(rows, windows) for rows in frames or []]

    def change(self, rows: Rows, windows: Sequence[Waveform]) -> Rows:
        return rows


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the released clip models' type, of another dimension."""
    return make_pe_audio_video(tmp_path_factory.mktemp("two"), seed=1, text={"hidden_size": 24})


def test_a_random_checkpoint_is_right(one: Path) -> None:
    found = look(one)
    assert right(found) == JUDGED
    assert wrong(found) == []
    assert found["clip model"].said.endswith("unused in the file: nothing")
    assert "does not say `tie_last_hidden_states: true`" in found["texts of the clip model"].said
    assert found["texts of the clip model"].said.startswith("read before ModernBERT's final norm")
    assert found["Meta's package"].said.startswith("perception_models is not installed")
    assert found["speed"].figure is not None
    assert found["speed"].figure > 0


def test_check_looks_at_both_models(one: Path, two: Path) -> None:
    found = look(two, one)
    assert wrong(found) == []
    assert {"frame model", "text embeddings of the frame model", "siren, clips", "siren, frames"} <= found.keys()
    unused = "5 tensors of other models (audio_plus_text_head, audio_video_encoder, audio_video_head"
    assert unused in found["clip model"].said
    assert found["frame model"].said.endswith("unused in the file: nothing")


def test_check_names_the_state_that_texts_are_read_from(tmp_path: Path) -> None:
    found = look(make_pe_audio(tmp_path, text={"tie_last_hidden_states": True}))
    assert found["texts of the clip model"].said.startswith(
        "read after ModernBERT's final norm, since config.json says"
    )
    assert wrong(found) == []


def test_missing_model_ends_the_check(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model"):
        look(tmp_path / "nothing")


class Longer(Off):
    """Embeddings are longer by a thousandth."""

    def change(self, rows: Rows, windows: Sequence[Waveform]) -> Rows:
        return rows * np.float32(1.001)


class Crowded(Off):
    """Embeddings change if the batch holds windows of another length."""

    def change(self, rows: Rows, windows: Sequence[Waveform]) -> Rows:
        return rows + np.float32(1e-3) if len({len(window) for window in windows}) > 1 else rows


class Rough(Off):
    """Embeddings are wrong in bfloat16."""

    def __init__(self, settings: EncodeConfig) -> None:
        super().__init__(settings)
        self._is_rough = settings.precision == "bfloat16"

    def change(self, rows: Rows, windows: Sequence[Waveform]) -> Rows:
        return np.roll(rows, 1, axis=-1) if self._is_rough else rows


class Infinite(Rough):
    def encode(self, windows: Sequence[Waveform]) -> tuple[Rows, list[Rows] | None]:
        if self._is_rough:
            raise NonFiniteError([0], len(windows))
        return super().encode(windows)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        (Longer, ["clip embeddings", "frame embeddings"]),
        (Crowded, ["batches"]),
        (Rough, ["bfloat16"]),
        (Infinite, ["bfloat16"]),
    ],
)
def test_wrong_embeddings_are_called_wrong(one: Path, encoder: Any, expected: list[str]) -> None:
    # It is timed in float32, whatever precision suits this machine.
    models = EncodeConfig(clip_model=str(one), device="cpu", precision="float32")
    assert wrong({finding.what: finding for finding in check(models, make_sounds(), encoder, timed_s=0)}) == expected


def test_check_goes_on_without_finite_embeddings_in_the_native_precision(one: Path) -> None:
    models = EncodeConfig(clip_model=str(one), device="cpu", precision="bfloat16")
    found = {finding.what: finding for finding in check(models, make_sounds(), Infinite, timed_s=0)}
    assert wrong(found) == ["bfloat16"]
    assert found["speed"].said.startswith("cannot be measured in bfloat16")


class Uncompiled(Off):
    def compile(self) -> None:
        warnings.warn(
            "encoding is slower than it could be, torch cannot compile here: no g++", RuntimeWarning, stacklevel=2
        )


def test_check_tells_why_nothing_is_compiled(one: Path) -> None:
    found = look(one, make_encoder=Uncompiled)
    assert found["compiled"].said.endswith("torch cannot compile here: no g++")
    assert found["compiled"].verdict == "told"
    assert wrong(found) == []


@pytest.fixture
def released(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of one of Meta's models, in a cache of hub models."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = tmp_path / "models--facebook--pe-av-tiny"
    (model / "snapshots").mkdir(parents=True)
    (model / "snapshots" / commit).symlink_to(one)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    return "facebook/pe-av-tiny"


def test_check_compares_with_metas_package(one: Path, released: str) -> None:
    package = FakePerceptionModels(one)
    found = look(released, find_package=lambda: package)
    assert package.asked == ["pe-av-tiny"] * 2
    assert {"Meta's package, clips", "Meta's package, frames"} <= set(right(found))
    found = look(released, find_package=lambda: FakePerceptionModels(one, off=0.1))
    assert wrong(found) == ["Meta's package, clips"]
    found = look(released, find_package=lambda: FakePerceptionModels(one, nth=None))  # reads texts after the norm
    assert wrong(found) == ["Meta's package, clips", "Meta's package, frames"]


def test_check_tells_why_metas_package_does_not_run(one: Path, released: str) -> None:
    def fail() -> Any:
        raise ImportError("torchcodec\nis missing")

    found = look(released, find_package=fail)
    assert found["Meta's package"].said == "cannot be imported: ImportError: torchcodec is missing"
    found = look(one, find_package=lambda: FakePerceptionModels(one))
    assert found["Meta's package, clips"].said == f"knows facebook/... only, not {one}"
    found = look(released, find_package=lambda: object())
    assert found["Meta's package, frames"].said.startswith("cannot be run: AttributeError: ")
