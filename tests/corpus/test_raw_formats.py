"""Audio without a header is read as its extension tells, which is part of its identity."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pipeline
from pipeline import schema
from pipeline.audio.decode import open_audio
from pipeline.audio.source import hash_file, resolve_uri
from pipeline.config import Config, DecodeConfig
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.raw_formats import RAW_FORMATS, raw_format_of
from pipeline.corpus.shards import find_member
from pipeline.corpus.time_ranges import TimeRange, split_uri
from pipeline.errors import FileFailure
from pipeline.index.handle import open_index
from pipeline.index.tables import read_files
from pipeline.index.verify import verify_index
from pipeline.index.verify_deep import compare
from pipeline.planning.file_rows import empty_row
from pipeline.planning.ledger import Ledger
from pipeline.planning.request import RunRequest
from pipeline.run.decode_stage import decode_batch
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from tests.helpers.contents import live, read
from tests.helpers.corpora import configure
from tests.helpers.decoding import decode_all
from tests.helpers.fakes import GRID
from tests.helpers.plans import plan_files
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.shards import add_links, write_shard
from tests.helpers.sounds import by_av, by_soundfile, encode, tone

G722_HZ = 16_000


def make_g722(duration_s: float, frequency_hz: float = 440.0) -> bytes:
    return by_av("g722", "g722")(tone(duration_s, G722_HZ, frequency_hz), G722_HZ)


def make_gsm(n_frames: int, seed: int = 0) -> bytes:
    """Frames of 20 ms: four bits of signature, and random bits."""
    bits = np.random.default_rng(seed).integers(0, 256, (n_frames, 33), np.uint8)
    bits[:, 0] = 0xD0 | (bits[:, 0] & 0xF)
    return bits.tobytes()


SOUNDS = {"g722": make_g722(2.0), "gsm": make_gsm(100)}


def decode(data: bytes, extension: str) -> tuple[str, float, str | None]:
    """Codec, duration, and the message if something is missing."""
    with open_audio(io.BytesIO(data), raw=RAW_FORMATS[extension]) as audio:
        n_samples = sum(len(block) for block in audio.blocks())
        return audio.info.codec, n_samples / 48_000, audio.truncated


def test_raw_format_gives_rate_and_length() -> None:
    codec, seconds, truncated = decode(SOUNDS["g722"], "g722")
    assert (codec, round(seconds, 1), truncated) == ("adpcm_g722", 2.0, None)
    assert decode(SOUNDS["gsm"], "gsm") == ("gsm", 2.0, None)
    samples, info = decode_all(io.BytesIO(SOUNDS["g722"]), raw=RAW_FORMATS["g722"])
    assert (info.sample_rate_hz, info.channels) == (G722_HZ, 1)
    assert info.expected_duration_s == pytest.approx(2.0, abs=0.01)
    middle = samples[48_000:96_000] * np.hanning(48_000)
    assert abs(int(np.argmax(np.abs(np.fft.rfft(middle)))) - 440) <= 1


@pytest.mark.parametrize("extension", ["g722", "gsm"])
@pytest.mark.parametrize("name", ["wav_s16", "flac", "mp3_vbr", "ogg_opus", "m4a", "aiff"])
def test_container_is_read_as_container_whatever_its_name(extension: str, name: str) -> None:
    data = encode(name, tone(1.0, 48_000), 48_000)
    if name == "mp3_vbr":
        assert data.startswith(b"ID3")
    with open_audio(io.BytesIO(data), raw=RAW_FORMATS[extension]) as named, open_audio(io.BytesIO(data)) as plain:
        assert named.info == plain.info
        assert np.array_equal(np.concatenate(list(named.blocks())), np.concatenate(list(plain.blocks())))


def test_gsm_in_wav_is_not_raw_gsm() -> None:
    codec, seconds, _ = decode(by_soundfile("WAV", "GSM610")(tone(1.0, 8_000), 8_000), "gsm")
    assert (codec, round(seconds)) == ("gsm610", 1)


def test_file_without_gsm_frames_is_judged_by_content() -> None:
    with pytest.raises(FileFailure, match="not_audio"):
        decode(b"\xd0 no sound at all" * 50, "gsm")
    mp3 = encode("mp3_no_xing", tone(1.0, 48_000), 48_000)
    assert decode(mp3[mp3.index(b"\xff\xfb") :], "gsm")[0] == "mp3"
    assert decode(SOUNDS["gsm"][:-10], "gsm")[1] == pytest.approx(1.98)


def test_audio_id_depends_on_the_raw_format() -> None:
    one, other = (schema.make_audio_id("00", raw=str(RAW_FORMATS[name])) for name in ("g722", "gsm"))
    assert len({one, other, schema.make_audio_id("00"), schema.make_audio_id("00", "#t=1")}) == 4
    assert schema.make_audio_id("00", "#t=1", "raw=g722,16000") not in (one, schema.make_audio_id("00", "#t=1"))
    assert [str(raw) for raw in RAW_FORMATS.values()] == ["raw=g722,16000", "raw=gsm,8000"]  # as indexes have them
    assert one == schema.digest("audio", "00", "raw=g722,16000")


def index(config: Config, request: RunRequest = RunRequest()) -> Any:
    progress = index_corpus(config, stages=in_place(WideEncoder()), request=request)
    assert verify_index(config.into) == []
    return progress


def files_of(config: Config) -> dict[str, dict[str, Any]]:
    """Names of files that exist -> their rows."""
    return {Path(row["uri"]).name: row for row in read(config.into, "files") if row["status"] != "deleted"}


def test_equal_bytes_with_two_extensions_are_two_audios(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    wav = encode("wav_s16", tone(1.0, 48_000), 48_000)
    for name, data in {
        "a.g722": SOUNDS["g722"],
        "a.wav": SOUNDS["g722"],
        "b.G722": SOUNDS["g722"],
        "c.gsm": SOUNDS["gsm"],
        "d.wav": wav,
        "d.gsm": wav,
    }.items():
        (folder / name).write_bytes(data)
    config = configure(tmp_path, folder)
    index(config)
    files = files_of(config)
    assert {name: row["reason"] for name, row in files.items()} == {**dict.fromkeys(files), "a.wav": "not_audio"}
    assert files["a.g722"]["audio_id"] == files["b.G722"]["audio_id"] != files["a.wav"]["audio_id"]
    assert files["a.g722"]["codec"] == "adpcm_g722"
    assert {name for name, row in files.items() if row["note"]} == {"a.g722", "b.G722", "c.gsm"}
    assert files["c.gsm"]["note"] == "it has no header, and is read as GSM 06.10 at 8 kHz by its extension"
    opened = pipeline.open(config.into)
    assert opened.describe()["with_note"] == 3
    assert {Path(row["uri"]).name: row["note"] for row in opened.notes().to_pylist()} == {
        name: row["note"] for name, row in files.items() if row["note"]
    }
    assert files["d.gsm"]["audio_id"] != files["d.wav"]["audio_id"]
    assert files["d.gsm"]["codec"] == files["d.wav"]["codec"] == "pcm_s16"
    assert compare(open_index(config.into).live, WideEncoder(), 10).findings == []
    before = live(config.into)
    for request in (RunRequest(), RunRequest(check_content=True)):
        assert index(config, request).n_unchanged == 6
    assert live(config.into) == before
    index(config, RunRequest(full=True))
    assert live(config.into) == before


def test_renaming_to_a_raw_extension_makes_another_audio(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.g722").write_bytes(SOUNDS["g722"])
    (folder / "b.wav").write_bytes(encode("wav_s16", tone(1.0, 48_000), 48_000))
    config = configure(tmp_path, folder)
    index(config)
    (folder / "a.g722").rename(folder / "c.g722")
    assert {action for _, action, _ in plan_corpus(config).actions} == {"moved", "deleted", "unchanged"}
    index(config)
    (folder / "c.g722").rename(folder / "c.gsm")
    assert {action for _, action, _ in plan_corpus(config).actions} == {"new", "deleted", "unchanged"}
    index(config)
    assert files_of(config)["c.gsm"]["reason"] == "not_audio"
    (folder / "c.gsm").rename(folder / "c.g722")
    index(config)
    assert files_of(config)["c.g722"]["status"] == "indexed"


def test_time_ranges_and_members_use_raw_formats(tmp_path: Path) -> None:
    (tmp_path / "a.g722").write_bytes(SOUNDS["g722"])
    shard = write_shard(
        tmp_path / "s.tar", [("a.g722", SOUNDS["g722"]), ("a.g722", make_g722(1.0)), ("b.gsm", SOUNDS["gsm"])]
    )
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri,start_s,end_s\na.g722,0.5,1.5\na.g722,,\ns.tar#a.g722,0.5,1.5\ns.tar#a.g722#2,,\n")
    config = configure(tmp_path, manifest, shard)
    index(config)
    files = files_of(config)
    assert {row["status"] for row in files.values()} == {"indexed"}
    durations_s = {uri: row["duration_s"] for uri, row in files.items()}
    assert durations_s["a.g722#t=0.5,1.5"] == durations_s["s.tar#a.g722#t=0.5,1.5"] == 1.0
    assert durations_s["s.tar#a.g722#2"] == pytest.approx(1.0, abs=0.01)
    assert files["a.g722"]["audio_id"] == files["s.tar#a.g722"]["audio_id"]
    assert files["a.g722#t=0.5,1.5"]["audio_id"] == files["s.tar#a.g722#t=0.5,1.5"]["audio_id"]
    assert compare(open_index(config.into).live, WideEncoder(), 10).findings == []
    assert resolve_uri(f"{shard}#a.g722#2#t=0.25,1")[1:] == (TimeRange(0.25, 1.0), RAW_FORMATS["g722"])


def test_link_with_a_raw_extension_is_another_audio(tmp_path: Path) -> None:
    """They lie at the same place, but an open stream of one does not serve the other."""
    shard = write_shard(tmp_path / "s.tar", [("a.g722", SOUNDS["g722"])])
    add_links(shard, dict.fromkeys(("a.gsm", "b.g722"), (tarfile.SYMTYPE, "a.g722")))
    place = find_member(f"{shard}#a.gsm")
    assert place == resolve_uri(f"{shard}#a.g722")[0]
    audios = [
        {
            "content_hash": None,
            "start_s": start_s,
            "end_s": start_s + 0.5,
            "size_bytes": len(SOUNDS["g722"]),
            "uris": [f"{shard}#{name}{TimeRange(start_s, start_s + 0.5)}"],
            "modified_ns": [shard.stat().st_mtime_ns],
            "offsets": [place.offset],
        }
        for name, start_s in (("a.g722", 0.25), ("a.gsm", 0.75), ("b.g722", 1.25))
    ]
    tables = decode_batch({"batch_id": "0" * 32, "audios": audios}, DecodeConfig(), GRID)
    rows = [file for table in tables for row in table.to_pylist() for file in row["files"] or ()]
    assert [row["reason"] for row in rows] == [None, "not_audio", None]


def test_uris_tell_the_raw_format_and_ids_depend_on_it(tmp_path: Path) -> None:
    assert raw_format_of("s3://in/a.GSM") == raw_format_of("s.tar#a.gsm#2") == RAW_FORMATS["gsm"]
    assert raw_format_of("a.gsm.wav") is None
    path = tmp_path / "a.g722"
    path.write_bytes(SOUNDS["g722"])
    row = empty_row(str(path), schema.make_audio_id(hash_file(path), raw="raw=g722,16000"))
    assert row["file_id"] != empty_row(str(path), schema.make_audio_id(hash_file(path)))["file_id"]


def test_files_indexed_before_raw_formats_are_decoded_again(tmp_path: Path) -> None:
    (tmp_path / "a.gsm").write_bytes(SOUNDS["gsm"])
    (tmp_path / "b.wav").write_bytes(encode("wav_s16", tone(1.0, 48_000), 48_000))
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri,start_s\na.gsm,1\na.gsm,\nb.wav,\n")
    config = configure(tmp_path, manifest)
    index(config)
    files = read_files(config.into).select(schema.FILES.names)
    at = files.schema.get_field_index("decoder")
    before = files.set_column(at, files.schema.field(at), pa.nulls(len(files), pa.int32()))
    at = files.schema.get_field_index("audio_id")  # those of the files did not depend on how they are read
    ids = [schema.make_audio_id(row["content_hash"], str(split_uri(row["uri"])[1])) for row in files.to_pylist()]
    before = before.set_column(at, files.schema.field(at), pa.array(ids, files.schema.field(at).type))

    def plan(files: pa.Table) -> dict[str, str]:
        made = plan_files(list_corpus(list(config.sources)), Ledger(files))
        return {Path(uri).name: action for uri, action, _ in made.actions}

    assert plan(before) == {"a.gsm": "redecoded", "a.gsm#t=1": "redecoded", "b.wav": "unchanged"}
    assert set(plan(files).values()) == {"unchanged"}
