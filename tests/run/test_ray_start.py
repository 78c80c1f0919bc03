"""How Ray is started or joined. What it prints is tested with a real one, in tests/integration."""

import contextlib
from typing import Any

import pytest

from pipeline.run.ray_start import start_ray


def test_settings_of_a_joined_cluster_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import worker

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options))
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # restored after the test
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    start_ray()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    start_ray()
    monkeypatch.setenv("EARSHOT_PYTHON", "/opt/python")
    start_ray()
    assert [options.get("address") for options in given] == ["local", None, None]
    assert "num_cpus" not in given[1]
    assert [options.get("runtime_env") for options in given] == [None, None, {"py_executable": "/opt/python"}]


@pytest.mark.parametrize(
    ("message", "n_tries"),
    [("The current node timed out during startup. This could happen because", 2), ("no space left on device", 1)],
)
def test_ray_that_starts_too_slowly_is_started_once_more(
    monkeypatch: pytest.MonkeyPatch, message: str, n_tries: int
) -> None:
    import ray
    from ray._private import worker

    given: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        given.append(options)
        if len(given) == 1:
            raise Exception(message)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with contextlib.nullcontext() if n_tries == 2 else pytest.raises(Exception, match=message):
        start_ray()
    assert [options["address"] for options in given] == ["local"] * n_tries
