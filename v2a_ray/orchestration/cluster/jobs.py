"""Jobs on a Ray cluster, through Ray's own job server: submit, list, follow, stop.

A job is the package as it is installed here, one configuration file, and a command that continues where it stopped.
The id of a job is its identity, equal for jobs that write to the same folder, and a number that counts up. The cluster
refuses an id that it knows, so if two users submit at the same moment, it refuses one of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

import v2a_ray
from v2a_ray.errors import ClusterError, ConfigError
from v2a_ray.orchestration.cluster.job_variables import HOOK
from v2a_ray.orchestration.cluster.join import require_cluster, token_error

if TYPE_CHECKING:
    # Listing jobs needs no torch.
    from v2a_ray.orchestration.cluster.job_spec import JobSpec

CONNECT_SECONDS, ANSWER_SECONDS = 5, 60
POLL_SECONDS = 0.5
STOP_SECONDS = 20
"""Ray ends a job's processes gently, and after 3 seconds by force."""
EXCLUDES = ["**/__pycache__/**", "*.pyc"]
NEEDS_EXTRA = "pip install 'v2a_ray[cluster]'"
_QUIET_LOGGERS = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)


@dataclass(frozen=True)
class Job:
    """A job that the cluster knows.

    Attributes:
        id: every command takes it or its beginning.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        name: of the experiment; "" for a job that another program submitted.
        kind: `run` or `sweep`, or "".
        run_dir: folder of the results, or "".
        started, ended: seconds since 1970, or None.
        exit_code: of the command, once it ended by itself.
        message: Ray's text about the status.
    """

    id: str
    status: str
    name: str
    kind: str
    run_dir: str
    started: float | None
    ended: float | None
    exit_code: int | None
    message: str

    @property
    def has_ended(self) -> bool:
        """Whether the job no longer runs."""
        return bool(JobStatus(self.status).is_terminal())


