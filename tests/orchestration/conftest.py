"""Fixtures for tests that need a separate cluster."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.orchestration.ray_head import RayHead


@pytest.fixture(scope="session")
def running_head() -> Iterator[list[RayHead]]:
    """The head that runs, if there is one; the same for all modules as long as it lives."""
    running: list[RayHead] = []
    yield running
    for each in running:
        each.stop()


@pytest.fixture(scope="module")
def head(running_head: list[RayHead]) -> RayHead:
    """A head with two cores, a job server and token authentication."""
    if running_head and not running_head[0].is_alive:
        warnings.warn(f"the head had ended, and another is started:\n{running_head[0].last_words()}", stacklevel=1)
        running_head.pop().stop()
    if not running_head:
        # It notices a dead node in seconds instead of a quarter of a minute.
        running_head.append(RayHead(RAY_health_check_period_ms="500"))
    return running_head[0]
