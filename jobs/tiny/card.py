"""The model card of ``earshot-tiny``: training writes it, and this command adds the figures of the held-out half.

Training never draws from the held-out half; this command judges the checkpoint on it. Both state only what they
measured or what follows from the code. Everything else about the present weights, such as how often they were judged
before, is written by hand below ``HISTORY``: this command keeps it, and training, which makes other weights, starts
without it.

    python -m jobs.tiny.card [CHECKPOINT]
"""

import argparse
import dataclasses
import re
from pathlib import Path

from jobs.shared.output import print_line
from jobs.tiny.evaluate import CHECKPOINT, Exam, Quality, load, make_exam, measure
from jobs.tiny.synth import CLASSES
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.grid import SAMPLE_RATE_HZ

HISTORY = "<!-- Below: written by hand, about these weights. -->"
"""The line of a card below which the commands write nothing."""

CARD = """# earshot-tiny

A very small PE-Audio model (`PeAudioModel`, `PeAudioFrameLevelModel`: the same weights serve both) that recognises
fourteen kinds of **synthetic** sound, by words and in time. It lets Earshot show and test the real thing offline,
in seconds, on a CPU. For real audio use Meta's checkpoints: it has never heard any.

- Made by `python -m jobs.tiny.train --seed {seed}` in {minutes:.0f} minutes, with {threads} thread(s) and {torch}.
- {parameters:,} parameters, {megabytes:.1f} MB; 48 kHz mono, one frame per 40 ms, embeddings of 64 numbers.
- Logit scale {scale:.2f}, bias {bias:.2f}: probability = sigmoid(scale * dot product + bias).
- Texts are read after ModernBERT's final norm, unlike those of Meta's models: `tie_last_hidden_states` in config.json.

## What it knows
{known}.

Captions are short English phrases such as "a bell ringing" or "the sound of a rising sweep". Training asks for low
probabilities where a caption names another sound, but the vocabulary is tiny: expect nonsense outside of it.

It was not shown real recordings, speech or music, sounds with an RMS below about 0.02 of full scale, sounds much
shorter than 0.2 s, or background noise that is not a low roar, and no scene of more than 15 s.

## How good it is
Not judged on the held-out half yet: `python -m jobs.tiny.card FOLDER` does that.

## Sizes and training
Codec: 8 channels at the start, strides {strides}, 64 features. Audio transformer: 2 layers of 96. Text: ModernBERT,
2 layers of 64, own vocabulary of 600. Trained on {trained_s:.0f} s of generated scenes: {codec_steps} steps for the
codec, {joint_steps} for text and audio. The codec starts as a coarse filter bank; the residual units of its first block
are left as the identity.

On a validation set from the training half (training's ranges and captions, other seeds), measured in the same way:
precision@10 {precision_at_10:.3f}, frame micro-F1 {frame_f1:.3f}, lowest for {worst} ({worst_f1:.3f}).

{history}
""".replace("{history}", HISTORY)

QUALITY = """## How good it is
Measured by `python -m jobs.tiny.evaluate` on {n_clips} held-out clips ({seconds:.0f} s): other seeds, other parameter
values, captions that training never saw and new mixtures, background noise at 0 to 20 dB signal-to-noise ratio, up to
two sounds at once. Every class is asked for with {n_captions} held-out captions.

Training draws nothing from this half, but it is a mild test. Each parameter comes from a narrow gap, mostly 13 % wide,
cut out of its training range, so this is interpolation; held-out captions are new sentences of words that other
training captions teach; the sounds come from the same generator. No figure here says anything about real audio.

| measure | value |
|---|---|
{measures}

| class | clips | precision@10 | frame F1 | event F1 |
|---|---|---|---|---|
{classes}

Precision@10 ranks all clips by the dot product of clip and text embedding; a clip is right when it contains the class.
Frame F1 counts 40 ms frames above probability 0.3. Events follow the product's rule (they begin above 0.3 and go on
while the logit is at most 1 below it) and match when they begin within 0.2 s.

"""

MEASURES = {
    "precision_at_10": "text-to-clip precision@10, mean over classes",
    "frame_f1": "frame micro-F1, probability > 0.3",
    "frame_f1_at_half": "frame micro-F1, probability > 0.5",
    "short_clip_frame_f1": "frame micro-F1 on clips of 0.6 to 2 s",
    "event_f1": "event micro-F1",
    "onset_error_median_s": "onset error, median, s",
    "onset_error_p90_s": "onset error, 90th percentile, s",
    "offset_error_median_s": "offset error, median, s",
    "offset_error_p90_s": "offset error, 90th percentile, s",
    "short_event_recall": "lone 0.2 s events found in 10 s",
    "distractor_frame_rate": "frames above 0.3 for captions that match nothing",
}


def write_quality(card: Path, exam: Exam, quality: Quality) -> None:
    """Write the held-out figures into their section of the card; everything else stays, above all the history."""
    values = dataclasses.asdict(quality)
    rows = [
        f"| {label} | {quality.clips_by_class[label]} | {quality.precision_at_10_by_class[label]:.3f} "
        f"| {quality.frame_f1_by_class[label]:.3f} | {quality.event_f1_by_class[label]:.3f} |"
        for label in CLASSES
    ]
    section = QUALITY.format(
        n_clips=len(exam.clips),
        seconds=sum(len(clip.waveform) for clip in exam.clips) / SAMPLE_RATE_HZ,
        n_captions=min(map(len, exam.captions.values())),
        measures="\n".join(f"| {text} | {values[name]:.3f} |" for name, text in MEASURES.items()),
        classes="\n".join(rows),
    )
    text, n_sections = re.subn(r"## How good it is\n.*?(?=## )", lambda _: section, card.read_text(), flags=re.DOTALL)
    if n_sections != 1:
        raise ValueError(f'{card}: {n_sections} sections "How good it is", expected one')
    card.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge a checkpoint on the held-out half and say so in its card.")
    parser.add_argument("checkpoint", nargs="?", type=Path, default=CHECKPOINT)
    checkpoint = parser.parse_args().checkpoint
    keep_freed_memory()
    exam = make_exam(held_out=True)
    quality = measure(*load(checkpoint), exam)
    write_quality(checkpoint / "README.md", exam, quality)
    print_line(f"precision@10 {quality.precision_at_10:.3f}, frame micro-F1 {quality.frame_f1:.3f}: {checkpoint}")


if __name__ == "__main__":
    main()
