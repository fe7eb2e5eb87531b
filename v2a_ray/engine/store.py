"""The content-addressed store of artifacts: each is stored under the hash of everything that determines it.

<store>/<stage>/<key>/            a finished artifact; never changed
<store>/<stage>/<key>.work/       checkpoints of an unfinished artifact; removed when it is finished
<store>/<stage>/<key>.tmp-<id>/   its files being written; renamed when complete, so artifacts are never incomplete
<store>/<stage>/<key>.damaged-<id>/  a damaged artifact, set aside
<store>/checked/                  times of the last verification of large artifacts
<store>/digests/                  digests of data files (`data.digests`)
<store>/v2a-store.json            marks the folder as a store

An artifact's `artifact.json` holds size and SHA-256 of each of its files, and its own checksum.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from v2a_ray.checksums import Digests, damage, folder_digests, read_sealed, write_sealed
from v2a_ray.errors import StorageError
from v2a_ray.files import prepare_folder, sync, sync_entries, write_json

_log = logging.getLogger(__name__)

RECORD = "artifact.json"
MARKER = "v2a-store.json"
NOTES = "checked"
LARGE_BYTES = 2**26
"""Artifacts of this size or more are not hashed by every process; hashing a smaller one takes up to 50 ms."""
VERIFIED_SECONDS = 3600.0

STAGE_VERSION = 3
"""Part of every key: raise it when a change of code changes the numbers of a stage, and say so in CHANGELOG."""


def stage_key(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int = 0) -> str:
    """Key of the artifact of `stage` for `settings`, the keys of its `inputs` and a seed."""
    content = {"stage": stage, "version": STAGE_VERSION, "settings": settings, "inputs": inputs, "seed": seed}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, and whether it existed before (`cached`)."""

    stage: str
    key: str
    path: Path
    seconds: float
    cached: bool


