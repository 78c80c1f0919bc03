"""A disk that is not there costs no rows; a session that a person deletes does."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import Config, make_config
from pipeline.errors import CorpusError
from pipeline.index import journal
from pipeline.index.handle import find_index
from pipeline.index.repair import restore_index
from pipeline.planning.guard import Disks, Guard, count_by_folder, find_folders, read_mounts
from pipeline.planning.request import RunRequest
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from pipeline.run.progress import find_shortfall
from tests.helpers.contents import KnownBucket, check_whole, live, read
from tests.helpers.fakes import noise, write_wav
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.shards import sounds, write_shard


def never(folder: str) -> bool:
    return False


def guard(
    there: Iterable[str],
    sources: list[str],
    request: RunRequest = RunRequest(),
    known: Iterable[str] = (),
    mounted: Iterable[str] = (),
    vanished: Iterable[str] = (),
    empty: Iterable[str] = (),
) -> Guard:
    reasons = {None: there, "vanished": vanished, "not_audio": empty}
    rows = [{"uri": uri, "reason": reason} for reason, uris in reasons.items() for uri in uris]
    common = {"size_bytes": 1, "modified_ns": 1, "hides_files": False}
    listed = pa.Table.from_pylist([row | common for row in rows], schema=schema.LISTED)
    config = make_config({"sources": sources, "into": "/ix"})
    return Guard(listed, config, request, Disks(frozenset(known), set(mounted).__contains__))


# --- what has become empty --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "removed", "named"),
    [
        (["/a", "/b"], "/b/x/1.wav", "/b"),
        (["/a", "/b"], "/a/x/1.wav", None),
        (["/mnt/disk*/sounds", "/a"], "/mnt/disk2/sounds/x/1.wav", "/mnt/disk2/sounds"),
        (["/mnt/disk*/sounds", "/a"], "/mnt/disk1/sounds/y/1.wav", None),
        (["/mnt/disk[0-9]", "/a"], "/mnt/disk2/1.wav", "/mnt/disk2"),
        (["/mnt/**/sounds", "/a"], "/mnt/far/away/sounds/1.wav", "/mnt/far/away/sounds"),
        (["/mnt/**/sounds", "/a"], "/mnt/disk1/sounds/y/1.wav", None),
        (["/mnt/**", "/a"], "/mnt/disk2/1.wav", None),
        (["/mnt/**/*", "/a"], "/mnt/disk2/1.wav", None),
        (["/mnt/*/*.wav", "/a"], "/mnt/disk2/1.wav", None),
        (["s3://b/disk*/sounds", "/a"], "s3://b/disk2/sounds/1.wav", "s3://b/disk2/sounds"),
        (["s3://b/disk*/sounds", "/a"], "s3://b/disk1/sounds/y/1.wav", None),
        (["s3://b/in", "/a"], "s3://b/in/1.wav", "s3://b/in"),
    ],
)
def test_an_emptied_source_or_match_of_a_pattern_is_refused(
    sources: list[str], removed: str, named: str | None
) -> None:
    there = ["/a/1.wav", "/mnt/disk1/sounds/x/1.wav", "s3://b/disk1/sounds/x/1.wav"]
    refused = guard(there, sources).find_refusal([removed], 1_000)
    assert (refused is None) == (named is None)
    if refused is not None:
        assert refused.startswith(f"{named}: holds no audio now, and the index has 1 file of it: is a disk missing?")
        assert "--allow-deletions" in refused
        assert "\n" not in refused
    assert guard(there, sources, RunRequest(allow_deletions=True)).find_refusal([removed], 1_000) is None


def test_an_emptied_folder_that_was_a_mount_point_is_refused_and_another_is_not() -> None:
    there, removed = ["/mnt/a/1.wav"], [f"/mnt/disk/x/{k}.wav" for k in range(3)]
    assert guard(there, ["/mnt"]).find_refusal(removed, 9) is None
    refused = guard(there, ["/mnt"], known=["/mnt/disk", "/other"]).find_refusal(removed, 9)
    assert (refused or "").startswith("/mnt/disk: holds no audio now, and the index has 3 files of it")
    assert guard(there, ["/mnt"], known=["/mnt/disk"]).find_refusal(["/mnt/x/1.wav"], 9) is None


def test_files_written_into_the_folder_of_a_missing_disk_do_not_hide_that() -> None:
    there, removed = ["/mnt/a/1.wav", "/mnt/disk/new.wav"], [f"/mnt/disk/{k}.wav" for k in range(3)]
    known = ["/mnt/disk"]
    refused = guard(there, ["/mnt"], known=known).find_refusal(removed, 9)
    assert (refused or "").startswith(
        "/mnt/disk: was a mount point when it was indexed and is none now, and 3 of its files are"
    )
    assert guard(there, ["/mnt"], known=known, mounted=known).find_refusal(removed, 9) is None
    assert guard(there, ["/mnt"], known=known).find_refusal(removed[:1], 9) is None


def test_vanished_files_do_not_count_as_there() -> None:
    """Links into a disk, and the files of a manifest, are listed all the same."""
    removed = ["/mnt/disk/1.wav", "/mnt/disk/2.wav"]
    refused = guard(["/a/1.wav"], ["/list.csv"], known=["/mnt/disk"], vanished=removed).find_refusal(removed, 9)
    assert (refused or "").startswith("/mnt/disk: holds no audio now")
    assert guard(["/a/1.wav"], ["/mnt/disk"], vanished=removed).find_refusal(removed, 9) is not None


@pytest.mark.parametrize("source", ["/s/a.tar", "/s/*.tar", "/s"])
@pytest.mark.parametrize("shard", ["/s/a.tar", "/s/a.parquet", "/s/a.ARROW"])
def test_a_shard_that_is_there_and_has_become_empty_is_refused(source: str, shard: str) -> None:
    source, removed = source.replace("/s/a.tar", shard), [f"{shard}#d/1.wav", f"{shard}#2.wav#t=1,2"]
    others = ["/a/1.wav", "/s/b.tar#1.wav"]
    refused = guard(others, ["/a", source], empty=[shard]).find_refusal(removed, 9)
    assert (refused or "").startswith(f"{shard}: holds no audio now, and the index has 2 files of it: ")
    assert guard([*others, f"{shard}#3.wav"], ["/a", source]).find_refusal(removed, 9) is None
    is_source = source == shard
    assert (guard(others, ["/a", source]).find_refusal(removed, 9) is not None) == is_source  # such a file was deleted


def test_emptied_folders_are_named_outermost_and_fullest_first() -> None:
    removed = ["/m/1/x/a.wav", "/m/2/a.wav", "/m/2/b.wav", "/n/d/a.wav"]
    refused = guard(["/a/1.wav"], ["/a", "/m/*", "/n"], known=["/n/d"]).find_refusal(removed, 9)
    assert (refused or "").startswith(
        "/m/2: holds no audio now, and the index has 2 files of it (likewise /m/1: 1, /n: 1): "
    )
    many = guard(["/a/1.wav"], ["/a", "/m/*"]).find_refusal([f"/m/{k}/a.wav" for k in range(9)], 9)
    assert "(likewise /m/1: 1, /m/2: 1, /m/3: 1, /m/4: 1 and 4 more): " in (many or "")


# --- how many may be removed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_lost", "n_indexed", "is_refused"), [(20, 20, False), (21, 100, True), (21, 105, False), (22, 105, True)]
)
def test_removing_more_than_a_fifth_is_refused(n_lost: int, n_indexed: int, is_refused: bool) -> None:
    removed = [f"/a/x/{k % 2}/{k}.wav" for k in range(n_lost)]
    refused = guard(["/a/1.wav"], ["/a"]).find_refusal(removed, n_indexed)
    assert (refused is not None) == is_refused
    if refused is not None:
        said = f"{n_lost} of {n_indexed} indexed files would be removed (11 in /a/x/0, {n_lost - 11} in /a/x/1)"
        assert refused.startswith(f"{said}, more than run.max_deleted_fraction (0.2) allows")
    assert guard(["/a/1.wav"], ["/a"], RunRequest(allow_deletions=True)).find_refusal(removed, n_indexed) is None


def test_files_of_a_forgotten_source_are_removed_and_others_guarded() -> None:
    removed, request = [f"/gone/{k}.wav" for k in range(50)], RunRequest(forgotten=("/gone",))
    assert guard(["/a/1.wav"], ["/a"]).find_refusal(removed, 60) is not None
    forgetful = guard(["/a/1.wav"], ["/a", "/b", "/m/*"], request, known=["/gone"])
    assert forgetful.find_refusal(removed, 60) is None
    for other in ("/b/1.wav", "/m/1/1.wav"):
        refused = forgetful.find_refusal([*removed, other], 60)
        assert "the index has 1 file of it" in (refused or "")
    named = guard(["/a/1.wav"], ["/a.csv"], request, vanished=removed).find_refusal(removed, 60)
    assert named is not None


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("/m/*/*.wav", "/m/d2/{}.wav"),
        ("/m/**/*.wav", "/m/d2/x/{}.wav"),
        ("/s/*.tar", "/s/a.tar#x/{}.wav"),
        ("/s/*.tar", "/s/{}.tar#x.wav"),
        ("/s/a.tar", "/s/a.tar#{}.wav"),
        ("/s/a.parquet", "/s/a.parquet#{}"),
        ("/one/*.wav", "/one/{}.wav#t=1,2"),
        ("s3://b/*/x.wav", "s3://b/{}/x.wav"),
    ],
)
def test_forgetting_a_source_leaves_the_others_guarded(source: str, files: str) -> None:
    old, removed = ([pattern.format(k) for k in range(30)] for pattern in ("/old/{}.wav", files))
    for forgotten in ("/old", "/old/*.wav", "/**/old"):
        forgetful = guard(["/a/1.wav"], ["/a", source], RunRequest(forgotten=(forgotten,)))
        assert forgetful.find_refusal(old, 60) is None
        refused = forgetful.find_refusal([*old, *removed], 60)
        assert re.search("30 of 60 indexed files|the index has 30 files of it", refused or "")
    of_none = [f"/else/{k}.wav" for k in range(30)]
    assert forgetful.find_refusal([*old, *of_none], 60) is not None
    both = RunRequest(forgotten=("/old", source))
    assert guard(["/a/1.wav"], ["/a"], both).find_refusal([*old, *removed], 60) is None
    assert guard(["/a/1.wav"], ["/a", source], both).find_refusal([*old, *removed], 60) is not None


def test_files_of_a_forgotten_manifest_are_removed(tmp_path: Path) -> None:
    table = tmp_path / "old.csv"
    table.write_text("uri,start_s,end_s\n" + "".join(f"/far/{k}.wav,1,2\n" for k in range(50)))
    removed = [f"/far/{k}.wav#t=1,2" for k in range(50)]
    for source in (str(table), str(tmp_path / "*.csv")):
        forgetful = guard(["/a/1.wav"], ["/a", "/other.csv"], RunRequest(forgotten=(source,)))
        assert forgetful.find_refusal(removed, 60) is None
        assert forgetful.find_refusal([*removed, *(f"/near/{k}.wav" for k in range(21))], 60) is not None
    table.unlink()
    assert guard(["/a/1.wav"], ["/a"], RunRequest(forgotten=(str(table),))).find_refusal(removed, 60) is not None


def test_files_missing_after_a_source_was_moved_are_guarded_at_the_new_place() -> None:
    removed, request = ["/old/1.wav", "/old/2.wav"], RunRequest(moved=("/old", "/new"))
    refused = guard(["/a/1.wav"], ["/a", "/new"], request, known=["/old"]).find_refusal(removed, 9)
    assert (refused or "").startswith("/new: holds no audio now, and the index has 2 files of it")
    assert guard(["/a/1.wav", "/new/3.wav"], ["/a", "/new"], request, known=["/old"]).find_refusal(removed, 9) is None
    indexed = pa.chunked_array([["/old/1.wav", "/old/3.wav", "/a/1.wav"]])
    assert guard(["/a/1.wav", "/new/3.wav"], ["/new"], request).select_missing(indexed) == ["/new/1.wav"]


@pytest.mark.parametrize(
    ("uris", "said"),
    [
        (["/a/1.wav"], "1 in /a"),
        (["/1.wav"], "1 in /"),
        (["/a/b/c/1.wav", "/a/b/d/2.wav", "/a/b/d/3.wav"], "2 in /a/b/d, 1 in /a/b/c"),
        ([f"/a/{k}/x.wav" for k in range(1_200)], "1,200 in /a"),
        ([*(f"/a/{k}/x.wav" for k in range(9)), "/b/x.wav"], "9 in /a, 1 in /b"),
        (["s3://b/x/1.wav", "s3://c/1.wav", "/a/t.tar#1.wav"], "1 in s3://b/x, 1 in s3://c, 1 in /a"),
    ],
)
def test_files_are_counted_by_the_few_folders_that_hold_them(uris: list[str], said: str) -> None:
    assert count_by_folder(uris) == said


# --- mount points -----------------------------------------------------------------------------------------------------


def test_mount_points_of_files_that_cannot_be_seen_stay_known() -> None:
    there = ["/m/1/x/a.wav", "/m/a.wav", "s3://b/a.wav"]
    disks = guard(there, ["/m"], known=["/m/2", "/m/3", "/m/1/x"], mounted=["/m/1", "/m/7", "s3://b"])
    assert disks.find_mounts(pa.chunked_array([["/m/2/b.wav", "/m/1/x/b.wav"]])) == ["/m/1", "/m/2"]


def test_folders_are_found_at_any_depth() -> None:
    uris = pa.chunked_array([["/a/b/c/1.wav", "/a/b/2.wav"], ["s3://b/x/1.wav", "/1.wav", "/a/t.tar#d/1.wav"]])
    found = find_folders(uris)
    assert {folder for folder in found if folder.startswith("/")} == {
        *("/a", "/a/b", "/a/b/c", "/a/t.tar#d", "/a/t.tar")
    }
    assert found >= {"s3://b", "s3://b/x"}


def test_mount_points_are_read_from_the_system(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    odd = tmp_path / "a disk\\of mine"
    odd.mkdir()
    written = str(odd).replace("\\", "\\134").replace(" ", "\\040")
    table.write_text(f"36 35 98:0 /sub {written} rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
    for is_mount in (read_mounts(str(table)), read_mounts()):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("/proc")
        assert not is_mount(str(tmp_path / "none"))
        assert is_mount(str(tmp_path / "link"))  # a folder on another disk, by a link
        assert is_mount("/proc")
    assert read_mounts(str(table))(str(odd))
    assert not read_mounts()(str(odd))
    assert not read_mounts(str(tmp_path / "none"))(str(odd))


# --- whole runs -------------------------------------------------------------------------------------------------------


class Shelf:
    """An index of a folder with disks in it, each with short files, and which of them are mounted."""

    def __init__(self, root: Path, n_files: int, source: str = "") -> None:
        self.folder, self.mounted = root / "mnt", set[str]()
        for disk in (1, 2):
            (self.folder / f"disk{disk}" / "session").mkdir(parents=True)
            self.mounted.add(str(self.folder / f"disk{disk}"))
            for k in range(n_files):
                write_wav(self.folder / f"disk{disk}" / "session" / f"{k}.wav", noise(0.05, seed=1_000 * disk + k))
        values = {"sources": [str(self.folder / source)], "into": str(root / "index")}
        self.config: Config = make_config(values)
        self.run()

    def run(self, request: RunRequest = RunRequest(), **others: Any) -> int:
        """Returns how many windows were encoded."""
        encoder = WideEncoder()
        index_corpus(
            self.config, stages=in_place(encoder), request=request, is_mount=self.mounted.__contains__, **others
        )
        check_whole(self.config.into)
        return encoder.n_windows

    def unmount(self, disk: int, *, is_removed: bool = False) -> Path:
        place, away = self.folder / f"disk{disk}", self.folder.parent / f"away{disk}"
        place.rename(away)
        self.mounted.discard(str(place))
        if not is_removed:
            place.mkdir()
        return away

    def indexed(self) -> set[str]:
        return {row["uri"] for row in read(self.config.into, "files") if row["status"] == "indexed"}


@pytest.mark.parametrize("source", ["", "disk*", "disk*/session"])
@pytest.mark.parametrize("is_removed", [False, True])
def test_a_disk_that_is_not_mounted_loses_no_rows(tmp_path: Path, source: str, is_removed: bool) -> None:
    shelf = Shelf(tmp_path, 3, source)
    assert find_index(shelf.config.into).live.mounts == sorted(shelf.mounted)
    before, seq = live(shelf.config.into), journal.read_published(shelf.config.into).seq
    away = shelf.unmount(2, is_removed=is_removed)
    for rebuild in (False, True):
        planned = plan_corpus(shelf.config, rebuild=rebuild, is_mount=shelf.mounted.__contains__)
        assert planned.refused is not None
        with pytest.raises(
            CorpusError, match=rf"{shelf.folder}/disk2(/session)?: holds no audio now.* 3 files"
        ) as said:
            shelf.run(rebuild=rebuild)
        assert planned.refused == str(said.value)
    assert len(plan_corpus(shelf.config).deleted) == 3
    assert live(shelf.config.into) == before
    assert journal.read_published(shelf.config.into).seq == seq
    place = shelf.folder / "disk2"
    if not is_removed:
        place.rmdir()
    away.rename(place)
    shelf.mounted.add(str(place))
    assert shelf.run() == 0
    assert live(shelf.config.into) == before
    shelf.unmount(2, is_removed=is_removed)
    allow = RunRequest(allow_deletions=True)
    assert plan_corpus(shelf.config, allow).refused is None
    shelf.run(allow)
    assert len(shelf.indexed()) == 3
    assert find_index(shelf.config.into).live.mounts == sorted(shelf.mounted)


@pytest.mark.parametrize("source", ["a.tar", "*.tar"])
def test_a_shard_rewritten_without_audio_loses_no_rows(tmp_path: Path, source: str) -> None:
    (tmp_path / "b").mkdir()
    write_wav(tmp_path / "b" / "x.wav", noise(0.05, seed=99))
    write_shard(tmp_path / "a.tar", sounds(1, 2))
    sources = [str(tmp_path / source), str(tmp_path / "b")]
    config = make_config({"sources": sources, "into": str(tmp_path / "index")})
    index_corpus(config, stages=in_place(WideEncoder()), is_mount=never)
    before = live(config.into)
    write_shard(tmp_path / "a.tar", [])
    for rebuild in (False, True):
        with pytest.raises(CorpusError, match=rf"{tmp_path}/a.tar: holds no audio now, and the index has 2 files of"):
            index_corpus(config, stages=in_place(WideEncoder()), is_mount=never, rebuild=rebuild)
    assert live(config.into) == before


def test_a_folder_deleted_by_hand_is_removed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 2)
    (shelf.folder / "disk1" / "other").mkdir()
    write_wav(shelf.folder / "disk1" / "other" / "x.wav", noise(0.05, seed=7))
    shelf.run()
    for file in (shelf.folder / "disk1" / "session").iterdir():
        file.unlink()
    (shelf.folder / "disk1" / "session").rmdir()
    shelf.run()
    assert {Path(uri).parent.name for uri in shelf.indexed()} == {"session", "other"}
    assert len(shelf.indexed()) == 3


@pytest.mark.parametrize("back", [1, 2])
def test_a_restored_index_knows_its_disks_again(tmp_path: Path, back: int) -> None:
    """Whether the last row before the deletion is restored, which has the mount points of that run, or one before."""
    shelf = Shelf(tmp_path, 2)
    known, before = sorted(shelf.mounted), live(shelf.config.into)
    shelf.unmount(2)
    shelf.run(RunRequest(allow_deletions=True))
    assert len(shelf.indexed()) == 2
    kinds = journal.read_journal(shelf.config.into)["kind"].to_pylist()
    assert kinds[-3:-1] == ["configure", "index"]
    restore_index(shelf.config.into, len(kinds) - 2 - back)
    assert find_index(shelf.config.into).live.mounts == known
    for _ in range(2):
        with pytest.raises(CorpusError, match=f"{shelf.folder}/disk2: holds no audio now"):
            shelf.run()
    assert live(shelf.config.into) == before
    shelf.run(RunRequest(allow_deletions=True))
    assert find_index(shelf.config.into).live.mounts == sorted(shelf.mounted)


@pytest.mark.parametrize("place", ["", "session"])
@pytest.mark.parametrize("is_removed", [False, True])
def test_links_into_a_disk_that_is_not_mounted_keep_their_rows(tmp_path: Path, place: str, is_removed: bool) -> None:
    disk, folder, away = tmp_path / "disk", tmp_path / "in", tmp_path / "away"
    (disk / place).mkdir(parents=True)
    folder.mkdir()
    for k in range(20):
        write_wav(disk / place / f"{k}.wav", noise(0.05, seed=k))
        (folder / f"{k}.wav").symlink_to(disk / place / f"{k}.wav")
    write_wav(folder / "real.wav", noise(0.05, seed=99))
    config = make_config({"sources": [str(folder)], "into": str(tmp_path / "index")})
    index_corpus(config, stages=in_place(WideEncoder()), is_mount=never)
    before = live(config.into)
    disk.rename(away)
    if not is_removed:
        disk.mkdir()
    for request in (RunRequest(), RunRequest(full=True), RunRequest(allow_deletions=True)):
        progress = index_corpus(config, stages=in_place(WideEncoder()), request=request, is_mount=never)
        [note] = progress.notes
        assert "20 files of the index cannot be read now, their rows stay; the first one is" in note
        assert f"link to nothing: {disk / place} is missing or empty; is a disk away?" in note
        assert {name: len(rows) for name, rows in live(config.into).items()} == {
            name: len(rows) for name, rows in before.items()
        }
    if not is_removed:
        disk.rmdir()
    away.rename(disk)
    (disk / place / "7.wav").unlink()  # its disk is there, so it is deleted
    progress = index_corpus(config, stages=in_place(WideEncoder()), is_mount=never)
    assert (progress.n_unchanged, progress.n_failed, progress.notes) == (20, 1, ())


@pytest.mark.parametrize("full", [False, True])
def test_moved_files_are_not_removed_however_many(tmp_path: Path, full: bool) -> None:
    shelf = Shelf(tmp_path, 25)
    os.rename(shelf.folder / "disk1" / "session", shelf.folder / "disk1" / "renamed")
    assert (shelf.run(RunRequest(full=full)) == 0) != full
    assert len(shelf.indexed()) == 50
    assert sum("/renamed/" in uri for uri in shelf.indexed()) == 25


def test_many_deletions_are_refused_unless_allowed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 30)
    for k in range(25):
        (shelf.folder / "disk1" / "session" / f"{k}.wav").unlink()
    planned = plan_corpus(shelf.config, is_mount=shelf.mounted.__contains__)
    assert planned.refused is not None
    assert planned.refused.startswith(f"25 of 60 indexed files would be removed (25 in {shelf.folder}/disk1/session)")
    for rebuild in (False, True):
        with pytest.raises(CorpusError, match="25 of 60 indexed files would be removed"):
            shelf.run(rebuild=rebuild)
    assert len(shelf.indexed()) == 60
    lenient = shelf.config.run.model_copy(update={"max_deleted_fraction": 0.5})
    lenient_config = shelf.config.model_copy(update={"run": lenient})
    assert plan_corpus(lenient_config, is_mount=shelf.mounted.__contains__).refused is None
    shelf.run(RunRequest(allow_deletions=True))
    assert len(shelf.indexed()) == 35


@pytest.mark.parametrize(("n_unreadable", "is_much"), [(25, True), (20, False)])
def test_a_rebuild_does_not_drop_many_unreadable_files(tmp_path: Path, n_unreadable: int, is_much: bool) -> None:
    shelf = Shelf(tmp_path, 15)
    before = live(shelf.config.into)
    unreadable = sorted(map(Path, shelf.indexed()))[:n_unreadable]
    for file in unreadable:
        file.rename(file.with_suffix(".away"))
        os.mkfifo(file)
    shelf.run()
    assert live(shelf.config.into) == before
    planned = plan_corpus(shelf.config, rebuild=True, is_mount=shelf.mounted.__contains__)
    assert (planned.refused is not None) == is_much
    if planned.refused is not None:
        said = f"25 files of the index cannot be read now, the first one is {unreadable[0]}: is no regular file;"
        assert planned.refused.startswith(f"{said} 25 of 30 indexed files would be removed")
        with pytest.raises(CorpusError) as caught:
            shelf.run(rebuild=True)
        assert str(caught.value) == planned.refused
        assert live(shelf.config.into) == before
        shelf.run(RunRequest(allow_deletions=True), rebuild=True)
    else:
        shelf.run(rebuild=True)
    assert len(shelf.indexed()) == 30 - n_unreadable


@pytest.mark.parametrize(
    ("n_unreadable", "asked", "is_held_back"),
    [(25, RunRequest(), True), (20, RunRequest(), False), (25, RunRequest(allow_deletions=True), False)],
)
def test_a_rebuild_with_many_unreadable_files_does_not_replace_the_index(
    tmp_path: Path, n_unreadable: int, asked: RunRequest, is_held_back: bool
) -> None:
    shelf = Shelf(tmp_path, 15)
    before = live(shelf.config.into)
    unreadable = sorted(map(Path, shelf.indexed()))[:n_unreadable]

    def move_away(number: int) -> None:
        if number == 0:
            for file in unreadable:
                file.rename(file.with_suffix(".away"))

    stages = in_place(WideEncoder(), move_away)
    progress = index_corpus(
        shelf.config, stages=stages, request=asked, rebuild=True, is_mount=shelf.mounted.__contains__
    )
    assert progress.n_failed == n_unreadable
    assert progress.held_back == is_held_back
    said = find_shortfall(progress, 1.0)
    if not is_held_back:
        assert said is None
        assert len(live(shelf.config.into)["files"]) == 30
        assert len(shelf.indexed()) == 30 - n_unreadable
        return
    assert said is not None
    assert said.startswith("25 files that were indexed could not be read, more than run.max_deleted_fraction allows")
    assert "; so the former tables stay in their place; solve that" in said
    assert live(shelf.config.into) == before
    for file in unreadable:
        file.with_suffix(".away").rename(file)
    shelf.run(rebuild=True)
    assert len(shelf.indexed()) == 30
    assert find_index(shelf.config.into).live.path != shelf.config.into


def test_a_folder_of_a_bucket_that_a_pattern_matched_is_missed(bucket: str, tmp_path: Path) -> None:
    known = KnownBucket(f"{bucket}/{tmp_path.name}", tmp_path / "scratch")
    known.config = known.config.model_copy(update={"sources": (f"{known.url}/disk*/sounds",)})
    for name in ("disk1/sounds/a.wav", "disk1/sounds/b.wav", "disk2/sounds/c.wav"):
        known.put(name, len(known.held) + 2)
    index_corpus(known.config, stages=in_place(WideEncoder()))
    before = live(known.config.into)
    known.delete("disk2/sounds/c.wav")
    with pytest.raises(CorpusError, match=rf"{known.url}/disk2/sounds: holds no audio now"):
        index_corpus(known.config, stages=in_place(WideEncoder()))
    assert live(known.config.into) == before
    known.put("disk2/sounds/c.wav", known.held.get("c", 4))
    known.delete("disk1/sounds/a.wav")
    index_corpus(known.config, stages=in_place(WideEncoder()))
    assert live(known.config.into) == known.expected()


def test_an_unreadable_disk_stays_a_known_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, real = Shelf(tmp_path, 2), os.scandir
    closed = str(shelf.folder / "disk2")

    def refuse(path: Any) -> Any:
        if str(path).startswith(closed):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        shelf.run()
    assert len(shelf.indexed()) == 4
    assert find_index(shelf.config.into).live.mounts == sorted(shelf.mounted)
    shelf.unmount(2)
    with pytest.raises(CorpusError, match=f"{closed}: holds no audio now"):
        shelf.run()
