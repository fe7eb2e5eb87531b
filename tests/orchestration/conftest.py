"""Fixtures of what needs a cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray_head import RayHead


@pytest.fixture(scope="session")
def head() -> Iterator[RayHead]:
    """A head with two cores, a job server and token authentication."""
    started = RayHead()
    yield started
    started.stop()
