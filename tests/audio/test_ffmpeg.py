"""FFmpeg opens sound and films, but no pictures and playlists, and decodes sound only."""

import io

import av
import av.error
import pytest

from jobs.bench.hostile_sounds import make_png, with_cover
from pipeline.audio.ffmpeg import open_container
from tests.helpers.bursts import make_film
from tests.helpers.sounds import encode, tone

HZ = 48_000
MP3 = encode("mp3", tone(1.0, HZ), HZ)


@pytest.mark.parametrize("data", [with_cover(MP3), make_film("mpegts", "aac", "mpeg2video")])
def test_pictures_are_not_decoded(data: bytes) -> None:
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].codec_context.pix_fmt is not None
    with open_container(io.BytesIO(data)) as container:
        assert container.streams.video[0].codec_context.pix_fmt is None
        assert next(container.decode(audio=0)).samples > 0


@pytest.mark.parametrize(
    "data", [make_png(), b"#EXTM3U\n#EXTINF:10,\nother.wav\n", b"ffconcat version 1.0\nfile 'a.wav'\n"]
)
def test_pictures_and_playlists_are_not_opened(data: bytes) -> None:
    with pytest.raises(av.error.FFmpegError):
        open_container(io.BytesIO(data))
