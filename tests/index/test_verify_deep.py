"""Encoding files again finds vectors of another sound."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from pipeline.config import Config
from pipeline.index.handle import open_index
from pipeline.index.verify_deep import Stored, compare
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from tests.helpers.bursts import mux_tracks
from tests.helpers.damage import first, rewrite
from tests.helpers.fakes import GRID
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, configure, in_place
from tests.helpers.sounds import by_av, encode, tone
from tests.helpers.tables import write_index


def test_vectors_of_another_sound_are_found_by_encoding_again(config: Config) -> None:
    whole = compare(open_index(config.into).live, WideEncoder())
    assert (whole.findings, whole.n_compared, whole.n_indexed) == ([], 4, 4)
    clip_id = first(config.into, "clips", "clip_id", "uri LIKE '%/a.wav'")
    rewrite(config.into, "clips", f"clip_id = '{clip_id}'", lambda vectors: -vectors)
    (finding,) = compare(open_index(config.into).live, WideEncoder()).findings
    assert "200.00% of its length away" in finding.what
    assert str(finding.uri).endswith("/a.wav")


@pytest.mark.parametrize(("precision", "is_found"), [("float32", True), ("bfloat16", False)])
def test_allowed_distance_depends_on_the_precision(config: Config, precision: str, is_found: bool) -> None:
    class Encoder(WideEncoder):
        pass

    Encoder.precision = precision
    clip_id = first(config.into, "clips", "clip_id", "uri LIKE '%/a.wav'")
    rewrite(config.into, "clips", f"clip_id = '{clip_id}'", lambda vectors: vectors * 1.02)
    assert bool(compare(open_index(config.into).live, Encoder()).findings) == is_found


def test_samples_differ_and_none_means_all_files(config: Config) -> None:
    clip_id = first(config.into, "clips", "clip_id", "uri LIKE '%/a.wav'")
    rewrite(config.into, "clips", f"clip_id = '{clip_id}'", lambda vectors: -vectors)
    samples = [compare(open_index(config.into).live, WideEncoder(), 1, seed) for seed in range(20)]
    assert {sample.n_compared for sample in samples} == {1}
    assert {len(sample.findings) for sample in samples} == {0, 1}
    everything = compare(open_index(config.into).live, WideEncoder(), None)
    assert (everything.n_compared, everything.n_indexed, len(everything.findings)) == (4, 4, 1)


def test_unreadable_file_does_not_count_as_compared(config: Config) -> None:
    folder = Path(config.into).parent / "in"
    shutil.copytree(Path(first(config.into, "files", "uri")).parent, folder)
    elsewhere = config.model_copy(update={"sources": (str(folder),)})
    index_corpus(elsewhere, request=RunRequest(), stages=in_place(WideEncoder()))
    (folder / "c.wav").unlink()
    compared = compare(open_index(config.into).live, WideEncoder(), None)
    assert (compared.n_compared, compared.n_indexed) == (3, 4)
    assert [str(finding.uri).rsplit("/", 1)[1] for finding in compared.findings] == ["c.wav"]


@pytest.fixture
def older(tmp_path: Path) -> Config:
    """An index of an older version, which mixed channels that cancel each other, and knew one track."""
    (tmp_path / "in").mkdir()
    wide, crossed = (tone(1.0, 48_000, channels=2) * np.array([1, sign], np.float32) for sign in (1, -1))
    track = by_av("matroska", "aac", 64_000)(tone(1.0, 48_000), 48_000)
    sounds = {
        "plain.wav": encode("wav_s16", wide, 48_000),
        "crossed.wav": encode("wav_s16", crossed, 48_000),
        "tracks.m4a": mux_tracks("mp4", [track, track], film=False),
        "film.mp4": mux_tracks("mp4", [track, track]),
    }
    for name, data in sounds.items():
        (tmp_path / "in" / name).write_bytes(data)
    config = configure(tmp_path / "in", tmp_path / "index")
    index_corpus(config, stages=in_place(WideEncoder()))
    table(config.into, "files").update({"decoder": "2", "note": "NULL"})
    rewrite(config.into, "clips", "uri NOT LIKE '%/plain.wav'", lambda vectors: vectors / 2)
    return config


def test_what_a_correction_may_change_is_no_damage(older: Config) -> None:
    compared = compare(open_index(older.into).live, WideEncoder(), None)
    assert (compared.findings, compared.n_compared, compared.n_corrected, compared.n_indexed) == ([], 1, 3, 4)
    index_corpus(older, stages=in_place(WideEncoder()))
    compared = compare(open_index(older.into).live, WideEncoder(), None)
    assert (compared.findings, compared.n_compared, compared.n_corrected) == ([], 4, 0)


def test_damage_is_found_where_a_correction_changes_nothing(older: Config) -> None:
    rewrite(older.into, "clips", "uri LIKE '%/plain.wav'", lambda vectors: -vectors)
    compared = compare(open_index(older.into).live, WideEncoder(), None)
    assert [str(finding.uri).rsplit("/", 1)[1] for finding in compared.findings] == ["plain.wav"]
    assert (compared.n_compared, compared.n_corrected) == (1, 3)


def test_stored_vectors_are_read_a_span_at_a_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((8 * 30 + 2, 8)).astype(np.float16)
    clips = rng.standard_normal((30, 8)).astype(np.float16)
    write_index(tmp_path / "index", {"a.wav": (frames, clips), "b.wav": (frames[::-1], clips[::-1])}, GRID)
    live = open_index(str(tmp_path / "index")).live
    [row] = live.read_files().filter(pc.field("uri") == "b.wav").to_pylist()
    for name, where, order, truth in (
        ("frames", f"audio_id = '{row['audio_id']}'", "frame", frames[::-1]),
        ("clips", f"file_id = '{row['file_id']}'", "start_s", clips[::-1]),
    ):
        for n_held in (1, 7, 1_000):
            stored = Stored(live, name, where, order, n_held)
            spans = [(first, min(first + 9, len(truth))) for first in range(0, len(truth), 8)]
            assert all((stored.read(first, stop) == truth[first:stop]).all() for first, stop in spans)
            assert len(stored.read(len(truth) + 5, len(truth) + 9)) == 0
