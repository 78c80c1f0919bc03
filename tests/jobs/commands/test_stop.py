"""``earshot stop``."""

import json
from typing import Any

from jobs.shared.ray_jobs import Cluster
from pipeline.config import Config
from tests.helpers.ray_jobs import FakeClient


def test_stop_prints_what_has_become_of_the_job(
    earshot: Any, client: FakeClient, cluster: Cluster, config: Config
) -> None:
    name = cluster.submit(config)
    client.end(name, "RUNNING")
    assert earshot("stop", name)[1] == f"{name} is stopping; submit its configuration again to go on\n"
    assert client.stopped == [name]
    client.end(name, "STOPPED")
    assert earshot("stop", name)[1] == f"{name} has already ended: stopped\n"
    assert json.loads(earshot("stop", name, "--json")[1]) == {"job": name, "stopped": False}
