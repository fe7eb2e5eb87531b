"""Starting Ray, or joining the cluster that is there, quietly. Token authentication stays as Ray sets it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext

from v2a_ray.errors import ClusterError, V2AError
from v2a_ray.orchestration.join import require_cluster, require_same_package, require_versions

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
    # A local Ray has no dashboard: nothing of it listens beyond this machine.
    local = {"num_cpus": num_cpus, "include_dashboard": False} if asked == "local" else {}
    try:
        ray.init(
            address=asked,
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
            configure_logging=verbose,
            **local,
        )
        if asked != "local":
            require_same_package()
        yield
    finally:
        ray.shutdown()


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
