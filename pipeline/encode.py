"""Windows in, clip and frame embeddings out; texts in, query embeddings out: PE-Audio through transformers.

A checkpoint is loaded exactly or not at all: every weight of the model must be in it, with the right shape. Windows
are batched with others of their own length only, so nothing is padded and no embedding depends on its batch; texts
likewise. The number of torch threads is left to the caller (``torch.set_num_threads``).

torch and transformers are imported on first use: describing a model (``read_identity``) takes milliseconds.

    >>> encoder = load_encoder(EncodeConfig(clip_model="facebook/pe-av-base", frame_model="facebook/pe-a-frame-base"))
    >>> clips, frames = encoder.encode([np.zeros(250 * 1920, np.float32)])   # (1, 1024), [(250, 1024)]
    >>> query = load_text_encoder("facebook/pe-av-base").embed(["glass breaking"])  # searches the clips
    >>> probability(clips @ query[0], encoder.clip_identity)
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.batches import Batches, Output, Rows, equal_batches
from pipeline.checkpoint import Checkpoint, ModelIdentity, find_checkpoint, first_of, one_line
from pipeline.errors import ModelError, UsageError
from pipeline.window import HOP_SAMPLES, Waveform

Embeddings = npt.NDArray[np.float32]

BATCH_TEXTS = 64


class NonFiniteError(ValueError):
    """Some windows have no finite embedding: ``windows`` holds their positions among those given."""

    def __init__(self, windows: Sequence[int], n_windows: int) -> None:
        super().__init__(f"no finite embedding for windows {', '.join(map(str, windows))} of {n_windows}")
        self.windows = tuple(windows)
        self.n_windows = n_windows

    def __reduce__(self) -> tuple[type["NonFiniteError"], tuple[tuple[int, ...], int]]:
        return type(self), (self.windows, self.n_windows)


class EncoderSettings(Protocol):
    """What ``load_encoder`` reads; ``pipeline.config.EncodeConfig`` is one."""

    @property
    def clip_model(self) -> str: ...
    @property
    def frame_model(self) -> str | None: ...
    @property
    def clip_revision(self) -> str | None: ...
    @property
    def frame_revision(self) -> str | None: ...
    @property
    def device(self) -> Literal["auto", "cpu", "cuda"]: ...
    @property
    def precision(self) -> Literal["auto", "float32", "bfloat16"]: ...
    @property
    def batch_windows(self) -> int | None: ...


class AudioEncoder:
    """Turns windows into embeddings. Made by ``load_encoder``.

    ``frame_identity`` is None when frames are not wanted. Where it has the checksum of ``clip_identity``, the two
    are one model and one pass gives both outputs; where only their codecs are equal, one pass of that serves both.
    """

    def __init__(
        self, clip: "Checkpoint", frame: "Checkpoint | None", settings: EncoderSettings, output: Output = "float32"
    ) -> None:
        self.device = resolve_device(settings.device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.clip_identity = clip.identity
        self.frame_identity = frame.identity if frame else None
        clip_model = _load_model(clip, "auto")
        frame_model = clip_model if frame and frame.checksum == clip.checksum else frame and _load_model(frame, "auto")
        self._tower = make_tower(clip_model, frame_model, self.device, self.precision)
        self._output = output
        self._batches = Batches(self.device, settings.batch_windows, output)

    def compile(self) -> None:
        """Take some seconds now (more for the first time on a machine) for what makes encoding faster: for those who
        encode minutes of sound."""
        self._tower.compile()

    @property
    def batch_windows(self) -> float | None:
        """How many windows of 10 s a batch holds, which is fewer than asked for where those did not fit or are more
        than 64 on a GPU; None before it has been measured."""
        return self._batches.windows

    def encode(self, windows: Sequence[Waveform]) -> tuple[Rows, list[Rows] | None]:
        """Embed windows of shape (n_frames * 1920,), of any mixture of lengths, in their order.

        Returns:
            Clip embeddings of shape (n, D), and for each window its frame embeddings of shape (n_frames, D'), or None
            when frames are not wanted. Of the encoder's ``output``, whatever its precision.

        Raises:
            NonFiniteError: a window's embedding has a NaN or an infinity, or numbers that float16 has no room for where
                that is asked for; the others are not affected by it.
            ValueError: a window is not a 1-d float32 array of one or more whole frames.
        """
        _check_windows(windows)
        clips = np.empty((len(windows), self.clip_identity.dimension), self._output)
        frames: list[Rows] = [np.empty((0, 0), self._output)] * len(windows)
        for batch, (clip_rows, frame_rows) in self._batches.run(self._tower, windows):
            clips[batch] = clip_rows
            if frame_rows is not None:
                for i, rows in zip(batch, frame_rows, strict=True):
                    frames[i] = rows
        broken = [i for i, rows in enumerate(frames) if not (is_finite(clips[i]) and is_finite(rows))]
        if broken:
            raise NonFiniteError(broken, len(windows))
        return clips, None if self.frame_identity is None else frames


def load_audio_model(name: str, revision: str | None = None) -> Any:
    """A checkpoint as transformers' ``PeAudioModel``, float32 on the CPU, without its text tower.

    Raises:
        ModelError: the model cannot be found, or its checkpoint does not load exactly.
    """
    model = _load_model(find_checkpoint(name, revision), "float32")
    del model.text_model, model.text_audio_head
    return model


def make_tower(clip_model: Any, frame_model: Any, device: str, precision: str) -> Any:
    """The audio tower of two models of transformers (one, where they are the same object), which it takes apart.

    Args:
        frame_model: None where frames are not wanted.
    """
    import torch

    from pipeline.tower import Tower

    for model in (clip_model, frame_model):
        if hasattr(model, "text_model"):
            del model.text_model, model.text_audio_head
    return Tower(clip_model, frame_model, device, getattr(torch, precision))


def load_encoder(settings: EncoderSettings, frames: bool = True, output: Output = "float32") -> AudioEncoder:
    """The clip model and, with ``frames``, the frame model (the same one where no other is named).

    Args:
        output: what embeddings are given in: float16 is rounded to where the model is, many times as fast as by numpy.

    Raises:
        ModelError: a model cannot be found, or its checkpoint does not load exactly.
        UsageError: a GPU is asked for and there is none.
    """
    clip = find_checkpoint(settings.clip_model, settings.clip_revision)
    frame = None
    if frames:
        frame = find_checkpoint(settings.frame_model, settings.frame_revision) if settings.frame_model else clip
    return AudioEncoder(clip, frame, settings, output)


def check_models(settings: EncoderSettings, frames: bool = True) -> None:
    """What ``load_encoder`` would refuse of the models, without keeping them. Mapped weights are not even read.

    Raises:
        ModelError: a model cannot be found, or its checkpoint does not load exactly.
    """
    models = {(settings.clip_model, settings.clip_revision)}
    if frames and settings.frame_model:
        models.add((settings.frame_model, settings.frame_revision))
    for name, revision in sorted(models, key=str):
        checkpoint = find_checkpoint(name, revision)
        _load_tokenizer(checkpoint)
        _load_model(checkpoint, "auto")


class TextEncoder:
    """Turns texts into query embeddings, on the CPU in float32. Made by ``load_text_encoder``."""

    def __init__(self, checkpoint: "Checkpoint") -> None:
        self.identity = checkpoint.identity
        self._tokenizer = _load_tokenizer(checkpoint)
        self._model = _load_model(checkpoint, "float32")
        # The weights are pages of a mapped file, not read before their first use: these never are.
        del self._model.audio_encoder, self._model.audio_head
        self._max_tokens = min(self._tokenizer.model_max_length, self._model.config.text_config.max_position_embeddings)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: shape (n, D). What searches a table must come from the model that filled it.

        Raises:
            UsageError: a text is empty, or longer than the text tower takes (nothing is cut off silently).
        """
        import torch

        if any(not text.strip() for text in texts):
            raise UsageError("a text to search for is empty: say in words what should be heard")
        embeddings = np.empty((len(texts), self.identity.dimension), np.float32)
        tokens = [self._tokenize(text) for text in texts]
        for batch in equal_batches([len(ids) for ids in tokens], BATCH_TEXTS):
            with torch.inference_mode():
                read = self._model.text_model(input_ids=torch.tensor([tokens[i] for i in batch]))
                # The class token. `get_text_audio_embeds` would be the name for this; it fails in transformers 5.23.
                embeddings[batch] = _to_numpy(self._model.text_audio_head(read.last_hidden_state[:, 0]))
        return embeddings

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, padding=False, truncation=False, verbose=False)["input_ids"]
        if len(ids) > self._max_tokens:
            raise UsageError(f"a text of {len(ids)} tokens is too long: {self.identity.name} takes {self._max_tokens}")
        return ids


