"""Object storage: files below an address such as `s3://bucket/prefix`, through fsspec.

fsspec and not `pyarrow.fs`, because claiming something needs a conditional write ("create unless it is there"), which
`pyarrow.fs` does not have. There is no rename, no lock and no append; a file appears whole or not at all.
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from v2a_ray.errors import ConfigError, StorageError

PACKAGES = {"s3": "v2a_ray[s3]", "gs": "v2a_ray[gcs]"}
"""The schemes that can hold artifacts and results, and what installs them."""
CONNECT_SECONDS, READ_SECONDS, MAX_ATTEMPTS = 10, 30, 8
CLAIM_ATTEMPTS = 5
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Standard mode repeats requests after throttling, 5xx answers, timeouts and broken connections, with backoff.
    "s3": {
        "config_kwargs": {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"mode": "standard", "max_attempts": MAX_ATTEMPTS},
        }
    }
}
_READING: Mapping[str, Mapping[str, Any]] = {"s3": {"max_concurrency": 1}}
"""For objects that are read whole into memory: s3fs would ask for the size first, to read large ones in parts."""
Found = TypeVar("Found")


def is_address(text: object) -> bool:
    """Whether something is a URI rather than a path; `Path` makes `s3:/bucket` of one."""
    return bool(_SCHEME.match(str(text)))


def require_folder_name(text: object) -> None:
    """Raise StorageError for a URI where only a folder works: a folder of that name would be made in silence."""
    if is_address(text):
        raise StorageError(
            "is an address, and this works on a folder",
            where=str(text),
            remedy="give a path; object storage can be `store`, `--run-dir` of run, sweep and submit, and what status, "
            "report and evaluate read",
        )


def cache_root() -> Path:
    """Where this node keeps copies of what lies in object storage: $V2A_CACHE, or `~/.cache/v2a_ray`."""
    return Path(os.environ.get("V2A_CACHE") or "~/.cache/v2a_ray").expanduser().resolve()


class ObjectFolder:
    """The objects below one address, by names relative to it."""

    def __init__(self, address: str) -> None:
        """Raises ConfigError for an address that cannot be used."""
        self.address = address.rstrip("/")
        scheme, separator, rest = self.address.partition("://")
        if not separator or scheme not in PACKAGES or not rest:
            raise ConfigError(
                "is no object storage that artifacts or results can lie in",
                where=address,
                remedy=f"{' or '.join(f'{each}://BUCKET/PREFIX' for each in PACKAGES)}, or a folder",
            )
        self.scheme, self.prefix = scheme, rest

    @property
    def filesystem(self) -> Any:
        """fsspec's file system, one for each process. Raises ConfigError when its package is not installed."""
        return _filesystem(self.scheme)

    def __truediv__(self, name: str) -> ObjectFolder:
        return ObjectFolder(f"{self.address}/{name}")

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if there is none."""
        try:
            options = _READING.get(self.scheme, {})
            return bytes(self._ask(lambda files: files.cat_file(self._path(name), **options)))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, or replace it."""
        self._ask(lambda files: files.pipe_file(self._path(name), content), may_be_missing=False)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless there is one, decided by the storage; returns whether the object is this one.

        `content` must be unlike that of any other writer: after a lost answer it tells who wrote the object.
        """
        for attempt in range(CLAIM_ATTEMPTS):
            try:
                self.filesystem.pipe_file(self._path(name), content, mode="create")
                return True
            except ImportError:
                raise
            except Exception as error:
                # A refusal, or an answer that was lost on the way after the object was written.
                there = self.read(name)
                if there is not None:
                    return there == content
                if attempt == CLAIM_ATTEMPTS - 1:
                    raise self._failed(error) from error
                time.sleep(random.uniform(0, 2**attempt / 4))
        raise AssertionError

    def upload(self, files: Mapping[str, Path]) -> None:
        """Write files, by the names of the objects, some at a time."""
        if files:
            local, remote = [str(path) for path in files.values()], [self._path(name) for name in files]
            self._ask(lambda storage: storage.put(local, remote), may_be_missing=False)

    def download(self, names: Iterable[str], folder: Path) -> None:
        """Read objects into files of the same names below `folder`, some at a time."""
        wanted = list(names)
        for name in wanted:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if wanted:
            remote, local = [self._path(name) for name in wanted], [str(folder / name) for name in wanted]
            self._ask(lambda files: files.get(remote, local))

    def names(self, below: str = "") -> list[str]:
        """Sorted names of all objects whose names begin with `below` and a slash."""
        top = self._path(below) if below else self.prefix
        parent, _, last = top.rpartition("/")
        # With a prefix fsspec asks once. Without one it asks twice more where there is nothing.
        options = {"prefix": f"{last}/"} if parent else {}
        try:
            found = self._ask(lambda files: files.find(parent or top, **options))
        except FileNotFoundError:
            return []
        return sorted(path.removeprefix(self.prefix + "/") for path in found)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects that may be gone already."""
        wanted = [self._path(name) for name in names]
        if wanted:
            try:
                self._ask(lambda files: files.rm(wanted))
            except FileNotFoundError:
                return

    def prepare(self) -> None:
        """Raise StorageError unless objects can be written here."""
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        self.write(probe, b"\0")
        self.remove([probe])

    def _path(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _ask(self, request: Callable[[Any], Found], may_be_missing: bool = True) -> Found:
        """The answer to a request.

        Raises FileNotFoundError for an object that `may_be_missing`, and StorageError for all else that goes wrong.
        """
        try:
            return request(self.filesystem)
        except ConfigError:
            raise
        except Exception as error:  # every storage has errors of its own
            if may_be_missing and isinstance(error, FileNotFoundError):
                raise
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StorageError:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return StorageError(
            f"object storage: {reason[0]}",
            where=self.address,
            remedy="check the bucket, credentials and network; the same command goes on where it stopped",
        )


@cache
def _filesystem(scheme: str) -> Any:
    # Few commands need it.
    import fsspec

    try:
        # Listings change under our hands, from other nodes.
        return fsspec.filesystem(scheme, use_listings_cache=False, **_OPTIONS.get(scheme, {}))
    except ImportError as error:
        raise ConfigError(
            f"{scheme}:// needs a package: {error}",
            where=f"{scheme}://",
            remedy=f"pip install '{PACKAGES[scheme]}' on every node",
        ) from None
