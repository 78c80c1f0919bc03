"""Writes audio files for tests: healthy ones in every format, and a corpus of broken ones. Everything is seeded.

``FORMATS`` names the formats; ``encode`` makes the bytes of one; ``write_formats`` writes one healthy file in each, and
``write_broken_corpus`` files that are damaged, mislabelled or no audio, with what must become of each. The waveforms
here are (samples, channels) float32 of full scale 1, or (samples,) for one channel.

    paths = write_formats(tmp_path, tone(2.0, 44_100), 44_100)
    expected = write_broken_corpus(tmp_path)      # {"nan.wav": ("failed", "not_finite"), ...}
"""

import io
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile

from jobs.bench.hostile_sounds import make_png, with_cover

Samples = npt.NDArray[np.float32]

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1", 8: "7.1"}
"""FFmpeg's names of the channel counts used in tests."""


def tone(
    duration_s: float, sample_rate_hz: int, frequency_hz: float = 440.0, amplitude: float = 0.5, channels: int = 1
) -> Samples:
    """A sine, the same in all channels: (samples, channels)."""
    times_s = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * times_s)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def noise(duration_s: float, sample_rate_hz: int, channels: int = 1, seed: int = 0) -> Samples:
    """White noise of standard deviation 0.1, different in each channel: (samples, channels)."""
    shape = round(duration_s * sample_rate_hz), channels
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


# --- healthy files ----------------------------------------------------------------------------------------------------

_MP3_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_AAC_HZ = (*_MP3_HZ, 64_000, 88_200, 96_000)
_OPUS_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)


@dataclass(frozen=True)
class Format:
    """One way of storing sound, and what decoding it must report.

    ``step`` is the largest difference that storing a sample makes, 0 for none beyond float32, None for lossy codecs.
    ``delay_s`` is how much longer than its sound a decoded file may be, where the format has no place to say how much
    of it is padding.
    """

    suffix: str
    codec: str
    encode: Callable[[Samples, int], bytes]
    step: float | None = None
    rates_hz: tuple[int, ...] = ()  # empty: all
    max_channels: int = 8
    duration_known: bool = True

    def takes(self, sample_rate_hz: int, channels: int) -> bool:
        return (not self.rates_hz or sample_rate_hz in self.rates_hz) and channels <= self.max_channels


def by_soundfile(container: str, subtype: str, **options: Any) -> Callable[[Samples, int], bytes]:
    """An encoder through libsndfile."""

    def write(samples: Samples, sample_rate_hz: int) -> bytes:
        buffer, channels = io.BytesIO(), samples.shape[1]
        with soundfile.SoundFile(buffer, "w", sample_rate_hz, channels, subtype, format=container, **options) as file:
            for begin in range(0, len(samples), sample_rate_hz):  # libsndfile's vorbis overflows its stack on a minute
                file.write(samples[begin : begin + sample_rate_hz])
        return buffer.getvalue()

    return write


