"""Files whose decoding was corrected are examined: only those whose sound has changed are encoded again."""

import os
import shutil
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from jobs.bench.hostile_sounds import with_cover
from pipeline.audio.decoder_versions import DECODER, Look, find_correction
from pipeline.audio.source import hash_file
from pipeline.config import Config, DecodeConfig
from pipeline.errors import EarshotError
from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.index.verify import verify_index
from pipeline.planning.file_rows import CONFIRMED
from pipeline.planning.request import RunRequest
from pipeline.run.decode_stage import decode_batch
from pipeline.run.driver import index_corpus
from pipeline.run.examine import Examiner
from pipeline.run.planned_files import PlannedFile, files_of
from pipeline.run.prepare import plan_corpus, read_config
from pipeline.run.progress import Progress
from pipeline.run.split_stage import split_batch
from tests.helpers.bursts import make_bursts, make_film, mux_tracks
from tests.helpers.contents import Rows, check_whole, live, read
from tests.helpers.corpora import write_ranges
from tests.helpers.damage import publish, rewrite
from tests.helpers.fakes import GRID, plan_batch
from tests.helpers.indexes import table
from tests.helpers.long import in_parts
from tests.helpers.protocol import Died, die_at
from tests.helpers.runs import WideEncoder, configure, in_place
from tests.helpers.sounds import FORMATS, Samples, by_av, by_soundfile, encode, forget_total, noise, scribble, tone

BATCH = "0" * 32
SOUND = tone(2.0, 48_000)
STEREO = noise(2.0, 48_000, 2)
CROSSED = tone(2.0, 48_000, channels=2) * np.array([1, -1], np.float32)
"""The channels of a wrongly wired cable."""

BURSTS = encode("ogg_vorbis", make_bursts(48_000), 48_000)


def move_packets(data: bytes, move_s: Callable[[float], float]) -> bytes:
    """An Ogg file with other times."""
    return make_film("ogg", "", None, data=data, move_s=move_s)


def two_tracks(container: str, *, film: bool = True) -> bytes:
    return mux_tracks(container, [by_av("matroska", "aac", 64_000)(SOUND, 48_000) for _ in range(2)], film=film)


FILM, LATE_FILM = make_film("mp4", "aac"), make_film("mp4", "aac", late_s=1.0)
WMA = by_av("asf", "wmav2", 64_000)(SOUND, 48_000)
REFUSED = {
    "tag before.wav": with_cover(encode("wav_s16", SOUND, 48_000)),
    "no tag.wav": by_av("wav", "g722")(tone(2.0, 16_000), 16_000),
    "no header.g722": by_av("g722", "g722")(tone(2.0, 16_000), 16_000),
}
"""Files that older versions could not read."""

SAME = {
    **{
        f"same.{FORMATS[name].suffix}": encode(name, SOUND, 48_000)
        for name in ("mp3", "m4a", "wav_s16", "ogg_vorbis", "matroska_flac")
    },
    "stereo.wav": encode("wav_s16", STEREO, 48_000),
    "copy of stereo.wav": encode("wav_s16", STEREO, 48_000),
    "stereo.mp3": encode("mp3", STEREO, 48_000),
    "on time.mp4": FILM,
    "copy of on time.mp4": FILM,
    "on time.mkv": make_film("matroska", "libopus"),
    "unstated.mp3": encode("mp3_no_xing", SOUND, 48_000),
    "no pauses.amr": by_av("amr", "libopencore_amrnb")(tone(2.5, 8_000), 8_000),
    "healthy chain.ogg": encode("ogg_opus", SOUND, 48_000) + encode("ogg_opus", SOUND, 48_000),
    "unstated.flac": forget_total(encode("flac", SOUND, 48_000)),
    "damaged.ac3": scribble(encode("ac3", STEREO, 48_000)),
    "on time.m2ts": make_film("mpegts", "aac"),
    "on time.flv": make_film("flv", "aac", "flv"),
    "plain.wma": WMA,
    "stereo.wav#t=0.5,1.5": b"",
}
"""Files that older versions decoded as they do now."""

