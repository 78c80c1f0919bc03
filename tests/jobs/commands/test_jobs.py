"""``earshot jobs``."""

import json
from typing import Any

from jobs.shared.ray_jobs import Cluster
from pipeline.config import Config


def test_jobs_lists_name_state_and_index(earshot: Any, cluster: Cluster, config: Config) -> None:
    name = cluster.submit(config)
    assert name in earshot("jobs")[1]
    [listed] = map(json.loads, earshot("jobs", "--json")[1].splitlines())
    assert (listed["name"], listed["state"], listed["index"]) == (name, "running", config.into)
