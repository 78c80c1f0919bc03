"""Windows in, clip and frame embeddings out: PE-Audio through transformers. ``text_encoder`` embeds texts.

A checkpoint loads exactly or not at all: every weight of the model must be in it, with the right shape, and no code of
its folder runs. Nothing is padded, and no sound attends to another, so no embedding depends on its batch. The caller
sets the number of torch threads (``torch.set_num_threads``).

torch and transformers are imported on first use.

    >>> encoder = load_encoder(EncodeConfig(clip_model="facebook/pe-av-base", frame_model="facebook/pe-a-frame-base"))
    >>> clips, frames = encoder.encode([np.zeros(250 * HOP_SAMPLES, np.float32)])   # (1, 1024), [(250, 1024)]
    >>> query = load_text_encoder("facebook/pe-av-base").embed(["glass breaking"])[0]
    >>> probability(clips @ query, encoder.clip_identity)
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.encoder.batching import Batches, Output, Rows
from pipeline.encoder.checkpoint import Checkpoint, ModelIdentity, find_checkpoint
from pipeline.encoder.loading import load_model, load_tokenizer
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.errors import UsageError
from pipeline.grid import HOP_SAMPLES, Waveform

if TYPE_CHECKING:  # the encoder runs without pydantic
    from pipeline.config import EncodeConfig


class NonFiniteError(ValueError):
    """Some windows have no finite embedding: ``windows`` holds their positions in the call."""

    def __init__(self, windows: Sequence[int], n_windows: int) -> None:
        super().__init__(f"no finite embedding for windows {', '.join(map(str, windows))} of {n_windows}")
        self.windows = tuple(windows)
        self.n_windows = n_windows

    def __reduce__(self) -> tuple[type["NonFiniteError"], tuple[tuple[int, ...], int]]:
        return type(self), (self.windows, self.n_windows)


class AudioEncoder:
    """Turns windows into embeddings. Made by ``load_encoder``.

    ``frame_identity`` is None when frames are not wanted. Where the two identities have one checksum, one model and one
    pass give both outputs; where only the codecs of two models are equal, one pass of the codec serves both.
    """

    def __init__(
        self, clip: "Checkpoint", frame: "Checkpoint | None", settings: "EncodeConfig", output: Output = "float32"
    ) -> None:
        self.device = resolve_device(settings.device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.clip_identity = clip.identity
        self.frame_identity = frame.identity if frame else None
        clip_model = load_model(clip, "auto")
        frame_model = clip_model if frame and frame.checksum == clip.checksum else frame and load_model(frame, "auto")
        self._tower = make_tower(clip_model, frame_model, self.device, self.precision)
        self._output = output
        self._batches = Batches(self.device, settings.batch_windows, output)

    def compile(self) -> None:
        """Spend some seconds (more for the first time on a machine) to make encoding faster: worth it for minutes of
        sound."""
        self._tower.compile()

    @property
    def compiled(self) -> bool:
        """Whether ``compile`` could make anything faster here."""
        return bool(self._tower.codec.compiled or self._tower.frame_codec.compiled)

    @property
    def batch_windows(self) -> float | None:
        """How many windows of 10 s a batch holds; None before it has been measured.

        Fewer than configured where those did not fit, or are more than 64 on a GPU.
        """
        return self._batches.windows

    def encode(self, windows: Sequence[Waveform]) -> tuple[Rows, list[Rows] | None]:
        """Embed windows of shape (n_frames * HOP_SAMPLES,), of any mixture of lengths, in their order.

        Returns:
            Clip embeddings of shape (n, D), and for each window its frame embeddings of shape (n_frames, D'), or None
            when frames are not wanted. Their type is the encoder's ``output``, whatever its precision.

        Raises:
            NonFiniteError: a window's embedding has a NaN or an infinity, or a number too large for an ``output`` of
                float16. The other windows are not affected.
            ValueError: a window is not a 1-d float32 array of one or more whole frames.
        """
        _check_windows(windows)
        clips = np.empty((len(windows), self.clip_identity.dimension), self._output)
        frames: list[Rows] = [np.empty((0, 0), self._output)] * len(windows)
        for batch, (clip_rows, frame_rows) in self._batches.run(self._tower.embed, windows):
            clips[batch] = clip_rows
            if frame_rows is not None:
                for i, rows in zip(batch, frame_rows, strict=True):
                    frames[i] = rows
        broken = [i for i, rows in enumerate(frames) if not (is_finite(clips[i]) and is_finite(rows))]
        if broken:
            raise NonFiniteError(broken, len(windows))
        return clips, None if self.frame_identity is None else frames


def load_audio_model(name: str) -> Any:
    """A checkpoint as transformers' ``PeAudioModel``, float32 on the CPU, without its text tower.

    Raises:
        ModelError: the model cannot be found, or its checkpoint does not load exactly.
    """
    model = load_model(find_checkpoint(name, None), "float32")
    del model.text_model, model.text_audio_head
    return model


def make_tower(clip_model: Any, frame_model: Any, device: str, precision: str) -> Any:
    """The audio tower of two models of transformers, which may be one object. It takes the models apart.

    Args:
        frame_model: None where frames are not wanted.
    """
    import torch

    from pipeline.encoder.audio_tower import Tower

    for model in (clip_model, frame_model):
        if hasattr(model, "text_model"):
            del model.text_model, model.text_audio_head
    return Tower(clip_model, frame_model, device, getattr(torch, precision))


def load_encoder(settings: "EncodeConfig", frames: bool = True, output: Output = "float32") -> AudioEncoder:
    """The clip model and, with ``frames``, the frame model (the same one where no other is named).

    Args:
        output: the type of the embeddings. The model's device rounds to float16 many times as fast as numpy.

    Raises:
        ModelError: a model cannot be found, or its checkpoint does not load exactly.
        UsageError: ``device`` is ``cuda`` and there is no GPU.
    """
    clip = find_checkpoint(settings.clip_model, settings.clip_revision)
    frame = None
    if frames:
        frame = find_checkpoint(settings.frame_model, settings.frame_revision) if settings.frame_model else clip
    return AudioEncoder(clip, frame, settings, output)


def check_models(settings: "EncodeConfig", frames: bool = True) -> None:
    """Raise what ``load_encoder`` would raise for the models, without keeping them or reading their weights.

    Raises:
        ModelError: a model cannot be found, or its checkpoint does not load exactly.
    """
    models = {(settings.clip_model, settings.clip_revision)}
    if frames and settings.frame_model:
        models.add((settings.frame_model, settings.frame_revision))
    for name, revision in sorted(models, key=str):
        checkpoint = find_checkpoint(name, revision)
        load_tokenizer(checkpoint)
        load_model(checkpoint, "auto")


def probability(dot: npt.ArrayLike, identity: ModelIdentity) -> npt.NDArray[np.float64]:
    """The probability that a text is heard in a sound, from the dot product: sigmoid(scale * dot + bias).

    Any shape. Source: transformers' ``PeAudioModel.forward``, whose loss is sigmoid.
    """
    logit = identity.logit_scale * np.asarray(dot, np.float64) + identity.logit_bias
    return np.asarray(0.5 * (1 + np.tanh(logit / 2)))  # the sigmoid in a form that does not overflow


# ---- Device and precision


def resolve_device(device: str) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda: torch finds no GPU here; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def resolve_precision(precision: str, device: str) -> str:
    """bfloat16 where the device multiplies it fast; elsewhere it is slower than float32.

    CPUs with AMX do, and AMD's with AVX512-BF16. An Intel CPU without AMX in use takes 3.9 s for a window with a model
    of the default size, and 2.6 s in float32.
    """
    import torch

    if precision != "auto":
        return precision
    if device == "cuda":
        # Capability 8.0 is Ampere's. Older GPUs claim to support bfloat16, but emulate it.
        fast = torch.cuda.get_device_capability() >= (8, 0) or torch.version.hip is not None
    else:
        cpu = torch.cpu.get_capabilities()
        feature = "amx_bf16" if "Intel" in cpu.get("cpu_name", "") else "avx512_bf16"
        fast = bool(cpu.get(feature, False))
    return "bfloat16" if fast else "float32"


# ---- Small helpers


def is_finite(numbers: Rows) -> bool:
    """Whether all numbers are finite. For float16 it compares exponents, which is faster than numpy's way."""
    if numbers.dtype == np.float16:
        return bool(((numbers.view(np.uint16) & 0x7C00) != 0x7C00).all())
    return bool(np.isfinite(numbers).all())


def _check_windows(windows: Sequence[Waveform]) -> None:
    for i, window in enumerate(windows):
        if window.ndim != 1 or window.dtype != np.float32 or not len(window) or len(window) % HOP_SAMPLES:
            raise ValueError(
                f"window {i} is {window.dtype} of shape {window.shape}, not float32 of (frames * {HOP_SAMPLES},)"
            )


def load_for_run(settings: "EncodeConfig", with_frames: bool, threads: int) -> AudioEncoder:
    """The encoder of a run; its output is stored as it is. Call it in the process of an encoder: it imports torch."""
    # Before torch is loaded: waiting threads must sleep, or they take the cores that decoding needs.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch

    keep_freed_memory()
    torch.set_num_threads(threads)
    encoder = load_encoder(settings, frames=with_frames, output="float16")
    encoder.compile()
    return encoder
