"""An opened index: it keeps its state while others write, and refuses what cannot be asked."""

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import pipeline
from pipeline.corpus.raw_formats import RAW_FORMATS
from pipeline.errors import FileFailure, UsageError
from pipeline.grid import SAMPLE_RATE_HZ
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tables import to_matrix
from pipeline.search.client import Index
from pipeline.search.events import Levels, Rules
from pipeline.search.query_vectors import QueryModels
from pipeline.search.scores import dot_products
from tests.helpers.decoding import decode_all
from tests.helpers.ears import Ear, Reader, open_with
from tests.helpers.ears import index as index
from tests.helpers.events import plain_events
from tests.helpers.fakes import noise, write_wav
from tests.helpers.made import MadeIndex, MadeTexts
from tests.helpers.made import made_clips as made_clips
from tests.helpers.made import sounds as sounds
from tests.helpers.shards import write_shard
from tests.helpers.sounds import by_av, tone
from tests.helpers.tables import add_failed_file, create_empty
from tests.helpers.tuning import TUNING, add_vector_index, measure_here, publish_tuning
from tests.helpers.vector_tables import UnevenTable


@pytest.fixture(params=["all", "none"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return create_empty(tmp_path / "empty", frames=request.param)


def test_index_stays_as_it_was_when_it_was_opened(index: Path) -> None:
    opened = pipeline.open(str(index))
    before = {name: opened.to_arrow(name) for name in ("files", "clips", "frames", "batches")}
    add_failed_file(index)
    for name, rows in before.items():
        assert opened.to_arrow(name).equals(rows)
    later = pipeline.open(str(index))
    assert later.to_arrow("batches").num_rows == before["batches"].num_rows + 1
    assert later.to_arrow("files").num_rows == before["files"].num_rows + 1


@pytest.mark.parametrize("table", ["files", "clips", "frames", "batches"])
def test_where_and_columns_select_rows_of_every_table(index: Path, table: str) -> None:
    opened = pipeline.open(str(index))
    everything = opened.to_arrow(table)
    batch_id = everything["batch_id"][-1].as_py()
    n_rows = everything["batch_id"].to_pylist().count(batch_id)
    chosen = opened.to_arrow(table, columns=["batch_id"], where=f"batch_id = '{batch_id}' OR batch_id = 'none'")
    assert chosen.column_names == ["batch_id"]
    assert chosen["batch_id"].to_pylist() == [batch_id] * n_rows
    assert everything.column_names == opened.to_arrow(table, where="batch_id = 'none'").column_names


def test_batches_come_in_the_order_of_publishing(index: Path) -> None:
    seqs = pipeline.open(str(index)).to_arrow("batches", ["seq"])["seq"].to_pylist()
    assert seqs == list(range(len(seqs)))


@pytest.mark.parametrize("table", ["files", "batches"])
@pytest.mark.parametrize("wrong", [{"where": "nonsense = 1"}, {"where": "batch_id ="}, {"columns": ["nonsense"]}])
def test_error_of_a_wrong_where_or_column_is_one_line(index: Path, table: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"nonsense|batch_id =") as caught:
        pipeline.open(str(index)).to_arrow(table, **wrong)
    assert "\n" not in str(caught.value)


def test_error_names_an_unknown_table(index: Path) -> None:
    with pytest.raises(UsageError, match="'sounds': expected files, clips, frames, pools or batches"):
        pipeline.open(str(index)).to_arrow("sounds")


def test_filter_that_selects_nothing_gives_nothing(index: Path) -> None:
    opened = open_with(index, Ear())
    sound, none = noise(1.0), "uri = '/none.wav'"
    assert opened.search("a bell")
    assert opened.search("a bell", where=none) == []
    assert opened.locate("a bell", threshold=1e-6)
    assert opened.locate("a bell", threshold=1e-6, where=none) == []
    assert opened.similar(sound, SAMPLE_RATE_HZ, where=none) == []
    assert opened.similar(sound, SAMPLE_RATE_HZ, where=none, all_windows=True) == []
    assert opened.to_arrow("clips", where=none).num_rows == 0


def test_part_of_a_file_equals_that_part_of_its_samples(index: Path, tmp_path: Path) -> None:
    samples, opened = noise(30.0), open_with(index, Ear())
    file = str(write_wav(tmp_path / "sound.wav", samples))
    part = samples[SAMPLE_RATE_HZ * 5 // 2 : SAMPLE_RATE_HZ * 27]
    assert opened.similar_to_file(file, start_s=2.5, end_s=27.0) == opened.similar_to([part])
    assert opened.similar_to_file(file) == opened.similar_to([samples])
    assert opened.similar_to_file(file, start_s=29.0) == opened.similar_to([samples[29 * SAMPLE_RATE_HZ :]])
    with pytest.raises(FileFailure, match=r"lasts 30\.000 s"):
        opened.similar_to_file(file, start_s=30.0)


def test_headerless_file_is_read_by_its_extension(index: Path, tmp_path: Path) -> None:
    data, opened = by_av("g722", "g722")(tone(4.0, 16_000), 16_000), open_with(index, Ear())
    samples, _ = decode_all(io.BytesIO(data), raw=RAW_FORMATS["g722"])
    (path := tmp_path / "a.g722").write_bytes(data)
    shard = write_shard(tmp_path / "s.tar", [("a.g722", b""), ("a.g722", data)])
    for sound in (str(path), f"{shard}#a.g722#2"):
        assert opened.similar_to_file(sound) == opened.similar_to([samples])
        assert opened.similar_to_file(f"{sound}#t=1,3") == opened.similar_to([samples[48_000:144_000]])


def test_error_says_that_an_index_is_empty(empty: Path) -> None:
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


def test_locate_without_frames_is_refused(empty: Path) -> None:
    opened = pipeline.open(str(empty))
    expected = "nothing is indexed yet" if opened.settings["frames"] == "all" else "built without frames"
    with pytest.raises(UsageError, match=expected):
        opened.locate("a bell")


def test_empty_index_has_counts_of_zero(empty: Path) -> None:
    values = pipeline.open(str(empty)).describe()
    assert (values["files"], values["clips"], values["frames"], values["hours"]) == (0, 0, 0, 0.0)


def test_error_on_an_index_of_failed_files_points_at_them(empty: Path) -> None:
    add_failed_file(empty)
    with pytest.raises(UsageError, match=f"earshot failures {empty}"):
        pipeline.open(str(empty)).search("a bell")


@pytest.mark.parametrize("text", ["", " \t\n"])
def test_empty_query_is_refused(index: Path, text: str) -> None:
    opened = pipeline.open(str(index))
    for ask in (opened.search, opened.locate, opened.embed):
        with pytest.raises(UsageError, match="the query is empty"):
            ask(text)


def test_less_than_one_result_is_refused(index: Path) -> None:
    with pytest.raises(UsageError, match="-k: 0"):
        open_with(index, Ear()).similar_to([noise(1.0)], k=0)


class Voices(Reader):
    """A text encoder for which a text is as loud as it is long."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls = getattr(self, "calls", 0) + 1
        return np.stack([np.roll(np.arange(8, dtype=np.float32), len(text)) / 8 for text in texts])


def test_several_texts_are_located_in_one_call(index: Path) -> None:
    voices = Voices()
    opened = open_with(index, Ear(), voices)
    both = opened.locate(["siren", "bells ring"], k=3, threshold=1e-3)
    assert voices.calls == 1
    assert both == [opened.locate(text, k=3, threshold=1e-3) for text in ("siren", "bells ring")]
    assert both[0] != both[1]
    assert opened.locate([]) == []
    with pytest.raises(UsageError, match="query is empty"):
        opened.locate(["siren", " "])


def copy_made(made: MadeIndex, folder: Path) -> str:
    return str(shutil.copytree(made.path, folder / "index"))


@pytest.fixture(scope="module")
def bad_pools(sounds: MadeIndex, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index in which each pool has the vector of another one."""
    path = copy_made(sounds, tmp_path_factory.mktemp("bad"))
    add_vector_index(path, "pools", spoil=True)
    publish_tuning(path, replace(TUNING, settings=SearchSettings(5)))
    return path


def test_exact_locate_finds_what_a_bad_vector_index_misses(sounds: MadeIndex, bad_pools: str) -> None:
    texts, opened = ["1", "2", "3"], open_with(bad_pools, Ear(), MadeTexts(sounds.vectors))
    exact = opened.locate(texts, 20, threshold=0.1, exact=True)
    for text, events in zip(texts, exact, strict=True):
        [query] = MadeTexts(sounds.vectors).embed([text])
        levels = Levels.from_rules(Rules(0.1), 10.0, -3.45)
        expected = plain_events({uri: dot_products(rows, query) for uri, rows in sounds.frames.items()}, levels)
        assert [(each.uri, each.score) for each in events] == [(uri, each.score) for uri, each in expected[:20]]
    through_the_index = opened.locate(texts, 20, threshold=0.1)
    assert [[event.uri for event in events] for events in through_the_index] != [
        [event.uri for event in events] for events in exact
    ]


def test_several_texts_are_located_through_a_vector_index(sounds: MadeIndex) -> None:
    opened, texts = open_with(sounds.path, Ear(), MadeTexts(sounds.vectors)), [str(number) for number in range(9)]
    together = opened.locate(texts, 20, threshold=0.1)
    assert together == [opened.locate(text, 20, threshold=0.1) for text in texts]
    assert all(len(events) == 20 for events in together)
    where = "lot < 100"
    assert opened.locate(texts[:3], where=where) == [opened.locate(text, where=where) for text in texts[:3]]
    with pytest.raises(UsageError, match="nonsense"):
        opened.locate(texts, where="nonsense = 1")


def test_exact_clips_are_those_of_a_scan_where_the_vector_index_is_bad(made_clips: MadeIndex, tmp_path: Path) -> None:
    """Of 55 partitions, it reads one, and compares no more vectors than it returns."""
    path = copy_made(made_clips, tmp_path)
    settings = SearchSettings(clip_probes=1, clip_refine=1)
    publish_tuning(path, measure_here(path, replace(TUNING, settings=settings, similar=TUNING.query)))
    opened = open_with(path, Ear(), MadeTexts(made_clips.vectors))
    rows = opened.to_arrow("clips", ["clip_id", "vector"])
    clip_ids, vectors = rows["clip_id"].to_pylist(), to_matrix(rows["vector"])
    missed = 0
    for text in map(str, range(10)):
        scores = dot_products(vectors, opened.embed(text))
        best = [clip_ids[row] for row in np.argsort(-scores, kind="stable")[:20]]
        assert {hit.clip_id for hit in opened.search(text, 20, all_windows=True, exact=True)} == set(best)
        missed += 20 - len({hit.clip_id for hit in opened.search(text, 20, all_windows=True)} & set(best))
    assert missed


def test_more_hits_than_the_recall_was_measured_with_come_from_all_partitions(
    made_clips: MadeIndex, tmp_path: Path
) -> None:
    path = copy_made(made_clips, tmp_path)
    settings = SearchSettings(clip_probes=3, clip_refine=4)
    n_found = []
    for k in (200, 20):
        query = replace(TUNING.measured["query"], k=k)
        publish_tuning(path, measure_here(path, replace(TUNING, settings=settings, query=query)))
        opened, found = open_with(path, Ear(), MadeTexts(made_clips.vectors)), 0
        for text in map(str, range(10)):
            exact = opened.search(text, 200, all_windows=True, exact=True)
            found += len(
                {hit.clip_id for hit in opened.search(text, 200, all_windows=True)} & {h.clip_id for h in exact}
            )
        n_found.append(found)
    assert n_found[1] > 1.2 * n_found[0]


@pytest.fixture
def uneven(tmp_path: Path) -> UnevenTable:
    """Its vector index is searched for the best by cosine among 200 clips by dot product, which are too few."""
    table = UnevenTable(tmp_path / "index")
    table.run({f"/{number}.wav": 100 for number in range(30)})
    add_vector_index(table.path)
    publish_tuning(table.path, measure_here(table.path, replace(TUNING, settings=FEW)))
    return table


FEW = SearchSettings(clip_refine=16, similar_candidates=200)


def test_exact_similar_is_by_cosine_where_lengths_vary(uneven: UnevenTable) -> None:
    opened, sound = open_with(uneven.path, Ear()), noise(1.0)
    ids, cosines = uneven.rank(Ear.hear(sound))
    for hits in (opened.similar_to([sound], 20, exact=True), opened.similar(sound, SAMPLE_RATE_HZ, 20, exact=True)):
        assert [hit.clip_id for hit in hits] == ids[:20]
        assert [hit.score for hit in hits] == pytest.approx(cosines[:20], abs=1e-5)
    found = {hit.clip_id for hit in opened.similar_to([sound], 20)}
    assert 0 < len(found & set(ids[:20])) < 20


def test_similar_has_more_candidates_for_more_hits_than_were_measured(uneven: UnevenTable) -> None:
    ids, _ = uneven.rank(Ear.hear(noise(1.0)))
    n_found = []
    for k in (100, 20):
        similar = replace(TUNING.measured["similar"], k=k)
        publish_tuning(uneven.path, measure_here(uneven.path, replace(TUNING, settings=FEW, similar=similar)))
        hits = open_with(uneven.path, Ear()).similar_to([noise(1.0)], 100)
        n_found.append(len({hit.clip_id for hit in hits} & set(ids[:100])))
    assert n_found[1] > 1.2 * n_found[0]


def test_similar_that_was_not_measured_has_more_candidates_for_short_vectors_and_more_hits(tmp_path: Path) -> None:
    table = UnevenTable(tmp_path / "index")
    table.run({f"/{number}.wav": 100 for number in range(60)})
    add_vector_index(table.path)
    ids, _ = table.rank(Ear.hear(noise(1.0)))
    opened = open_with(table.path, Ear())
    for k in (20, 1_000):
        assert {hit.clip_id for hit in opened.similar_to([noise(1.0)], k)} == {*ids[:k]}


def test_exact_answers_are_those_of_a_small_index(index: Path) -> None:
    """It has no vector index, so nothing is missed either way."""
    opened = open_with(index, Ear())
    assert opened.locate("a bell", threshold=1e-3) == opened.locate("a bell", threshold=1e-3, exact=True)
    assert opened.search("a bell", k=50) == opened.search("a bell", k=50, exact=True)


def test_wrong_call_is_refused_before_a_model_is_loaded(index: Path) -> None:
    class Untouched(QueryModels):
        def for_texts(self, identity: Any) -> Any:
            raise AssertionError("loaded")

        for_sounds = for_texts

    opened, where = Index(str(index), models=Untouched(str(index))), "codek = 'flac'"
    said = "No field named codek, did you mean codec"
    with pytest.raises(UsageError, match=said):
        opened.search("a bell", where=where)
    with pytest.raises(UsageError, match=said):
        opened.locate("a bell", where=where)
    with pytest.raises(UsageError, match=said):
        opened.similar(np.zeros(48_000), 48_000, where=where)
    with pytest.raises(UsageError, match="-k: 0"):
        opened.search("a bell", 0)
    with pytest.raises(UsageError, match="-k: 0"):
        opened.locate("a bell", 0)
    with pytest.raises(UsageError, match="-k: 0"):
        opened.similar(np.zeros(48_000), 48_000, 0)
