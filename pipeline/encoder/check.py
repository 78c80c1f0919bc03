"""Whether two models do on this machine what they should: models in, one finding after the other out.

What Earshot makes of a few sounds is compared with what transformers' own modules make of the same checkpoint, and with
Meta's package where that is installed. Nothing is indexed and nothing is stored.
"""

import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline import __version__
from pipeline.config import EncodeConfig
from pipeline.encoder import official
from pipeline.encoder.encoder import NonFiniteError, load_encoder, probability, resolve_device, resolve_precision
from pipeline.encoder.loading import ignored_weights, load_model, load_plainly
from pipeline.encoder.parity import LARGEST_DIFFERENCE, cosine, describe_machine, relative
from pipeline.encoder.reference import DOG, SIREN, Encoder, Heard, Part, Reference, find_parts, make_reference
from pipeline.errors import ModelError, one_line
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Waveform

WINDOW_S = 10.0
"""Of what encoding is timed with: as long as the windows of an index."""

LEAST_COSINE = 0.98
"""In bfloat16, of each clip and in the mean of frames. Random networks a few numbers wide have 0.99, the bundled model
0.9999; positions that are rounded, or a norm too many, are below 0.9."""

LEAST_OFFICIAL_COSINE = 0.9999
"""To Meta's package: other code, which adds up in another order."""

Verdict = Literal["right", "wrong", "told"]


@dataclass(frozen=True)
class Finding:
    """One line of the check; ``told`` is what has no right or wrong, such as a speed."""

    what: str
    verdict: Verdict
    said: str
    figure: float | None = None


def check(
    models: EncodeConfig,
    sounds: Sequence[Waveform],
    make_encoder: Callable[[EncodeConfig], Encoder] = load_encoder,
    find_official: Callable[[], Any] = official.find,
    timed_s: float = 2.0,
) -> Iterator[Finding]:
    """Everything that can be said of ``models`` here, as it becomes known. What does not load ends it.

    Args:
        sounds: of one length, at 48 kHz; people hear a siren in the first one.
        find_official: Meta's ``core.audio_visual_encoder``, or None where it is not installed.
        timed_s: how long encoding is timed, in seconds, once at least.

    Raises:
        ModelError: a model cannot be found. UsageError: a GPU is asked for and there is none.
    """
    device = resolve_device(models.device)
    precision = resolve_precision(models.precision, device)
    here = f"Python {platform.python_version()}, {describe_machine(device)}"
    yield Finding("machine", "told", f"earshot {__version__}, {here}")
    parts = find_parts(models)
    # Where one checkpoint serves both, its weights and texts are looked at once.
    reading = parts if parts[0].checkpoint.folder != parts[1].checkpoint.folder else parts[:1]
    loaded = [_check_weights(part) for part in reading]
    yield from loaded
    if any(finding.verdict == "wrong" for finding in loaded):
        return
    references = {part.role: make_reference(part, sounds, device) for part in parts}
    for part in reading:
        yield _tell_text_state(part, references[part.role])

    exact = make_encoder(models.model_copy(update={"precision": "float32"}))
    rough = make_encoder(models.model_copy(update={"precision": "bfloat16"}))
    native = {"float32": exact, "bfloat16": rough}[precision]
    compiled = _compile(native)
    try:
        heard = Heard.of(exact, sounds, parts)
    except NonFiniteError as error:
        yield Finding("float32", "wrong", str(error))
        return
    for part in parts:
        yield _compare_sounds(part, heard, references[part.role])
    for part in reading:
        yield _compare_texts(part, heard, references[part.role])
    yield from _compare_with_official(parts, heard, sounds, find_official)
    yield _check_batches(exact, sounds, heard)
    yield _check_bfloat16(rough, sounds, heard)
    for part in parts:
        yield _tell_siren(part, heard)
    yield Finding("compiled", "told", compiled)
    yield _tell_speed(native, sounds[-1], precision, device, timed_s)


def _check_weights(part: Part) -> Finding:
    """Whether each weight of the model is in the file, and what else is in there."""
    what, checkpoint = f"{part.role} model", part.checkpoint
    try:
        load_model(checkpoint, "auto")
        model, info = load_plainly(checkpoint, part.kind, "auto")
    except ModelError as error:
        return Finding(what, "wrong", str(error))
    n_millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    others = ignored_weights(checkpoint, info)
    unused = ", ".join(sorted({name.split(".")[0] for name in others}))
    said = (
        f"{checkpoint.name} (revision {checkpoint.revision or 'none'}, weights {checkpoint.checksum[:8]}, tokenizer"
        f" {checkpoint.tokenizer_checksum[:8]}): all of its {n_millions:,.1f} million weights are loaded; unused in the"
        f" file: {f'{len(others)} tensors of other models ({unused})' if others else 'nothing'}"
    )
    return Finding(what, "right", said, n_millions)


