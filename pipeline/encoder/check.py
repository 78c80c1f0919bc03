"""``earshot check``: do the models work on this machine as they should? Models in, one finding after the other out.

It embeds a few sounds and compares the result with that of transformers' own classes for the same checkpoint, and with
that of Meta's package where it is installed. It indexes and stores nothing.
"""

import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import __version__
from pipeline.encoder import perception_models
from pipeline.encoder.encoder import NonFiniteError, load_encoder, probability, resolve_device, resolve_precision
from pipeline.encoder.loading import ignored_weights, load_model, load_with_transformers
from pipeline.encoder.parity import LARGEST_DIFFERENCE, cosine, describe_machine, relative
from pipeline.encoder.reference import DOG, SIREN, CheckedModel, Encoder, Heard, Reference, find_models, make_reference
from pipeline.errors import ModelError, one_line
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Waveform

if TYPE_CHECKING:  # the encoder runs without pydantic
    from pipeline.config import EncodeConfig

WINDOW_S = 10.0
"""The length of the windows that encoding is timed with: that of an index's windows."""

LEAST_COSINE = 0.98
"""Between bfloat16 and float32: of each clip, and of frames on average. Random networks a few numbers wide reach 0.99,
the bundled model 0.9999; rounded positions or a superfluous norm give less than 0.9."""

LEAST_PACKAGE_COSINE = 0.9999
"""Between Earshot and Meta's package, whose code adds numbers up in another order."""

Verdict = Literal["right", "wrong", "told"]


@dataclass(frozen=True)
class Finding:
    """One line of the check. The verdict ``told`` is for facts that cannot be right or wrong, such as a speed."""

    what: str
    verdict: Verdict
    said: str
    figure: float | None = None


def check(
    settings: "EncodeConfig",
    sounds: Sequence[Waveform],
    make_encoder: Callable[["EncodeConfig"], Encoder] = load_encoder,
    find_package: Callable[[], Any] = perception_models.find,
    timed_s: float = 2.0,
) -> Iterator[Finding]:
    """Yield each finding as it becomes known. A model that does not load ends the check.

    Args:
        sounds: of one length, at 48 kHz; people hear a siren in the first one.
        find_package: Meta's ``core.audio_visual_encoder``, or None where it is not installed.
        timed_s: for how many seconds encoding is timed; it encodes at least once.

    Raises:
        ModelError: a model cannot be found. UsageError: ``device`` is ``cuda`` and there is no GPU.
    """
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    here = f"Python {platform.python_version()}, {describe_machine(device)}"
    yield Finding("machine", "told", f"earshot {__version__}, {here}")
    models = find_models(settings)
    # Where one checkpoint serves both, its weights and texts are checked once.
    distinct = models if models[0].checkpoint.folder != models[1].checkpoint.folder else models[:1]
    loaded = [_check_weights(model) for model in distinct]
    yield from loaded
    if any(finding.verdict == "wrong" for finding in loaded):
        return
    references = {model.role: make_reference(model, sounds, device) for model in models}
    for model in distinct:
        yield _tell_text_state(model, references[model.role])

    exact = make_encoder(settings.model_copy(update={"precision": "float32"}))
    rough = make_encoder(settings.model_copy(update={"precision": "bfloat16"}))
    native = {"float32": exact, "bfloat16": rough}[precision]
    compiled = _compile(native)
    try:
        heard = Heard.of(exact, sounds, models)
    except NonFiniteError as error:
        yield Finding("float32", "wrong", str(error))
        return
    for model in models:
        difference = relative(heard.audio[model.role], references[model.role].audio)
        yield _judge_difference(f"{model.role} embeddings", f"from transformers' {model.kind}", difference)
    for model in distinct:
        yield _compare_texts(model, heard, references[model.role])
    yield from _compare_with_package(models, heard, sounds, find_package)
    yield _check_batches(exact, sounds, heard)
    yield _check_bfloat16(rough, sounds, heard)
    for model in models:
        yield _tell_siren(model, heard)
    yield Finding("compiled", "told", compiled)
    yield _tell_speed(native, sounds[-1], precision, device, timed_s)


