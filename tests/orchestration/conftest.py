"""Fixtures of what needs a cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray_head import RayHead


@pytest.fixture(scope="session")
def head() -> Iterator[RayHead]:
    """A head with two cores, a job server and token authentication."""
    # It finds out that a node is dead in seconds instead of a quarter of a minute.
    started = RayHead(RAY_health_check_period_ms="500")
    yield started
    started.stop()
