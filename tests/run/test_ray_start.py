"""How Ray is started or joined. What it prints is tested with a real one, in tests/integration."""

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
