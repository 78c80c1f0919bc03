"""An opened index: what it holds on to while others write, long sounds, and what cannot be asked."""

import io
import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import pipeline
from pipeline import schema
from pipeline.audio.decode import decode_all
from pipeline.audio.windows import cut_windows
from pipeline.corpus.raw_formats import RAW_FORMATS
from pipeline.encoder.checkpoint import ModelIdentity, read_identity
from pipeline.errors import FileFailure, IndexMismatch, UsageError
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Waveform, window_starts
from pipeline.index.rows import files_table
from pipeline.index.tables import create_tables
from pipeline.index.writer import Batch, Writer
from pipeline.planning.outcomes import empty_row
from pipeline.search.client import WINDOWS_AT_ONCE
from tests.helpers.checkpoints import edit_weights, make_pe_audio
from tests.helpers.ears import GRID, Ear, open_with
from tests.helpers.ears import index as index
from tests.helpers.fakes import noise, write_wav
from tests.helpers.shards import write_shard
from tests.helpers.sounds import by_av, tone
from tests.helpers.tables import CLIPS, MODEL, write_index

ROOT = Path(__file__).parents[2]


def create_empty(path: Path, frames: str) -> Path:
    """An index of which no batch has been published yet, with and without frames."""
    settings = {
        "clip_model": MODEL,
        "frame_model": MODEL if frames == "all" else None,
        "window": {"length_s": 10.0, "overlap_s": 0.4},
        "decode": {"resampler": "HQ"},
        "frames": frames,
    }
    create_tables(path, settings, clip_dimension=8, frame_dimension=8)
    return path


