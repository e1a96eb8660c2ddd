"""The Ray cluster that a run uses: one of its own on this machine, or one that exists."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray
from ray.data import DataContext

from model.memory import ONE_ARENA
from pipeline.errors import SettingError, SsdBatchError, reason
from pipeline.settings import LOCAL, LOCAL_RAY
from pipeline.signals import handler_kept
from pipeline.storage.s3 import place_variables

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10
NO_NODE = "No node info found"
"""A part of what Ray says on a machine that is no node of the cluster."""


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connect to a Ray cluster, for the time of a run. Its nodes are given the place of S3, and use credentials of their own.

    Inside another `cluster` context, use the cluster of that context: a run and the work that follows it share one.

    Args:
        address: "local" or "local-ray" for a small cluster of our own, "auto" for the one this machine belongs to, or its
            host:port.

    Raises:
        SettingError: no cluster answers at the address.
        SsdBatchError: a cluster of our own did not start.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's own default is to retry for ever: an image that takes all memory would be tried without end.
    os.environ.setdefault("RAY_task_oom_retries", "1")
    is_own = address in (LOCAL, LOCAL_RAY)
    os.environ.setdefault(*ONE_ARENA)
    options: dict[str, Any] = {
        "address": LOCAL if is_own else address, "logging_level": logging.ERROR, "log_to_driver": False,
    }  # fmt: skip
    if is_own:
        options |= {"include_dashboard": False}
        # Ray's C++ core warns on the terminal of its own argument passing at each run (ray-project/ray#53727).
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # This machine gets no notice before it is taken away. The process that would ask costs as much as a worker.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # After a second without work Ray ends processes beyond one per core. A training's next examples would start them anew.
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    else:
        if address == "auto":
            _tell_auto()
        else:
            _check_reachable(address)
        if variables := place_variables():
            options |= {"runtime_env": {"env_vars": variables | dict([ONE_ARENA])}}
            # A submitted job's own variables are here too, with the same values. Ray refuses even these without being told which wins.
            os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    try:
        _start(options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "a cluster that asks for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here too"
        if NO_NODE in str(error):
            hint = "this machine is no node of it; run there, or give the job to it with ssd-batch submit"
        raise SettingError(f"address {address!r}: no Ray cluster lets us in ({reason(error)}); {hint}") from error
    except OSError as error:  # Ray's folder belongs to another user, or its path is too long for a socket.
        raise SettingError(
            f"address {address!r}: Ray can't use its folder ({reason(error)}); name a short one of your own by RAY_TMPDIR, such as /tmp/mine"
        ) from error
    except Exception as error:  # Ray raises a bare one if its node isn't up after half a minute: a machine under load.
        raise SsdBatchError(f"address {address!r}: Ray did not start ({reason(error)}); run again") from error
    quiet_ray_data()
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    # Ray reports processes that died on standard output, until it has ended. Standard output is for our own JSON alone.
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()


def _start(options: dict[str, Any]) -> None:
    with handler_kept(signal.SIGTERM), muted():  # Ray's own handler ends the process with 15, at any place
        ray.init(**options)
        if options["address"] == LOCAL and ray.cluster_resources()["CPU"] < 2:  # type: ignore[no-untyped-call]
            # On one core, a training's worker or a detector with a GPU would leave none for reading. So Ray is given two.
            ray.shutdown()
            ray.init(**options, num_cpus=2)


@contextmanager
def muted() -> Iterator[None]:
    """Mute standard error: Ray's C++ core reports there, past Python's logging, that it was asked to be quiet."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def quiet_ray_data() -> None:
    """Let Ray Data show nothing of its own in this process, and start no more than it needs."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _tell_auto() -> None:
    """Check and log the cluster that RAY_ADDRESS names: if it is set, Ray uses it for `auto`."""
    named = os.environ.get("RAY_ADDRESS", "")
    if "://" in named:
        raise SettingError(
            f"address 'auto': RAY_ADDRESS is {named!r}, and a run takes part in its cluster, by host:port; unset it, or give --address"
        )
    if named not in ("", "auto", LOCAL):
        logger.info("address auto: RAY_ADDRESS names the cluster %s", named)


def _check_reachable(address: str) -> None:
    """Check that something listens at an address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SettingError(
            f"address {address!r} must be local, local-ray, auto or host:port (the port of ray start, 6379 by default)"
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise SettingError(f"address {address!r}: nothing answers there ({error})") from error