@dataclass(frozen=True)
class by_av:  # noqa: N801 - reads as the function it stands in for
    """An encoder through FFmpeg; ``film`` adds a video stream of the same length, or replaces the sound by it."""

    container: str
    codec: str
    bit_rate: int | None = None  # per channel
    codec_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    film: str | None = None  # None, "with sound", "silent"
    sample_format: str | None = None  # None: the encoder's first choice

    def __call__(self, samples: Samples, sample_rate_hz: int) -> bytes:
        with tempfile.TemporaryDirectory() as folder:  # FFmpeg moves an index to the front in a file with a name only
            path = Path(folder) / "sound"
            self._write(path, samples, sample_rate_hz)
            return path.read_bytes()

    def _write(self, path: Path, samples: Samples, sample_rate_hz: int) -> None:
        options = self.container_options
        with av.open(str(path), "w", format=self.container, container_options=options) as container:
            video = None
            if self.film:
                video = container.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
            audio = None if self.film == "silent" else self._add_sound(container, samples, sample_rate_hz)
            if video is not None:
                for _ in range(round(10 * len(samples) / sample_rate_hz)):
                    container.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
                container.mux(video.encode(None))
            if audio is not None:
                self._encode(container, audio, samples, sample_rate_hz)

    def _add_sound(self, container: Any, samples: Samples, sample_rate_hz: int) -> Any:
        layout = LAYOUTS[samples.shape[1]]
        stream = container.add_stream(self.codec, rate=sample_rate_hz, layout=layout, options=self.codec_options)
        if self.bit_rate:
            stream.bit_rate = self.bit_rate * samples.shape[1]
        if self.sample_format:
            stream.codec_context.format = self.sample_format
        stream.codec_context.open()
        return stream

    def _encode(self, container: Any, stream: Any, samples: Samples, sample_rate_hz: int) -> None:
        layout, context = LAYOUTS[samples.shape[1]], stream.codec_context
        cutter = av.AudioResampler(context.format.name, layout, sample_rate_hz, context.frame_size or 1_024)
        step = 10 * sample_rate_hz
        for begin in range(0, len(samples), step):
            packed = np.ascontiguousarray(samples[begin : begin + step]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.sample_rate, frame.pts = sample_rate_hz, begin
            for piece in cutter.resample(frame):
                container.mux(stream.encode(piece))
        for piece in cutter.resample(None):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


_AAC_BITS = 128_000  # at its default, FFmpeg's encoder clicks in pure tones
_NO_XING = {"write_xing": "0"}

FORMATS: dict[str, Format] = {
    "wav_u8": Format("wav", "pcm_u8", by_soundfile("WAV", "PCM_U8"), 2**-7),
    "wav_s16": Format("wav", "pcm_s16", by_soundfile("WAV", "PCM_16"), 2**-15),
    "wav_s24": Format("wav", "pcm_s24", by_soundfile("WAV", "PCM_24"), 2**-23),
    "wav_s32": Format("wav", "pcm_s32", by_soundfile("WAV", "PCM_32"), 2**-23),
    "wav_f32": Format("wav", "pcm_f32", by_soundfile("WAV", "FLOAT"), 0.0),
    "wav_f64": Format("wav", "pcm_f64", by_soundfile("WAV", "DOUBLE"), 0.0),
    "wav_extensible": Format("wav", "pcm_s16", by_soundfile("WAVEX", "PCM_16"), 2**-15),
    "wav_big_endian": Format("wav", "pcm_s16", by_soundfile("WAV", "PCM_16", endian="BIG"), 2**-15),
    "rf64": Format("wav", "pcm_s16", by_soundfile("RF64", "PCM_16"), 2**-15),
    "w64": Format("w64", "pcm_s16", by_soundfile("W64", "PCM_16"), 2**-15),
    "aiff": Format("aiff", "pcm_s16", by_soundfile("AIFF", "PCM_16"), 2**-15),
    "aiff_f32": Format("aif", "pcm_f32", by_soundfile("AIFF", "FLOAT"), 0.0),
    "au": Format("au", "pcm_s16", by_soundfile("AU", "PCM_16"), 2**-15),
    "caf": Format("caf", "pcm_s24", by_soundfile("CAF", "PCM_24"), 2**-23),
    "flac": Format("flac", "flac", by_soundfile("FLAC", "PCM_16"), 2**-15),
    "flac_24": Format("flac", "flac", by_soundfile("FLAC", "PCM_24"), 2**-23),
    "ogg_flac": Format("oga", "flac", by_av("ogg", "flac"), 2**-15),
    "alac": Format("m4a", "alac", by_av("ipod", "alac"), 2**-15, max_channels=2),
    "wavpack": Format("wv", "wavpack", by_av("wv", "wavpack", sample_format="s16p"), 2**-15),
    "matroska_flac": Format("mka", "flac", by_av("matroska", "flac"), 2**-15),
    "ogg_vorbis": Format("ogg", "vorbis", by_soundfile("OGG", "VORBIS")),
    "ogg_opus": Format("opus", "opus", by_av("ogg", "libopus"), rates_hz=_OPUS_HZ),
    "webm_opus": Format("webm", "opus", by_av("webm", "libopus"), rates_hz=_OPUS_HZ),
    "webm_live": Format(
        "webm",
        "opus",
        by_av("webm", "libopus", container_options={"live": "1"}),
        rates_hz=_OPUS_HZ,
        duration_known=False,
    ),
    "mp3": Format("mp3", "mp3", by_av("mp3", "libmp3lame"), rates_hz=_MP3_HZ, max_channels=2),
    "mp3_vbr": Format(
        "mp3", "mp3", by_av("mp3", "libmp3lame", None, {"qscale": "2"}), rates_hz=_MP3_HZ, max_channels=2
    ),
    "mp3_no_xing": Format(
        "mp3",
        "mp3",
        by_av("mp3", "libmp3lame", container_options=_NO_XING),
        rates_hz=_MP3_HZ,
        max_channels=2,
        duration_known=False,
    ),
    "mp3_vbr_no_xing": Format(
        "mp3",
        "mp3",
        by_av("mp3", "libmp3lame", None, {"qscale": "2"}, _NO_XING),
        rates_hz=_MP3_HZ,
        max_channels=2,
        duration_known=False,
    ),
    "mp3_in_wav": Format("wav", "mp3", by_av("wav", "libmp3lame"), rates_hz=_MP3_HZ, max_channels=2),
    "m4a": Format("m4a", "aac", by_av("ipod", "aac", _AAC_BITS), rates_hz=_AAC_HZ),
    "m4a_faststart": Format(
        "m4a", "aac", by_av("ipod", "aac", _AAC_BITS, container_options={"movflags": "faststart"}), rates_hz=_AAC_HZ
    ),
    "aac_adts": Format("aac", "aac", by_av("adts", "aac", _AAC_BITS), rates_hz=_AAC_HZ, duration_known=False),
    "film_mp4": Format("mp4", "aac", by_av("mp4", "aac", _AAC_BITS, film="with sound"), rates_hz=_AAC_HZ),
    "ac3": Format(
        "ac3", "ac3", by_av("ac3", "ac3"), rates_hz=(32_000, 44_100, 48_000), max_channels=6, duration_known=False
    ),
}
"""Every format that decoding is tested on."""


def encode(name: str, samples: Samples, sample_rate_hz: int) -> bytes:
    """The bytes of a file of format ``name``."""
    return FORMATS[name].encode(samples if samples.ndim == 2 else samples[:, None], sample_rate_hz)


def encode_damaged_mp3() -> bytes:
    """36 s of noise at 48 kHz as mp3, with damage after 9 s: behind it, seeking does not find the exact sample."""
    data = encode("mp3", noise(36.0, 48_000), 48_000)
    cut = len(data) // 4
    return data[:cut] + np.random.default_rng(0).bytes(5_000) + data[cut:]


def write_formats(folder: Path, waveform: Samples, sample_rate_hz: int, channels: int | None = None) -> list[Path]:
    """Write ``waveform`` to one file in each format that takes its rate and number of channels, named after the format.

    ``channels`` repeats a single channel.
    """
    samples = waveform if waveform.ndim == 2 else waveform[:, None]
    if channels is not None:
        samples = np.repeat(samples, channels, axis=1)
    paths = []
    for name, format_ in FORMATS.items():
        if format_.takes(sample_rate_hz, samples.shape[1]):
            paths.append(folder / f"{name}.{format_.suffix}")
            paths[-1].write_bytes(format_.encode(samples, sample_rate_hz))
    return paths


def write_long(path: Path, name: str, duration_s: float, sample_rate_hz: int = 48_000, channels: int = 2) -> None:
    """Write a file of format ``name`` that lasts many minutes, quickly: one minute is encoded, and then repeated."""
    minute = noise(min(60.0, duration_s), sample_rate_hz, channels)
    times = round(duration_s * sample_rate_hz / len(minute))
    format_ = FORMATS[name]
    if format_.step is None or isinstance(format_.encode, by_av):
        encoder = format_.encode if isinstance(format_.encode, by_av) else by_av(format_.suffix, format_.codec)
        _repeat_packets(io.BytesIO(format_.encode(minute, sample_rate_hz)), path, encoder, times)
        return
    header = soundfile.info(io.BytesIO(format_.encode(minute[:1_000], sample_rate_hz)))
    with soundfile.SoundFile(path, "w", sample_rate_hz, channels, header.subtype, header.endian, header.format) as file:
        for begin in range(0, times * len(minute), sample_rate_hz):
            file.write(minute[begin % len(minute) :][:sample_rate_hz])


def _repeat_packets(minute: io.BytesIO, path: Path, encoder: by_av, times: int) -> None:
    with av.open(str(path), "w", format=encoder.container, container_options=encoder.container_options) as container:
        shift, stream = 0, None
        for _ in range(times):
            minute.seek(0)
            begin, end = None, 0
            with av.open(minute) as source:
                if stream is None:
                    stream = container.add_stream_from_template(source.streams.audio[0])
                for packet in source.demux(source.streams.audio[0]):
                    if packet.dts is None:
                        continue
                    begin = packet.dts if begin is None else begin
                    end = max(end, packet.pts + packet.duration)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    container.mux(packet)
            shift += end - (begin or 0)  # an encoder's delay has a negative time


# --- broken files -----------------------------------------------------------------------------------------------------


def cut(data: bytes, fraction: float = 0.5) -> bytes:
    """The first part of a file, as an interrupted copy leaves it."""
    return data[: round(len(data) * fraction)]


def scribble(data: bytes, begin: float = 0.4, end: float = 0.6, seed: int = 0) -> bytes:
    """A file with random bytes over a part of it."""
    first, stop = round(len(data) * begin), round(len(data) * end)
    return data[:first] + np.random.default_rng(seed).bytes(stop - first) + data[stop:]


def patch(data: bytes, offset: int, layout: str, value: float) -> bytes:
    """A file with one field of its header replaced, ``layout`` as in ``struct``."""
    new = struct.pack(layout, value)
    return data[:offset] + new + data[offset + len(new) :]


def claim_bytes(wav: bytes, size: int) -> bytes:
    """A wav whose header states ``size`` bytes of samples."""
    return patch(patch(wav, 4, "<I", min(size + 36, 0xFFFF_FFFF)), 40, "<I", size)


def forget_total(flac: bytes) -> bytes:
    """A flac that does not state its length, as encoders write to a pipe."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tone.wav", encode("wav_s16", tone(0.1, 8_000), 8_000))
    return buffer.getvalue()


def write_broken_corpus(folder: Path, duration_s: float = 2.0) -> dict[str, tuple[str, str | None]]:
    """Write regular files that are damaged, odd, mislabelled or no audio.

    Returns:
        name -> (status, reason): ``("failed", reason)``, ``("indexed", "truncated")``, or ``("indexed", None)`` for
        those that look broken and are not. ``too_short`` includes files that decode to less than one frame.
    """
    stereo = tone(duration_s, 44_100, channels=2) + noise(duration_s, 44_100, 2) * np.float32(0.1)
    mono = tone(duration_s, 22_050)
    wide = tone(duration_s, 48_000, channels=2)
    files = _no_audio() | _bad_headers(stereo) | _bad_samples(stereo) | _cut_files(stereo, wide)
    files |= _odd_but_healthy(stereo, mono, wide)
    for name, (data, _, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: (status, reason) for name, (_, status, reason) in files.items()}


_Broken = dict[str, tuple[bytes, str, str | None]]


def _no_audio() -> _Broken:
    files = {
        "text.wav": b"This is not a sound.\n" * 400,
        "page.mp3": b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>" + b"<p>no</p>" * 300,
        "random.flac": np.random.default_rng(1).bytes(60_000),
        "picture.mp3": make_png(),
        "document.wav": b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" + b"0" * 3_000 + b"\n%%EOF\n",
        "archive.ogg": _zip(),
        "playlist.mp3": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nnan.wav\n#EXT-X-ENDLIST\n",
        "script.wav": b"ffconcat version 1.0\nfile 'nan.wav'\n",
        "zeros.wav": bytes(50_000),
    }
    broken: _Broken = {name: (data, "failed", "not_audio") for name, data in files.items()}
    return broken | {"empty.wav": (b"", "failed", "empty")}


def _bad_headers(stereo: Samples) -> _Broken:
    wav, flac = encode("wav_s16", stereo, 44_100), encode("flac", stereo, 44_100)
    m4a, webm = encode("m4a", stereo, 44_100), encode("webm_opus", stereo, 48_000)
    return {
        "header_only.wav": (encode("wav_s16", stereo[:0], 44_100), "failed", "too_short"),
        "no_data.wav": (wav[:44], "failed", "too_short"),
        "one_millisecond.wav": (encode("wav_s16", stereo[:44], 44_100), "failed", "too_short"),
        "half_a_header.wav": (wav[:30], "failed", "decode_error"),
        "no_channels.wav": (patch(wav, 22, "<H", 0), "failed", "decode_error"),
        "many_channels.wav": (patch(wav, 22, "<H", 65_535), "failed", "decode_error"),
        "no_rate.wav": (patch(wav, 24, "<I", 0), "failed", "decode_error"),
        "huge_rate.wav": (patch(wav, 24, "<I", 4_000_000_000), "failed", "decode_error"),
        "one_hertz.wav": (patch(wav, 24, "<I", 1), "failed", "unsupported"),
        "unknown_codec.wav": (patch(wav, 20, "<H", 0x9999), "failed", "unsupported"),
        "header_only.flac": (flac[:100], "failed", "decode_error"),
        "tag_only.mp3": (with_cover(b"", 1_000), "failed", "decode_error"),
        "header_only.webm": (webm[:200], "failed", "decode_error"),
        "cut.m4a": (cut(m4a), "failed", "decode_error"),  # its index was at the end
        "encrypted.m4a": (m4a.replace(b"mp4a", b"drms"), "failed", "unsupported"),
        "silent_film.mp4": (by_av("mp4", "", film="silent")(stereo, 44_100), "failed", "no_audio_stream"),
        "claims_a_gigabyte.wav": (claim_bytes(wav, 1_000_000_000), "indexed", "truncated"),
        "claims_half_of_it.wav": (claim_bytes(wav, len(wav) // 2), "indexed", "truncated"),
        "claims_half_of_it.aiff": (_claim_aiff_bytes(encode("aiff", stereo, 44_100)), "indexed", "truncated"),
        "two_in_one.wav": (wav + wav, "indexed", "truncated"),
        "empty_but_tagged.wav": (
            claim_bytes(wav[:44], 0) + b"LIST" + struct.pack("<I", 4_000) + bytes(range(250)) * 16,
            "failed",
            "too_short",
        ),
    }


def _claim_aiff_bytes(aiff: bytes) -> bytes:
    """An AIFF whose header counts half of its frames and bytes."""
    n_frames = struct.unpack_from(">I", aiff, aiff.index(b"COMM") + 10)[0]
    at = aiff.index(b"SSND") + 4
    half = patch(aiff, at, ">I", struct.unpack_from(">I", aiff, at)[0] // 2)
    return patch(half, aiff.index(b"COMM") + 10, ">I", n_frames // 2)


def _bad_samples(stereo: Samples) -> _Broken:
    nan, late, infinite, huge = stereo.copy(), stereo.copy(), stereo.copy(), stereo.astype(np.float64)
    nan[1_000, 0], late[-1, 1], infinite[5_000, 1], huge[7_000] = np.nan, np.nan, np.inf, 1e300
    flac, mp3, vorbis = (encode(name, stereo, 44_100) for name in ("flac", "mp3", "ogg_vorbis"))
    return {
        "nan.wav": (encode("wav_f32", nan, 44_100), "failed", "not_finite"),
        "nan_at_the_end.wav": (encode("wav_f32", late, 44_100), "failed", "not_finite"),
        "infinite.aiff": (encode("aiff_f32", infinite, 44_100), "failed", "not_finite"),
        "huge.wav": (by_soundfile("WAV", "DOUBLE")(huge, 44_100), "failed", "not_finite"),  # type: ignore[arg-type]
        "garbage_inside.flac": (scribble(flac), "indexed", "truncated"),
        "garbage_inside.mp3": (scribble(mp3, 0.3, 0.7), "indexed", "truncated"),
        "garbage_inside.ogg": (scribble(vorbis, 0.3, 0.8), "indexed", "truncated"),
        "garbage_inside.m4a": (scribble(encode("m4a_faststart", stereo, 44_100), 0.4, 0.9), "indexed", "truncated"),
    }


def _cut_files(stereo: Samples, wide: Samples) -> _Broken:
    names = ["wav_s16", "wav_extensible", "rf64", "w64", "aiff", "au", "caf", "flac", "mp3", "ogg_vorbis"]
    narrow = [*names, "m4a_faststart"]
    files = {f"cut_{name}.{FORMATS[name].suffix}": cut(encode(name, stereo, 44_100)) for name in narrow}
    for name in ("ogg_opus", "webm_opus"):
        files[f"cut_{name}.{FORMATS[name].suffix}"] = cut(encode(name, wide, 48_000))
    return {name: (data, "indexed", "truncated") for name, data in files.items()}


def _odd_but_healthy(stereo: Samples, mono: Samples, wide: Samples) -> _Broken:
    wav, flac, mp3 = (encode(name, stereo, 44_100) for name in ("wav_s16", "flac", "mp3"))
    mp3_22, vorbis_22 = encode("mp3", mono, 22_050), encode("ogg_vorbis", mono, 22_050)
    vorbis, opus = encode("ogg_vorbis", stereo, 44_100), encode("ogg_opus", wide, 48_000)
    odd_chunk = b"LIST" + struct.pack("<I", 5) + b"odd!!\0"
    healthy = {
        "mp3_named.wav": mp3,
        "wav_named.mp3": wav,
        "m4a_named.ogg": encode("m4a", stereo, 44_100),
        "no_extension": flac,
        "odd_chunk.wav": wav[:36] + odd_chunk + wav[36:],
        "bw64.wav": b"BW64" + encode("rf64", stereo, 44_100)[4:],
        "padded.wav": wav + bytes(32_768),
        "tag_behind.wav": wav + with_cover(b""),
        "trailing_chunk.wav": wav + b"LIST" + struct.pack("<I", 4_000) + bytes(4_000),
        "from_a_pipe.wav": claim_bytes(wav, 0xFFFF_FFFF),
        "claims_four_gigabytes.wav": claim_bytes(wav, 0xFFFF_FFDB),
        "recorder_crashed.wav": claim_bytes(wav, 0),
        "loud.wav": encode("wav_f32", stereo * np.float32(5), 44_100),
        "wrong_md5.flac": flac[:26] + bytes(range(1, 17)) + flac[42:],
        "from_a_pipe.flac": forget_total(flac),
        "tagged.flac": b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + flac,
        "concatenated.mp3": mp3 + mp3,
        "concatenated_rates.mp3": mp3 + mp3_22,
        "with_cover.mp3": with_cover(mp3),
        "old_tag.mp3": mp3 + b"TAG" + b"x" * 125,
        "trailing_junk.mp3": mp3 + np.random.default_rng(2).bytes(3_000),
        "vbr_without_header.mp3": encode("mp3_vbr_no_xing", stereo, 44_100),
        "chained.ogg": vorbis + vorbis,
        "chained.opus": opus + opus,
        "chained_rates.ogg": vorbis + vorbis_22,
        "chained_codecs.ogg": vorbis + opus + vorbis_22,
        "eight_channels.m4a": encode("m4a", np.repeat(wide[:, :1], 8, axis=1), 48_000),
        "film.mp4": encode("film_mp4", stereo, 44_100),
    }
    return {name: (data, "indexed", None) for name, data in healthy.items()}


def write_special_files(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Make things with the name of a sound that are no regular files: name -> (status, reason)."""
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "dangling.wav").symlink_to(folder / "gone.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    return {
        "folder.wav": ("failed", "unreadable"),
        "pipe.wav": ("failed", "unreadable"),
        "dangling.wav": ("failed", "vanished"),
        "loop.wav": ("failed", "unreadable"),
        "missing.wav": ("failed", "vanished"),
        "text.wav/inside.wav": ("failed", "vanished"),
    }
