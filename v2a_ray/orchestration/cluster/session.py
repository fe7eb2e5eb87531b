"""Starting Ray, or joining the cluster that is there, quietly. Token authentication stays as Ray sets it."""

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
    """The Ray that is running, the one at `address`, or a local one that ends with the block.

    Args:
        num_cpus: cores of a local Ray; by default all.
        verbose: let Ray's own messages and its workers' output through. They stay in Ray's session folder otherwise.
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
    # Workers of a local Ray are what the user is waiting for; Ray would run them at the lowest priority.
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
        # Ray replaces the handlers of signals by ones that abort.
        renew_handlers()
        require_same_imports() if asked == "local" else require_same_package()
        yield
    finally:
        ray.shutdown()


class _ImportsOfThisProcess(JobConfig):
    """Workers look for modules where this process does.

    Ray would let them look in the folder that the command is called in before all others, where another checkout may
    lie, or any file named like a module. It leaves that out where it believes that a job ships its folder.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def _own_first_path() -> list[str]:
    """The folder that Python put before all others for this process: a script's own, or the present one for `-m`."""
    first = sys.path[0] if sys.path and not sys.flags.safe_path else ""
    return [str(Path(first).resolve())] if first and Path(first).is_dir() else []


def _start(settings: Mapping[str, Any]) -> None:
    """Start or join Ray, and try once more when that fails. Raises ClusterError with one line of why."""
    for attempt in (1, 2):
        try:
            ray.init(**settings)
            return
        except SystemExit as ending:
            # Ray's handlers of SIGTERM, which hold while it starts, end the process with statuses of their own.
            if not are_caught():
                raise
            raise terminated() from ending
        except (OSError, RuntimeError, ValueError, ConnectionError, TimeoutError, ray.exceptions.RayError) as error:
            ray.shutdown()
            if attempt == 2:
                lines = [line for line in str(error).strip().splitlines() if line.strip()]
                reason = lines[0].strip() if lines else type(error).__name__
                raise ClusterError(
                    f"Ray does not start: {reason}",
                    where=str(settings["address"]),
                    remedy="check free space and permissions of the folder for temporary files (RAY_TMPDIR chooses "
                    "another, with a short path), free memory, and the limit of open files (`ulimit -n`); "
                    "--verbose shows what Ray says",
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
    """Ray Data without bars and messages, for the terminal is ours (its log files are written all the same)."""
    settings = {
        "enable_progress_bars": False,
        # The new reader of 2.60 lists files in threads that race for an import and fail where aiohttp is not installed.
        "use_datasource_v2": False,
        # Ray Data's own wrapping loses what a check raised on its way between processes.
        "raise_original_map_exception": True,
        # Memory is reserved per operator of a long pipeline; ours have one, which waits a second for its second task.
        "op_resource_reservation_enabled": False,
    }
    # It imports pandas, which processes that read no data need not wait for.
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
        # Ray Core, Ray Train and Python each have their own name for it.
        causes = (getattr(current, name, None) for name in ("cause", "controller_failure", "__cause__"))
        current = next((cause for cause in causes if cause), None)
    return None