def load_text_encoder(name: str, revision: str | None = None) -> TextEncoder:
    """The text tower of a checkpoint, without the weights of its audio tower.

    Raises:
        ModelError: the model cannot be found, or its checkpoint does not load exactly.
    """
    return TextEncoder(find_checkpoint(name, revision))


def probability(dot: npt.ArrayLike, identity: ModelIdentity) -> npt.NDArray[np.float64]:
    """That a text is heard in a sound, from the dot product of their embeddings: sigmoid(scale * dot + bias).

    Any shape. Source: transformers' ``PeAudioModel.forward``, whose loss is sigmoid.
    """
    logit = identity.logit_scale * np.asarray(dot, np.float64) + identity.logit_bias
    return np.asarray(0.5 * (1 + np.tanh(logit / 2)))  # the sigmoid in a form that does not overflow


# ---- Loading a checkpoint


def _load_model(checkpoint: Checkpoint, precision: str) -> Any:
    """The complete PeAudioModel on the CPU, in evaluation mode; ``auto`` is the precision of the file."""
    import torch
    from transformers import AutoConfig, PeAudioModel

    with _loading(checkpoint.name):
        config = AutoConfig.from_pretrained(checkpoint.folder)
        if config.model_type == "pe_audio_video":
            # Given to PeAudioModel as it is, the text tower's settings would silently be those of the class.
            config = config.audio_config
        model, info = PeAudioModel.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=precision if precision == "auto" else getattr(torch, precision),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in `info`, and refused below in one line
            local_files_only=True,
            use_safetensors=True,
        )
    _check_loaded(checkpoint, info)
    hop = math.prod(config.audio_config.dac_config.downsampling_ratios)  # `hop_length` may be a stale copy of this
    if hop != HOP_SAMPLES:
        raise ModelError(f"{checkpoint.name}: has frames of {hop} samples; only models with {HOP_SAMPLES} can be used")
    return model.eval()


