"""Tags keep the newest published versions."""

import datetime as dt
from pathlib import Path

import lance
import pytest

from pipeline.index import journal, tags
from pipeline.index.tables import open_published
from pipeline.index.writer import Writer
from tests.helpers.batches import (
    create,
    make_batch,
)


def test_tags_keep_the_newest_versions_through_a_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "KEEP_VERSIONS", 3)
    create(tmp_path)
    writer = Writer(tmp_path, "run")
    history = [writer.commit([make_batch(tmp_path, f"{k:032x}", {f"{k}": (f"c{k}", 9)})]) for k in range(5)]
    states = [open_published(tmp_path, "files", published).count_rows() for published in history]
    assert states == [1, 2, 3, 4, 5]
    for name in journal.DATA_TABLES:
        dataset = lance.dataset(journal.table_uri(tmp_path, name))
        found = {tag: value["version"] for tag, value in dataset.tags.list().items()}
        assert found == {f"published-{p.seq:012d}": p.versions[name] for p in history[-3:]}
        dataset.cleanup_old_versions(older_than=dt.timedelta(0), error_if_tagged_old_versions=False)
    for published, count in list(zip(history, states, strict=True))[-3:]:
        assert open_published(tmp_path, "files", published).count_rows() == count
        assert open_published(tmp_path, "frames", published).count_rows() == 9 * count
    with pytest.raises(ValueError, match="not found"):
        open_published(tmp_path, "files", history[0]).count_rows()
