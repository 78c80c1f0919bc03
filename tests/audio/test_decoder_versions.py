"""After a correction of decoding, the next run decodes the files that it concerns again, and no others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import schema
from pipeline.audio.decoder_versions import DECODER, MENDS, Mend, find_mend
from pipeline.corpus.discover import list_corpus
from pipeline.index.tables import read_files
from pipeline.planning.ledger import Ledger
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from tests.helpers.contents import KnownCorpus
from tests.helpers.plans import plan_files
from tests.helpers.runs import WideEncoder, in_place


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


def test_a_changed_file_is_called_changed(corpus: KnownCorpus) -> None:
    corpus.put("b.wav", 5)
    actions, _ = plan(corpus)
    assert actions["b.wav"] == ("changed", "another size")
    assert actions["copy.wav"] == ("mended", "is louder")