def _check_weights(model: CheckedModel) -> Finding:
    """Whether each weight of the model is in the file, and what else the file holds."""
    what, checkpoint = f"{model.role} model", model.checkpoint
    try:
        load_model(checkpoint, "auto")
        network, info = load_with_transformers(checkpoint, model.kind, "auto")
    except ModelError as error:
        return Finding(what, "wrong", str(error))
    n_millions = sum(weight.numel() for weight in network.parameters()) / 1e6
    others = ignored_weights(checkpoint, info)
    unused = ", ".join(sorted({name.split(".")[0] for name in others}))
    said = (
        f"{checkpoint.name} (revision {checkpoint.revision or 'none'}, weights {checkpoint.checksum[:8]}, tokenizer"
        f" {checkpoint.tokenizer_checksum[:8]}): all of its {n_millions:,.1f} million weights are loaded; unused in the"
        f" file: {f'{len(others)} tensors of other models ({unused})' if others else 'nothing'}"
    )
    return Finding(what, "right", said, n_millions)


def _tell_text_state(model: CheckedModel, reference: Reference) -> Finding:
    likeness = float(cosine(reference.before_norm, reference.after_norm).min())
    state, does = ("after", "says") if model.checkpoint.reads_normed_text else ("before", "does not say")
    said = (
        f"read {state} ModernBERT's final norm, since config.json {does} `tie_last_hidden_states: true`; from the other"
        f" state they would have a cosine of {likeness:.4f}"
    )
    return Finding(f"texts of the {model.role} model", "told", said, likeness)


def _compare_texts(model: CheckedModel, heard: Heard, reference: Reference) -> Finding:
    texts, of = heard.texts[model.role], "from transformers' modules"
    difference = relative(texts, reference.after_norm if model.checkpoint.reads_normed_text else reference.before_norm)
    if reference.forward is not None:
        difference = max(difference, relative(texts[:1], reference.forward))
        of += " and from its forward with the same state"
    return _judge_difference(f"text embeddings of the {model.role} model", of, difference)


def _judge_difference(what: str, of: str, difference: float) -> Finding:
    right = bool(difference <= LARGEST_DIFFERENCE)  # not of NaN
    said = f"differ {of} by {difference:.1e} of their length; {LARGEST_DIFFERENCE:.0e} is allowed"
    return Finding(what, "right" if right else "wrong", said, float(difference))


def _compare_with_package(
    models: Sequence[CheckedModel], heard: Heard, sounds: Sequence[Waveform], find_package: Callable[[], Any]
) -> Iterator[Finding]:
    what = "Meta's package"
    try:
        package = find_package()
    except Exception as error:  # another project's code may raise anything
        yield Finding(what, "told", f"cannot be imported: {_in_one_line(error)}")
        return
    if package is None:
        yield Finding(what, "told", "perception_models is not installed, so nothing is compared with it")
        return
    for model in models:
        if model.name.startswith(perception_models.OWNER):
            yield _compare_model_with_package(model, heard, sounds, package)
        else:
            yield Finding(
                f"{what}, {model.role}s", "told", f"knows {perception_models.OWNER}... only, not {model.name}"
            )


def _compare_model_with_package(model: CheckedModel, heard: Heard, sounds: Sequence[Waveform], package: Any) -> Finding:
    what = f"Meta's package, {model.role}s"
    try:
        audio, texts = perception_models.embed(package, model.role, model.name, sounds, model.tokens)
    except Exception as error:  # likewise, and its weights may be out of reach
        return Finding(what, "told", f"cannot be run: {_in_one_line(error)}")
    near = float(cosine(heard.audio[model.role], audio).min())
    near_texts = float(cosine(heard.texts[model.role], texts).min())
    right = min(near, near_texts) >= LEAST_PACKAGE_COSINE
    said = f"cosine of sounds {near:.6f}, of texts {near_texts:.6f}; {LEAST_PACKAGE_COSINE} is asked for"
    return Finding(what, "right" if right else "wrong", said, min(near, near_texts))


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, 300)}"


