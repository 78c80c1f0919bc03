"""A real Ray cluster with its dashboard and a token, started here: submit, follow, watch, stop in the middle, go on.

And one of four nodes, of which two come while the run waits for them, and one is killed while it works. Each is
stopped by the processes that were started for it.
"""

import contextlib
import datetime as dt
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Config, load_config
from pipeline.encoder.encoder import load_encoder
from pipeline.index.verify import verify_index
from pipeline.processes import find_descendants
from pipeline.run.driver import index_corpus
from pipeline.run.metrics import METRICS
from pipeline.run.record import Record, read_record
from tests.helpers.indexes import check_same, count_batches, live_rows, write_corpus
from tests.helpers.processes import LOOPBACK, find_listeners
from tests.helpers.progress import record_of
from tests.helpers.runs import in_place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
N_FILES = 300
TOKEN = "0123456789abcdef" * 4


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface on which nothing listens, and which no connection gets meanwhile."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1_000):  # between Ray's and the system's
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            break
    return found


def without_ray() -> dict[str, str]:
    """The environment without settings of Ray, and with this code for the processes that it starts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EARSHOT_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


def wait_for(holds: Callable[[], Any], what: str, timeout_s: float = 240.0) -> Any:
    """Wait until ``holds`` is true; returns its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.2)
    return value