class ArtifactStore:
    """Artifacts in one folder, which may be shared by many runs and processes.

    `find` and `require` return an artifact only if all its files are intact. They hash the files, unless this object
    did so less than VERIFIED_SECONDS ago, or for an artifact of LARGE_BYTES or more, any process did. Damage by the
    disk in that time goes unnoticed, except that a changed size or time of a large artifact's file is noticed.
    """

    is_shared_folder = True
    """Whether all nodes have to see the folder `root`; else every node has its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[Path, tuple[list[int], float, Artifact]] = {}
        """Verified artifacts by path: (state of the record, time in monotonic seconds, artifact)."""

    def __getstate__(self) -> dict[str, Any]:
        # The verifications of one process may be outdated in another.
        return {"root": self.root, "_verified": {}}

    @property
    def address(self) -> str:
        """What a user calls the store."""
        return str(self.root)

    def prepare(self) -> None:
        """Raise StorageError unless the store can be written to."""
        prepare_folder(self.root)

    def here(self, artifact: Artifact) -> Artifact:
        """An artifact that another process made, with files that this one can read."""
        return artifact

    @contextmanager
    def computing(self, stage: str, keys: Sequence[str]) -> Iterator[None]:
        """Around what computes artifacts in their `work` folders before `get_or_make` is called for them."""
        yield

    @contextmanager
    def surveyed(self, wanted: Collection[tuple[str, str]]) -> Iterator[None]:
        """Look for many artifacts, given by stage and key, at once; in the block `find` and `look` use what was seen.

        What others finish meanwhile may go unnoticed until the block ends.
        """
        yield

    def path(self, stage: str, key: str) -> Path:
        """The folder of the finished artifact, whether it exists or not."""
        return self.root / stage / key

    def work(self, stage: str, key: str) -> Path:
        """Folder for checkpoints of the unfinished artifact."""
        return self.root / stage / f"{key}.work"

    def discard_work(self, stage: str, key: str) -> None:
        """Remove the checkpoints of an artifact that will not be made."""
        shutil.rmtree(self.work(stage, key), ignore_errors=True)

    def look(self, stage: str, key: str) -> Artifact | None:
        """The finished artifact by its intact record, without verifying its files; None if there is none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = read_sealed(self.path(stage, key) / RECORD)
            if (record["stage"], record["key"]) == (stage, key):
                return Artifact(stage, key, self.path(stage, key), float(record["seconds"]), cached=True)
        return None

    def lookup(self) -> Callable[[str, str], bool]:
        """Says of many artifacts, by stage and key, whether each has a record, without a request for each."""
        return lambda stage, key: self.look(stage, key) is not None

    def find(self, stage: str, key: str) -> Artifact | None:
        """The finished, intact artifact, or None. A damaged one is set aside with a warning."""
        path = self.path(stage, key)
        if not path.exists():
            return None
        before = _state(path / RECORD)
        seen = self._verified.get(path)
        if seen and seen[0] == before and time.monotonic() - seen[1] < VERIFIED_SECONDS:
            return seen[2]
        try:
            record = read_sealed(path / RECORD)
            artifact = Artifact(stage, key, path, float(record["seconds"]), cached=True)
            what = self._damage(stage, key, record["files"])
        except OSError as error:
            what = f"{RECORD} cannot be read: {error.strerror or error}"
        except (ValueError, KeyError, TypeError) as error:
            what = f"{RECORD} is damaged: {error}"
        if what is None:
            self._verified[path] = (before, time.monotonic(), artifact)
            return artifact
        # Meanwhile another process may have written an intact one.
        if _state(path / RECORD) == before:
            _set_aside(path, what)
        return None

    def require(self, stage: str, key: str) -> Artifact:
        """The finished artifact. Raises StorageError if it is gone, or was damaged and has been set aside."""
        if artifact := self.find(stage, key):
            return artifact
        raise StorageError(
            "this input is gone or was damaged",
            where=str(self.path(stage, key)),
            remedy="run the same command again: it recomputes the input and continues where it stopped",
        )

    def get_or_make(
        self,
        stage: str,
        key: str,
        make: Callable[[Path, Path], None],
        about: Mapping[str, Any],
        spent_seconds: float = 0.0,
    ) -> Artifact:
        """The artifact; unless it exists, `make(output, work)` fills the folder `output`, with checkpoints in `work`.

        Several processes, on several nodes, may make the same artifact at a time: the first to finish wins, and the
        others return its artifact. If `make` raises, nothing appears under the key and the checkpoints stay. `about` is
        added to the artifact's record; `spent_seconds` were spent on it before the call.
        """
        if found := self.find(stage, key):
            return found
        start = time.perf_counter()
        output = self.root / stage / f"{key}.tmp-{uuid.uuid4().hex[:8]}"
        try:
            with self.writing():
                output.mkdir(parents=True)
                self._mark()
                make(output, self.work(stage, key))
                seconds = spent_seconds + time.perf_counter() - start
                files = folder_digests(output)
                record = {**about, "stage": stage, "key": key, "seconds": seconds, "files": files}
                write_sealed(output / RECORD, record)
                self._publish(output, stage, key)
        except StorageError:
            # A faster process may have removed the checkpoints while this one used them.
            if found := self.find(stage, key):
                return found
            raise
        finally:
            shutil.rmtree(output, ignore_errors=True)
        self._remember(stage, key, files)
        # Also removes the files of killed processes. A process that still works on this artifact will use ours.
        for leftover in [self.work(stage, key), *self.root.glob(f"{stage}/{key}.tmp-*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        return Artifact(stage, key, self.path(stage, key), seconds, cached=False)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn errors of writing to the store in the block into a StorageError."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            # safetensors reports a full disk by its own error class.
            raise StorageError(
                f"cannot write: {getattr(error, 'strerror', None) or error}",
                where=str(getattr(error, "filename", None) or self.root),
                remedy="free space or choose another folder with `store=DIR` or V2A_STORE",
            ) from error

    def _mark(self) -> None:
        """Mark the folder as a store."""
        if not (self.root / MARKER).exists():
            write_json(self.root / MARKER, {"version": 1})

    def _publish(self, output: Path, stage: str, key: str) -> None:
        """Rename a complete artifact to its final name, unless another process was faster with the same artifact."""
        sync(output)
        final = self.path(stage, key)
        try:
            output.rename(final)
        except OSError:
            if not final.exists():
                raise
            if self.find(stage, key):
                return
            output.rename(final)  # the existing one was damaged and has been set aside
        sync_entries(final.parent)

    def _damage(self, stage: str, key: str, files: Digests) -> str | None:
        """The damage of an artifact's files in words; None if they are intact, or were recently."""
        if self._is_large(files):
            with suppress(OSError, ValueError, KeyError, TypeError):
                note = read_sealed(self._note(stage, key))
                is_recent = 0 <= time.time() - note["time"] < VERIFIED_SECONDS
                if is_recent and note["states"] == self._states(stage, key, files):
                    return None
        what = damage(self.path(stage, key), files)
        if what is None:
            self._remember(stage, key, files)
        return what

    def _remember(self, stage: str, key: str, files: Digests) -> None:
        """Note that a large artifact is intact, for processes that use it soon."""
        if self._is_large(files):
            with suppress(OSError):
                self._note(stage, key).parent.mkdir(exist_ok=True)
                states = self._states(stage, key, files)
                write_sealed(self._note(stage, key), {"time": time.time(), "states": states})

    def _note(self, stage: str, key: str) -> Path:
        return self.root / NOTES / f"{stage}-{key}.json"

    @staticmethod
    def _is_large(files: Digests) -> bool:
        return sum(size for size, _ in files.values()) >= LARGE_BYTES

    def _states(self, stage: str, key: str, files: Digests) -> dict[str, list[int]]:
        return {name: _state(self.path(stage, key) / name) for name in files}


def _state(file: Path) -> list[int]:
    """Inode, size, modification and change time; empty if there is no such file."""
    try:
        status = file.stat()
    except OSError:
        return []
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _set_aside(path: Path, what: str) -> None:
    """Rename a damaged artifact with a warning; only one of several concurrent processes does so."""
    aside = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(
            f"damaged: {what}; it cannot be set aside: {error.strerror}", where=str(path), remedy="remove the folder"
        ) from error
    _log.warning("%s: damaged: %s; it is set aside as %s and made again", path, what, aside.name)
