"""``earshot info``."""

import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import pipeline
from pipeline.index import journal
from pipeline.index.search_settings import SearchSettings
from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.older import create_older
from tests.helpers.runs import DIMENSION
from tests.helpers.tuning import TUNING, add_vector_index, drop_vector_index, measure_here, publish_tuning


def test_info_counts_the_published_files(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    [before] = lines(call("info", into, "--json")[1])
    assert (before["files"], before["indexed"], before["failed"], before["deleted"]) == (4, 4, 0, 0)
    rows = live(into)
    n_rows = len(rows["clips"]), len(rows["frames"])
    assert (before["clips"], before["frames"], before["dimension"]) == (*n_rows, DIMENSION)
    assert before["hours"] == pytest.approx(len(rows["frames"]) * 0.04 / 3600, rel=0.05)
    call("reindex", into)
    [after] = lines(call("info", into, "--json")[1])
    assert (after["indexed"], after["failed"], after["deleted"]) == (5, 1, 2)
    code, out, _ = call("info", into)
    assert code == 0
    assert "earshot-tiny" in out


def test_info_shows_where_an_index_comes_from_and_how_large_it_is(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    [values] = lines(call("info", into, "--json")[1])
    assert values["sources"] == [str(corpus.folder)]
    assert values["codecs"] == {"pcm_f32": 4}
    assert values["bytes"] == sum(file.stat().st_size for file in Path(into).rglob("*") if file.is_file())
    assert values["format"] == journal.FORMAT
    history = lines(call("history", into, "--json")[1])
    assert values["updated_at"] == history[-1]["committed_at"]
    assert values["written_by"] == pipeline.__version__
    out = call("info", into)[1]
    for name, value in (
        ("sources", corpus.folder),
        ("written by", f"Earshot {re.escape(pipeline.__version__)}"),
        ("on disk", "[0-9.]+ kB"),
        ("audio", "[0-9]+ s"),
        ("codecs", "pcm_f32 4"),
    ):
        assert re.search(rf"{name} +{value}", out), name


def test_sources_of_info_have_a_line_each(corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir("/")
    deep = corpus.root / "/".join(["a long name of a folder"] * 6)
    names = ["the first archive", "second"]
    for name in names:
        (deep / name).mkdir(parents=True)
        shutil.copytree(corpus.folder, deep / name, dirs_exist_ok=True)
    call("index", *(str(deep / name) for name in names), "--into", corpus.config.into)
    out = call("info", corpus.config.into)[1].splitlines()
    [at] = [number for number, line in enumerate(out) if line.strip().startswith("sources ")]
    folder, *sources = (line.removeprefix(" sources").strip() for line in out[at : at + 4])
    assert folder.startswith("in /")
    assert folder.endswith(f"/{corpus.root.name}")
    assert sources[0] == "in"
    ends = [source.rpartition("/")[2] for source in sources[1:]]
    assert ends == names
    assert all("…" in source for source in sources[1:])
    assert all(len(line) <= 80 for line in out[at : at + 4])
    [values] = lines(call("info", corpus.config.into, "--json")[1])
    assert values["sources"] == [str(corpus.folder), *(str(deep / name) for name in names)]


def test_only_the_first_of_very_many_sources_are_shown(
    corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [corpus.folder / f"{number}.wav" for number in range(30)]
    for source in sources:
        shutil.copyfile(corpus.source(0), source)
    call("index", *sources, "--into", corpus.config.into)
    out = call("info", corpus.config.into)[1].splitlines()
    assert sum(line.rstrip().endswith(".wav") for line in out) == 19
    assert any(line.strip() == "and 11 others" for line in out)


def test_info_shows_how_files_are_cut(corpus: KnownCorpus, call: Call) -> None:
    older = create_older(corpus.config.model_copy(update={"into": f"{corpus.config.into}-older"}))
    for into, tail in ((corpus.config.into, "fit"), (older.into, "back")):
        [values] = lines(call("info", into, "--json")[1])
        assert values["window"] == {"length_s": 0.8, "overlap_s": 0.2, "tail": tail}
        assert f"0.8 s, overlap 0.2 s, tail: {tail}" in call("info", into)[1]


def test_info_shows_the_measured_recall(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    assert lines(call("info", into, "--json")[1])[0]["recall"] is None
    assert "recall" not in call("info", into)[1]
    add_vector_index(into)
    [values] = lines(call("info", into, "--json")[1])
    assert values["recall"] == {"measured_at": None, "settings": asdict(SearchSettings())}
    assert "never measured" in call("info", into)[1]
    publish_tuning(into, measure_here(into, replace(TUNING, query=TUNING.locate)))
    [values] = lines(call("info", into, "--json")[1])
    assert values["recall"]["query"] == asdict(TUNING.measured["locate"])
    assert "locate" not in values["recall"]  # pools have no vector index: `locate` is exact
    assert values["recall"]["settings"] == asdict(TUNING.settings)
    assert values["recall"]["of_former_index"] == []
    assert "99.3% (98.5% to 99.7%)" in call("info", into)[1]


def test_recall_of_an_index_that_is_no_more_is_said_to_be_so(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    add_vector_index(into, "clips", "pools")
    publish_tuning(into, measure_here(into, replace(TUNING, query=TUNING.locate)))
    add_vector_index(into, "clips", n_partitions=2)
    [values] = lines(call("info", into, "--json")[1])
    assert values["recall"]["of_former_index"] == ["query", "similar"]
    assert "of a former vector index" in call("info", into)[1]
    drop_vector_index(into, "clips")
    [values] = lines(call("info", into, "--json")[1])
    assert "query" not in values["recall"]
    assert values["recall"]["of_former_index"] == []
    assert "former" not in call("info", into)[1]
    drop_vector_index(into, "pools")
    [values] = lines(call("info", into, "--json")[1])
    assert values["recall"] is None
