"""After a correction of decoding, the next run decodes the files that it concerns again, and no others."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import schema
from pipeline.audio.decoder_versions import CORRECTIONS, DECODER, Correction, Look, find_correction, find_look
from pipeline.audio.source import hash_file, probe_file
from pipeline.corpus.discover import list_corpus
from pipeline.index.tables import read_files
from pipeline.planning.decide import PlanSetup, make_plan
from pipeline.planning.ledger import Ledger
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import note_redecoded
from tests.helpers.contents import LENGTHS_S, KnownCorpus
from tests.helpers.damage import publish
from tests.helpers.indexes import table
from tests.helpers.plans import plan_files
from tests.helpers.runs import WideEncoder, in_place


def concerns_ogg(row: Mapping[str, Any]) -> bool:
    return bool(row["codec"] == "vorbis")


BEFORE, THEN = (
    Correction(2, "is right at its end", concerns_ogg),
    Correction(3, "is read", lambda row: row["status"] == "failed"),
)


def row(**values: Any) -> dict[str, Any]:
    return {
        "uri": "a.ogg",
        "status": "indexed",
        "stage": None,
        "reason": None,
        "codec": "vorbis",
        "channels": 1,
        "decoder": None,
        "duration_s": 12.0,
        "expected_duration_s": 12.0,
        "size_bytes": 100_000,
        "note": None,
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
def test_newest_correction_that_concerns_a_file_is_found(values: dict[str, Any], found: Correction | None) -> None:
    assert find_correction(row(**values), (BEFORE, THEN)) == found


def test_decoder_version_is_that_of_the_last_correction() -> None:
    versions = [correction.version for correction in CORRECTIONS]
    assert versions == sorted(set(versions))
    assert max(versions, default=1) == DECODER


@pytest.fixture
def corpus(tmp_path: Path) -> KnownCorpus:
    corpus = KnownCorpus(tmp_path)
    for name, number in (("a.wav", 2), ("b.wav", 3), ("copy.wav", 3), ("broken.wav", 7)):
        corpus.put(name, number)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    return corpus


WAV = Correction(DECODER + 1, "is louder", lambda row: row["uri"].endswith(("/b.wav", "/copy.wav", "/broken.wav")))


def plan(
    corpus: KnownCorpus, request: RunRequest = RunRequest(), correction: Correction = WAV
) -> tuple[dict[str, tuple[str, str]], Plan]:
    files = read_files(corpus.config.into).select(schema.FILES.names)
    listed = list_corpus([str(corpus.folder)])
    made = plan_files(listed, Ledger(files), batch_s=2.0, request=request, corrections=(*CORRECTIONS, correction))
    return {Path(uri).name: (action, why) for uri, action, why in made.actions}, made


def look_of(made: Plan) -> dict[tuple[str, ...], int | None]:
    """What to look at in each content, by the names of its files."""
    audios = [audio for batch in made.batches.to_pylist() for audio in batch["audios"]]
    return {tuple(sorted(Path(uri).name for uri in audio["uris"])): audio["look"] for audio in audios}


@pytest.mark.parametrize("look", Look)
def test_indexed_files_are_examined_and_failed_ones_decoded_once_for_each_content(
    corpus: KnownCorpus, look: Look
) -> None:
    actions, made = plan(corpus, correction=replace(WAV, look=look))
    assert actions == {
        "a.wav": ("unchanged", "same size and time"),
        "b.wav": ("examined", "is louder"),
        "copy.wav": ("examined", "is louder"),
        "broken.wav": ("redecoded", "is louder"),
    }
    assert look_of(made) == {("b.wav", "copy.wav"): look, ("broken.wav",): None}
    [stored_s] = {audio["stored_s"] for batch in made.batches["audios"].to_pylist() for audio in batch if audio["look"]}
    assert stored_s == LENGTHS_S[3]


@pytest.mark.parametrize(("name", "other"), [("b.wav", "copy.wav"), ("copy.wav", "b.wav")])
@pytest.mark.parametrize("look", Look)
def test_copies_of_a_file_that_a_correction_concerns_are_examined_with_it(
    corpus: KnownCorpus, look: Look, name: str, other: str
) -> None:
    """They share its frames, though their names may exclude them."""
    named = Correction(DECODER + 1, "is louder", lambda row: row["uri"].endswith(f"/{name}"), look)
    actions, made = plan(corpus, correction=named)
    assert look_of(made) == {("b.wav", "copy.wav"): look}
    assert actions["b.wav"] == actions["copy.wav"] == ("examined", "is louder")
    corpus.move(name, "moved.wav")
    corpus.put("third.wav", 3)
    actions, made = plan(corpus, correction=named)
    assert look_of(made) == {tuple(sorted((other, "moved.wav", "third.wav"))): look}
    _, kept = plan(corpus, RunRequest(keep_decoder=True), named)
    assert look_of(kept) == {}


def test_failed_copies_of_a_file_that_a_correction_concerns_are_tried_with_it(corpus: KnownCorpus) -> None:
    corpus.put("copy of broken.wav", 7)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    named = Correction(DECODER + 1, "is read", lambda row: row["uri"].endswith("/broken.wav"))
    _, made = plan(corpus, correction=named)
    assert look_of(made) == {("broken.wav", "copy of broken.wav"): None}


@pytest.mark.parametrize("asked", [RunRequest(full=True), RunRequest(retry_failed=True, reason="truncated")])
def test_files_that_are_encoded_again_anyway_are_not_examined(corpus: KnownCorpus, asked: RunRequest) -> None:
    table(corpus.config.into, "files").update({"reason": "'truncated'"}, "status = 'indexed'")
    publish(corpus.config.into)
    _, made = plan(corpus, asked)
    assert set(look_of(made).values()) == {None}
    assert ("b.wav", "copy.wav") in look_of(made)


def test_metadata_is_rewritten_before_a_file_is_examined(corpus: KnownCorpus) -> None:
    files = read_files(corpus.config.into).select(schema.FILES.names)
    setup = PlanSetup(2.0, "run", hash_file, probe_file, corrections=(WAV,))
    made = make_plan(list_corpus([str(corpus.folder)]), Ledger(files), setup, {corpus.uri("b.wav")})
    assert look_of(made) == {("b.wav", "copy.wav"): Look.LENGTH, ("broken.wav",): None}
    assert [row["uri"] for row in made.metadata_changed] == [corpus.uri("b.wav")]
    assert made.n_unchanged == 1


@pytest.mark.parametrize("asked", [RunRequest(), RunRequest(check_content=True), RunRequest(retry_failed=True)])
def test_file_with_new_mtime_and_new_copy_are_examined_with_the_others(corpus: KnownCorpus, asked: RunRequest) -> None:
    corpus.touch("b.wav")
    corpus.put("a new copy.wav", 3)
    actions, made = plan(corpus, asked)
    assert look_of(made) == {("a new copy.wav", "b.wav", "copy.wav"): Look.LENGTH, ("broken.wav",): None}
    assert {name: action for name, (action, _) in actions.items()} == {
        "a.wav": "unchanged",
        **dict.fromkeys(("a new copy.wav", "b.wav", "copy.wav"), "examined"),
        "broken.wav": "redecoded",
    }
    assert [row["uri"] for row, _ in made.copies] == [corpus.uri("a new copy.wav")]
    assert made.examined_copies == {corpus.uri("a new copy.wav")}
    assert (made.n_examined, made.n_to_decode) == (3, 1)


def test_moved_file_is_copied_and_examined(corpus: KnownCorpus) -> None:
    corpus.delete("copy.wav")
    corpus.move("b.wav", "moved.wav")
    actions, made = plan(corpus)
    assert actions["moved.wav"] == ("examined", "is louder")
    assert look_of(made) == {("moved.wav",): Look.LENGTH, ("broken.wav",): None}
    [(row, _)] = made.copies
    assert (row["uri"], row["decoder"]) == (corpus.uri("moved.wav"), DECODER)
    assert (made.examined_copies, list(made.removed.values())) == ({corpus.uri("moved.wav")}, [corpus.uri("copy.wav")])
    actions, kept = plan(corpus, RunRequest(keep_decoder=True))
    assert actions["moved.wav"][0] == "moved"
    assert (look_of(kept), kept.examined_copies) == ({}, set())


def test_file_that_is_examined_no_more_is_called_so(corpus: KnownCorpus) -> None:
    """A file with the same bytes that failed has to be encoded, and so all of them are."""
    name = f"uri = '{corpus.uri('copy.wav')}'"
    table(corpus.config.into, "files").update({"status": "'failed'", "stage": "'decode'", "reason": "'crashed'"}, name)
    publish(corpus.config.into)
    corpus.put("new copy.wav", 3)
    actions, made = plan(corpus)
    assert {actions[name][0] for name in ("b.wav", "copy.wav", "new copy.wav")} == {"redecoded"}
    assert look_of(made)["b.wav", "copy.wav", "new copy.wav"] is None


def test_plan_counts_what_is_examined_and_keeps_the_decoder_if_asked(corpus: KnownCorpus) -> None:
    _, made = plan(corpus)
    assert (made.n_redecoded, made.n_examined, made.n_to_decode) == (1, 2, 1)
    assert made.seconds_redecoded == made.seconds_to_decode
    assert made.seconds_examined > 0
    certain, possible = note_redecoded(made)
    assert certain.startswith("1 file decodes differently now: about ")
    assert possible.startswith("2 files may decode differently now: only what does is encoded again, up to ")
    actions, kept = plan(corpus, RunRequest(keep_decoder=True))
    assert {action for action, _ in actions.values()} == {"unchanged", "failed"}
    assert (kept.n_redecoded, kept.n_examined, kept.n_to_decode, note_redecoded(kept)) == (0, 0, 0, ())


def test_a_changed_file_is_called_changed(corpus: KnownCorpus) -> None:
    corpus.put("b.wav", 5)
    actions, made = plan(corpus)
    assert actions["b.wav"] == ("changed", "another size")
    assert actions["copy.wav"] == ("examined", "is louder")
    assert (made.n_redecoded, made.n_examined, made.n_to_decode) == (1, 1, 2)
    assert made.corrected.keys() == {corpus.uri("copy.wav"), corpus.uri("broken.wav")}


def test_file_that_took_the_bytes_of_another_is_a_copy_of_it(corpus: KnownCorpus) -> None:
    """Its former bytes decode differently now, and these do not."""
    corpus.put("b.wav", 2)
    actions, made = plan(corpus)
    assert actions["b.wav"] == ("duplicate", f"has the bytes of {corpus.uri('a.wav')}")
    assert [row["uri"] for row, _ in made.copies] == [corpus.uri("b.wav")]
    assert look_of(made) == {("copy.wav",): Look.LENGTH, ("broken.wav",): None}


FAILED = {"status": "failed", "stage": "decode", "codec": None}
MISNAMED = [
    *(("mp3", codec) for codec in ("aac", "opus", "vorbis", "ac3", "eac3", "wmav2")),
    *(("wav", codec) for codec in ("aac", "opus", "wmapro")),
    ("opus", "aac"),
    ("aac", "opus"),
    ("ogg", "wmav2"),
]
WELL_NAMED = [
    *(("opus", "opus"), ("ogg", "vorbis"), ("webm", "opus"), ("mkv", "aac"), ("m4a", "aac"), ("aac", "aac")),
    *(("mp4", "ac3"), ("ac3", "ac3"), ("wmv", "wmav2"), ("mp3", "mp3"), ("wav", "pcm_s16"), ("m4a", "alac")),
]
TRACKS = "it has 2 sound tracks; number 2 is read"
JUMPS = "its clock jumps ahead 2 times, by up to 9.0 s: this is not taken for silence"


@pytest.mark.parametrize(
    ("values", "version"),
    [
        ({"uri": "a.mp3", "codec": "mp3"}, None),
        ({"uri": "a.mp3", "codec": "mp3", "duration_s": 12.017}, 3),
        ({"uri": "a.mp3", "codec": "mp3", "reason": "truncated"}, 18),
        ({"uri": "a.mp3", "codec": "mp3", "expected_duration_s": None}, 18),
        ({"uri": "a.mp3", "codec": "mp3", "expected_duration_s": None, "decoder": 15}, None),
        ({"uri": "a.mp3#t=5", "codec": "mp3", "expected_duration_s": None}, 3),
        ({"uri": "a.mp3#t=5", "codec": "mp3", "expected_duration_s": None, "decoder": 3}, None),
        ({"uri": "a.mp2", "codec": "mp2", "expected_duration_s": None}, 18),
        ({"uri": "a.aac", "codec": "aac", "expected_duration_s": None}, 18),
        ({"uri": "a.wav", "codec": "pcm_s16", "reason": "truncated"}, None),
        ({"uri": "a.wav", "reason": "decode_error", **FAILED}, 4),
        ({"uri": "a.wav", "reason": "not_audio", **FAILED}, None),
        ({"uri": "a.wav", "codec": "ima_adpcm"}, 5),
        ({"uri": "a.amr", "codec": "amr_nb", "expected_duration_s": None}, 6),
        ({"uri": "a.amr#t=1,3", "codec": "amr_nb", "duration_s": 2.0, "expected_duration_s": 2.0}, 6),
        ({"uri": "a.awb", "codec": "amr_wb", "duration_s": 3.0}, 6),
        ({"uri": "a.m4a", "codec": "amr_nb", "decoder": 10}, None),
        ({"uri": "a.opus", "codec": "opus"}, None),
        ({"uri": "a.opus", "codec": "opus", "reason": "truncated"}, 24),
        ({"uri": "a.ogg", "codec": "vorbis", "reason": "truncated", "decoder": 23}, 24),
        ({"uri": "a.ogv", "codec": "flac", "reason": "truncated", "decoder": 23}, 26),
        ({"uri": "a.ogv#t=5,9", "codec": "flac", "decoder": 25}, 26),
        ({"uri": "a.ogv", "codec": "flac", "decoder": 25}, None),
        ({"uri": "a.flac", "codec": "flac", "reason": "truncated", "decoder": 25}, None),
        ({"uri": "a.ts", "codec": "aac", "expected_duration_s": None, "decoder": 26}, 27),
        ({"uri": "a.vob#t=5,9", "codec": "ac3", "decoder": 26}, 27),
        ({"uri": "a.ts", "codec": "aac", "expected_duration_s": None, "duration_s": 9.0, "decoder": 26}, None),
        ({"uri": "a.webm", "codec": "opus", "expected_duration_s": None, "decoder": 26}, None),
        ({"uri": "a.webm", "codec": "opus", "expected_duration_s": None, "duration_s": 4e4, "decoder": 26}, 27),
        ({"uri": "a.mkv#t=5,9", "codec": "aac", "decoder": 26}, None),
        ({"uri": "a.flv", "codec": "mp3", "expected_duration_s": None, "decoder": 27}, 28),
        ({"uri": "a.dsf", "codec": "dsd_lsbf_planar", "expected_duration_s": None, "decoder": 27}, 28),
        ({"uri": "a.flv#t=5,9", "codec": "aac", "expected_duration_s": None, "decoder": 27}, None),
        ({"uri": "a.mxf", "codec": "pcm_s16", "reason": "truncated", "decoder": 27}, 28),
        ({"uri": "a.mxf", "codec": "pcm_s16", "expected_duration_s": None, "decoder": 27}, None),
        ({"uri": "a.ogv#t=5,9", "codec": "vorbis", "reason": "truncated", "decoder": 23}, 24),
        ({"uri": "a.ogv", "codec": "vorbis", "expected_duration_s": None, "decoder": 23}, 24),
        ({"uri": "a.ogv#t=5,9", "codec": "vorbis", "expected_duration_s": None, "decoder": 23}, None),
        ({"uri": "a.ogv", "codec": "vorbis", "decoder": 23}, None),
        ({"uri": "a.ogg", "codec": "vorbis", "reason": "truncated", "decoder": DECODER}, None),
        ({"uri": "a.mp3", "codec": "aac", "reason": "truncated", "decoder": 23}, None),
        ({"uri": "a.ogg#t=5,9", "codec": "vorbis", "status": "failed", "reason": "out_of_range", "decoder": 11}, 12),
        ({"uri": "a.ogg", "codec": "vorbis"}, 14),
        ({"uri": "a.ogg", "codec": "vorbis", "decoder": 10}, None),
        ({"uri": "a.ogg", "codec": "vorbis", "expected_duration_s": None, "decoder": 15}, 24),
        ({"uri": "a.opus#t=5", "codec": "opus", "expected_duration_s": None}, 16),
        ({"uri": "a.flac", "codec": "flac", "expected_duration_s": None}, 17),
        ({"uri": "a.flac#t=5", "codec": "flac", "expected_duration_s": None}, 17),
        ({"uri": "a.flac#t=13,17", "codec": "flac", "status": "failed", "reason": "out_of_range"}, 25),
        ({"uri": "a.flac#t=8,17", "codec": "flac", "duration_s": 9.0, "expected_duration_s": 9.0}, None),
        ({"uri": "a.mp3", "codec": "mp3", "duration_s": 11.85}, 18),
        ({"uri": "a.mp3", "codec": "mp3", "duration_s": 11.95}, None),
        ({"uri": "a.mp3#t=0,12", "codec": "mp3", "duration_s": 11.85}, None),
        ({"uri": "a.ac3", "codec": "ac3", "expected_duration_s": None}, 18),
        ({"uri": "a.thd", "codec": "truehd", "expected_duration_s": None, "decoder": 15}, 18),
        ({"uri": "p.parquet#0", "codec": "eac3", "expected_duration_s": None}, 27),
        ({"uri": "a.mp4", "codec": "ac3", "decoder": 15}, None),
        ({"uri": "a.flac", "codec": "flac", "duration_s": 130_000.0, "expected_duration_s": 130_000.0}, 19),
        ({"uri": "a.flac", "codec": "flac", "duration_s": 20_000.0, "expected_duration_s": 20_000.0}, None),
        ({"uri": "a.mp3", "codec": "mp3", "status": "failed", "reason": "too_long"}, 21),
        ({"uri": "a.flac", "codec": "flac", "status": "failed", "reason": "too_long", "decoder": 21}, None),
        ({"uri": "a.mp3#t=9", "codec": "mp3", "status": "failed", "reason": "too_long", "decoder": 15}, 21),
        ({"uri": "a.flac", "codec": "flac", "reason": "truncated"}, None),
        ({"uri": "a.flac", "codec": "flac", "reason": "truncated", "duration_s": 3960.0, "decoder": 24}, 25),
        ({"uri": "a.flac", "codec": "flac", "reason": "truncated", "expected_duration_s": None, "decoder": 24}, 25),
        ({"uri": "a.flac#t=0,20", "codec": "flac", "reason": "truncated", "decoder": 24}, 25),
        ({"uri": "a.flac", "codec": "flac", "duration_s": 24.0, "decoder": 24}, None),
        ({"uri": "a.flac", "codec": "flac", "duration_s": 24.0}, 15),
        ({"uri": "a.rm", "codec": "cook", "expected_duration_s": None}, 15),
        ({"uri": "a.wav", "codec": "pcm_s16", "channels": 2, "decoder": 12}, 13),
        ({"uri": "a.wav", "codec": "pcm_s16", "channels": 6}, None),
        ({"uri": "a.wav", "codec": "pcm_s16", "channels": 2, "decoder": 28}, None),
        ({"uri": "a.mp4", "codec": "aac", "channels": 2, "decoder": 28}, 29),
        ({"uri": "a.webm", "codec": "opus", "channels": 2, "decoder": 28}, None),
        ({"uri": "a.webm", "codec": "opus", "channels": 2, "reason": "truncated", "decoder": 28}, 29),
        ({"uri": "a.mp4", "codec": "aac", "channels": 1, "decoder": 28}, None),
        *(({"uri": f"a.{name}", "codec": codec, "decoder": 19}, 22) for name, codec in MISNAMED),
        *(({"uri": f"a.{name}", "codec": codec, "decoder": 19}, None) for name, codec in WELL_NAMED),
        ({"uri": "a.mp3", "codec": "aac", "status": "failed", "reason": "not_finite", "decoder": 19}, None),
        ({"uri": "a.mp3#t=5", "codec": "aac", "status": "failed", "reason": "out_of_range", "decoder": 19}, 27),
        ({"uri": "a.wma", "codec": "wmav2", "decoder": 19}, 23),
        ({"uri": "a.m4r", "codec": "aac", "decoder": 19}, 23),
        ({"uri": "a.wma", "codec": "wmav2", "decoder": DECODER}, None),
        ({"uri": "a.ts", "codec": "ac3", "decoder": 19, "note": TRACKS}, 20),
        ({"uri": "a.ts", "codec": "ac3", "decoder": 20, "note": TRACKS}, None),
        ({"uri": "a.ts", "codec": "ac3", "decoder": 19, "note": JUMPS}, None),
        ({"uri": "a.caf", "codec": "alac", "reason": "truncated"}, 7),
        ({"uri": "a.caf", "codec": "alac", "duration_s": 11.985}, 7),
        ({"uri": "a.caf", "codec": "alac"}, None),
        ({"uri": "a.ts", "codec": "mp3"}, 15),
        ({"uri": "a.mts", "codec": "pcm_s16"}, 15),
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
        ({"uri": "a.ogg#t=30,40", "codec": "vorbis", "reason": "out_of_range", "status": "failed"}, 14),
        ({"uri": "s.tar#a.mka", "codec": "aac", "reason": "truncated"}, 12),
        ({"uri": "a.mp4", "codec": "aac"}, 10),
        ({"uri": "a.avi", "codec": "mp3", "decoder": 8}, 10),
        ({"uri": "a.m4a", "codec": "aac"}, 14),
        ({"uri": "a.ts", "codec": "aac"}, 15),  # no extension of audio: it may be anything
        ({"uri": "p.parquet#0", "codec": "mp3"}, None),
        ({"uri": "p.parquet#0", "codec": "pcm_s16"}, None),
        ({"uri": "a.mp4", "codec": "aac", "decoder": DECODER}, None),
    ],
)
def test_corrections_concern_few_files(values: dict[str, Any], version: int | None) -> None:
    found = find_correction(row(**({"decoder": 2} | values)))
    assert (found and found.version) == version


@pytest.mark.parametrize(
    ("values", "look"),
    [
        ({"uri": "a.mp3", "codec": "mp3"}, None),
        ({"uri": "a.mp3", "codec": "mp3", "channels": 2}, Look.CHANNELS),
        ({"uri": "a.ogg", "channels": 2}, Look.STREAMS),
        ({"uri": "a.flac", "codec": "flac", "expected_duration_s": None}, Look.LENGTH),
        ({"uri": "a.mp4", "codec": "aac", "channels": 2}, Look.LENGTH),
        ({"uri": "a.mp3", "codec": "opus", "decoder": 20}, Look.LENGTH),
        ({"uri": "a.mp3", "codec": "opus"}, Look.LENGTH),
        ({"uri": "a.ogg", "codec": "vorbis", "expected_duration_s": None}, Look.ALL),
        ({"uri": "a.wma", "codec": "wmav2", "decoder": 19}, Look.STREAMS),
        ({"uri": "a.wma", "codec": "wmav2", "decoder": 19, "reason": "truncated"}, Look.ALL),
        ({"uri": "a.ts", "codec": "ac3", "decoder": 19, "note": TRACKS}, Look.CHANNELS),
    ],
)
def test_all_that_may_have_changed_is_looked_at(values: dict[str, Any], look: Look | None) -> None:
    assert find_look(row(**({"decoder": 2} | values))) == look
