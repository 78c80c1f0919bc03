"""Ray starts here: join a cluster, or start Ray on this machine, and keep what it prints out of ours."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

JOB_VARIABLE = "EARSHOT_JOB"
"""The variable of the environment with the name of a submitted job."""

RUN_VARIABLE = "EARSHOT_RUN"
"""Likewise the id of its run."""

PYTHON_VARIABLE = "EARSHOT_PYTHON"
"""Likewise the interpreter for its workers, if that is not the one of their node."""

TRIES = 3
"""How often Ray runs a task whose worker dies."""

TOO_SLOW = "timed out during startup"
"""A part of Ray's message when its own processes do not start in time. Their error has no class of its own."""

NOT_SHOWN = (
    *("killed by `ray.kill`", "The worker died unexpectedly", "A worker died or was killed", "will be retried"),
    "Raylet is terminated",
)
"""Parts of Ray's messages that are not shown."""


def start_ray(**settings: Any) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start Ray on this machine. Does nothing if Ray runs already.

    Args:
        settings: further arguments of ``ray.init`` where Ray is started.
    """
    # Ray's log lines are for its developers: errors reach us as exceptions. A user can switch each one on again.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(TRIES - 1))
    # A thread of Ray Data may outlive the connection of a stopped run. It must not open another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if "RAY_ADDRESS" not in os.environ:
        # A Ray that is started here serves this machine alone. With this variable, named after the systems where that
        # is Ray's default, all of its parts listen on 127.0.0.1. Without it they listen on all addresses.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Nor does anyone watch it: each of its processes would otherwise report every few seconds, on the cores that
        # encode.
        os.environ.setdefault("RAY_enable_metrics_collection", "0")
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    import ray
    from ray._private import ray_constants

    if os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0":
        ray_constants.ENABLE_RAY_CLUSTER = False  # in case Ray was imported before
    if not ray.is_initialized():
        local: dict[str, Any] = {}
        if "RAY_ADDRESS" not in os.environ:
            local = {"address": "local", "num_cpus": max(2, len(os.sched_getaffinity(0))), "include_dashboard": False}
            local |= settings
        elif PYTHON_VARIABLE in os.environ:
            local = {"runtime_env": {"py_executable": os.environ[PYTHON_VARIABLE]}}
        former = signal.getsignal(signal.SIGTERM)
        with _no_stderr(), warnings.catch_warnings():
            # Ray's daemons are forked and replaced at once: they never touch what Lance has open here.
            warnings.filterwarnings("ignore", message="lance is not fork-safe")
            _init(ray, {"log_to_driver": False, "logging_level": "error", **local})
        _keep_stdout_clean()
        if threading.current_thread() is threading.main_thread() and former is not None:
            signal.signal(signal.SIGTERM, former)  # Ray's handler prints its native stack


def _init(ray: Any, settings: dict[str, Any]) -> None:
    """``ray.init``, and once more if that took too long: Ray gives its processes 30 s to start, which is not enough
    on a machine that is busy or was asleep."""
    try:
        ray.init(**settings)
    except Exception as error:
        if TOO_SLOW not in str(error):
            raise
        ray.shutdown()
        ray.init(**settings)


def _keep_stdout_clean() -> None:
    """Send Ray's messages to stderr, away from our JSON lines. Drop those on dead workers: the run reports these."""
    from ray._private import worker

    show = worker.print_to_stdstream
    if show.__module__ == __name__:  # replaced already
        return

    def show_on_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        if not any(part in line for line in data.get("lines", ()) for part in NOT_SHOWN):
            show({**data, "is_err": True}, ignore_prefix)

    worker.print_to_stdstream = show_on_stderr


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what native code writes to stderr in this context: Ray announces there that it was told to be quiet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def may_grow() -> bool:
    """Whether nodes may come and go: true on a cluster that somebody else has started."""
    return "RAY_ADDRESS" in os.environ