def _check_loaded(checkpoint: Checkpoint, info: dict[str, Any]) -> None:
    unexpected = info["unexpected_keys"]
    if checkpoint.settings["model_type"] == "pe_audio_video":
        # The other models of such a checkpoint are no concern of ours; the one we load must not have more than we know.
        ours = ("audio_model.", "audio_encoder.", "audio_head.", "text_model.", "text_audio_head.", "text_audio_logit_")
        unexpected = {key for key in unexpected if key.startswith(ours)}
    mismatched = {key for key, *_shapes in info["mismatched_keys"]}
    kinds = {"missing": info["missing_keys"], "unexpected": unexpected, "of another shape": mismatched}
    problems = [f"{len(keys)} {kind} ({first_of(keys)})" for kind, keys in kinds.items() if keys]
    if problems:
        raise ModelError(f"{checkpoint.name}: does not load exactly, of its weights {', '.join(problems)}")


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    from transformers import AutoTokenizer

    with _loading(checkpoint.name):
        return AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Keep transformers' progress bar and report to itself, and say in one line what it cannot load."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging

    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{name}: cannot be loaded: {one_line(error)}") from error
    except (StrictDataclassError, SafetensorError) as error:
        raise ModelError(f"{name}: cannot be loaded: {one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def resolve_device(device: str) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda: torch finds no GPU here; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def resolve_precision(precision: str, device: str) -> str:
    """bfloat16 where the device multiplies it fast: elsewhere it is slower than float32.

    Among CPUs, those with AMX do, and AMD's with AVX512-BF16. Of Intel's, one whose AMX is not used takes 3.9 s for a
    window of a model of the default size, and 2.6 s in float32.
    """
    import torch

    if precision != "auto":
        return precision
    if device == "cuda":
        # Capability 8.0 is Ampere's; older GPUs say that they support it, and emulate it.
        fast = torch.cuda.get_device_capability() >= (8, 0) or torch.version.hip is not None
    else:
        cpu = torch.cpu.get_capabilities()
        feature = "amx_bf16" if "Intel" in cpu.get("cpu_name", "") else "avx512_bf16"
        fast = bool(cpu.get(feature, False))
    return "bfloat16" if fast else "float32"


# ---- Small helpers


def is_finite(numbers: Rows) -> bool:
    """Whether all are. Of float16 their exponents are looked at, which numpy itself takes longer for."""
    if numbers.dtype == np.float16:
        return bool(((numbers.view(np.uint16) & 0x7C00) != 0x7C00).all())
    return bool(np.isfinite(numbers).all())


def _check_windows(windows: Sequence[Waveform]) -> None:
    for i, window in enumerate(windows):
        if window.ndim != 1 or window.dtype != np.float32 or not len(window) or len(window) % HOP_SAMPLES:
            raise ValueError(
                f"window {i} is {window.dtype} of shape {window.shape}, not float32 of (frames * {HOP_SAMPLES},)"
            )


def _to_numpy(tensor: Any) -> Embeddings:
    array: Embeddings = tensor.float().cpu().numpy()
    return array
