"""After a correction of decoding, the next run decodes the files that it concerns again, and no others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import schema
from pipeline.audio.decoder_versions import DECODER, MENDS, Mend, find_mend
from pipeline.corpus.discover import list_corpus
from pipeline.index.tables import read_files
from pipeline.index.verify import verify_index
from pipeline.planning.ledger import Ledger
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import note_mended
from tests.helpers.bursts import make_bursts, make_film, mux_tracks
from tests.helpers.contents import KnownCorpus, live, read
from tests.helpers.corpora import write_ranges
from tests.helpers.damage import publish, rewrite
from tests.helpers.indexes import table
from tests.helpers.plans import plan_files
from tests.helpers.runs import WideEncoder, configure, in_place
from tests.helpers.sounds import FORMATS, by_av, by_soundfile, encode, tone


def concerns_ogg(row: Mapping[str, Any]) -> bool:
    return bool(row["codec"] == "vorbis")


BEFORE, THEN = Mend(2, "is right at its end", concerns_ogg), Mend(3, "is read", lambda row: row["status"] == "failed")


def row(**values: Any) -> dict[str, Any]:
    return {
        "uri": "a.ogg",
        "status": "indexed",
        "stage": None,
        "reason": None,
        "codec": "vorbis",
        "decoder": None,
        "duration_s": 12.0,
        "expected_duration_s": 12.0,
    } | values


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({}, BEFORE),
        ({"decoder": 1}, BEFORE),
        ({"decoder": 2}, None),
        ({"decoder": 3}, None),
        ({"codec": "flac"}, None),
        ({"status": "failed", "codec": None}, THEN),
        ({"status": "failed"}, THEN),
        ({"status": "failed", "decoder": 2}, THEN),
        ({"status": "failed", "decoder": 3}, None),
    ],
)
def test_find_mend_gives_the_newest_one_that_concerns_a_file(values: dict[str, Any], found: Mend | None) -> None:
    assert find_mend(row(**values), (BEFORE, THEN)) == found


def test_decoder_version_is_that_of_the_last_mend() -> None:
    versions = [mend.version for mend in MENDS]
    assert versions == sorted(set(versions))
    assert max(versions, default=1) == DECODER


@pytest.fixture
def corpus(tmp_path: Path) -> KnownCorpus:
    corpus = KnownCorpus(tmp_path)
    for name, number in (("a.wav", 2), ("b.wav", 3), ("copy.wav", 3), ("broken.wav", 7)):
        corpus.put(name, number)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    return corpus


WAV = Mend(DECODER + 1, "is louder", lambda row: row["uri"].endswith(("/b.wav", "/copy.wav", "/broken.wav")))


def plan(
    corpus: KnownCorpus, request: RunRequest = RunRequest(), mend: Mend = WAV
) -> tuple[dict[str, tuple[str, str]], Plan]:
    files = read_files(corpus.config.into).select(schema.FILES.names)
    listed = list_corpus([str(corpus.folder)])
    made = plan_files(listed, Ledger(files), batch_s=2.0, request=request, mends=(*MENDS, mend))
    return {Path(uri).name: (action, why) for uri, action, why in made.actions}, made


def test_mend_decodes_each_content_that_it_concerns_once(corpus: KnownCorpus) -> None:
    actions, made = plan(corpus)
    assert actions == {
        "a.wav": ("unchanged", "same size and time"),
        "b.wav": ("mended", "is louder"),
        "copy.wav": ("mended", "is louder"),
        "broken.wav": ("mended", "is louder"),
    }
    audios = [audio for batch in made.batches.to_pylist() for audio in batch["audios"]]
    assert sorted(len(audio["uris"]) for audio in audios) == [1, 2]


@pytest.mark.parametrize("asked", [RunRequest(), RunRequest(check_content=True), RunRequest(retry_failed=True)])
def test_file_with_new_mtime_and_new_copy_are_decoded_with_the_others(corpus: KnownCorpus, asked: RunRequest) -> None:
    corpus.touch("b.wav")
    corpus.put("new copy.wav", 3)
    actions, made = plan(corpus, asked)
    assert {name: action for name, (action, _) in actions.items()} == {
        "a.wav": "unchanged",
        "b.wav": "mended",
        "copy.wav": "mended",
        "new copy.wav": "duplicate",
        "broken.wav": "mended",
    }
    uris = [sorted(audio["uris"]) for batch in made.batches.to_pylist() for audio in batch["audios"]]
    assert sorted(corpus.uri(name) for name in ("b.wav", "copy.wav", "new copy.wav")) in uris
    assert made.copies == []


def test_plan_counts_what_is_mended_and_keeps_the_decoder_if_asked(corpus: KnownCorpus) -> None:
    _, made = plan(corpus)
    assert (made.n_mended, made.n_to_decode) == (3, 3)
    assert made.seconds_mended == made.seconds_to_decode > 0
    [note] = note_mended(made)
    assert note.startswith("3 files decode differently now: about ")
    actions, kept = plan(corpus, RunRequest(keep_decoder=True))
    assert {action for action, _ in actions.values()} == {"unchanged", "failed"}
    assert (kept.n_mended, kept.n_to_decode, note_mended(kept)) == (0, 0, ())


def test_a_changed_file_is_called_changed(corpus: KnownCorpus) -> None:
    corpus.put("b.wav", 5)
    actions, _ = plan(corpus)
    assert actions["b.wav"] == ("changed", "another size")
    assert actions["copy.wav"] == ("mended", "is louder")


FAILED = {"status": "failed", "stage": "decode", "codec": None}


@pytest.mark.parametrize(
    ("values", "version"),
    [
        ({"uri": "a.mp3", "codec": "mp3"}, None),
        ({"uri": "a.mp3", "codec": "mp3", "duration_s": 12.017}, 3),
        ({"uri": "a.mp3", "codec": "mp3", "reason": "truncated"}, 3),
        ({"uri": "a.mp3", "codec": "mp3", "expected_duration_s": None}, 3),
        ({"uri": "a.mp2", "codec": "mp2", "expected_duration_s": None}, 3),
        ({"uri": "a.aac", "codec": "aac", "expected_duration_s": None}, 3),
        ({"uri": "a.wav", "codec": "pcm_s16", "reason": "truncated"}, None),
        ({"uri": "a.wav", "reason": "decode_error", **FAILED}, 4),
        ({"uri": "a.wav", "reason": "not_audio", **FAILED}, None),
        ({"uri": "a.wav", "codec": "ima_adpcm"}, 5),
        ({"uri": "a.amr", "codec": "amr_nb", "expected_duration_s": None}, 6),
        ({"uri": "a.amr#t=1,3", "codec": "amr_nb", "duration_s": 2.0, "expected_duration_s": 2.0}, 6),
        ({"uri": "a.awb", "codec": "amr_wb", "duration_s": 3.0}, 6),
        ({"uri": "a.m4a", "codec": "amr_nb"}, None),
        ({"uri": "a.opus", "codec": "opus"}, None),
        ({"uri": "a.opus", "codec": "opus", "reason": "truncated"}, 12),
        ({"uri": "a.ogg", "codec": "vorbis", "reason": "truncated"}, 12),
        ({"uri": "a.ogg", "codec": "vorbis"}, None),
        ({"uri": "a.flac", "codec": "flac", "reason": "truncated"}, None),
        ({"uri": "a.caf", "codec": "alac", "reason": "truncated"}, 7),
        ({"uri": "a.caf", "codec": "alac", "duration_s": 11.985}, 7),
        ({"uri": "a.caf", "codec": "alac"}, None),
        ({"uri": "a.ts", "codec": "mp3"}, 10),
        ({"uri": "a.mts", "codec": "pcm_s16"}, 10),
        ({"uri": "a.avi", "codec": "vorbis", "decoder": 11}, 12),
        ({"uri": "a.avi", "codec": "mp3", "decoder": 11}, None),
        ({"uri": "a.webm", "codec": "opus", "decoder": 11, "expected_duration_s": None}, 12),
        ({"uri": "a.webm", "codec": "opus", "decoder": 11}, None),
        ({"uri": "a.mp4", "codec": "aac", "decoder": 11, "reason": "truncated"}, 12),
        ({"uri": "a.wav", "codec": "pcm_s16", "decoder": 11, "reason": "truncated"}, None),
        ({"uri": "a.webm", "codec": "opus", "expected_duration_s": 12.008}, None),
        ({"uri": "a.webm", "codec": "opus", "duration_s": 12.0054, "expected_duration_s": 12.008}, 9),
        ({"uri": "a.webm", "codec": "vorbis"}, None),
        ({"uri": "a.webm#t=1,2", "codec": "vorbis", "duration_s": 1.0, "expected_duration_s": 1.0}, 10),
        ({"uri": "a.mkv#t=10", "codec": "aac", "duration_s": 2.0, "expected_duration_s": 2.0}, 10),
        ({"uri": "a.mkv#t=30,40", "codec": "aac", "reason": "out_of_range", "status": "failed"}, 12),
        ({"uri": "a.mkv#t=10,20", "codec": "aac", "decoder": DECODER}, None),
        ({"uri": "a.ogg#t=30,40", "codec": "vorbis", "reason": "out_of_range", "status": "failed"}, 12),
        ({"uri": "s.tar#a.mka", "codec": "aac", "reason": "truncated"}, 12),
        ({"uri": "a.mp4", "codec": "aac"}, 10),
        ({"uri": "a.avi", "codec": "mp3", "decoder": 8}, 10),
        ({"uri": "a.m4a", "codec": "aac"}, None),
        ({"uri": "a.ts", "codec": "aac"}, 10),  # no extension of audio: it may be anything
        ({"uri": "p.parquet#0", "codec": "mp3"}, None),
        ({"uri": "p.parquet#0", "codec": "pcm_s16"}, None),
        ({"uri": "a.mp4", "codec": "aac", "decoder": DECODER}, None),
    ],
)
def test_mends_concern_few_files(values: dict[str, Any], version: int | None) -> None:
    found = find_mend(row(**({"decoder": 2} | values)))
    assert (found and found.version) == version


SOUND = tone(2.0, 48_000)
FILM = make_film("mp4", "aac", late_s=1.0)
BURSTS = encode("ogg_vorbis", make_bursts(48_000), 48_000)
SAME = {
    f"same.{FORMATS[name].suffix}": encode(name, SOUND, 48_000)
    for name in ("mp3", "m4a", "wav_s16", "ogg_vorbis", "matroska_flac")
}
CHANGED = {
    "tag.mp3": SAME["same.mp3"] + b"TAG" + bytes(125),
    "tag without a length.mp3": encode("mp3_no_xing", SOUND, 48_000) + b"TAG" + bytes(125),
    "blocks.wav": by_soundfile("WAV", "IMA_ADPCM")(tone(2.0, 8_000), 8_000),
    "pauses.amr": by_av("amr", "libopencore_amrnb")(tone(2.0, 8_000), 8_000),
    "alac.caf": by_av("caf", "alac")(SOUND, 48_000),
    "film.mkv": make_film("matroska", "libopus", late_s=1.0),
    "film.mp4": FILM,
    "copy of film.mp4": FILM,
    "late.webm": by_av("webm", "libopus")(tone(2.0, 8_000), 8_000),
    "tracks.avi": mux_tracks("avi", [by_av("matroska", "ac3")(SOUND, 48_000) for _ in range(2)]),
    "vorbis.avi": make_film("avi", "", None, data=BURSTS),
    "chain.ogg": SAME["same.ogg"] + encode("ogg_opus", SOUND, 48_000),
    "film.mkv#t=2,5": b"",
    "film.mkv#t=12": b"",
}
"""For each correction, files that older versions decoded differently."""

SAID = {
    "tag.mp3": {"duration_s": "2.017"},
    "pauses.amr": {"reason": "'truncated'"},
    "alac.caf": {"duration_s": "1.985"},
    "film.mkv": {"expected_duration_s": "NULL"},
    "late.webm": {"duration_s": "2.005"},
    "chain.ogg": {"reason": "'truncated'"},
}
"""What the row of an older version says otherwise."""


def test_index_of_an_older_version_becomes_like_a_new_one(tmp_path: Path) -> None:
    """Only the files that decode differently now are encoded again, ranges and copies among them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in (SAME | CHANGED).items():
        if data:
            (folder / name).write_bytes(data)
    ranges = write_ranges(
        tmp_path / "ranges.csv", *((str(folder / "film.mkv"), *at) for at in ((2.0, 5.0), (12.0, None)))
    )
    config = configure(folder, tmp_path / "index", sources=[str(folder), str(ranges)])
    index_corpus(config, stages=in_place(WideEncoder()))
    new = live(config.into)
    table(config.into, "files").update({"decoder": "2"})
    ids = {Path(row["uri"]).name: row["file_id"] for row in read(config.into, "files")}
    for name in CHANGED:
        if name in SAID:
            table(config.into, "files").update(SAID[name], f"file_id = '{ids[name]}'")
        rewrite(config.into, "clips", f"file_id = '{ids[name]}'", lambda vectors: vectors / 2)
    publish(config.into)
    assert live(config.into) != new
    progress = index_corpus(config, stages=in_place(WideEncoder()))
    assert live(config.into) == new
    assert progress.n_unchanged == len(SAME)
    assert verify_index(config.into) == []
