"""A Ray cluster as users have it: a head with dashboard and job server, token authentication, further nodes."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import v2a_ray

REPOSITORY = Path(v2a_ray.__file__).parents[1]
START_SECONDS, MAX_STARTS = 180, 3
ANY_PORTS = [
    "--dashboard-agent-listen-port=0",
    "--runtime-env-agent-port=0",
    "--metrics-export-port=0",
    "--min-worker-port=0",
    "--max-worker-port=0",
]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


class RayHead:
    """A head that runs until `stop`; users get `address` and `jobs`, and `client` is their environment."""

    def __init__(self, num_cpus: int = 2, more: Sequence[str] = (), gcs: int | None = None, **variables: str) -> None:
        # The paths of Ray's sockets may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="v2a-", dir="/tmp"))
        self.token = secrets.token_hex(32)
        (self.folder / "token").write_text(self.token)
        self.client = environment(RAY_AUTH_TOKEN_PATH=str(self.folder / "token"))
        self.processes: list[subprocess.Popen[bytes]] = []
        gcs, dashboard = gcs or free_port(), free_port()
        self.address, self.jobs = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        options = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", "--include-dashboard=true"]
        options += [f"--ray-client-server-port={free_port()}", f"--temp-dir={self.folder}/ray"]
        try:
            self._start([*options, f"--num-cpus={num_cpus}", *more], **variables)
        except BaseException:
            self.stop()
            raise

    def add_node(self, num_cpus: int = 1, within: Sequence[str] = (), **variables: str) -> subprocess.Popen[bytes]:
        """A further node, its command preceded by `within`, with more environment variables."""
        return self._start([f"--address={self.address}", f"--num-cpus={num_cpus}"], within, **variables)

    def _start(self, options: list[str], within: Sequence[str] = (), **variables: str) -> subprocess.Popen[bytes]:
        """Ray gives up when its own processes take half a minute to answer, as they may on a busy machine."""
        is_node = bool(self.processes)
        for attempt in range(MAX_STARTS):
            if is_node and not self.is_alive:
                break
            process, log = self._launch(options, within, variables, attempt)
            deadline = time.monotonic() + START_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                if "Ray runtime started" in log.read_text():
                    return process
                time.sleep(0.2)
            self.remove(process)
        raise AssertionError(self.last_words())

    def _launch(
        self, options: list[str], within: Sequence[str], variables: Mapping[str, str], attempt: int
    ) -> tuple[subprocess.Popen[bytes], Path]:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *ANY_PORTS]
        log = self.folder / f"start-{len(self.processes)}-{attempt}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*within, *ray, *options],
                env={**self.client, **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process, log

    @property
    def is_alive(self) -> bool:
        """Whether the head still runs. Ray ends all of it when one of its processes dies."""
        return bool(self.processes) and self.processes[0].poll() is None

    def last_words(self) -> str:
        """The end of what each start printed, and what Ray wrote of processes of its that ended."""
        logs = [*sorted(self.folder.glob("start-*.log")), *self.folder.glob("ray/session_2*/logs/ray_process_exit.log")]
        return "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in logs)

    def remove(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a node; its workers end when they notice. A graceful stop of Ray takes half a minute."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.processes.remove(process)

    def stop(self) -> None:
        for process in reversed(list(self.processes)):
            self.remove(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def environment(**variables: str) -> dict[str, str]:
    """This environment without variables of a cluster or a token, with authentication and this checkout first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "V2A_"))}
    return kept | {
        "RAY_AUTH_MODE": "token",
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def v2a(*arguments: str, cwd: Path, env: dict[str, str], timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """The command as a user calls it; the text of errors in one line."""
    command = [sys.executable, "-m", "v2a_ray.cli.main", *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
    done.stderr = " ".join(done.stderr.split())
    return done