CHANGED = {
    "tag.mp3": SAME["same.mp3"] + b"TAG" + bytes(125),
    "tag without a length.mp3": encode("mp3_no_xing", SOUND, 48_000) + b"TAG" + bytes(125),
    "blocks.wav": by_soundfile("WAV", "IMA_ADPCM")(tone(2.0, 8_000), 8_000),
    "pauses.amr": by_av("amr", "libopencore_amrnb")(tone(2.0, 8_000), 8_000),
    "alac.caf": by_av("caf", "alac")(SOUND, 48_000),
    "film.mkv": make_film("matroska", "libopus", late_s=1.0),
    "film.mp4": LATE_FILM,
    "copy of film.mp4": LATE_FILM,
    "late.webm": by_av("webm", "libopus")(tone(2.0, 8_000), 8_000),
    "tracks.avi": mux_tracks("avi", [by_av("matroska", "ac3")(SOUND, 48_000) for _ in range(2)]),
    "tracks.m4a": two_tracks("mp4", film=False),
    "tracks.wma": mux_tracks("asf", [WMA, WMA], film=False),
    "film.m2ts": make_film("mpegts", "aac", late_s=1.0),
    "gap.flv": make_film("flv", "aac", "flv", move_s=lambda time_s: 4.0 if time_s >= 5 else 0.0),
    "film.mpg": make_film("mpeg", "mp2", "mpeg1video", late_s=1.0),
    "film that is called.mp3": make_film("matroska", "aac", late_s=1.0),
    **REFUSED,
    "picture.ogg": make_film("ogg", "", "libvpx", data=BURSTS),
    "vorbis.avi": make_film("avi", "", None, data=BURSTS),
    "chain.ogg": SAME["same.ogg"] + encode("ogg_opus", SOUND, 48_000),
    "chain with a gap.ogg": BURSTS + move_packets(BURSTS, lambda time_s: 4.0 if time_s >= 5 else 0.0),
    "joined.flac": forget_total(encode("flac", STEREO, 48_000)) + encode("flac", tone(2.0, 44_100), 44_100),
    "crossed.wav": encode("wav_s16", CROSSED, 48_000),
    "crossed.mp3": encode("mp3", CROSSED, 48_000),
    "film.mkv#t=2,5": b"",
    "film.mkv#t=12": b"",
    "crossed.wav#t=0.5,1.5": b"",
}
"""For each correction, files that older versions decoded differently."""

OTHER_LENGTH = {"duration_s": "duration_s - 0.5"}
UNTOLD = dict.fromkeys(("stage", "reason", "message"), "NULL")
SAID: dict[str, dict[str, str]] = {
    "tag.mp3": {"duration_s": "2.017"},
    "tag without a length.mp3": OTHER_LENGTH,
    "blocks.wav": OTHER_LENGTH,
    "pauses.amr": {"reason": "'truncated'", **OTHER_LENGTH},
    "alac.caf": {"duration_s": "1.985"},
    "film.mkv": {"expected_duration_s": "NULL", **OTHER_LENGTH},
    **dict.fromkeys(("film.mp4", "copy of film.mp4", "film.m2ts", "film.mpg"), OTHER_LENGTH),
    "gap.flv": {**UNTOLD, "duration_s": "duration_s - 4", "expected_duration_s": "NULL"},
    "film that is called.mp3": OTHER_LENGTH,
    "late.webm": {"duration_s": "2.005"},
    "vorbis.avi": OTHER_LENGTH,
    "chain.ogg": {"reason": "'truncated'", **OTHER_LENGTH},
    "chain with a gap.ogg": {**UNTOLD, **OTHER_LENGTH},
    "joined.flac": OTHER_LENGTH,
    "damaged.ac3": UNTOLD,
    "on time.mkv": {"expected_duration_s": "NULL"},
}
"""What the row of an older version says otherwise."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sources: a folder, and ranges of some of its files."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, data in (SAME | CHANGED).items():
        if data:
            (folder / name).write_bytes(data)
    cut: list[tuple[str, float, float | None]] = [("film.mkv", 2.0, 5.0), ("film.mkv", 12.0, None)]
    cut += [("stereo.wav", 0.5, 1.5), ("crossed.wav", 0.5, 1.5)]
    ranges = write_ranges(
        folder.with_suffix(".csv"), *((str(folder / name), begin_s, end_s) for name, begin_s, end_s in cut)
    )
    return [str(folder), str(ranges)]


def rows_of(index: str, *left_out_too: str) -> list[tuple[Any, ...]]:
    """All of the ledger but the batches and the versions that wrote it."""
    left_out = {"batch_id", "decoder", *left_out_too}
    return sorted(
        tuple(map(str, (row[name] for name in sorted(row.keys() - left_out)))) for row in read(index, "files")
    )


def name_of(uri: str) -> str:
    return Path(uri).name


def make_old(index: str, decoder: int = 2, note: str = "NULL") -> None:
    """Make the rows of an index look as if an older version had written them, which knew no notes."""
    table(index, "files").update({"decoder": str(decoder), "note": note})
    publish(index)


def refuse(index: str, row: dict[str, Any]) -> None:
    """Make a file look as if an older version had not been able to read it. The second one knows raw formats."""
    reason, decoder = ("not_audio", "1") if row["uri"].endswith(".g722") else ("decode_error", "2")
    unknown = ("codec", "duration_s", "expected_duration_s", "sample_rate_hz", "channels", "note")
    failed = {
        "status": "'failed'",
        "stage": "'decode'",
        "reason": f"'{reason}'",
        "decoder": decoder,
        "n_clips": "0",
        "n_frames": "0",
        **dict.fromkeys((*unknown, "clips_checksum", "frames_checksum"), "NULL"),
    }
    table(index, "files").update(failed, f"file_id = '{row['file_id']}'")
    table(index, "clips").delete(f"file_id = '{row['file_id']}'")
    for name in ("frames", "pools"):
        table(index, name).delete(f"audio_id = '{row['audio_id']}'")


def make_older(config: Config) -> None:
    """Make an index look as if an older version had written it: other rows, other vectors where the sound differs."""
    table(config.into, "files").update({"decoder": "2", "note": "NULL"})
    ids = {name_of(row["uri"]): row["file_id"] for row in read(config.into, "files")}
    for name in SAID.keys() & ids.keys():
        table(config.into, "files").update(SAID[name], f"file_id = '{ids[name]}'")
        if length := SAID[name].get("duration_s"):
            other = {"duration_s": length, "end_s": "greatest(end_s - 0.5, start_s + 0.04)"}
            table(config.into, "clips").update(other, f"file_id = '{ids[name]}'")
    for name in (CHANGED.keys() - REFUSED.keys()) & ids.keys():
        rewrite(config.into, "clips", f"file_id = '{ids[name]}'", lambda vectors: vectors / 2)
    for row in read(config.into, "files"):
        if name_of(row["uri"]) in REFUSED:
            refuse(config.into, row)
    publish(config.into)


def test_index_of_an_older_version_becomes_like_a_new_one(corpus: list[str], tmp_path: Path) -> None:
    config = configure(tmp_path, tmp_path / "index", sources=corpus)
    index_corpus(config, stages=in_place(WideEncoder()))
    new, rows = live(config.into), rows_of(config.into)
    make_older(config)
    assert live(config.into) != new
    actions = {name_of(uri): action for uri, action, _ in plan_corpus(config).actions}
    encoder = WideEncoder()
    progress = index_corpus(config, stages=in_place(encoder))
    assert live(config.into) == new
    assert rows_of(config.into) == rows
    assert progress.n_unchanged == len(SAME)
    assert progress.n_indexed == len(CHANGED)
    changed = {row["audio_id"]: row for row in read(config.into, "files") if name_of(row["uri"]) in CHANGED}
    assert encoder.n_windows == sum(row["n_clips"] for row in changed.values())
    assert {name: actions[name] for name in ("on time.mp4", "crossed.wav", "crossed.wav#t=0.5,1.5", "same.mp3")} == {
        **dict.fromkeys(("on time.mp4", "crossed.wav", "crossed.wav#t=0.5,1.5"), "examined"),
        "same.mp3": "unchanged",
    }
    assert actions["film.mkv#t=2,5"] == "redecoded"
    assert {name for name, action in actions.items() if action == "unchanged"} == {"same.mp3", "same.wav", "same.mka"}
    assert {row["decoder"] for row in read(config.into, "files")} == {DECODER}
    assert verify_index(config.into) == []
    assert index_corpus(config, stages=in_place(WideEncoder())).n_unchanged == len(SAME | CHANGED)


def pick(rows: Rows, uris: set[str], audio_ids: set[str], is_of: bool) -> list[tuple[Any, ...]]:
    """The clips and frames of some files, or of all others."""
    clips = [row for row in rows["clips"] if (row[2] in uris) == is_of]
    return clips + [row for row in rows["frames"] if (row[0] in audio_ids) == is_of]


OLDER = Path(__file__).parents[1] / "data" / "decoder-2.tar.gz"
"""``decoder-2``: ``sounds``, and their ``index``, as a run with the second version of decoding wrote it from
``memory:///decoder-2`` with ``WideEncoder``."""


