"""``earshot jobs``, ``logs`` and ``stop``."""

import json
from typing import Any

from jobs.shared.ray_jobs import Cluster
from pipeline.config import Config
from tests.helpers.ray_jobs import FakeClient


def test_jobs_logs_and_stop_print_the_state(earshot: Any, client: FakeClient, cluster: Cluster, config: Config) -> None:
    name = cluster.submit(config)
    assert name in earshot("jobs")[1]
    [listed] = map(json.loads, earshot("jobs", "--json")[1].splitlines())
    assert (listed["name"], listed["state"], listed["index"]) == (name, "running", config.into)
    assert earshot("logs", name) == (0, "one\ntwo\nthree\n", "")
    for arguments in ([], ["-f"]):  # its texts end anywhere
        out = earshot("logs", name, "--json", *arguments)[1]
        assert [json.loads(line)["line"] for line in out.splitlines()] == ["one", "two", "three"]
    client.end(name, "RUNNING")
    assert earshot("stop", name)[1] == f"{name} is stopping; submit its configuration again to go on\n"
    client.end(name, "STOPPED")
    assert earshot("stop", name)[1] == f"{name} has already ended: stopped\n"
    assert json.loads(earshot("stop", name, "--json")[1]) == {"job": name, "stopped": False}
