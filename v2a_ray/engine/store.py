"""The content-addressed store: what a stage computed, under the hash of everything that determined it.

<store>/<stage>/<key>/            a finished artifact; never changed
<store>/<stage>/<key>.work/       checkpoints of an artifact in the making; removed when it is finished
<store>/<stage>/<key>.tmp-<id>/   its files being written; renamed when complete, so nothing is ever half there
<store>/<stage>/<key>.damaged-<id>/  one whose files are not what was written, set aside
<store>/checked/                  when large artifacts were last found whole
<store>/digests/                  of data files (`data.digests`)
<store>/v2a-store.json            says that the folder is a store

An artifact's `artifact.json` holds size and SHA-256 of each of its files, and its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""Of an artifact that not every process hashes for itself: below it takes some 50 ms."""
VERIFIED_SECONDS = 3600.0

STAGE_VERSION = 3
"""Part of every key: raise it when a change of code moves the numbers of a stage, and say so in CHANGELOG."""


def stage_key(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], seed: int = 0) -> str:
    """Key of what `stage` computes from `settings`, the keys of its `inputs` and a seed."""
    content = {"stage": stage, "version": STAGE_VERSION, "settings": settings, "inputs": inputs, "seed": seed}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: where it lies, and whether it was there already."""

    stage: str
    key: str
    path: Path
    seconds: float
    cached: bool


class ArtifactStore:
    """Artifacts below one folder, which may be shared by many runs and processes.

    `find` and `require` give an artifact only if every file of it is what was written. That is known once its files
    were hashed: by this object, or of an artifact of LARGE_BYTES and more by any process, less than VERIFIED_SECONDS
    ago. What a disk does to it within that time goes unseen; what changes the size or a time of a large one's file does
    not.
    """

    is_shared_folder = True
    """Whether all nodes have to see the folder `root`; else every node has its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[Path, tuple[list[int], float, Artifact]] = {}
        """Of what was hashed: the state of its record, when (monotonic seconds), and what was found."""

    def __getstate__(self) -> dict[str, Any]:
        # What one process has seen is no news to another by the time that it gets there.
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

    def path(self, stage: str, key: str) -> Path:
        """Where the finished artifact lies, or will."""
        return self.root / stage / key

    def work(self, stage: str, key: str) -> Path:
        """Folder for checkpoints of the artifact while it is being made."""
        return self.root / stage / f"{key}.work"

    def discard_work(self, stage: str, key: str) -> None:
        """Remove the checkpoints of an artifact that will not be made."""
        shutil.rmtree(self.work(stage, key), ignore_errors=True)

    def look(self, stage: str, key: str) -> Artifact | None:
        """The finished artifact by its whole record, which is all that is read; None if there is none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = read_sealed(self.path(stage, key) / RECORD)
            if (record["stage"], record["key"]) == (stage, key):
                return Artifact(stage, key, self.path(stage, key), float(record["seconds"]), cached=True)
        return None

    def find(self, stage: str, key: str) -> Artifact | None:
        """The finished artifact, if there is one and it is whole. One that is damaged is set aside, with a warning."""
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
            what = f"{RECORD} is no whole record: {error}"
        if what is None:
            self._verified[path] = (before, time.monotonic(), artifact)
            return artifact
        # Another process may have put a whole one there since.
        if _state(path / RECORD) == before:
            _set_aside(path, what)
        return None

    def require(self, stage: str, key: str) -> Artifact:
        """The finished artifact. Raises StorageError when it is gone, or was damaged and has been set aside."""
        if artifact := self.find(stage, key):
            return artifact
        raise StorageError(
            "this input is gone or was damaged",
            where=str(self.path(stage, key)),
            remedy="the same command makes it again, and goes on where it stopped",
        )

    def get_or_make(
        self,
        stage: str,
        key: str,
        make: Callable[[Path, Path], None],
        about: Mapping[str, Any],
        spent_seconds: float = 0.0,
    ) -> Artifact:
        """The artifact; `make(output, work)` fills the folder `output` unless it exists, with checkpoints in `work`.

        Several processes, on several nodes, may make the same one at a time: the first to finish wins, and the others
        return what it made. When `make` raises, nothing appears under the key and the checkpoints stay. `about` is
        written beside the artifact; `spent_seconds` were spent on it before the call.
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
            # A faster process removes the checkpoints, perhaps under this one's hands.
            if found := self.find(stage, key):
                return found
            raise
        finally:
            shutil.rmtree(output, ignore_errors=True)
        self._remember(stage, key, files)
        # With the checkpoints go files of processes that were killed at this; of one that lives, it takes ours then.
        for leftover in [self.work(stage, key), *self.root.glob(f"{stage}/{key}.tmp-*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        return Artifact(stage, key, self.path(stage, key), seconds, cached=False)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what goes wrong in the block when the store cannot be written into a StorageError."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            # safetensors reports a full disk as an error of its own.
            raise StorageError(
                f"cannot write: {getattr(error, 'strerror', None) or error}",
                where=str(getattr(error, "filename", None) or self.root),
                remedy="free space or choose another folder with `store=DIR` or V2A_STORE",
            ) from error

    def _mark(self) -> None:
        """Say that the folder is a store."""
        if not (self.root / MARKER).exists():
            write_json(self.root / MARKER, {"version": 1})

    def _publish(self, output: Path, stage: str, key: str) -> None:
        """Give a complete artifact its name, unless another process was faster: both computed the same."""
        sync(output)
        final = self.path(stage, key)
        try:
            output.rename(final)
        except OSError:
            if not final.exists():
                raise
            if self.find(stage, key):
                return
            output.rename(final)  # what was there was damaged and is out of the way
        sync_entries(final.parent)

    def _damage(self, stage: str, key: str, files: Digests) -> str | None:
        """What is wrong with an artifact's files; None if nothing is, or was a moment ago."""
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
        """Note that a large artifact is whole, for processes that will take it into use soon."""
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
    """Take a damaged artifact out of the way and say so, once, whatever processes see it at a time."""
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