def _check_batches(encoder: Encoder, sounds: Sequence[Waveform], heard: Heard) -> Finding:
    """Compare each sound alone with itself in a batch, beside others of its own length and of another."""
    largest = 0.0
    for i, sound in enumerate(sounds):
        for company in ([sound], [sounds[i - 1][: len(sound) // 2 // HOP_SAMPLES * HOP_SAMPLES], sound]):
            try:
                clips, frames = encoder.encode(company)
            except NonFiniteError as error:
                return Finding("batches", "wrong", str(error))
            for rows, expected in ((clips[-1], heard.audio["clip"][i]), ((frames or [])[-1], heard.audio["frame"][i])):
                largest = max(largest, float(relative(rows, expected)))
    right = largest <= LARGEST_DIFFERENCE
    said = f"a sound alone and among others differ by {largest:.1e} of its length; {LARGEST_DIFFERENCE:.0e} is allowed"
    return Finding("batches", "right" if right else "wrong", said, largest)


def _check_bfloat16(encoder: Encoder, sounds: Sequence[Waveform], heard: Heard) -> Finding:
    try:
        clips, frames = encoder.encode(sounds)
    except NonFiniteError as error:
        return Finding("bfloat16", "wrong", str(error))
    of_clips = float(cosine(clips, heard.audio["clip"]).min())
    of_frames = float(cosine(np.stack(frames or []), heard.audio["frame"]).mean())
    right = min(of_clips, of_frames) >= LEAST_COSINE
    said = (
        f"cosine to float32: of the worst clip {of_clips:.5f}, of frames in the mean {of_frames:.5f};"
        f" {LEAST_COSINE} is asked for"
    )
    return Finding("bfloat16", "right" if right else "wrong", said, min(of_clips, of_frames))


def _tell_siren(model: CheckedModel, heard: Heard) -> Finding:
    """A hint only: the sound is synthetic, and a good model need not recognise it."""
    siren, dog, _ = heard.texts[model.role] @ heard.audio[model.role][0].reshape(-1, heard.texts[model.role].shape[1]).T
    of_siren, of_dog = (float(probability(dots.mean(), model.checkpoint.identity)) for dots in (siren, dog))
    nearer = float(siren.mean() - dog.mean())
    said = (
        f"a synthetic siren is {'' if nearer > 0 else 'NOT '}nearer to {SIREN!r} (probability {of_siren:.3f}) than to"
        f" {DOG!r} ({of_dog:.3f}); this is a hint, not a verdict"
    )
    return Finding(f"siren, {model.role}s", "told", said, nearer)


def _compile(encoder: Encoder) -> str:
    """Compile, and say whether that worked."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        encoder.compile()
    if encoder.compiled:
        return "the activation of the codec"
    failed = [str(warning.message) for warning in seen if "cannot compile" in str(warning.message)]
    return failed[0] if failed else "nothing, since it would gain nothing here"


def _tell_speed(encoder: Encoder, sound: Waveform, precision: str, device: str, timed_s: float) -> Finding:
    """Time windows as long as those of an index, after one call that does not count."""
    windows = [np.resize(sound, round(WINDOW_S * SAMPLE_RATE_HZ))] * (1 if device == "cpu" else 32)
    try:
        encoder.encode(windows)
    except NonFiniteError as error:
        return Finding("speed", "told", f"cannot be measured in {precision}: {error}")
    began, took, n_calls = time.perf_counter(), 0.0, 0
    while n_calls == 0 or took < timed_s:
        encoder.encode(windows)
        took, n_calls = time.perf_counter() - began, n_calls + 1
    speed = n_calls * sum(map(len, windows)) / SAMPLE_RATE_HZ / took
    return Finding("speed", "told", f"{speed:,.1f} seconds of audio per second, {precision}, {device}", speed)
