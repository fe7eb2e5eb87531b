"""Starts Ray, or joins a running cluster, without Ray's messages. Token authentication stays as Ray sets it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from v2a_ray.errors import ClusterError, V2AError
from v2a_ray.interrupts import are_caught, renew_handlers, terminated
from v2a_ray.orchestration.cluster.join import (
    require_cluster,
    require_same_imports,
    require_same_package,
    require_versions,
)
from v2a_ray.orchestration.cluster.local import local_only

_QUIET_LOGGERS = ("ray", "ray.data", "ray.train", "ray.tune", "ray.rllib")


@contextmanager
def ray_session(num_cpus: int | None = None, verbose: bool = False, address: str | None = None) -> Iterator[None]:
    """Use the running Ray, the cluster at `address`, or a local Ray that ends with the block.

    Args:
        num_cpus: cores of a local Ray; by default all.
        verbose: show Ray's messages and its workers' output. Otherwise they stay in Ray's session folder.
        address: HOST:PORT of a cluster, `auto` or `local`; by default RAY_ADDRESS, else `local`.

    Raises:
        ClusterError: the cluster cannot be reached, refuses our token, or runs another version of Ray, Python or this
            package.
    """
    asked = address or os.environ.get("RAY_ADDRESS") or "local"
    if asked != "local" and (address or not ray.is_initialized()):
        _require_joinable(asked)
    if ray.is_initialized():
        yield
        return
    if not verbose:
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        for name in _QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
    # The user waits for the workers of a local Ray; by default Ray runs them at the lowest priority.
    os.environ.setdefault("RAY_worker_niceness", "0")
    local = {"num_cpus": num_cpus, "include_dashboard": False} if asked == "local" else {}
    settings = {
        "address": asked,
        "job_config": _ImportsOfThisProcess(_py_driver_sys_path=_own_first_path()),
        "log_to_driver": verbose,
        "logging_level": logging.INFO if verbose else logging.ERROR,
        "configure_logging": verbose,
        **local,
    }
    try:
        with local_only() if asked == "local" else nullcontext():
            _start(settings)
        # Ray replaces our signal handlers by handlers that abort.
        renew_handlers()
        require_same_imports() if asked == "local" else require_same_package()
        yield
    finally:
        ray.shutdown()


class _ImportsOfThisProcess(JobConfig):
    """Workers look for modules in the same folders as this process.

    By default Ray's workers look in the working directory first, which may hold another checkout or a file named like a
    module. Ray skips the working directory if it believes that the job ships its folder.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def _own_first_path() -> list[str]:
    """The folder that Python put first on the path: the script's folder, or the working directory for `-m`."""
    first = sys.path[0] if sys.path and not sys.flags.safe_path else ""
    return [str(Path(first).resolve())] if first and Path(first).is_dir() else []


MAX_STARTS = 4
"""Ray gives a node 30 seconds to start, which is too few on a machine that is busy with other work."""


def _start(settings: Mapping[str, Any]) -> None:
    """Start or join Ray, again if that fails. Raises ClusterError with the reason in one line."""
    for attempt in range(1, MAX_STARTS + 1):
        try:
            ray.init(**settings)
            return
        except SystemExit as ending:
            # While Ray starts, its own SIGTERM handlers are active; they end the process with another exit status.
            if not are_caught():
                raise
            raise terminated() from ending
        # Ray raises a plain Exception for a node that did not start in time.
        except Exception as error:
            ray.shutdown()
            is_late = "timed out during startup" in str(error)
            if attempt == (MAX_STARTS if is_late else 2):
                lines = [line for line in str(error).strip().splitlines() if line.strip()]
                reason = lines[0].strip() if lines else type(error).__name__
                raise ClusterError(
                    f"Ray does not start: {reason}",
                    where=str(settings["address"]),
                    remedy="check free space and permissions of the folder for temporary files (RAY_TMPDIR chooses "
                    "another, with a short path), free memory, the limit of open files (`ulimit -n`), and whether "
                    "other processes leave this one any CPU time; --verbose shows what Ray says",
                ) from error


def _require_joinable(address: str) -> None:
    """Raise ClusterError unless this process can become a driver of the cluster at `address`."""
    if "://" in address:
        raise ClusterError(
            "is not the address of a cluster to join",
            where=address,
            remedy="give HOST:6379 on a machine of the cluster; from elsewhere `v2a submit CONFIG --address "
            "http://HOST:8265`",
        )
    require_versions(address, require_cluster(address))


@contextmanager
def quiet_ray_data() -> Iterator[None]:
    """Turn off Ray Data's progress bars and messages, because we use the terminal. Its log files are still written."""
    settings = {
        "enable_progress_bars": False,
        # The new reader of 2.60 lists files in threads that race for an import and fail if aiohttp is not installed.
        "use_datasource_v2": False,
        # Ray Data's own wrapping loses the error of a check on its way between processes.
        "raise_original_map_exception": True,
        # Reserves memory per operator of a long pipeline. Ours have one, whose second task would wait a second.
        "op_resource_reservation_enabled": False,
    }
    # Imported here because it imports pandas, which takes long and which only processes that read data need.
    from ray.data import DataContext

    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    before, level = {name: getattr(context, name) for name in settings}, logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        for name, value in settings.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        logger.setLevel(level)


def user_error(error: BaseException) -> V2AError | None:
    """The V2AError behind an error that crossed process boundaries, if a user caused it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, V2AError):
            # Ray's wrapper inherits from the cause's class, but its text is a remote traceback.
            cause = getattr(current, "cause", None)
            return cause if isinstance(cause, V2AError) else current
        seen.add(id(current))
        # Ray Core, Ray Train and Python each have their own name for the cause.
        causes = (getattr(current, name, None) for name in ("cause", "controller_failure", "__cause__"))
        current = next((cause for cause in causes if cause), None)
    return None