class JobServer:
    """The job server of a cluster.

    Args:
        address: http://HOST:8265, or HOST:6379 of the cluster itself; by default RAY_API_SERVER_ADDRESS, RAY_ADDRESS,
            or the cluster on this machine, like Ray's own `ray job`.

    Raises:
        ClusterError: nothing answers there, our token is refused, or the cluster has another Ray.
        ConfigError: Ray's job client is not installed.
    """

    def __init__(self, address: str | None = None) -> None:
        asked = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "auto"
        self.address = asked if "://" in asked else _address_of_server(asked)
        for name in _QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._asking(), _only_address(self.address):
            self._client = _Client(self.address)
            version = str(self._client.server_ray_version)
        if version.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise ClusterError(
                f"the cluster runs Ray {version}, this package needs {ray.__version__}",
                where=self.address,
                remedy=f"start the cluster with ray=={ray.__version__}",
            )

    def submit(self, spec: JobSpec) -> Job:
        """Hand a job to the cluster. Raises ConfigError if a running job writes to the same folder."""
        earlier = [job for job in self.jobs() if job.id.rpartition("-")[0] == spec.identity]
        if unfinished := [job for job in earlier if not job.has_ended]:
            raise self._already(unfinished[0])
        name = f"{spec.identity}-{len(earlier) + 1}"
        metadata = {
            "v2a_ray": v2a_ray.__version__,
            "v2a_kind": spec.kind,
            "v2a_name": spec.name,
            "v2a_run_dir": spec.run_dir,
        }
        with tempfile.TemporaryDirectory(prefix="v2a-job-") as folder, self._asking():
            spec.write(Path(folder))
            hook = {"worker_process_setup_hook": HOOK} if spec.environment else {}
            try:
                self._client.submit_job(
                    entrypoint=spec.entrypoint,
                    runtime_env={
                        "working_dir": folder,
                        "py_modules": [str(Path(v2a_ray.__file__).parent)],
                        "excludes": EXCLUDES,
                        **hook,
                    },
                    metadata=metadata,
                    submission_id=name,
                )
            except RuntimeError as error:
                if "already exists" in str(error):
                    raise self._already(self.find(name)) from None
                raise
        return self.find(name)

    def jobs(self) -> list[Job]:
        """Every job that was submitted to the cluster, the newest first."""
        with self._asking():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if details.type == JobType.SUBMISSION]
        return sorted(jobs, key=lambda job: job.started or 0, reverse=True)

    def find(self, beginning: str) -> Job:
        """The job with the id `beginning`, or the only one whose id begins with it. Raises ConfigError otherwise."""
        jobs = self.jobs()
        found = [job for job in jobs if job.id == beginning] or [job for job in jobs if job.id.startswith(beginning)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(job.id for job in found[:5])
            raise ConfigError(f"{len(found)} jobs begin with {beginning!r}: {names}", remedy="give more of the id")
        raise ConfigError(f"no job begins with {beginning!r}", where=self.address, remedy="`v2a jobs list` shows them")

    def logs(self, job: Job) -> str:
        """All that the job has printed so far."""
        with self._asking():
            return str(self._client.get_job_logs(job.id))

    def cluster_status(self) -> str:
        """Nodes, used resources and what waits for resources, in the words of `ray status`."""
        with self._asking():
            answer = self._client._do_request("GET", "/api/cluster_status?format=1").json()
        return str(answer["data"].get("clusterStatus") or "the cluster says nothing about its nodes yet").strip()

    def follow(self, job: Job, show: Callable[[str], None]) -> Job:
        """Pass the job's output on until it ends; returns the ended job. Reconnects after a broken connection."""
        shown = 0
        while True:
            shown = asyncio.run(self._tail(job.id, shown, show))
            job = self.find(job.id)
            if job.has_ended:
                return job
            time.sleep(POLL_SECONDS)

    async def _tail(self, name: str, shown: int, show: Callable[[str], None]) -> int:
        """Pass on the log after its first `shown` characters until the connection ends; returns the log's length."""
        import aiohttp

        seen = 0
        lines: AsyncIterator[str] = self._client.tail_job_logs(name)
        try:
            async for text in lines:
                if seen + len(text) > shown:
                    show(text[max(0, shown - seen) :])
                seen += len(text)
        except (aiohttp.ClientError, RuntimeError, OSError):
            # The caller asks for the job's status and connects again if the job still runs.
            pass
        return max(seen, shown)

    def stop(self, job: Job) -> Job:
        """End a job and wait for its end. Returns an ended job unchanged."""
        if job.has_ended:
            return job
        with self._asking():
            self._client.stop_job(job.id)
        deadline = time.monotonic() + STOP_SECONDS
        while not job.has_ended and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            job = self.find(job.id)
        return job

    def _already(self, job: Job) -> ConfigError:
        return ConfigError(
            f"the job {job.id} writes to this folder and is {job.status}",
            where=job.run_dir,
            remedy=f"`v2a jobs logs {job.id} --follow` watches it, `v2a jobs stop {job.id}` ends it; "
            "or choose another --run-dir",
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn errors of the connection to the server into a ClusterError."""
        import requests

        try:
            yield
        except AuthenticationError as error:
            raise token_error(self.address, has_token="Authentication failed" in str(error)) from None
        except (requests.RequestException, OSError) as error:
            raise self._unreachable(_reason(error)) from None
        except (RuntimeError, KeyError) as error:
            raise self._unreachable(_reason(error)) from None

    def _unreachable(self, reason: str) -> ClusterError:
        return ClusterError(
            f"no Ray job server answers: {reason}",
            where=self.address,
            remedy="give http://HOST:8265 of the head, which needs `ray[default]`; where that port is not open, "
            "`ssh -L 8265:localhost:8265 HOST` or `kubectl port-forward` brings it here",
        )


class _Client(JobSubmissionClient):
    """Ray's client with timeouts."""

    def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=(CONNECT_SECONDS, ANSWER_SECONDS), **more)

    @property
    def server_ray_version(self) -> str:
        """The cluster's Ray."""
        return str(self._do_request("GET", "/api/version").json()["ray_version"])


def _address_of_server(address: str) -> str:
    """URL of the job server of the cluster at HOST:PORT or `auto`. Raises ClusterError if it has none."""
    dashboard = require_cluster(address)["dashboard"]
    if not dashboard:
        raise ClusterError("the cluster has no job server", where=address, remedy=f"on its head {NEEDS_EXTRA}")
    return f"http://{dashboard}"


@contextmanager
def _only_address(address: str) -> Iterator[None]:
    """Set the environment variable to `address`: Ray's client prefers it to the address that it is given."""
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_API_SERVER_ADDRESS"]
        else:
            os.environ["RAY_API_SERVER_ADDRESS"] = before


def _job(details: JobDetails) -> Job:
    metadata = details.metadata or {}
    return Job(
        id=details.submission_id,
        status=str(details.status.value),
        name=metadata.get("v2a_name", ""),
        kind=metadata.get("v2a_kind", ""),
        run_dir=metadata.get("v2a_run_dir", ""),
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
        message=details.message or "",
    )


def _reason(error: BaseException) -> str:
    """One line about an error of the HTTP library."""
    import requests

    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, (requests.ConnectionError, ConnectionError)):
        return "the connection fails"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
