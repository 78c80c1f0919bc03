"""What cutting costs: frames of a minute cut into windows, against the same minute encoded uncut.

    python -m jobs.bench.seams [--model earshot-tiny] [--minutes 5]

Attention is bidirectional, so an encoder hears less around the seam of two windows than it would in the uncut minute;
and everywhere in a window it hears less context, so frames away from seams change too. Printed for several overlaps:
mean and 1st percentile of the cosine, of frames within one second of a seam and of all frames, and the extra audio that
is encoded twice (the last window, moved back to end with the file, has its part in both). An uncut minute is a
reference, not the truth: a model trained on short scenes need not embed it better.
"""

from typing import Annotated, Any

import numpy as np
import typer

from jobs.shared.options import Json
from jobs.shared.output import print_json, print_table
from pipeline.audio.windows import cut_windows
from pipeline.grid import FRAME_S, HOP_SAMPLES, Grid, plan_windows, seconds_to_frames

MINUTE_FRAMES = seconds_to_frames(60.0)
NEAR_FRAMES = seconds_to_frames(1.0)
OVERLAPS_S = (0.0, 0.4, 1.0, 2.0)


def measure(
    model: Annotated[str, typer.Option(help="As in `earshot index`.")] = "earshot-tiny",
    minutes: Annotated[int, typer.Option(min=1, help="How many synthetic minutes.")] = 5,
    json: Json = False,
) -> None:
    """Print the cosine of frames near seams to those of an uncut encoding."""
    from pipeline.config import EncodeConfig
    from pipeline.encoder.encoder import load_encoder
    from pipeline.encoder.malloc import keep_freed_memory

    keep_freed_memory()
    encoder = load_encoder(EncodeConfig(clip_model=model))
    waves = [_minute(seed) for seed in range(minutes)]
    uncut = [_frames(encoder, wave, Grid(MINUTE_FRAMES, 0)) for wave in waves]
    rows = []
    for overlap_s in OVERLAPS_S:
        grid = Grid(250, seconds_to_frames(overlap_s))
        near = _near_seams(grid)
        cosines = np.stack(
            [_cosine(_frames(encoder, wave, grid), whole) for wave, whole in zip(waves, uncut, strict=True)]
        )
        rows.append(
            {
                "overlap_s": overlap_s,
                "near_mean": float(cosines[:, near].mean()),
                "near_p1": float(np.percentile(cosines[:, near], 1)),
                "all_mean": float(cosines.mean()),
                "all_p1": float(np.percentile(cosines, 1)),
                "encoded_twice": sum(span.length for span in plan_windows(MINUTE_FRAMES, grid)) / MINUTE_FRAMES - 1,
            }
        )
    if json:
        print_json(rows)
        return
    columns = ["overlap", "seam: mean", "1st pct", "all: mean", "1st pct ", "encoded twice"]
    values = [
        (f"{r['overlap_s']} s", *(f"{r[key]:.4f}" for key in list(r)[1:5]), f"{r['encoded_twice']:.1%}") for r in rows
    ]
    print_table(f"{model}: cosine to an uncut encoding, {minutes} min, windows of 10 s", columns, values, columns)


def _minute(seed: int) -> Any:
    from jobs.tiny.synth import draw_scene

    return draw_scene(np.random.default_rng([77, seed]), MINUTE_FRAMES * FRAME_S, held_out=True)[0]


def _frames(encoder: Any, wave: Any, grid: Grid) -> Any:
    """Frame embeddings (F, D) of a waveform, cut as an index cuts it."""
    spans, windows = zip(*cut_windows([wave[: MINUTE_FRAMES * HOP_SAMPLES]], grid), strict=True)
    _, frames = encoder.encode(windows)
    owned = [rows[s.own_first - s.first : s.own_stop - s.first] for s, rows in zip(spans, frames, strict=True)]
    return np.concatenate(owned)


def _near_seams(grid: Grid) -> Any:
    """Frames within a second of a place where the owner changes."""
    near = np.zeros(MINUTE_FRAMES, bool)
    for span in plan_windows(MINUTE_FRAMES, grid)[1:]:
        near[max(0, span.own_first - NEAR_FRAMES) : span.own_first + NEAR_FRAMES] = True
    return near


def _cosine(a: Any, b: Any) -> Any:
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)


if __name__ == "__main__":
    typer.run(measure)