@pytest.fixture(params=["all", "none"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return create_empty(tmp_path / "empty", request.param)


def add_a_failed_file(path: Path) -> None:
    row = {**empty_row("/late.wav", None), "status": "failed", "stage": "read", "reason": "unreadable", "message": "no"}
    clips = CLIPS.empty_table().drop_columns(["batch_id"])
    Writer(path, "1" * 32).commit([Batch(schema.make_batch_id("late", 0), files_table([row]), clips)])


# --- what an opened index holds on to ---------------------------------------------------------------------------------


def test_an_index_stays_as_it_was_when_it_was_opened(index: Path) -> None:
    opened = pipeline.open(str(index))
    before = {name: opened.to_arrow(name) for name in ("files", "clips", "frames", "batches")}
    add_a_failed_file(index)
    for name, rows in before.items():
        assert opened.to_arrow(name).equals(rows)
    later = pipeline.open(str(index))
    assert later.to_arrow("batches").num_rows == before["batches"].num_rows + 1
    assert later.to_arrow("files").num_rows == before["files"].num_rows + 1


@pytest.mark.parametrize("table", ["files", "clips", "frames", "batches"])
def test_rows_of_every_table_are_chosen_by_where_and_columns(index: Path, table: str) -> None:
    opened = pipeline.open(str(index))
    everything = opened.to_arrow(table)
    batch_id = everything["batch_id"][-1].as_py()
    n_rows = everything["batch_id"].to_pylist().count(batch_id)
    chosen = opened.to_arrow(table, columns=["batch_id"], where=f"batch_id = '{batch_id}' OR batch_id = 'none'")
    assert chosen.column_names == ["batch_id"]
    assert chosen["batch_id"].to_pylist() == [batch_id] * n_rows
    assert everything.column_names == opened.to_arrow(table, where="batch_id = 'none'").column_names


def test_batches_come_in_the_order_in_which_they_were_published(index: Path) -> None:
    seqs = pipeline.open(str(index)).to_arrow("batches", ["seq"])["seq"].to_pylist()
    assert seqs == list(range(len(seqs)))


@pytest.mark.parametrize("table", ["files", "batches"])
@pytest.mark.parametrize("wrong", [{"where": "nonsense = 1"}, {"where": "batch_id ="}, {"columns": ["nonsense"]}])
def test_a_wrong_where_or_column_is_one_line(index: Path, table: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"nonsense|batch_id =") as caught:
        pipeline.open(str(index)).to_arrow(table, **wrong)
    assert "\n" not in str(caught.value)


def test_an_unknown_table_is_named(index: Path) -> None:
    with pytest.raises(UsageError, match="'sounds': expected files, clips, frames or batches"):
        pipeline.open(str(index)).to_arrow("sounds")


# --- long sounds ------------------------------------------------------------------------------------------------------


def test_a_long_sound_is_heard_a_few_windows_at_a_time(index: Path) -> None:
    ear, block = Ear(), noise(1.0)
    tracemalloc.start()
    hits = open_with(index, ear).similar_to((block for _ in range(600)), k=3)  # 10 minutes: 115 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(hits) == 2  # overlapping windows count once
    assert max(ear.groups) == WINDOWS_AT_ONCE
    assert sum(ear.groups) == len(window_starts(15_000, GRID))
    assert peak < 60_000_000


@pytest.mark.parametrize("seconds", [0.05, 3.0, 10.0, 200.0])
def test_a_sound_stands_for_the_mean_direction_of_its_windows(index: Path, seconds: float) -> None:
    samples, ear = noise(seconds), Ear()
    vectors = np.stack([ear.hear(window) for _, window in cut_windows([samples], GRID)])
    mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
    opened = open_with(index, ear)
    rows = {row["clip_id"]: row["vector"] for row in opened.to_arrow("clips").to_pylist()}
    for hits in (
        opened.similar(samples, SAMPLE_RATE_HZ, k=10, all_windows=True),
        opened.similar_to(np.array_split(samples, 7), k=10, all_windows=True),
    ):
        assert len(hits) == len(rows)
        for hit in hits:
            vector = np.array(rows[hit.clip_id], np.float32)
            cosine = vector @ mean / np.linalg.norm(vector) / np.linalg.norm(mean)
            assert hit.score == pytest.approx(float(cosine), abs=1e-5)


class Reader:
    """A text encoder of one embedding."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.ones((len(texts), 8), np.float32)


def test_a_filter_that_leaves_nothing_gives_nothing(index: Path) -> None:
    opened = open_with(index, Ear())
    vars(opened)["_text_encoders"] = {ModelIdentity.from_dict(MODEL): Reader()}
    sound, none = noise(1.0), "uri = '/none.wav'"
    assert opened.search("a bell")
    assert opened.search("a bell", where=none) == []
    assert opened.locate("a bell", threshold=1e-6)
    assert opened.locate("a bell", threshold=1e-6, where=none) == []
    assert opened.similar(sound, SAMPLE_RATE_HZ, where=none) == []
    assert opened.similar(sound, SAMPLE_RATE_HZ, where=none, all_windows=True) == []
    assert opened.to_arrow("clips", where=none).num_rows == 0


def test_a_part_of_a_file_is_that_part_of_its_samples(index: Path, tmp_path: Path) -> None:
    samples, opened = noise(30.0), open_with(index, Ear())
    file = str(write_wav(tmp_path / "sound.wav", samples))
    part = samples[SAMPLE_RATE_HZ * 5 // 2 : SAMPLE_RATE_HZ * 27]
    assert opened.similar_to_file(file, start_s=2.5, end_s=27.0) == opened.similar_to([part])
    assert opened.similar_to_file(file) == opened.similar_to([samples])
    assert opened.similar_to_file(file, start_s=29.0) == opened.similar_to([samples[29 * SAMPLE_RATE_HZ :]])
    with pytest.raises(FileFailure, match=r"lasts 30\.000 s"):
        opened.similar_to_file(file, start_s=30.0)


def test_a_file_without_a_header_is_read_by_its_extension(index: Path, tmp_path: Path) -> None:
    data, opened = by_av("g722", "g722")(tone(4.0, 16_000), 16_000), open_with(index, Ear())
    samples, _ = decode_all(io.BytesIO(data), raw=RAW_FORMATS["g722"])
    (path := tmp_path / "a.g722").write_bytes(data)
    shard = write_shard(tmp_path / "s.tar", [("a.g722", b""), ("a.g722", data)])
    for sound in (str(path), f"{shard}#a.g722#2"):
        assert opened.similar_to_file(sound) == opened.similar_to([samples])
        assert opened.similar_to_file(f"{sound}#t=1,3") == opened.similar_to([samples[48_000:144_000]])


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros(HOP_SAMPLES - 1, np.float32), "shorter than one frame"),
        (np.zeros(0, np.float32), "shorter than one frame"),
        (np.r_[np.zeros(600_000, np.float32), np.float32(np.nan)], "NaN or infinite"),
        (np.full(5_000, np.inf, np.float32), "NaN or infinite"),
    ],
)
def test_what_is_no_sound_is_refused(index: Path, samples: Waveform, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_with(index, Ear()).similar_to([samples])


# --- the model that is there now --------------------------------------------------------------------------------------


def write_index_of(model: Path, path: Path, **changed: Any) -> Path:
    rows = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float16)
    identity = {key: value for key, value in (read_identity(str(model)).to_dict() | changed).items() if value != ...}
    write_index(path, {"/a.wav": (rows, rows[:1])}, GRID, model=identity)
    return path


def lower_case(model: Path) -> None:
    values = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(values | {"normalizer": {"type": "Lowercase"}}))


def test_words_are_not_read_with_another_tokenizer(tmp_path: Path) -> None:
    model = make_pe_audio(tmp_path / "model", text={"hidden_size": 8})
    opened = pipeline.open(str(write_index_of(model, tmp_path / "index")))
    before = opened.search("wind")
    lower_case(model)
    assert opened.search("wind") == before  # with what it has loaded
    opened = pipeline.open(opened.path)
    for ask in (opened.search, opened.locate, opened.embed):
        with pytest.raises(IndexMismatch, match=r"another tokenizer .*; its weights are the same") as caught:
            ask("wind")
        assert "\n" not in str(caught.value)
    assert len(opened.similar(noise(1.0), SAMPLE_RATE_HZ)) == 1  # sounds do not need it


def test_an_index_from_before_tokenizers_were_stored_is_searched_as_before(tmp_path: Path) -> None:
    model = make_pe_audio(tmp_path / "model", text={"hidden_size": 8})
    path = write_index_of(model, tmp_path / "index", tokenizer=...)
    lower_case(model)
    assert len(pipeline.open(str(path)).search("wind")) == 1
    edit_weights(model, lambda state: state["audio_head.proj.weight"].mul_(2))
    with pytest.raises(IndexMismatch, match="other weights"):
        pipeline.open(str(path)).search("wind")


def test_equal_weights_with_another_tokenizer_or_text_state_are_asked_by_themselves(tmp_path: Path) -> None:
    """Clips and frames may come from two checkpoints that only differ in how they read words."""
    models = [make_pe_audio(tmp_path / name, text={"hidden_size": 8} | tied) for name, tied in TIES.items()]
    assert len({read_identity(str(model)).checksum for model in models}) == 1
    opened = pipeline.open(str(write_index_of(models[0], tmp_path / "index")))
    opened.settings["frame_model"] = read_identity(str(models[1])).to_dict()
    clip, frame = (opened._embed_text("wind", f"{which}_model") for which in ("clip", "frame"))
    assert np.abs(clip - frame).max() > 1e-2


TIES: dict[str, dict[str, Any]] = {"before the norm": {}, "after it": {"tie_last_hidden_states": True}}


# --- what cannot be asked ---------------------------------------------------------------------------------------------


def test_an_empty_index_says_so(empty: Path) -> None:
    opened = open_with(empty, Ear())
    sound = noise(1.0)
    questions: list[Callable[[], object]] = [
        lambda: opened.search("a bell"),
        lambda: opened.similar(sound, SAMPLE_RATE_HZ),
        lambda: opened.similar_to([sound]),
        lambda: opened.similar_to_file("/there is none.wav"),
    ]
    for ask in questions:
        with pytest.raises(UsageError, match="nothing is indexed yet") as caught:
            ask()
        assert str(empty) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_nothing_can_be_located_without_frames(empty: Path) -> None:
    opened = pipeline.open(str(empty))
    expected = "nothing is indexed yet" if opened.settings["frames"] == "all" else "built without frames"
    with pytest.raises(UsageError, match=expected):
        opened.locate("a bell")


def test_an_empty_index_describes_itself(empty: Path) -> None:
    values = pipeline.open(str(empty)).describe()
    assert (values["files"], values["clips"], values["frames"], values["hours"]) == (0, 0, 0, 0.0)


def test_an_index_of_failed_files_points_at_them(empty: Path) -> None:
    add_a_failed_file(empty)
    with pytest.raises(UsageError, match=f"earshot failures {empty}"):
        pipeline.open(str(empty)).search("a bell")


@pytest.mark.parametrize("text", ["", " \t\n"])
def test_an_empty_query_is_refused(index: Path, text: str) -> None:
    opened = pipeline.open(str(index))
    for ask in (opened.search, opened.locate, opened.embed):
        with pytest.raises(UsageError, match="the query is empty"):
            ask(text)


def test_fewer_than_one_result_is_refused(index: Path) -> None:
    with pytest.raises(UsageError, match="-k: 0"):
        open_with(index, Ear()).similar_to([noise(1.0)], k=0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["query", "{empty}", "a bell"], "nothing is indexed yet"),
        (["similar", "{empty}", "{sound}"], "nothing is indexed yet"),
        (["locate", "{empty}", "a bell"], "built without frames"),
        (["locate", "{index}", " "], "the query is empty"),
    ],
)
def test_the_command_line_says_so_in_one_line(arguments: list[str], said: str, index: Path, tmp_path: Path) -> None:
    empty, sound = create_empty(tmp_path / "empty", "none"), write_wav(tmp_path / "sound.wav", noise(1.0))
    given = [text.format(empty=empty, index=index, sound=sound) for text in arguments]
    command = [sys.executable, "-m", "jobs.main", *given]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("earshot: ")
    assert said in line


@pytest.mark.parametrize(
    ("waveform", "rate_hz", "said"),
    [
        (np.zeros((2, 48_000), np.float32), 48_000, "its transpose"),
        (np.zeros((2, 3, 4), np.float32), 48_000, "(n,) or (n, channels)"),
        (np.array(["a"]), 48_000, "give numbers"),
        (np.zeros(48_000, np.float32), 0, "sample_rate_hz: 0 is not a rate"),
    ],
)
def test_a_sound_of_another_shape_or_rate_is_refused(index: Path, waveform: Any, rate_hz: int, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        pipeline.open(str(index)).similar(waveform, rate_hz)
