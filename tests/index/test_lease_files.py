"""Lease files are created once, on disks and in stores; other files are ignored."""

import datetime as dt
import errno
import os
import time
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import storage
from pipeline.errors import IndexBusy, UsageError
from pipeline.index import lease
from pipeline.index.lease import Lease, is_held
from pipeline.index.lease_files import STALE_S, LeaseFiles
from tests.helpers.leases import holder, write_lease
from tests.helpers.waiting import wait_until

WRONG: dict[str, list[Any]] = {
    "at": ["now", None, True, [], float("nan"), 10**400],
    "beat_s": ["1", 0, -1],
    "pid": ["7", 1.5, 0, 2**40],
    "began": ["then"],
    **{name: [1, None, ["a"]] for name in ("run_id", "host", "since", "processes")},
}


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, each in WRONG.items() for wrong in each])
def test_lease_with_fields_of_other_types_is_ignored(
    tmp_path: Path, name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "UNWRITTEN_S", 0.0)
    write_lease(str(tmp_path), **{name: wrong})
    assert LeaseFiles(*storage.find_store(str(tmp_path))).read(7) is None
    assert not is_held(tmp_path)
    with Lease(tmp_path, "a"):
        assert holder(str(tmp_path)) == "a"


def test_probes_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/index"
    fs, root = storage.find_store(url)
    old, fresh, other = f"{root}/probe-{'0' * 32}", f"{root}/probe-{'1' * 32}", f"{root}/probe-of-mine"
    for name in (old, fresh, other):
        fs.pipe_file(name, b"0")
    for name in (old, other):
        fs.store[name].modified -= dt.timedelta(seconds=2 * STALE_S)
    with Lease(url, "a"):
        assert set(fs.ls(root, detail=False)) == {fresh, other, f"{root}/claim-000000001.json"}
    fs.rm(root, recursive=True)


def test_disk_without_links_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Lease(tmp_path, "a"):
        with pytest.raises(IndexBusy), Lease(tmp_path, "b"):
            pass
        assert holder(str(tmp_path)) == "a"
    assert list(tmp_path.iterdir()) == []


class Store(MemoryFileSystem):  # type: ignore[misc]
    """A store of its own, which creates a file even if it exists."""

    protocol = "overwriting"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, **options)


class Unable(Store):
    protocol = "unable"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if mode != "overwrite":
            raise NotImplementedError(mode)
        super().pipe_file(path, value)


class Unaware(Store):
    """Its arguments go on to a client that does not know this one."""

    protocol = "unaware"

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:  # type: ignore[override]
        if options:
            raise TypeError(f"put_object() got an unexpected keyword argument {next(iter(options))!r}")
        super().pipe_file(path, value)


class Refusing(Store):
    """Its server does not know the condition of the put."""

    protocol = "refusing"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        raise OSError(errno.ENOSYS, "A header you provided implies functionality that is not implemented.")


class Forgetful(Store):
    """It creates as it should, but the answer to the first put is lost, and the driver repeats the put."""

    protocol = "forgetful"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        is_first = not self.exists(path)
        MemoryFileSystem.pipe_file(self, path, value, mode=mode)
        if is_first and "probe" in path:
            MemoryFileSystem.pipe_file(self, path, value, mode=mode)


for implementation in (Store, Unable, Unaware, Refusing, Forgetful):
    fsspec.register_implementation(implementation.protocol, implementation, clobber=True)


@pytest.mark.parametrize("store", [Store, Unable, Unaware, Refusing])
def test_store_in_which_two_runs_could_create_one_file_is_refused(store: type[Store], tmp_path: Path) -> None:
    url = f"{store.protocol}://{tmp_path.name}/index"
    with pytest.raises(UsageError, match=r"two runs could write at once; .* s3://, gs://") as caught, Lease(url, "a"):
        pass
    assert str(caught.value).startswith(f"{url}: ")
    assert "\n" not in str(caught.value)
    assert store.store == {}  # nothing is left behind


@pytest.mark.parametrize("protocol", ["memory", "forgetful"])
def test_store_is_tried_before_its_first_lease(protocol: str, tmp_path: Path) -> None:
    url = f"{protocol}://{tmp_path.name}/index"
    with Lease(url, "a"):
        fs, root = fsspec.url_to_fs(url)
        assert [name.rpartition("/")[2] for name in fs.ls(root, detail=False)] == ["claim-000000001.json"]
        with pytest.raises(IndexBusy), Lease(url, "b"):
            pass


@pytest.mark.parametrize("answer", [FileExistsError(), ConnectionResetError()])
def test_lost_answer_of_a_store_costs_no_lease(answer: Exception) -> None:
    """The put of an object store itself: carried out, and answered with an error, every other time."""
    root = f"/{uuid.uuid4().hex}"

    class Store(MemoryFileSystem):  # type: ignore[misc]
        cachable = False
        n_puts = 0

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **others: Any) -> None:
            super().pipe_file(path, value, mode=mode, **others)
            self.n_puts += 1
            if self.n_puts % 2:
                raise answer

    store = Store()
    with Lease(f"memory:/{root}", "a", beat_s=0.02, leases=LeaseFiles(store, root)) as held:
        wait_until(lambda: store.n_puts > 5)
        assert not held.lost
    assert not LeaseFiles(store, root).list()


def test_files_of_a_run_killed_at_its_start_are_removed(tmp_path: Path) -> None:
    old, young = (tmp_path / f"claim-000000007.json.{number}.1" for number in (1, 2))
    for path in (old, young):
        path.write_text("{")
    os.utime(old, times=(time.time() - 2 * STALE_S,) * 2)
    with Lease(tmp_path, "a"):
        assert (old.exists(), young.exists()) == (False, True)
