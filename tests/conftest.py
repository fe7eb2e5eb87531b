"""Fixtures of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

# The networks in tests are tiny, so several threads would only wait for each other.
torch.set_num_threads(1)
# A process in a shell's background ignores SIGINT, and SIGHUP under `nohup`; restore both for the commands of tests.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for the whole test session, because starting it takes seconds."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")
    # Metrics are exported every second, for the test that reads them.
    often = {"metrics_report_interval_ms": 1000}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _system_config=often)
    yield
    ray.shutdown()


@pytest.fixture
def kill_once(tmp_path: Path) -> Callable[[int, int, dict[str, float]], None]:
    """A progress callback that kills its process once, at step 5; `tmp_path/steps` records every step."""
    killed, steps = tmp_path / "killed", tmp_path / "steps"

    def progress(step: int, num_steps: int, metrics: dict[str, float]) -> None:
        with steps.open("a") as file:
            file.write(f"{step}\n")
        if step == 5 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return progress
