"""The S3 server of all tests here, and a clean bucket with a cache for each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.storage.s3_server import BUCKET, S3Server
from v2a_ray.objects import _filesystem


@pytest.fixture(scope="session")
def s3_session() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_session: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    """The server without faults; this process and those that it starts use it."""
    for name, value in s3_session.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("V2A_CACHE", str(tmp_path / "cache"))
    _filesystem.cache_clear()
    fsspec.filesystem("s3").clear_instance_cache()
    files = fsspec.filesystem("s3")
    if not files.exists(BUCKET):
        files.mkdir(BUCKET)
    s3_session.requests.clear()
    yield s3_session
    s3_session.fault = lambda request: False


@pytest.fixture
def address(s3: S3Server) -> str:
    """A prefix that no other test uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"