def test_index_that_an_older_version_wrote_becomes_like_a_new_one(tmp_path: Path) -> None:
    with tarfile.open(OLDER) as tar:
        tar.extractall(tmp_path, filter="data")
    for file in (tmp_path / "decoder-2" / "sounds").iterdir():
        fsspec.filesystem("memory").pipe_file(f"/decoder-2/{file.name}", file.read_bytes())
    config = read_config(open_index(str(tmp_path / "decoder-2" / "index")))
    afresh = config.model_copy(update={"into": str(tmp_path / "afresh")})
    index_corpus(afresh, stages=in_place(WideEncoder()))
    before, old = {name_of(row["uri"]): row for row in read(config.into, "files")}, live(config.into)
    assert {row["decoder"] for row in before.values()} == {2}
    encoder = WideEncoder()
    progress = index_corpus(config, stages=in_place(encoder))
    kept = {"mono.wav", "plain.wav", "on time.mkv", "blocks.wav"}
    now, new = live(config.into), live(afresh.into)
    # The CPU that wrote the index may have rounded the vectors of the kept files otherwise.
    sums = ("clips_checksum", "frames_checksum")
    assert rows_of(config.into, *sums) == rows_of(afresh.into, *sums)
    for name in ("clips", "frames"):
        assert [row[:-1] for row in now[name]] == [row[:-1] for row in new[name]]
    kept_ids = {before[name]["audio_id"] for name in kept}
    uris = {before[name]["uri"] for name in kept}
    for other, is_kept in ((old, True), (new, False)):
        assert pick(now, uris, kept_ids, is_kept) == pick(other, uris, kept_ids, is_kept)
    assert (progress.n_unchanged, progress.n_indexed) == (len(kept), len(before) - len(kept))
    rows = {name_of(row["uri"]): row for row in read(config.into, "files")}
    assert {row["decoder"] for row in rows.values()} == {DECODER}
    assert encoder.n_windows == sum(row["n_clips"] for name, row in rows.items() if name not in kept)
    assert verify_index(config.into) == []


