"""What is damaged or lost is taken out, and the next run makes it again."""

import shutil
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.errors import EarshotError
from pipeline.index import journal
from pipeline.index.repair import give_up_fragments, mark_damaged
from pipeline.index.tables import open_published
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import KnownBucket, check_pools, live
from tests.helpers.damage import first, publish
from tests.helpers.fakes import noise, write_wav
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place


def test_damaged_clips_are_not_copied(config: Config) -> None:
    uri = first(config.into, "files", "uri", "uri LIKE '%/c.wav'")
    table(config.into, "clips").delete(f"uri = '{uri}' AND start_s = 0.0")
    publish(config.into)
    folder = Path(config.into).parent / "in"
    shutil.copytree(Path(uri).parent, folder)
    (folder / "c.wav").rename(folder / "moved.wav")
    moved = config.model_copy(update={"sources": (str(folder),)})
    with pytest.raises(EarshotError, match=r"moved\.wav are damaged; repair them by `earshot verify"):
        index_corpus(moved, stages=in_place(WideEncoder()))
    mark_damaged(config.into, verify_index(config.into))
    index_corpus(moved, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []


def damage(file: Path, how: str) -> None:
    if how == "missing":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.write_bytes(b"\xff" * file.stat().st_size)


@pytest.mark.parametrize("name", journal.DATA_TABLES)
@pytest.mark.parametrize("how", ["missing", "cut", "overwritten"])
def test_lost_data_file_is_found_and_its_rows_are_encoded_again(config: Config, name: str, how: str) -> None:
    before = live(config.into)
    folder = Path(config.into).parent / "more"
    folder.mkdir()
    write_wav(folder / "later.wav", noise(1.1, seed=7))
    both = config.model_copy(update={"sources": (*config.sources, str(folder))})
    index_corpus(both, stages=in_place(WideEncoder()))
    before = live(config.into)
    published = open_published(config.into, name)
    fragment = max(published.get_fragments(), key=lambda each: each.count_rows())
    [data_file] = fragment.data_files()
    damage(Path(journal.table_uri(config.into, name), "data", data_file.path), how)
    findings = verify_index(config.into)
    lost = [finding for finding in findings if finding.fragment is not None]
    assert [(finding.table, finding.fragment) for finding in lost] == [(name, fragment.fragment_id)]
    assert data_file.path in lost[0].what
    assert give_up_fragments(config.into, findings) == 1
    findings = verify_index(config.into)
    assert findings
    assert all(finding.fragment is None for finding in findings)
    mark_damaged(config.into, findings)
    index_corpus(both, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
    assert live(config.into) == before


@pytest.mark.parametrize("name", ["frames", "pools"])
def test_data_file_lost_in_an_object_store_is_found_and_its_rows_are_made_again(
    bucket: str, tmp_path: Path, name: str
) -> None:
    corpus = KnownBucket(f"{bucket}/lost-{name}", tmp_path)
    corpus.put("a.wav", 3)
    corpus.put("b.wav", 5)
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    assert verify_index(corpus.config.into) == []
    data = f"{journal.table_uri(corpus.config.into, name)}/data"
    corpus.store.rm_file(sorted(corpus.store.ls(data, detail=False))[0])
    findings = verify_index(corpus.config.into)
    assert [finding.table for finding in findings if finding.fragment is not None] == [name]
    give_up_fragments(corpus.config.into, findings)
    mark_damaged(corpus.config.into, verify_index(corpus.config.into))
    index_corpus(corpus.config, stages=in_place(WideEncoder()))
    assert verify_index(corpus.config.into) == []
    assert live(corpus.config.into) == corpus.expected()
    check_pools(corpus.config.into)
