"""Measure how long a person waits for a sound or a picture: spectrogram tiles, and the first sound of a recording.

    python -m jobs.bench tiles [--hours 12] [--rounds 9]

``tile``: a picture of 10 s, 800 x 256 pixels, from the middle of ten minutes in stereo at 44.1 kHz, from the file to
the bytes of a WebP. ``overview``: the ten minutes as one picture. ``sound``: the first 64 kB of the WAV file that the
server makes from a random moment of a long recording in mono at 48 kHz, another one each time, with the look at whether
the file is as it was indexed. There is no HTTP, and all but the first question find the file opened; the first one to
an mp3 counts its frames, and is measured by itself. ``samples``: all of the long recording as one picture of short
parts. Figures are medians. The sounds are noise, which codecs find hard. The exit code is 1 where a limit is missed.
"""

import io
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

import av
import numpy as np
import numpy.typing as npt
import soundfile
import typer

from jobs.bench.figures import Figure, measure_and_report
from jobs.shared.options import Json
from pipeline import storage
from pipeline.audio.excerpt import open_excerpt

Samples = npt.NDArray[np.float32]
"""(n, channels)"""

CODECS = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "opus": "libopus", "m4a": "aac"}
TEN_MINUTES_S, RATE_HZ = 600.0, 44_100
LONG_RATE_HZ = 48_000
WIDTH, HEIGHT = 800, 256
HEARD_BYTES = 1 << 16