def die_after(n_publications: int, config: Config) -> None:
    """A run that dies before it publishes once more."""
    n_published = 0

    def die(step: str) -> None:
        nonlocal n_published
        n_published += step == "publish"
        if n_published > n_publications:
            raise RuntimeError("died")

    with pytest.raises(EarshotError, match="died"):
        index_corpus(config, stages=in_place(WideEncoder()), failpoint=die)


@pytest.mark.parametrize("number", [1, 3])
def test_upgrade_that_dies_is_continued(corpus: list[str], tmp_path: Path, number: int) -> None:
    store = {"checkpoint_rows": 1}
    config = configure(tmp_path, tmp_path / "index", sources=corpus[:1], store=store, run={"batch_s": 1.0})
    index_corpus(config, stages=in_place(WideEncoder()))
    new, rows = live(config.into), rows_of(config.into)
    make_older(config)
    die_after(number, config)
    assert live(config.into) != new
    index_corpus(config, stages=in_place(WideEncoder()))
    assert (live(config.into), rows_of(config.into)) == (new, rows)
    assert verify_index(config.into) == []


EXAMINED = ("stereo.wav", "stereo.mp3", "copy of on time.mp4", "tag.mp3", "crossed.wav", "crossed.mp3", "film.mp4")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, Any]:
    """The configuration and the folder of an index of an older version, and the rows that a new one would have."""
    root = tmp_path_factory.mktemp("older")
    folder = root / "in"
    folder.mkdir()
    for name in EXAMINED:
        (folder / name).write_bytes((SAME | CHANGED)[name])
    config = configure(folder, root / "index", store={"checkpoint_rows": 1}, run={"batch_s": 0.1})
    index_corpus(config, stages=in_place(WideEncoder()))
    new = live(config.into), rows_of(config.into)
    make_older(config)
    shutil.copytree(config.into, root / "kept")
    return config, root / "kept", new


def upgrade(config: Config, failpoint: journal.Failpoint = lambda step: None, die_in: int = -1) -> WideEncoder:
    """A run over an index of an older version.

    Args:
        die_in: the batch at which its workers and it are killed, while it is examined.
    """
    encoder = WideEncoder()

    def kill(number: int) -> None:
        if number == die_in:
            raise Died

    index_corpus(config, stages=in_place(encoder, kill), failpoint=failpoint)
    return encoder


def check_killed_upgrade(older: tuple[Config, Path, Any], kill: Callable[[Config], bool]) -> int:
    """Kill a run, twice, and let the next one go on: all is as if it had not been killed. Returns how many windows the
    last run encoded."""
    config, kept, new = older
    shutil.rmtree(config.into)
    shutil.copytree(kept, config.into)
    for _ in range(2):
        if not kill(config):
            break
        check_whole(config.into)
    encoder = upgrade(config)
    assert (live(config.into), rows_of(config.into)) == new
    assert {row["decoder"] for row in read(config.into, "files")} == {DECODER}
    assert verify_index(config.into) == []
    return encoder.n_windows


@pytest.mark.slow
def test_run_that_is_killed_while_files_are_examined_is_continued(older: tuple[Config, Path, Any]) -> None:
    """Between any two batches: what was published is neither examined nor encoded again."""
    encoded = list[int]()
    for number in range(len(EXAMINED) + 1):

        def kill(config: Config, number: int = number) -> bool:
            try:
                upgrade(config, die_in=number)
            except Died:
                return True
            return False

        encoded.append(check_killed_upgrade(older, kill))
    assert encoded == sorted(encoded, reverse=True)
    assert len(set(encoded)) > 2
    assert encoded[-1] == 0


