"""Samples from FFmpeg (through PyAV): mp3, ogg, opus, m4a, webm, and whatever libsndfile refuses."""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import av
import av.error

from pipeline.audio import opus
from pipeline.audio.channels import Channels, Mixer
from pipeline.audio.containers import (
    BARE_FORMATS,
    CHECKED_ENDS,
    CLOCKED_FORMATS,
    FILM_LONG_FORMATS,
    MATROSKA,
    MP4,
    OWN_DURATIONS,
    SPLICED_FORMATS,
    TIMED_FORMATS,
    begins_as_audio,
    find_next_link,
)
from pipeline.audio.damage import Damage, are_many
from pipeline.audio.ffmpeg import open_container
from pipeline.audio.frames import join_frames, kind_of, make_silence
from pipeline.audio.header_lengths import View, find_cut
from pipeline.audio.losses import Losses
from pipeline.audio.matroska import lacks_duration, read_track_duration
from pipeline.audio.mpeg_tags import find_frames_end, read_mp3_duration
from pipeline.audio.ogg_pages import find_last_granule, read_ogg_end
from pipeline.audio.packets import PAUSING_CODECS, Packets, is_pause
from pipeline.audio.pieces import PIECE_S, PIECE_VALUES, AudioInfo, Piece
from pipeline.audio.source import Bytes
from pipeline.audio.timeline import (
    GAP_S,
    JUMPS_NOTE,
    OPUS_GAP_S,
    TRACKS_NOTE,
    Container,
    Timeline,
    find_spliced_zero,
    find_zero,
)
from pipeline.audio.tracks import choose_track
from pipeline.corpus.raw_formats import RawFormat
from pipeline.errors import FileFailure, one_line
from pipeline.words import count