def make_noise(duration_s: float, rate_hz: int, channels: int, level: float) -> Samples:
    shape = round(duration_s * rate_hz), channels
    return (level * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def encode(file: str | BinaryIO, kind: str, minute: Samples, times: int, rate_hz: int, **options: str) -> None:
    """Write a minute (n, channels) so many times over.

    Args:
        kind: one of ``CODECS``, or the format of a file object. options: of the container.
    """
    layout = "stereo" if minute.shape[1] == 2 else "mono"
    container_format = None if isinstance(file, str) else kind
    with av.open(file, "w", format=container_format, container_options=options) as container:
        stream = container.add_stream(CODECS[kind], rate=rate_hz, layout=layout)
        context = stream.codec_context
        context.open()
        cutter = av.AudioResampler(context.format.name, layout, rate_hz, context.frame_size or 4_096)
        for number in range(times):
            frame = av.AudioFrame.from_ndarray(minute.reshape(1, -1), "flt", layout)
            frame.sample_rate, frame.pts = rate_hz, number * len(minute)
            for piece in cutter.resample(frame):
                container.mux(stream.encode(piece))
        for piece in cutter.resample(None):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def write_long(path: Path, hours: float) -> None:
    """Write a recording of so many hours. Its noise is quiet, so that a flac of it is small."""
    minute, times = make_noise(60.0, LONG_RATE_HZ, 1, 2**-12), max(2, round(60 * hours))
    if path.suffix == ".mp3":  # the frames of a minute, again and again
        frames = io.BytesIO()
        encode(frames, "mp3", minute, 1, LONG_RATE_HZ, write_xing="0", id3v2_version="0")
        with path.open("wb") as file:
            for _ in range(times):
                file.write(frames.getvalue())
        return
    write_minutes(path, {".flac": "FLAC", ".wav": "RF64"}[path.suffix], "PCM_16", minute, times)


def write_minutes(path: Path, container: str, subtype: str, minute: Samples, times: int) -> None:
    """The same through libsndfile."""
    rate_hz, channels = len(minute) // 60, minute.shape[1]
    with soundfile.SoundFile(path, "w", rate_hz, channels, subtype, format=container) as sound:
        for second in list(minute.reshape(60, rate_hz, channels)) * times:  # its vorbis crashes on a minute at once
            sound.write(second)


def measure_tiles(folder: Path, rounds: int) -> Iterator[Figure]:
    """Tiles, and pictures of the whole."""
    minute = make_noise(60.0, RATE_HZ, 2, 0.1)
    for kind in (*CODECS, "ogg"):
        path = folder / f"ten-minutes.{kind}"
        times = round(TEN_MINUTES_S / 60)
        if kind == "ogg":
            write_minutes(path, "OGG", "VORBIS", minute, times)
        else:
            encode(str(path), kind, minute, times, LONG_RATE_HZ if kind == "opus" else RATE_HZ)
        limit = 50 if kind in ("wav", "flac") else None
        _draw(path, 300.0)
        tile_s, busy_s = _median(partial(_draw, path), [300.0] * rounds)
        yield Figure("tile", kind, 1_000 * tile_s, "ms", limit, _show_busy(busy_s))
        whole_s, busy_s = _median(partial(_draw, path, duration_s=TEN_MINUTES_S), [0.0])
        yield Figure("overview", kind, whole_s, "s", None, _show_busy(busy_s))


def measure_long(folder: Path, rounds: int, hours: float) -> Iterator[Figure]:
    """The first sound from any moment of a long recording, and its picture as a whole."""
    for kind in ("wav", "flac", "mp3"):
        path = folder / f"long.{kind}"
        write_long(path, hours)
        hear = _hear_by_server(path, 3_600.0 * hours)
        if kind == "mp3":
            first_s, busy_s = _median(hear, [3_540.0 * hours])
            yield Figure("sound", f"{kind}, first question", 1_000 * first_s, "ms", None, _show_busy(busy_s))
        moments_s = np.random.default_rng(1).uniform(0, 3_540.0 * hours, rounds).tolist()
        heard_s, busy_s = _median(hear, moments_s)
        yield Figure("sound", f"{kind}, {hours:g} h", 1_000 * heard_s, "ms", 300, _show_busy(busy_s))
        drawn_s, busy_s = _median(partial(_draw, path, duration_s=3_600.0 * hours, is_sampled=True), [0.0])
        yield Figure("samples", f"{kind}, {hours:g} h", drawn_s, "s", None, _show_busy(busy_s))


def _draw(path: Path, start_s: float, duration_s: float = 10.0, *, is_sampled: bool = False) -> None:
    from pipeline.pictures.spectrogram import View, read_spectrogram, sample_spectrogram
    from pipeline.pictures.tile import draw_tile

    read = sample_spectrogram if is_sampled else read_spectrogram
    draw_tile(read(str(path), start_s, start_s + duration_s, View(WIDTH, HEIGHT)).levels_db)


def _hear_by_server(path: Path, duration_s: float) -> Callable[[float], None]:
    """What a server does for the first sound from a moment on. It needs fastapi, which other measurements do not."""
    from jobs.serve.sounds import Sounds, Span, make_span_wave, require_whole
    from jobs.serve.wave import WaveStream
    from pipeline.search.presence import Presences

    size_bytes, modified_ns = storage.stat_file(str(path))
    row = {"uri": str(path), "size_bytes": size_bytes, "modified_ns": modified_ns, "content_hash": None}
    row["duration_s"] = duration_s
    sounds, presences = Sounds(open_excerpt), Presences()

    def hear(start_s: float) -> None:
        require_whole(row, presences.find(row))
        wave = make_span_wave(str(path), sounds.find(row), Span(start_s), 1)
        with closing(WaveStream(wave, sounds.open(row), 0, HEARD_BYTES)) as stream:
            while stream.read():
                pass

    return hear


def _median(action: Callable[[float], None], moments_s: list[float]) -> tuple[float, float]:
    """The seconds that an action takes, on the clock and of the processor: medians over these moments."""
    times_s = []
    for moment_s in moments_s:
        began_s, busy_s = time.perf_counter(), time.thread_time()
        action(moment_s)
        times_s.append((time.perf_counter() - began_s, time.thread_time() - busy_s))
    on_clock_s, of_processor_s = (statistics.median(each) for each in zip(*times_s, strict=True))
    return on_clock_s, of_processor_s


def _show_busy(seconds: float) -> str:
    return f"{1_000 * seconds:,.0f} ms of processor time"


def tiles(
    hours: Annotated[float, typer.Option(min=0.05, help="Length of the long recordings.")] = 12.0,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 9,
    json: Json = False,
) -> None:
    """Measure spectrogram tiles, and how soon a long recording is heard anywhere: three minutes, 6 GB of disk."""
    parts = [partial(measure_tiles, rounds=rounds), partial(measure_long, rounds=rounds, hours=hours)]
    measure_and_report("tiles and sounds", parts, json=json)