@pytest.mark.slow
def test_upgrade_that_is_killed_at_any_step_is_continued(older: tuple[Config, Path, Any]) -> None:
    steps = list[str]()
    check_killed_upgrade(older, lambda config: bool(upgrade(config, steps.append)) and False)
    assert {"delete clips", "append frames", "append clips", "append files", "publish", "tag"} <= set(steps)
    for step in sorted(set(steps)):
        for nth in {1, 1 + steps.count(step) // 2, steps.count(step)}:
            n_died = 0

            def kill(config: Config, step: str = step, nth: int = nth) -> bool:
                nonlocal n_died
                n_died += (died := die_at(step, nth, upgrade, config))
                return died

            check_killed_upgrade(older, kill)
            assert n_died


MOVED, COPIED = ("stereo.wav", "on time.mp4", "crossed.wav", "tag.mp3"), ("stereo.mp3", "crossed.mp3")


def make_older_and_move(folder: Path, config: Config) -> None:
    """An index of an older version, and files that have been moved and copied since."""
    folder.mkdir()
    for name in MOVED + COPIED:
        (folder / name).write_bytes((SAME | CHANGED)[name])
    index_corpus(config, stages=in_place(WideEncoder()))
    make_older(config)
    for name in MOVED:
        (folder / name).rename(folder / f"moved {name}")
    for name in COPIED:
        shutil.copy(folder / name, folder / f"second {name}")


def live_rows_of(index: str) -> list[tuple[Any, ...]]:
    return [row for row in rows_of(index) if "deleted" not in row]


def test_moved_and_copied_files_are_examined_as_those_that_they_come_from(tmp_path: Path) -> None:
    config = configure(tmp_path / "in", tmp_path / "index")
    make_older_and_move(tmp_path / "in", config)
    encoder = WideEncoder()
    progress = index_corpus(config, stages=in_place(encoder))
    afresh = configure(tmp_path / "in", tmp_path / "afresh")
    index_corpus(afresh, stages=in_place(WideEncoder()))
    assert live(config.into) == live(afresh.into)
    assert live_rows_of(config.into) == live_rows_of(afresh.into)
    contents = {
        row["audio_id"]: row["n_clips"]
        for row in read(afresh.into, "files")
        if name_of(row["uri"]).removeprefix("moved ") in CHANGED
    }
    assert len(contents) == 3
    assert encoder.n_windows == sum(contents.values())
    assert (progress.n_indexed, progress.n_unchanged) == (len(MOVED) + len(COPIED) + 1, 1)
    assert progress.n_done == progress.n_files
    n_clips = {name_of(row["uri"]): row["n_clips"] for row in read(afresh.into, "files")}
    assert progress.n_clips == sum(n_clips.values()) - n_clips["stereo.mp3"]
    n_frames = {row["audio_id"]: row["n_frames"] for row in read(afresh.into, "files")}
    assert progress.n_frames == sum(n_frames[audio_id] for audio_id in contents)
    assert verify_index(config.into) == []
    assert index_corpus(config, stages=in_place(WideEncoder())).n_unchanged == progress.n_files


def test_moved_file_that_cannot_be_examined_counts_as_indexed(tmp_path: Path) -> None:
    """Its rows were copied in the same run."""
    folder, away = tmp_path / "in", tmp_path / "away"
    folder.mkdir()
    for name in ("stereo.wav", "stereo.mp3"):
        (folder / name).write_bytes(SAME[name])
    config = configure(folder, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    make_old(config.into)
    (folder / "stereo.wav").rename(folder / "moved.wav")

    def unmount(number: int) -> None:
        folder.rename(away)

    progress = index_corpus(config, stages=in_place(WideEncoder(), unmount))
    assert (progress.n_indexed, progress.n_unchanged, progress.n_failed) == (1, 1, 0)
    assert (progress.n_clips, progress.n_frames, progress.n_deleted) == (1, 0, 1)
    assert progress.n_done == progress.n_files


@pytest.mark.parametrize("number", [1, 2, 3])
def test_move_and_upgrade_that_dies_is_continued(tmp_path: Path, number: int) -> None:
    config = configure(tmp_path / "in", tmp_path / "index", store={"checkpoint_rows": 1}, run={"batch_s": 1.0})
    make_older_and_move(tmp_path / "in", config)
    die_after(number, config)
    progress = index_corpus(config, stages=in_place(WideEncoder()))
    assert progress.n_done == progress.n_files
    afresh = configure(tmp_path / "in", tmp_path / "afresh")
    index_corpus(afresh, stages=in_place(WideEncoder()))
    assert live(config.into) == live(afresh.into)
    assert live_rows_of(config.into) == live_rows_of(afresh.into)
    assert verify_index(config.into) == []


def test_nothing_is_examined_if_the_decoder_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.wav").write_bytes(SAME["stereo.wav"])
    config = configure(folder, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    make_old(config.into)
    index_corpus(config, stages=in_place(WideEncoder()), request=RunRequest(keep_decoder=True))
    assert [row["decoder"] for row in read(config.into, "files")] == [2]
    index_corpus(config, stages=in_place(WideEncoder()))
    assert [row["decoder"] for row in read(config.into, "files")] == [DECODER]


@pytest.mark.parametrize("is_other", [True, False])
def test_copy_whose_name_excludes_a_correction_follows_its_sound(tmp_path: Path, is_other: bool) -> None:
    """Of the same bytes, only those in ``.mp4`` are called a film; both share the frames."""
    folder = tmp_path / "in"
    folder.mkdir()
    film = make_film("mp4", "libmp3lame", late_s=1.0)
    for name in ("a.mp4", "a.mp3"):
        (folder / name).write_bytes(film)
    config = configure(folder, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    new, rows = live(config.into), rows_of(config.into)
    make_old(config.into)
    if is_other:
        table(config.into, "files").update({"duration_s": "duration_s - 0.5"})
        rewrite(config.into, "clips", "true", lambda vectors: vectors / 2)
    table(config.into, "files").update({"expected_duration_s": "duration_s", "channels": "1", **UNTOLD})
    publish(config.into)
    concerned = {name_of(row["uri"]) for row in read(config.into, "files") if find_correction(row)}
    assert concerned == {"a.mp4"}
    assert {action for _, action, _ in plan_corpus(config).actions} == {"examined"}
    encoder = WideEncoder()
    progress = index_corpus(config, stages=in_place(encoder))
    assert (progress.n_indexed, progress.n_unchanged, encoder.n_windows > 0) == (
        2 * is_other,
        2 - 2 * is_other,
        is_other,
    )
    assert (live(config.into), rows_of(config.into)) == (new, rows)
    assert verify_index(config.into) == []
    assert index_corpus(config, stages=in_place(WideEncoder())).n_unchanged == 2


def lose(file: Path) -> None:
    """The disk of a file is there no more."""
    file.rename(file.with_suffix(".away"))


def block(file: Path) -> None:
    """What is listed in place of a file cannot be read."""
    lose(file)
    os.mkfifo(file)


@pytest.mark.parametrize("frames", ["all", "none"])
@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("name", ["a.mp4", "b.mp4"])
def test_copy_that_cannot_be_read_gets_the_rows_of_the_one_that_is_encoded_again(
    tmp_path: Path, name: str, is_listed: bool, frames: str
) -> None:
    """Copies share their audio: there is never an old version of its clips beside a new one."""
    folder = tmp_path / "in"
    folder.mkdir()
    for each in ("a.mp4", "b.mp4"):
        (folder / each).write_bytes(LATE_FILM)
    manifest = tmp_path / "about.csv"
    manifest.write_text(f"uri,place\n{folder}/a.mp4,wood\n{folder}/b.mp4,lake\n")
    config = configure(
        folder, tmp_path / "index", store={"frames": frames}, corpus={"metadata": str(manifest)}, run={"batch_s": 1.0}
    )
    with_frames = frames == "all"
    index_corpus(config, stages=in_place(WideEncoder(frames=with_frames)))
    new, rows = live(config.into), rows_of(config.into)
    make_old(config.into)
    table(config.into, "files").update(OTHER_LENGTH)
    rewrite(config.into, "clips", "true", lambda vectors: vectors / 2)
    publish(config.into)
    if not is_listed:
        block(folder / name)
    encoder = WideEncoder(frames=with_frames)
    progress = index_corpus(config, stages=in_place(encoder, lambda number: lose(folder / name) if is_listed else None))
    assert (live(config.into), rows_of(config.into)) == (new, rows)
    assert bool(new["frames"]) is with_frames
    assert {row["place"] for row in read(config.into, "clips")} == {"wood", "lake"}
    assert encoder.n_windows == len(new["clips"]) // 2
    assert progress.n_done == progress.n_files == 2
    assert verify_index(config.into) == []


def test_any_copy_that_can_be_read_is_examined(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(SAME["stereo.wav"])
    config = configure(folder, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    new = live(config.into)
    make_old(config.into)
    encoder = WideEncoder()
    progress = index_corpus(config, stages=in_place(encoder, lambda number: lose(folder / "a.wav")))
    assert (progress.n_unchanged, encoder.n_windows) == (2, 0)
    assert live(config.into) == new
    assert {row["decoder"] for row in read(config.into, "files")} == {DECODER}


def test_what_is_only_examined_does_not_count_as_encoded(tmp_path: Path) -> None:
    """Otherwise the next plan would promise the speed at which files are examined."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.wav").write_bytes(SAME["stereo.wav"])
    (folder / "b.wav").write_bytes(CHANGED["crossed.wav"])
    config = configure(folder, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    n_before = journal.read_journal(config.into).num_rows
    make_old(config.into)
    index_corpus(config, stages=in_place(WideEncoder()))
    written = journal.read_journal(config.into).to_pylist()[n_before:]
    assert [journal.encoded_s(row) for row in written if row["seconds"]] == [2.0]


@pytest.mark.parametrize(("name", "decoder"), [("tracks.avi", 9), ("crossed.mp3", 12), ("crossed.wav", 12)])
def test_file_with_a_note_is_encoded_once(tmp_path: Path, name: str, decoder: int) -> None:
    """By the next correction that may concern it, it decodes as it did."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(CHANGED[name])
    config = configure(folder, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    rows = rows_of(config.into)
    for note, n_windows in (("note", 0), ("NULL", 1), ("'another note'", 1)):
        make_old(config.into, decoder, note)
        assert [action for _, action, _ in plan_corpus(config).actions] == ["examined"]
        encoder = WideEncoder()
        index_corpus(config, stages=in_place(encoder))
        assert encoder.n_windows == n_windows
        assert rows_of(config.into) == rows


def test_ogg_is_not_called_truncated_for_the_length_of_its_picture(tmp_path: Path) -> None:
    """As it was. A file that is cut off stays ``truncated``, and neither is encoded again."""
    folder = tmp_path / "in"
    folder.mkdir()
    film = make_film("ogg", "", "libvpx", data=encode("ogg_vorbis", tone(0.3, 48_000), 48_000))
    other = make_film("ogg", "", "libvpx", data=encode("ogg_vorbis", tone(1.9, 48_000), 48_000))
    cut = encode("ogg_vorbis", noise(8.0, 48_000), 48_000)[:-20_000]
    for name, data in (("film.ogg", film), ("open.ogg", other), ("cut.ogg", cut)):
        (folder / name).write_bytes(data)
    config = configure(folder, tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    new, rows = live(config.into), rows_of(config.into)
    assert {name_of(row["uri"]): row["reason"] for row in read(config.into, "files")} == {
        "film.ogg": None,
        "open.ogg": None,
        "cut.ogg": "truncated",
    }
    make_old(config.into, 23)
    for name, said in (
        ("film.ogg", {"stage": "'decode'", "reason": "'truncated'", "expected_duration_s": "20.0"}),
        ("open.ogg", {"expected_duration_s": "NULL"}),
    ):
        table(config.into, "files").update(said, f"uri = '{folder / name}'")
    publish(config.into)
    assert {action for _, action, _ in plan_corpus(config).actions} == {"examined"}
    encoder = WideEncoder()
    index_corpus(config, stages=in_place(encoder))
    assert encoder.n_windows == 0
    assert (live(config.into), rows_of(config.into)) == (new, rows)


@pytest.mark.parametrize("is_new", [False, True])
def test_bar_counts_what_is_found_to_be_encoded_again(tmp_path: Path, is_new: bool) -> None:
    """It is neither full before all is encoded, nor does it take what was examined for what the plan was sure of."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        sound = noise(2.0, 48_000, seed=number)
        (folder / f"{number}.wav").write_bytes(encode("wav_s16", sound * np.array([1, -1], np.float32), 48_000))
    config = configure(folder, tmp_path / "index", run={"batch_s": 0.1}, store={"checkpoint_rows": 1})
    index_corpus(config, stages=in_place(WideEncoder()))
    make_old(config.into)
    if is_new:
        (folder / "new.wav").write_bytes(encode("wav_s16", noise(2.0, 48_000, 2, seed=9), 48_000))
    seen: list[tuple[float, float]] = []

    def note(progress: Progress) -> None:
        if progress.audio_s and progress.finished_s + progress.found_s == progress.audio_s:  # no batch is under way
            seen.append((round(progress.audio_s, 3), round(progress.expected_s, 3)))

    progress = index_corpus(config, note, stages=in_place(WideEncoder()))
    n_files = 6 + is_new
    assert list(dict.fromkeys(seen)) == [(2.0 * number, 2.0 * n_files) for number in range(1, n_files + 1)]
    assert (progress.found_s, progress.finished_s) == (12.0, 2.0 * is_new)


# --- by a worker ------------------------------------------------------------------------------------------------------


def plan_to_examine(path: Path, look: Look, stored_s: float = 2.0, note: str | None = None) -> dict[str, Any]:
    """PLANNED, of a file that the index has."""
    planned = plan_batch(BATCH, [path])
    stored = {"content_hash": hash_file(path), "look": look, "stored_s": stored_s, "stored_note": note}
    return {**planned, "audios": [audio | stored for audio in planned["audios"]]}


def examine(path: Path, look: Look, stored_s: float = 2.0, note: str | None = None) -> dict[str, Any]:
    """The row of a file that is examined, with the number of its windows that are to be encoded."""
    planned = plan_to_examine(path, look, stored_s, note)
    rows = [row for block in decode_batch(planned, DecodeConfig(), GRID) for row in block.to_pylist()]
    [file] = rows[-1]["files"]
    return {**file, "n_windows": len(rows) - 1}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["wav_s16", "mp3", "ogg_opus", "m4a"])
@pytest.mark.parametrize("look", Look)
def test_stereo_that_is_mixed_to_its_mean_is_confirmed(tmp_path: Path, name: str, look: Look) -> None:
    path = write(tmp_path / "a", encode(name, STEREO, 48_000))
    whole = examine(path, look, stored_s=0.0)
    if look is Look.LENGTH:
        assert (whole["status"], whole["n_windows"]) == ("indexed", whole["n_clips"])
    found = examine(path, look, whole["duration_s"] or 0.0)
    assert (found["status"], found["n_windows"], found["decoder"]) == (CONFIRMED, 0, DECODER)
    assert found["uri"] == str(path)


@pytest.mark.parametrize("name", ["wav_s16", "mp3", "ogg_opus", "m4a"])
@pytest.mark.parametrize("look", Look)
def test_channels_that_cancel_each_other_are_found(tmp_path: Path, name: str, look: Look) -> None:
    path = write(tmp_path / "a", encode(name, make_bursts(48_000, 2) * np.array([1, -1], np.float32), 48_000))
    length_s = examine(path, Look.LENGTH, 0.0)["duration_s"]  # which is as it was
    found = examine(path, look, length_s)
    assert found["status"] == "indexed"
    assert found["n_windows"] == found["n_clips"] > 0


@pytest.mark.parametrize("name", ["tracks.avi", "crossed.wav", "crossed.mp3"])
@pytest.mark.parametrize("look", [Look.CHANNELS, Look.LENGTH])
def test_note_tells_whether_another_track_or_channel_is_read(tmp_path: Path, name: str, look: Look) -> None:
    path = write(tmp_path / name, CHANGED[name])
    new = examine(path, Look.LENGTH, 0.0)
    assert new["note"] is not None
    for note, status in ((new["note"], CONFIRMED), (None, "indexed"), ("another", "indexed")):
        assert examine(path, look, new["duration_s"], note)["status"] == status


def test_ranges_of_a_recording_are_looked_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", SAME["stereo.wav"])
    time_ns = path.stat().st_mtime_ns
    [audio] = plan_to_examine(path, Look.CHANNELS)["audios"]

    def ask(examiner: Examiner, first_s: float) -> str | None:
        part = {"start_s": first_s, "end_s": 2.0, "uris": [f"{path}#t={first_s},2"]}
        [file] = files_of(audio | part)
        row = examiner.examine(audio | part, [file])
        return None if row is None else str(row["status"])

    def decode(row: dict[str, Any], file: PlannedFile) -> None:
        pytest.fail("nothing is decoded as a whole")

    examiner = Examiner(DecodeConfig(), decode)
    assert ask(examiner, 0.5) == CONFIRMED
    write(path, CHANGED["crossed.wav"])  # which only another look could find
    os.utime(path, ns=(time_ns, time_ns))
    assert ask(examiner, 1.5) == CONFIRMED
    assert ask(Examiner(DecodeConfig(), decode), 1.5) is None


@pytest.mark.parametrize("data", [two_tracks("mp4"), make_film("ogg", "", "libvpx", data=BURSTS)])
@pytest.mark.parametrize("look", [Look.STREAMS, Look.ALL])
def test_streams_beside_the_sound_are_found(tmp_path: Path, data: bytes, look: Look) -> None:
    path = write(tmp_path / "a", data)
    whole = examine(path, Look.LENGTH, 0.0)
    as_before = whole["duration_s"], whole["note"]
    assert examine(path, look, *as_before)["status"] == "indexed"
    assert examine(path, Look.LENGTH, *as_before)["status"] == CONFIRMED


def test_beginning_of_a_recording_tells_of_its_channels(tmp_path: Path) -> None:
    """The rest is not decoded: here it could not be."""
    data = encode("mp3", np.tile(STEREO, (10, 1)), 48_000)
    path = write(tmp_path / "a.mp3", data[: len(data) // 2] + bytes(len(data) // 2))
    assert examine(path, Look.CHANNELS)["status"] == CONFIRMED
    assert examine(path, Look.LENGTH, 20.0)["status"] == "indexed"


def test_file_that_does_not_decode_any_more_fails(tmp_path: Path) -> None:
    for look in Look:
        found = examine(write(tmp_path / "a.wav", b"text"), look)
        assert (found["status"], found["reason"]) == ("failed", "not_audio")


@pytest.mark.parametrize("look", Look)
def test_file_that_has_changed_fails(tmp_path: Path, look: Look) -> None:
    path = write(tmp_path / "a.wav", SAME["stereo.wav"])
    planned = plan_to_examine(path, look)
    os.utime(path, (1, 1))
    rows = [row for block in decode_batch(planned, DecodeConfig(), GRID) for row in block.to_pylist()]
    assert [(file["status"], file["reason"]) for file in rows[-1]["files"]] == [("failed", "changed_while_reading")]


def write_long(path: Path, samples: Samples) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        file.writeframes((np.tile(samples, (16, 1)) * 32_000).astype("<i2").tobytes())
    return path


def test_long_recording_is_cut_only_if_it_is_encoded_again(tmp_path: Path) -> None:
    for samples, is_cut in ((STEREO, False), (CROSSED, True)):
        path = write_long(tmp_path / "a.wav", samples)
        planned = plan_to_examine(path, Look.CHANNELS, 32.0)
        parts = split_batch(planned, DecodeConfig(), GRID, part_s=4.0)
        assert (len(parts) > 1) is is_cut
        assert is_cut or parts == [planned]
        assert all(part["audios"][0]["look"] is None for part in parts if is_cut)


def test_long_recordings_are_examined(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, samples in (("plain.wav", STEREO), ("crossed.wav", CROSSED)):
        write_long(folder / name, samples)
    config = configure(folder, tmp_path / "index", run={"batch_s": 5.0})
    index_corpus(config, stages=in_parts(WideEncoder()))
    new, rows = live(config.into), rows_of(config.into)
    make_old(config.into)
    encoder = WideEncoder()
    index_corpus(config, stages=in_parts(encoder))
    assert (live(config.into), rows_of(config.into)) == (new, rows)
    [n_clips] = [row["n_clips"] for row in read(config.into, "files") if row["uri"].endswith("crossed.wav")]
    assert encoder.n_windows == n_clips


def test_metadata_that_changed_meanwhile_is_rewritten(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    paths = [
        write(folder / f"{name}.wav", encode("wav_s16", sound, 48_000))
        for name, sound in (("plain", STEREO), ("crossed", CROSSED))
    ]
    manifest = tmp_path / "m.csv"

    def index(place: str) -> WideEncoder:
        manifest.write_text("uri,place\n" + "".join(f"{path},{place}\n" for path in paths))
        encoder = WideEncoder()
        index_corpus(configure(folder, tmp_path / "index", sources=[str(manifest)]), stages=in_place(encoder))
        return encoder

    index("wood")
    path = str(tmp_path / "index")
    new = live(path)
    make_old(path)
    assert index("lake").n_windows == 1
    assert live(path) == new
    for name in ("files", "clips"):
        assert {row["place"] for row in read(path, name)} == {"lake"}
    assert verify_index(path) == []
