"""The extensions that count as audio are those that the decoders read, tried with a file of each kind."""

import io
import lzma
import re
import struct
from collections.abc import Callable
from pathlib import Path

import av
import av.codec
import av.format
import pytest

from pipeline.audio.decode import open_audio
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.extensions import AUDIO_EXTENSIONS
from pipeline.corpus.raw_formats import RAW_FORMATS, raw_format_of
from tests.helpers.sounds import Samples, by_av, by_soundfile, tone

Encode = Callable[[Samples, int], bytes]

DSD_HZ = 2_822_400
DSD_SILENCE = b"\x69"
"""As many ones as zeros."""


def make_dsf(samples: Samples, sample_rate_hz: int) -> bytes:
    """Silence. Source: Sony's DSF File Format Specification 1.01."""
    n_samples = len(samples) * DSD_HZ // sample_rate_hz
    data = DSD_SILENCE * (-(-n_samples // (8 * 4096)) * 4096)
    about = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, DSD_HZ, 1, n_samples, 4096, 0)
    header = struct.pack("<4sQQQ", b"DSD ", 28, 28 + 52 + 12 + len(data), 0)
    return header + about + struct.pack("<4sQ", b"data", 12 + len(data)) + data


def make_dff(samples: Samples, sample_rate_hz: int) -> bytes:
    """Silence. Source: Philips' DSDIFF 1.5."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack(">Q", len(body)) + body + bytes(len(body) % 2)

    about = b"SND " + chunk(b"FS  ", struct.pack(">I", DSD_HZ)) + chunk(b"CHNL", b"\0\1C   ")
    about += chunk(b"CMPR", b"DSD \x0enot compressed\0")
    body = chunk(b"FVER", b"\1\5\0\0") + chunk(b"PROP", about)
    body += chunk(b"DSD ", DSD_SILENCE * (len(samples) * DSD_HZ // sample_rate_hz // 8))
    return chunk(b"FRM8", b"DSD " + body)


MP4, FILM = by_av("mp4", "aac", 64_000), by_av("mp4", "aac", 64_000, film="with sound")
MAKERS: dict[str, tuple[Encode, int]] = {
    "dsf": (make_dsf, 48_000),
    "dff": (make_dff, 48_000),
    "tta": (by_av("tta", "tta"), 48_000),
    "eac3": (by_av("eac3", "eac3"), 48_000),
    "ec3": (by_av("eac3", "eac3"), 48_000),
    "ac3": (by_av("ac3", "ac3"), 48_000),
    "sph": (by_soundfile("NIST", "PCM_16"), 16_000),
    "nist": (by_soundfile("NIST", "PCM_16"), 16_000),
    "pvf": (by_soundfile("PVF", "PCM_16"), 16_000),
    "8svx": (by_soundfile("SVX", "PCM_S8"), 16_000),
    "ircam": (by_soundfile("IRCAM", "PCM_16"), 16_000),
    "m4r": (by_av("ipod", "aac", 64_000), 48_000),
    "3gp": (by_av("3gp", "libopencore_amrnb"), 8_000),
    "3g2": (by_av("3g2", "aac", 64_000), 48_000),
    "amr": (by_av("amr", "libopencore_amrnb"), 8_000),
    "mp4": (FILM, 48_000),
    "m4v": (FILM, 48_000),
    "f4v": (by_av("f4v", "aac", 64_000), 48_000),
    "mov": (by_av("mov", "pcm_s16le", film="with sound"), 48_000),
    "mkv": (by_av("matroska", "aac", 64_000, film="with sound"), 48_000),
    "avi": (by_av("avi", "libmp3lame", film="with sound"), 48_000),
    "flv": (by_av("flv", "aac", 64_000), 44_100),
    "wmv": (by_av("asf", "wmav2", 64_000), 44_100),
    "asf": (by_av("asf", "wmav2", 64_000), 44_100),
    "mpg": (by_av("mpeg", "mp2"), 48_000),
    "vob": (by_av("vob", "ac3"), 48_000),
    "m2ts": (by_av("mpegts", "ac3"), 48_000),
    "rm": (by_av("rm", "ac3"), 48_000),
    "ogv": (by_av("ogg", "libopus"), 48_000),
    "latm": (by_av("latm", "aac", 64_000), 48_000),
    "g722": (by_av("g722", "g722"), 16_000),
}


WITHOUT_SAMPLE = {
    "dtshd": ("dtshd", "dca"),
    "mpc": ("mpc8", "mpc8"),
    "mp+": ("mpc", "mpc7"),
    "tak": ("tak", "tak"),
    "ape": ("ape", "ape"),
    "shn": ("shn", "shorten"),
}
"""Kinds that no FFmpeg encodes, so that no file of them can be made and read, with their container and decoder."""

SAMPLES = {"dts": "dts", "thd": "thd", "truehd": "thd", "mlp": "mlp"}
"""Kinds that PyAV's build of FFmpeg does not encode: files of twelve seconds are kept below ``tests/data``."""


@pytest.mark.parametrize("extension", WITHOUT_SAMPLE)
def test_formats_without_an_encoder_here_have_a_decoder(tmp_path: Path, extension: str) -> None:
    container, decoder = WITHOUT_SAMPLE[extension]
    assert av.format.ContainerFormat(container, "r").is_input
    assert av.codec.Codec(decoder, "r").is_decoder
    (tmp_path / f"sound.{extension}").write_bytes(b"")
    assert list_corpus([str(tmp_path)]).num_rows == 1


@pytest.mark.parametrize("decoder", sorted({decoder for _, decoder in WITHOUT_SAMPLE.values()}))
def test_formats_with_an_encoder_here_have_a_sample(decoder: str) -> None:
    """If this fails, FFmpeg has gained an encoder: add a sample to ``MAKERS``."""
    with pytest.raises(av.codec.codec.UnknownCodecError):
        av.codec.Codec(decoder, "w")


@pytest.mark.parametrize("extension", MAKERS)
def test_files_of_each_extension_are_listed_and_decoded(tmp_path: Path, extension: str) -> None:
    make, rate_hz = MAKERS[extension]
    path = tmp_path / f"sound.{extension}"
    path.write_bytes(make(tone(1.0, rate_hz), rate_hz))
    assert list_corpus([str(tmp_path)])["uri"].to_pylist() == [str(path)]
    with open_audio(path, raw=raw_format_of(str(path))) as audio:
        assert sum(len(block) for block in audio.blocks()) == pytest.approx(48_000, abs=2_600)  # an aac frame or two
        assert audio.truncated is None


@pytest.mark.parametrize("extension", SAMPLES)
def test_kept_samples_are_listed_and_decoded(tmp_path: Path, extension: str) -> None:
    packed = Path(__file__).parents[1] / f"data/bursts.{SAMPLES[extension]}.xz"
    path = tmp_path / f"sound.{extension}"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    assert list_corpus([str(tmp_path)])["uri"].to_pylist() == [str(path)]
    with open_audio(path) as audio:
        assert sum(map(len, audio.blocks())) == 12 * 48_000


def test_raw_formats_count_as_audio() -> None:
    assert AUDIO_EXTENSIONS.issuperset(RAW_FORMATS)


def test_header_counts_more_than_extension() -> None:
    data = by_soundfile("WAV", "PCM_16")(tone(1.0, 8_000), 8_000)
    for raw in (None, *RAW_FORMATS.values()):
        with open_audio(io.BytesIO(data), raw=raw) as audio:
            assert audio.info.codec == "pcm_s16"


LEFT_OUT = ["ts", "mts", "raw", "iff", "mpp", "sf", "paf", "nut", "dat"]


@pytest.mark.parametrize("extension", [*LEFT_OUT, "txt", "json", "jpg", "mid", "tar", "csv"])
def test_extensions_that_mostly_mean_something_else_are_left_out(extension: str) -> None:
    assert extension not in AUDIO_EXTENSIONS


def test_docs_name_the_extensions_left_out() -> None:
    readme = (Path(__file__).parents[2] / "pipeline/corpus/README.md").read_text()
    _, _, said = readme.partition("Extensions that mostly mean something else are left out")
    assert re.findall(r"`\.(\w+)`", said.partition("\n\n")[0]) == LEFT_OUT