@dataclass(frozen=True)
class Head:
    address: str
    metrics: str
    environment: dict[str, str]
    pid: int
    ports: dict[str, int]

    def earshot(
        self, *arguments: object, code: Path = ROOT, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line, with the code at ``code``."""
        environment = {**self.environment, "RAY_API_SERVER_ADDRESS": self.address, "PYTHONPATH": str(code)}
        environment |= variables or {}
        command = [sys.executable, "-m", "jobs.main", *map(str, arguments)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=code, timeout=400, check=False
        )

    def ask(self, *arguments: object) -> list[dict[str, Any]]:
        result = self.earshot(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    def start(self, *arguments: object, into: Path) -> subprocess.Popen[bytes]:
        environment = {**self.environment, "RAY_API_SERVER_ADDRESS": self.address, "PYTHONPATH": str(ROOT)}
        with into.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs.main", *map(str, arguments)], env=environment, stdout=log, stderr=log
            )

    def scrape(self) -> str:
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            text: str = answer.read().decode()
        return text


@contextlib.contextmanager
def start_head(agent: int | None = None) -> Iterator[Head]:
    """A head of two cores that wants a token; what it needs lies in a folder of its own.

    Args:
        agent: the port of the agent that takes jobs; a free one by default.
    """
    folder = tempfile.mkdtemp(prefix="earshot-ray-", dir="/tmp")  # paths of sockets must be short
    port, dashboard, metrics, client, free, agent_grpc = free_ports(6)
    environment = {**without_ray(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # see configs/README.md: it listens on this machine only
    environment["RAY_JOB_STOP_WAIT_TIME_S"] = "240"  # however slow this machine is
    ports = {
        "port": port,
        "dashboard-port": dashboard,
        "metrics-export-port": metrics,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent or free,
        "dashboard-agent-grpc-port": agent_grpc,
    }
    options = {**ports, "num-cpus": 2, "object-store-memory": 400_000_000, "temp-dir": folder}
    start = "from ray.scripts.scripts import main; main()"
    command = [sys.executable, "-c", start, "start", "--head", "--block", "--include-dashboard=true"]
    command += [f"--{name}={value}" for name, value in options.items()]
    log = Path(folder, "start.log")
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=folder)
    try:
        found = Head(
            f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics", environment, process.pid, ports
        )

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            request = urllib.request.Request(f"{found.address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
            try:
                with urllib.request.urlopen(request, timeout=5):
                    return True
            except OSError:
                return False

        wait_for(answers, "the head answers", 120)
        yield found
        assert process.poll() is None, f"the head has died: {log.read_text()}"
    finally:
        process.send_signal(signal.SIGTERM)  # it stops its children
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with start_head() as head:
        yield head


def write_config(folder: Path, index: Path, **sections: Any) -> Path:
    values = {
        "sources": [str(folder)],
        "into": str(index),
        "store": {"checkpoint_s": 600},  # so only the end of the run commits
        "run": {"batch_s": 8.0},
        "encode": {"actors": 1},
        **sections,
    }
    file = index.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(values))
    return file


def check_against_undisturbed(config: Config, undisturbed: Path) -> None:
    """The tables equal those of one undisturbed run without Ray."""
    encoder: Any = load_encoder(config.encode)
    whole = config.model_copy(update={"into": str(undisturbed)})
    index_corpus(whole, stages=in_place(encoder))
    check_same(Path(config.into), undisturbed)
    assert verify_index(config.into) == []


def test_head_listens_on_this_machine_only_and_demands_a_token(head: Head) -> None:
    def listen() -> set[tuple[int, str, int]]:
        found = find_listeners(find_descendants(head.pid) | {head.pid})
        return found if {port for _, _, port in found} >= set(head.ports.values()) else set()

    listeners = wait_for(listen, "all parts of Ray listen")
    assert not [each for each in listeners if each[1] not in LOOPBACK]
    refused = head.earshot("jobs", variables={"RAY_AUTH_MODE": "disabled"})
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "needs a token: set RAY_AUTH_MODE=token" in refused.stderr


def test_job_is_followed_watched_stopped_and_continued(head: Head, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "in", N_FILES)
    index = tmp_path / "index"
    config = write_config(corpus, index)
    shipped = tmp_path / "code"  # only the code that is sent says this
    for name in ("pipeline", "jobs"):
        shutil.copytree(ROOT / name, shipped / name, ignore=shutil.ignore_patterns("__pycache__"))
    display = shipped / "jobs/shared/display.py"
    display.write_text(display.read_text().replace(" to encode, about", " to encode (shipped), about"))
    display.write_text(display.read_text().replace("LINE_EVERY_S = 5.0", "LINE_EVERY_S = 0.5"))

    submitted = head.earshot("submit", config, "--ship", "--python", sys.executable, "--json", code=shipped)
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)["job"]
    assert job.startswith("earshot-index-")
    assert job.endswith("-1")
    refused = head.earshot("submit", config, "--python", sys.executable)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"job {job} writes to it" in refused.stderr
    followed = tmp_path / "followed.log"
    follower = head.start("logs", job, "-f", into=followed)

    def in_the_middle() -> Record | None:
        record = read_record(str(index))
        return record if record and record.n_done > N_FILES / 12 and record.bottleneck else None

    record = wait_for(in_the_middle, "some of the files are done")
    assert (record.job, record.state, record.n_files) == (job, "running", N_FILES + 1)
    assert count_batches(index) == 0  # no checkpoint has come yet
    [status] = head.ask("status")
    shown = status["record"]
    assert (status["job"], status["state"]) == (job, "running")
    assert shown["n_done"] >= record.n_done
    assert 0 < shown["hours_done"] < shown["hours_all"]
    assert shown["hours_per_hour"] > 0
    assert 0 < shown["stages"]["encode"]["busy"] <= 1

    def measured() -> str | None:
        text = head.scrape()
        return text if "ray_earshot_stage_busy" in text else None

    lines = [line for line in wait_for(measured, "metrics").splitlines() if line.startswith("ray_earshot_")]
    assert {line.split("{")[0] for line in lines} >= {f"ray_{name}" for name in METRICS if name != "earshot_failures"}
    [done] = [line for line in lines if 'state="done"' in line and line.startswith("ray_earshot_files")]
    assert f'index="{index}"' in done
    assert 0 < float(done.split()[-1]) <= N_FILES + 1  # metrics are exported some seconds late

    asked_at = time.time()
    assert head.ask("stop", job) == [{"job": job, "stopped": True}]
    stopped = wait_for(lambda: (s := head.ask("status", job)[0])["state"] == "stopped" and s, "the job is stopped")
    assert stopped["record"]["state"] == "stopped"
    took_s = dt.datetime.fromisoformat(stopped["record"]["updated_at"]).timestamp() - asked_at
    print(f"stopped {took_s:.1f} s after `earshot stop` was called, the start of that command included")
    n_published = len(live_rows(index)["files"])
    assert N_FILES / 12 < n_published == stopped["record"]["n_done"] < N_FILES
    assert not list(index.glob("claim*")), f"killed after {took_s:.1f} s, before it was through"
    assert follower.wait(60) == 0
    said = followed.read_text()
    assert "files to encode (shipped)" in said
    assert "(busiest: " in said
    assert said.splitlines()[-1] == "earshot: stopped; what was published stays, run again to go on"
    assert "Traceback" not in said

    # Now with the Earshot that is installed there.
    again = head.earshot("submit", config, "--python", sys.executable, "--wait", "--json")
    assert again.returncode == 0, again.stderr
    assert "(shipped)" not in again.stderr
    answers = [json.loads(line) for line in again.stdout.splitlines()]
    assert answers[0]["job"] == job[:-1] + "2"
    assert answers[1] == {"job": job[:-1] + "2", "state": "succeeded"}
    final = record_of(index)
    assert (final.state, final.n_unchanged, final.n_done) == ("done", n_published, N_FILES + 1)
    newest = head.ask("jobs")[0]
    assert newest["run"] == final.run_id
    assert [(each["name"], each["state"]) for each in head.ask("jobs")] == [
        (job[:-1] + "2", "succeeded"),
        (job, "stopped"),
    ]
    assert head.earshot("logs", job).stdout == said
    check_against_undisturbed(load_config(config), tmp_path / "whole")


def test_job_that_fails_exits_with_one_and_says_why(head: Head, tmp_path: Path) -> None:
    config = write_config(tmp_path / "nothing", tmp_path / "failing")
    result = head.earshot("submit", config, "--ship", "--python", sys.executable, "--wait")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("earshot: earshot-failing-")
    assert "no such file or folder" in result.stderr.splitlines()[-1]
    [status] = head.ask("status")
    assert (status["state"], status["record"]) == ("failed", None)
    told = head.earshot("status").stdout
    assert "failed" in told
    assert "no such file or folder" in told
    lost = head.earshot("submit", config, "--python", "/nope/python", "--wait")  # and does not wait
    assert lost.returncode == 1
    assert "/nope/python: not found" in lost.stderr, lost.stderr
    assert lost.stderr.splitlines()[-1].endswith("/nope/python: not found; name the Python on the head with --python")


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "said"),
    [
        (["jobs"], {"RAY_AUTH_TOKEN": "f" * 64}, 1, "refuses this token"),
        (["status", "x"], {"RAY_AUTH_MODE": "disabled"}, 1, "needs a token: set RAY_AUTH_MODE=token"),
        (["logs", "nothing"], {}, 2, "nothing: no such job"),
        (["logs", "nothing", "-f"], {}, 2, "nothing: no such job"),
        (["stop", "nothing"], {}, 2, "nothing: no such job"),
        (["jobs", "--address", "http://127.0.0.1:1"], {}, 1, "no Ray cluster answers here"),
    ],
)
def test_refusal_is_one_line(head: Head, arguments: list[str], variables: dict[str, str], code: int, said: str) -> None:
    result = head.earshot(*arguments, variables=variables)
    assert (result.returncode, result.stdout) == (code, "")
    assert said in result.stderr
    assert result.stderr.startswith("earshot: ")
    assert result.stderr.count("\n") == 1


def test_head_whose_agent_finds_its_port_taken_is_explained(tmp_path: Path) -> None:
    config = write_config(tmp_path / "nothing", tmp_path / "index")
    with socket.create_server(("127.0.0.1", 0)) as taken, start_head(taken.getsockname()[1]) as head:
        result = head.earshot("submit", config)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"earshot: {head.address}: the agent that accepts jobs does not answer on the head")
    assert "--dashboard-agent-listen-port PORT" in result.stderr
    assert result.stderr.count("\n") == 1


NODES = """
import os, sys

folder = os.environ["RAY_TMPDIR"] = sys.argv[1]
os.makedirs(f"{folder}/ray")  # Ray notes its address there, wherever its own folder is
from ray.cluster_utils import Cluster

small = {"num_cpus": 1, "object_store_memory": 200_000_000}
cluster = Cluster(initialize_head=True, head_node_args={"temp_dir": folder, **small})
nodes = [cluster.add_node(**small)]
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    command, *names = line.split()
    if command == "add":
        nodes.append(cluster.add_node(num_gpus=1, **small))
        print(nodes[-1].node_id, flush=True)
    else:
        [node] = [node for node in nodes if node.node_id == names[0]]
        cluster.remove_node(node, allow_graceful=False)
        print("killed", flush=True)
cluster.shutdown()
"""
"""A head and a node. `add` starts a node that claims a GPU, and prints its id; `kill ID` kills one."""

DRIVER = """
import sys
from pathlib import Path

from pipeline.config import load_config
from pipeline.run.driver import index_corpus
from pipeline.run.workers import workers_on_ray

config, seen = sys.argv[1:]

def load(settings, with_frames, threads):
    import ray
    from pipeline.encoder.encoder import load_for_run

    encoder = load_for_run(settings.model_copy(update={"device": "cpu"}), with_frames, threads)
    Path(seen, ray.get_runtime_context().get_node_id()).touch()
    return encoder

index_corpus(load_config(config), stages=workers_on_ray(load=load))
"""
"""A run that asks for GPUs, and encodes on CPUs. It notes the nodes of its encoders."""


@pytest.fixture
def nodes() -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The process that holds the nodes, and the environment of drivers that join them."""
    folder = tempfile.mkdtemp(prefix="earshot-ray-", dir="/tmp")
    environment = {**without_ray(), "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    log = Path(folder, "nodes.log")
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", NODES, folder],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, log.read_text()
        yield process, {**environment, "RAY_ADDRESS": address}
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_cluster_grows_from_no_gpu_and_loses_nothing_with_a_node(
    nodes: tuple[subprocess.Popen[str], dict[str, str]], tmp_path: Path
) -> None:
    process, environment = nodes
    n_files = N_FILES // 2
    corpus = write_corpus(tmp_path / "in", n_files)
    index, seen = tmp_path / "index", tmp_path / "seen"
    seen.mkdir()
    encode = {"device": "cuda", "actors": 2, "max_actors": 4, "actors_per_gpu": 2}
    config = write_config(corpus, index, encode=encode, store={"checkpoint_s": 1})
    log = tmp_path / "run.log"

    def tell(command: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{command}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    with (
        log.open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(config), str(seen)], env=environment, stdout=said, stderr=said
        ) as driver,
    ):

        def record() -> Record | None:
            assert driver.poll() is None, log.read_text()
            return read_record(str(index))

        wait_for(
            lambda: (now := record()) and now.doing == "waiting for a node with a GPU", "it says what it waits for"
        )
        with_gpu = {tell("add") for _ in range(2)}

        def in_the_middle() -> Record | None:
            now = record()
            return now if now and now.n_done > n_files / 10 else None

        before = wait_for(in_the_middle, "some files are done")
        assert before.doing == "encoding"
        at_work = {file.name for file in seen.iterdir()}
        assert at_work
        assert at_work <= with_gpu
        assert tell(f"kill {sorted(at_work)[0]}") == "killed"
        after = record()
        assert after is not None
        assert (after.state, after.n_done < n_files) == ("running", True)
        assert driver.wait(400) == 0, log.read_text()
    final = record_of(index)
    assert (final.state, final.n_indexed, final.n_failed) == ("done", n_files, 1)
    loaded = load_config(config)
    on_cpu = loaded.encode.model_copy(update={"device": "cpu"})
    check_against_undisturbed(loaded.model_copy(update={"encode": on_cpu}), tmp_path / "whole")
