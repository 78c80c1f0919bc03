"""``earshot verify``, and its repairs."""

import pytest

from pipeline.index import journal
from pipeline.index.repair import give_up_fragments
from pipeline.index.verify import verify_index
from tests.helpers.commands import Call, lines, versions
from tests.helpers.contents import KnownCorpus, check_pools, content, live, read
from tests.helpers.damage import largest_file, publish
from tests.helpers.indexes import table


def test_verify_lists_a_missing_clip_and_repairs_it(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    assert call("verify", into)[:2] == (0, f"{into}: all is well\n")
    table(into, "clips").delete(f"uri = '{corpus.uri('moved.wav')}'")
    publish(into)
    code, out, _ = call("verify", into)
    assert code == 1
    assert "moved.wav" in out
    code, out, _ = call("verify", into, "--json")
    finding, summary = lines(out)
    assert summary == {"findings": 1, "without_checksum": 0}
    assert (code, finding["table"], finding["uri"]) == (1, "clips", corpus.uri("moved.wav"))
    assert call("verify", into, "--repair")[0] == 0
    assert call("verify", into)[0] == 0
    assert live(into) == corpus.expected()


@pytest.mark.parametrize("name", journal.DATA_TABLES)
def test_verify_names_a_lost_data_file_and_repairs_it(corpus: KnownCorpus, call: Call, name: str) -> None:
    into = corpus.config.into
    call("reindex", into)
    file = largest_file(into, name)
    file.unlink()
    code, _, err = call("reindex", into)
    assert (code, err.count("\n")) == (1, 1)
    assert f"`{name}`: data file {file.name} is missing; `earshot verify {into} --repair`" in err
    code, out, _ = call("verify", into, "--json")
    assert code == 1
    assert [found["table"] for found in lines(out)[:-1] if found["fragment"] is not None] == [name]
    assert call("verify", into, "--repair")[0] == 0
    assert call("verify", into)[:2] == (0, f"{into}: all is well\n")
    assert live(into) == corpus.expected()


def test_lost_pools_are_made_of_the_frames_while_the_sources_are_missing(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    largest_file(into, "pools").unlink()
    corpus.folder.rename(corpus.root / "elsewhere")
    assert call("verify", into, "--repair")[0] == 0
    assert call("verify", into)[:2] == (0, f"{into}: all is well\n")
    check_pools(into)


@pytest.mark.parametrize("lost", ["the rows of clips", "files", "frames"])
def test_repair_removes_nothing_while_a_disk_is_missing(corpus: KnownCorpus, call: Call, lost: str) -> None:
    into, more = corpus.config.into, KnownCorpus(corpus.root / "more")
    more.put("a.wav", 5)
    call("index", more.folder, "--into", into)
    more.delete("a.wav")
    if lost in journal.DATA_TABLES:
        largest_file(into, lost).unlink()
    else:
        table(into, "clips").delete("true")
        publish(into)
    before = versions(into)
    code, _, err = call("verify", into, "--repair")
    assert code == 2
    assert f"{more.folder}: holds no audio now" in err
    assert versions(into) == before
    assert call("verify", into, "--repair", "--allow-deletions")[0] == 0
    assert live(into) == corpus.expected()


def read_frames(into: str) -> list[str]:
    return sorted(map(str, read(into, "frames", ["audio_id", "frame", "vector"])))


def test_ledger_with_lost_rows_is_not_repaired_while_a_disk_is_missing(corpus: KnownCorpus, call: Call) -> None:
    """The files are known from their clips. A second try, after the lost fragment was given up, is refused, too."""
    into = str(corpus.root / "disks-index")
    for number in (1, 2):
        folder = corpus.root / f"disk{number}" / "sounds"
        folder.mkdir(parents=True)
        (folder / "a.wav").write_bytes(content(number + 2).read_bytes())
    assert call("index", corpus.root / "disk*" / "sounds", "--into", into)[0] == 0
    (corpus.root / "disk2" / "sounds" / "a.wav").unlink()
    largest_file(into, "files").unlink()
    before = read_frames(into)
    said = f"{corpus.root}/disk2/sounds: holds no audio now, and the index has 1 file of it"
    for is_given_up in (False, True):
        if is_given_up:
            give_up_fragments(into, verify_index(into))
        code, _, err = call("verify", into, "--repair")
        assert (code, err.count("\n")) == (2, 1)
        assert said in err
        assert read_frames(into) == before
    (corpus.root / "disk2" / "sounds" / "a.wav").write_bytes(content(4).read_bytes())
    assert call("verify", into, "--repair")[0] == 0
    assert call("info", into, "--json")[0] == 0
    assert read_frames(into) == before


def test_verify_counts_compared_files(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    indexed = call("info", into, "--json")
    n_indexed = lines(indexed[1])[0]["indexed"]
    assert call("verify", into, "--deep", "--sample", "2")[1].splitlines()[-1] == f"2 of {n_indexed} files compared"
    *_, summary = lines(call("verify", into, "--deep", "--sample", "all", "--json")[1])
    assert (summary["compared"], summary["indexed"]) == (n_indexed, n_indexed)
    for sample in ("0", "-1", "some", "1.5"):
        code, _, err = call("verify", into, "--deep", "--sample", sample)
        assert (code, err) == (2, f"earshot: --sample {sample}: expected a number of files from 1 on, or all\n")
    assert call("verify", into, "--sample", "all")[::2] == (2, "earshot: --sample: give --deep too\n")


def test_files_that_a_correction_may_change_are_no_findings(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("reindex", into)
    table(into, "files").update({"decoder": "2", "codec": "'ima_adpcm'"}, "status = 'indexed'")
    table(into, "clips").update({"codec": "'ima_adpcm'"})
    publish(into)
    call("optimize", into)
    n = table(into, "files").count_rows("status = 'indexed'")
    code, out, _ = call("verify", into, "--deep", "--sample", "all")
    said = "not compared, which may decode differently since a correction"
    advice = f"{n} files {said}: `earshot reindex {into}` brings them up to date"
    assert (code, out.splitlines()) == (0, [f"{into}: all is well", f"0 of {n} files compared", advice])
    assert lines(call("verify", into, "--deep", "--json")[1])[0]["corrected"] == n