def _tell_text_state(part: Part, reference: Reference) -> Finding:
    likeness = float(cosine(reference.before_norm, reference.after_norm).min())
    state, does = ("after", "says") if part.checkpoint.reads_normed_text else ("before", "does not say")
    said = (
        f"read {state} ModernBERT's final norm, since config.json {does} `tie_last_hidden_states: true`; from the other"
        f" state they would have a cosine of {likeness:.4f}"
    )
    return Finding(f"texts of the {part.role} model", "told", said, likeness)


def _compare_sounds(part: Part, heard: Heard, reference: Reference) -> Finding:
    difference = relative(heard.audio[part.role], reference.audio)
    return _judge_difference(f"{part.role} embeddings", f"from transformers' {part.kind}", difference)


def _compare_texts(part: Part, heard: Heard, reference: Reference) -> Finding:
    texts, of = heard.texts[part.role], "from transformers' modules"
    difference = relative(texts, reference.after_norm if part.checkpoint.reads_normed_text else reference.before_norm)
    if reference.forward is not None:
        difference = max(difference, relative(texts[:1], reference.forward))
        of += " and from its forward with the same state"
    return _judge_difference(f"text embeddings of the {part.role} model", of, difference)


def _judge_difference(what: str, of: str, difference: float) -> Finding:
    right = bool(difference <= LARGEST_DIFFERENCE)  # not of NaN
    said = f"differ {of} by {difference:.1e} of their length; {LARGEST_DIFFERENCE:.0e} is allowed"
    return Finding(what, "right" if right else "wrong", said, float(difference))


def _compare_with_official(
    parts: Sequence[Part], heard: Heard, sounds: Sequence[Waveform], find_official: Callable[[], Any]
) -> Iterator[Finding]:
    what = "Meta's package"
    try:
        package = find_official()
    except Exception as error:  # whatever another project's code does
        yield Finding(what, "told", f"cannot be imported: {_in_one_line(error)}")
        return
    if package is None:
        yield Finding(what, "told", "perception_models is not installed, so nothing is compared with it")
        return
    for part in parts:
        if part.name.startswith(official.OWNER):
            yield _compare_part_with_official(part, heard, sounds, package)
        else:
            yield Finding(f"{what}, {part.role}s", "told", f"knows {official.OWNER}... only, not {part.name}")


def _compare_part_with_official(part: Part, heard: Heard, sounds: Sequence[Waveform], package: Any) -> Finding:
    what = f"Meta's package, {part.role}s"
    try:
        audio, texts = official.embed(package, part.role, part.name, sounds, part.tokens)
    except Exception as error:  # likewise; its weights may be out of reach, too
        return Finding(what, "told", f"cannot be run: {_in_one_line(error)}")
    near = float(cosine(heard.audio[part.role], audio).min())
    near_texts = float(cosine(heard.texts[part.role], texts).min())
    right = min(near, near_texts) >= LEAST_OFFICIAL_COSINE
    said = f"cosine of sounds {near:.6f}, of texts {near_texts:.6f}; {LEAST_OFFICIAL_COSINE} is asked for"
    return Finding(what, "right" if right else "wrong", said, min(near, near_texts))


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, 300)}"


def _check_batches(encoder: Encoder, sounds: Sequence[Waveform], heard: Heard) -> Finding:
    """Each sound alone, and among others of its own and of another length."""
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


def _tell_siren(part: Part, heard: Heard) -> Finding:
    """A hint and no more: the sound is synthetic, and a good model need not know it."""
    siren, dog, _ = heard.texts[part.role] @ heard.audio[part.role][0].reshape(-1, heard.texts[part.role].shape[1]).T
    of_siren, of_dog = (float(probability(dots.mean(), part.checkpoint.identity)) for dots in (siren, dog))
    nearer = float(siren.mean() - dog.mean())
    said = (
        f"a synthetic siren is {'' if nearer > 0 else 'NOT '}nearer to {SIREN!r} (probability {of_siren:.3f}) than to"
        f" {DOG!r} ({of_dog:.3f}); this is a hint, not a verdict"
    )
    return Finding(f"siren, {part.role}s", "told", said, nearer)


def _compile(encoder: Encoder) -> str:
    """Compile, and say what came of it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        encoder.compile()
    if encoder.compiled:
        return "the activation of the codec"
    failed = [str(warning.message) for warning in seen if "cannot compile" in str(warning.message)]
    return failed[0] if failed else "nothing, since it would gain nothing here"


def _tell_speed(encoder: Encoder, sound: Waveform, precision: str, device: str, timed_s: float) -> Finding:
    """Of windows as long as those of an index, after one call that is not counted."""
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
