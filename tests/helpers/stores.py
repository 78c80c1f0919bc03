"""An object store in memory that fails when it is told to, and counts its calls."""

import io
from collections import Counter
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import storage


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """``errors`` holds, for each method, the errors of its next calls."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    errors: ClassVar[dict[str, list[Exception]]] = {}
    calls: ClassVar[Counter[str]] = Counter()
    read_bytes: ClassVar[list[int]] = []
    """How many bytes each call of ``cat_file`` returned."""

    @classmethod
    def fail(cls, name: str) -> None:
        cls.calls[name] += 1
        if cls.errors.get(name):
            raise cls.errors[name].pop(0)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("flaky://").strip("/") if path.strip("/") else ""

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self.fail("ls")
        return super().ls(path, detail, **options)

    def info(self, path: str, **options: Any) -> Any:
        self.fail("info")
        return super().info(path, **options)

    def get_file(self, *arguments: Any, **options: Any) -> Any:
        self.fail("get_file")
        return super().get_file(*arguments, **options)

    def cat_file(self, *arguments: Any, **options: Any) -> Any:
        self.fail("cat_file")
        data = self.store[self._strip_protocol(arguments[0])].getvalue()
        part = data[options["start"] : options["end"]]
        self.read_bytes.append(len(part))
        return part

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self.fail("open")
        file = super()._open(path, mode, **options)
        return _FlakyFile(file.getvalue()) if mode == "rb" else file


class _FlakyFile(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        Flaky.fail("read")
        return super().read(size)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a folder in an empty store; retries do not pause."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(storage, "PAUSES_S", (0.0, 0.0, 0.0))
    for kept in (Flaky.store, Flaky.errors, Flaky.calls, Flaky.read_bytes):
        kept.clear()
    Flaky.pseudo_dirs[:] = [""]
    return "flaky://corpus"


def put(url: str, data: bytes) -> str:
    fsspec.filesystem(url.split("://")[0]).pipe_file(url, data)
    Flaky.calls.clear()
    return url
