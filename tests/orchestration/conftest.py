"""Fixtures for tests that need a separate cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.orchestration.ray_head import RayHead


@pytest.fixture(scope="session")
def head() -> Iterator[RayHead]:
    """A head with two cores, a job server and token authentication."""
    # It notices a dead node in seconds instead of a quarter of a minute.
    started = RayHead(RAY_health_check_period_ms="500")
    yield started
    started.stop()
