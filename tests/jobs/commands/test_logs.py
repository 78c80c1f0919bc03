"""``earshot logs``."""

import json
from typing import Any

from jobs.shared.ray_jobs import Cluster
from pipeline.config import Config


def test_logs_prints_lines_however_the_cluster_cuts_them(earshot: Any, cluster: Cluster, config: Config) -> None:
    name = cluster.submit(config)
    assert earshot("logs", name) == (0, "one\ntwo\nthree\n", "")
    for arguments in ([], ["-f"]):
        out = earshot("logs", name, "--json", *arguments)[1]
        assert [json.loads(line)["line"] for line in out.splitlines()] == ["one", "two", "three"]