class AvReader:
    """The main audio stream of a file as FFmpeg reads it."""

    def __init__(self, source: Bytes, raw: RawFormat | None = None) -> None:
        self.trouble: str | None = None
        self.unplaced: str | None = None
        """A trouble of which ``damage`` does not tell where it lies."""
        self.damage = Damage()
        self.raw = raw
        self._source = source
        self.mixer = Mixer()
        self._begin_s = 0.0  # where it begins in the whole sound
        self._known = begins_as_audio(source)
        self._n_opus_samples = 0  # of the packets up to the first frame
        self._surplus = 0  # samples at the beginning that are still to be left out
        cut = find_cut(source) if raw is None else None
        if cut is not None:
            self.trouble = "its last box is cut off"
        # With half an index of a fragment, FFmpeg would refuse the whole file.
        end = cut[1] if cut is not None and cut[0] != b"mdat" else find_frames_end(source)
        self._end = end
        self._guesses = raw is None and lacks_duration(source)  # FFmpeg does, by the bit rate
        source.seek(0)
        try:
            self._container = open_container(source if end == source.size_bytes else View(source, 0, end), raw)
        except av.error.FFmpegError as error:
            raise self._not_opened(one_line(error)) from None
        try:
            self._timed = raw is not None or self._container.format.name in TIMED_FORMATS
            self._is_chain = False
            if self._container.format.name == "ogg":
                self._check_ogg_end(source)
            self._check_end(source)
            self._stream = self._choose(source)
            is_opus = self._stream.codec_context.name == "opus"
            self._pre_skip = opus.read_pre_skip(self._stream.codec_context.extradata) if is_opus else 0
            self._packets = Packets(self._container, self._stream, source)
            zero_s = self._find_zero()
            self.info = self._describe(source, zero_s)
            self._timeline = self._make_timeline(source.size_bytes, zero_s)
        except BaseException:
            self._container.close()
            raise

    def pieces(self) -> Iterator[Piece]:
        yield from self.mixer.mix(self.parts())

    def parts(self) -> Iterator[Channels]:
        """The samples of all channels: of all links of chained Ogg; other files have one link."""
        yield from self._link_parts()
        link, begin, told = self, 0, [(self.trouble, self.unplaced)]
        for _ in range(_MOST_LINKS):
            if not link._packets.failed or link._container.format.name != "ogg":
                break
            at = find_next_link(link._source, link._packets.newest_pos)
            if at is None:
                told.append((link._packets.failed, link._packets.failed))
                break
            begin += at
            rest = Bytes(cast(BinaryIO, View(self._source, begin, self._source.size_bytes - begin)))
            try:
                link = AvReader(rest)
            except FileFailure:
                told.append(("another kind of stream follows",) * 2)
                break
            link.mixer = self.mixer
            link.follow(self.damage, self.damage.now_s)
            try:
                yield from link._link_parts()
            finally:
                link.close()
            told.append((link.trouble, link.unplaced))
        else:
            told.append((f"only {_MOST_LINKS} links of the chain are read",) * 2)
        self.trouble, self.unplaced = (next(filter(None, each), None) for each in zip(*told, strict=True))

    def follow(self, damage: Damage, begin_s: float) -> None:
        """Note what is damaged together with that of other readers, before anything is read.

        Args:
            begin_s: where this sound begins in the whole one.
        """
        self.damage, self._begin_s = damage, begin_s

    def _link_parts(self) -> Iterator[Channels]:
        frames: list[Any] = []
        n_values = 0
        for silence_s, frame in self._timed_frames():
            full = frame is None or n_values >= min(
                PIECE_VALUES, PIECE_S * frame.sample_rate * frame.layout.nb_channels
            )
            if frames and (full or silence_s or kind_of(frame) != kind_of(frames[0])):
                yield self._trim(join_frames(frames))
                frames, n_values = [], 0
            if silence_s:
                rate_hz, channels = (kind_of(frame) if frame else (self.info.sample_rate_hz, self.info.channels))[:2]
                for part in make_silence(rate_hz, silence_s, channels):
                    self.mixer.is_filling = True
                    yield part
                    self.mixer.is_filling = False
            if frame is None:
                return
            frames.append(frame)
            n_values += frame.samples * frame.layout.nb_channels
        if frames:
            rate_hz, values = self._trim(join_frames(frames))
            n_padding = round(self._padding_s(self._timeline.at_s) * rate_hz)
            yield rate_hz, values[:, :-n_padding] if 0 < n_padding < frames[-1].samples else values

    def _trim(self, part: Channels) -> Channels:
        """Leave out what remains of the surplus at the beginning."""
        rate_hz, values = part
        n = min(self._surplus, values.shape[1])
        self._surplus -= n
        return rate_hz, values[:, n:] if n else values

    def _padding_s(self, at_s: float) -> float:
        """What FFmpeg leaves of the padding of the last frame: in m4a, short vorbis, and mp3 with a tag behind it.

        Args:
            at_s: where the last frame ends.
        """
        is_exact = (self._timed or self._container.format.name == "mp3") and not self._counts_blocks
        promised_s = self.info.expected_duration_s
        return at_s - promised_s if is_exact and promised_s else 0.0

    def close(self) -> None:
        self._container.close()

    def _timed_frames(self) -> Iterator[tuple[float, Any]]:
        """Each frame, with the seconds of silence before it; the last frame may be None."""
        timeline, damage, is_first = self._timeline, self.damage, True
        for silence_s, frame in self._frames():
            timeline.at_s += silence_s
            if frame is not None:
                surplus_s = self._take_surplus(frame) if is_first else 0.0
                is_first = False
                if self._has_clock and (time_s := frame.time) is not None:
                    filled_s = timeline.filled_s
                    silence_s += timeline.silence_before(time_s + surplus_s)
                    damage.now_s = self._begin_s + timeline.at_s
                    if timeline.filled_s > filled_s:
                        damage.note_gap(timeline.filled_s - filled_s)
                timeline.at_s += frame.samples / frame.sample_rate - surplus_s
            damage.now_s = self._begin_s + timeline.at_s
            yield silence_s, frame
        if timeline.filled_s and not self.trouble:
            self.trouble = f"{timeline.filled_s:.3f} s are missing in the middle, and taken as silence"

    @property
    def _has_clock(self) -> bool:
        """Whether the times of frames tell where they lie."""
        return self.raw is not None or self._container.format.name in CLOCKED_FORMATS

    def _take_surplus(self, frame: Any) -> float:
        """Note how many samples FFmpeg has left at the beginning of opus in Matroska: it skips too few of other rates.

        Returns the seconds of that.
        """
        if self._pre_skip and self._container.format.name == MATROSKA:
            self._surplus = max(0, self._pre_skip - (self._n_opus_samples - frame.samples))
        return self._surplus / opus.RATE_HZ

    def _frames(self) -> Iterator[tuple[float, Any]]:
        """Each frame, with the duration of the pauses before it; None for a frame after the last pause."""
        n_packets = n_bad = lost_bytes = 0
        worst = ""
        losses = Losses(self._packets.skip_tags)
        is_bare = self.raw is None and self._container.format.name in BARE_FORMATS
        may_pause = self.info.codec in PAUSING_CODECS
        pause_s, count_opus = 0.0, self._pre_skip > 0
        for packet in self._packets:
            n_packets += 1
            self.damage.n_packets += 1
            if count_opus and packet.size:
                self._n_opus_samples += opus.count_samples(bytes(memoryview(packet)[:2]))
            size_bytes, at = packet.size, packet.pos
            try:
                frames = packet.decode()
                losses.note(size_bytes, at, decodes=True)
            except av.error.FFmpegError as error:
                frames = []
                losses.note(size_bytes, at, decodes=False)
                if not is_pause(packet, self.info.codec):
                    n_bad, worst = n_bad + 1, one_line(error)
                    self.damage.note_packet(worst)
            if is_bare and (n_bytes := losses.count()) > lost_bytes:
                self.damage.note_bytes(n_bytes - lost_bytes)
                lost_bytes, self.damage.few_bytes = n_bytes, losses.few_bytes
            if frames:
                count_opus = False
                yield pause_s, frames[0]
                pause_s = 0.0
                for frame in frames[1:]:
                    yield 0.0, frame
            elif may_pause and packet.duration:
                pause_s += float(packet.duration * packet.time_base)
        if pause_s:
            yield pause_s, None
        if self._container.format.name != "ogg":  # in Ogg, another link may follow
            self.trouble = self._packets.failed or self.trouble
        self.unplaced = self.trouble
        if is_bare and not self.trouble:
            self.trouble = losses.describe(self._end)
        if are_many(n_bad, n_packets):
            self.trouble = f"{n_bad} of {n_packets} packets cannot be decoded: {worst}"

    @property
    def note(self) -> str | None:
        """A remark for people on a file that is not faulty."""
        if (raw := self.raw) is not None:
            return f"it has no header, and is read as {raw.name} at {raw.sample_rate_hz // 1000} kHz by its extension"
        notes, tracks, timeline = [], self._container.streams.audio, self._timeline
        if len(tracks) > 1:
            notes.append(f"it has {len(tracks)} {TRACKS_NOTE} {tracks.index(self._stream) + 1} is read")
        if timeline.n_refused:
            jumps = f"{count(timeline.n_refused, 'time')}, by up to {timeline.longest_refused_s:,.1f} s"
            notes.append(f"{JUMPS_NOTE} {jumps}: this is not taken for silence")
        return "; ".join(notes) or None

    @property
    def is_alone(self) -> bool:
        """Whether the file has no other stream of sound or picture."""
        return not self._packets.has_neighbours

    def _choose(self, source: Bytes) -> Any:
        tracks = self._container.streams.audio
        stream = self._container.streams.best("audio") if len(tracks) < 2 else self._choose_track(source)
        if stream is None and self._container.streams.video:
            raise FileFailure("decode", "no_audio_stream", "a video without sound")
        if stream is None:
            raise self._not_opened("no stream in it")
        if stream.codec_context is None:
            raise FileFailure("decode", "unsupported", "no decoder for this codec")
        if self._container.format.name == MP4 and stream.codec_context.codec_tag in ("enca", "drms"):
            raise FileFailure("decode", "unsupported", "encrypted")
        if self._container.format.name == "caf" and stream.codec_context.name == "alac":
            # The last packet is as short as it should be. FFmpeg would cut off its padding again.
            stream.codec_context.flags2 |= av.codec.context.Flags2.skip_manual
        return stream

    def _choose_track(self, source: Bytes) -> Any:
        position = source.tell()
        stream = choose_track(self._container, lambda: open_container(View(source, 0, self._end)))
        source.seek(position)
        return stream

    def _check_ogg_end(self, source: Bytes) -> None:
        position = source.tell()
        whole, same_stream = read_ogg_end(source)
        source.seek(position)
        if not whole:
            self.trouble = "the last Ogg page is cut off"
        # FFmpeg takes the duration from the last page. If that belongs to a later stream, the duration is an estimate.
        self._timed &= same_stream
        self._is_chain = not same_stream

    def _check_end(self, source: Bytes) -> None:
        is_cut = CHECKED_ENDS.get(self._container.format.name)
        position = source.tell()
        if is_cut is not None and is_cut(source):
            self.trouble = "cut off before the end of its samples"
        source.seek(position)

    def _not_opened(self, message: str) -> FileFailure:
        if self._known:
            return FileFailure("decode", "decode_error", message)
        return FileFailure("decode", "not_audio", "no decoder recognises it")

    def _find_zero(self) -> float | None:
        sound_s = self._packets.first_s
        if sound_s is None:
            return None
        if self._container.format.name in SPLICED_FORMATS:
            return find_spliced_zero(sound_s, self._packets.neighbours)
        return find_zero(sound_s, self._packets.neighbours, self._stated_s())

    def _stated_s(self) -> float | None:
        """The duration that the container states."""
        is_guess = self._guesses or self._is_chain or self._container.format.name in SPLICED_FORMATS
        duration = None if is_guess else self._container.duration
        return float(duration) / av.time_base if duration else None

    def _make_timeline(self, size_bytes: int, zero_s: float | None) -> Timeline:
        durations_s = [duration_s for duration_s in (self._stated_s(), self.info.expected_duration_s) if duration_s]
        may_splice = self._is_chain or self._container.format.name in SPLICED_FORMATS  # each link has its own clock
        first_s = self._packets.first_s
        if first_s is not None:
            first_s += self._pre_skip / opus.RATE_HZ
            if self._container.format.name not in SPLICED_FORMATS:
                first_s = max(0.0, first_s)
        container = Container(size_bytes, max(durations_s, default=None), zero_s, may_splice, first_s)
        is_opus = self.info.codec == "opus"
        return Timeline(container, self._packets.neighbours, OPUS_GAP_S if is_opus else GAP_S)

    def _describe(self, source: Bytes, zero_s: float | None) -> AudioInfo:
        context = self._stream.codec_context
        return AudioInfo(
            codec=re.sub(r"(?<=\d)(?:le|be)(?:_planar)?$", "", context.codec.canonical_name),
            sample_rate_hz=context.sample_rate,
            channels=context.layout.nb_channels,
            expected_duration_s=self._promised_s(source, zero_s),
        )

    def _find_ogg_end_s(self, source: Bytes) -> float | None:
        """When the sound beside a picture ends, by its own last page. FFmpeg takes the last pages of the file, which
        are those of the picture where that goes on."""
        position = source.tell()
        granule = find_last_granule(source, self._stream.index)
        source.seek(position)
        return None if granule is None else float((granule - self._pre_skip) * self._stream.time_base)

    @property
    def _counts_blocks(self) -> bool:
        """Whether the header counts in blocks of lossless sound: the last one counts in full."""
        return bool(self._container.format.name == "avi" and self._stream.codec_context.name == "flac")

    def _promised_s(self, source: Bytes, zero_s: float | None) -> float | None:
        """The stated time from the beginning of the container to the end of the sound."""
        name = self._container.format.name
        if name == "mp3":  # FFmpeg's own answer is an estimate if the size seems wrong
            position = source.tell()
            duration_s = read_mp3_duration(source)
            source.seek(position)
            return duration_s
        begin_s = max(0.0, self._packets.first_s or 0.0)
        lead_s = 0.0 if zero_s is None else max(0.0, begin_s - zero_s)
        if name in OWN_DURATIONS:
            if self._packets.has_neighbours or begin_s > GAP_S:  # it is that of the film, or may count from either
                return None
            position = source.tell()
            duration_s = OWN_DURATIONS[name](source)
            source.seek(position)
            return duration_s
        if not self._timed or (name == "avi" and self._stream.codec_context.name == "vorbis"):
            return None  # avi counts vorbis in bytes, by a rate that is an average
        if name in FILM_LONG_FORMATS and self._packets.has_neighbours:
            return None
        if name == "ogg" and self._packets.has_neighbours:
            end_s = self._find_ogg_end_s(source)
            return None if end_s is None else max(0.0, end_s - begin_s + lead_s)
        if self._stream.duration is not None and not self._guesses:
            duration_s = float(self._stream.duration * self._stream.time_base)
            duration_s -= self._packets.late_s
            if name == "ogg" and self._pre_skip and begin_s:  # FFmpeg counts from zero, but the stream begins later
                duration_s -= begin_s + 2 * self._pre_skip / opus.RATE_HZ
            if self._counts_blocks:
                duration_s -= float(self._stream.time_base)
            return duration_s + (0.0 if name in FILM_LONG_FORMATS else lead_s)
        # Without a duration of its own, the sound may end before the film around it.
        ends_s = self._stated_s()
        if self._packets.has_neighbours:
            stated = read_track_duration(self._stream.metadata, self._container.metadata)
            ends_s = stated and stated[0] + (0.0 if stated[1] else begin_s)
        return None if ends_s is None else max(0.0, ends_s - begin_s + lead_s)


_MOST_LINKS = 1_000
"""Links whose codec, rate or channels differ from the one before: FFmpeg reads up to 5 MB to open each."""
