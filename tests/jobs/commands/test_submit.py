"""``earshot submit``."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.ray_jobs import ADDRESS, FakeClient


def test_submit_with_wait_succeeds_with_the_job(earshot: Any, client: FakeClient, file: Path) -> None:
    code, out, err = earshot("submit", file, "--wait", "--json")
    first, last = map(json.loads, out.splitlines())
    assert (code, first["address"], last) == (0, ADDRESS, {"job": first["job"], "state": "succeeded"})
    assert err == "one\ntwo\nthree\n"
    _, out, _ = earshot("submit", file)
    name = first["job"][:-1] + "2"
    assert out.startswith(f"submitted {name}; `earshot status {name}`")
    assert earshot("logs", name, "-f")[1] == "one\ntwo\nthree\n"


def test_submit_with_wait_fails_with_the_job_and_advises(
    earshot: Any, client: FakeClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = client.end
    monkeypatch.setattr(client, "end", lambda name: end(name, "FAILED"))
    code, _, err = earshot("submit", file, "--wait")
    assert code == 1
    assert err.splitlines()[-1].endswith("-1: failed: RUNNING")
    for state, said, advice in (
        (
            "FAILED",
            "/opt/python -m: No module named 'jobs'",
            "; install Earshot in the Python of every node and name that ",
        ),
        ("FAILED", "sh: 1: /nope/python: not found", "; name the Python on the head with --python"),
        ("FAILED", "SIGKILL", "; submit it again to go on"),
        ("STOPPED", "as asked", "; submit it again to go on"),
        ("FAILED", "in/: no such file or folder", ""),
    ):

        def finish(name: str, state: str = state, said: str = said) -> None:
            end(name, state)
            client.jobs[name].message = said

        monkeypatch.setattr(client, "end", finish)
        last = earshot("submit", file, "--wait")[2].splitlines()[-1]
        assert f": {state.lower()}: {said}{advice}" in last
        assert not (last.endswith("go on") and not advice)


def test_invalid_configuration_is_not_submitted(earshot: Any, client: FakeClient, file: Path) -> None:
    file.write_text("sources: [x]\ninto: y\nencode: {modle: z}\n")
    code, out, err = earshot("submit", file)
    assert (code, out) == (2, "")
    assert "unknown key `encode.modle`" in err
    assert not client.jobs
