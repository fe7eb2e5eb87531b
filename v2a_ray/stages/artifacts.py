"""The content-addressed store: what a stage computed, under the hash of everything that determined it.

<store>/<stage>/<key>/            a finished artifact; never changed
<store>/<stage>/<key>.work/       checkpoints of an artifact in the making; removed when it is finished
<store>/<stage>/<key>.tmp-<id>/   its files being written; renamed when complete, so nothing is ever half there
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from v2a_ray.errors import StorageError

STAGE_VERSION = 2
"""Part of every key: raise it when a change of code moves the numbers of a stage, and say so in CHANGELOG."""


STAGES = (
    "data",
    "source",
    "rows",
    "modality",
    "advantage",
    "alignment",
    "density",
    "dynamics",
    "correction",
    "policy",
    "diagnosis",
)


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
    """Artifacts below one folder, which may be shared by many runs and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, stage: str, key: str) -> Path:
        """Where the finished artifact lies, or will."""
        return self.root / stage / key

    def work(self, stage: str, key: str) -> Path:
        """Folder for checkpoints of the artifact while it is being made."""
        return self.root / stage / f"{key}.work"

    def find(self, stage: str, key: str) -> Artifact | None:
        """The finished artifact, if there is one."""
        record = self.path(stage, key) / "artifact.json"
        if not record.exists():
            return None
        seconds = float(json.loads(record.read_text())["seconds"])
        return Artifact(stage, key, self.path(stage, key), seconds, cached=True)

    def all(self) -> list[Artifact]:
        """Every finished artifact."""
        records = sorted(self.root.glob("*/*/artifact.json"))
        found = (self.find(record.parent.parent.name, record.parent.name) for record in records)
        return [artifact for artifact in found if artifact]

    def clear(self) -> int:
        """Remove every artifact and every checkpoint; returns how many artifacts there were."""
        artifacts = self.all()
        for stage in STAGES:
            shutil.rmtree(self.root / stage, ignore_errors=True)
        return len(artifacts)

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
        final, output = self.path(stage, key), self.root / stage / f"{key}.tmp-{uuid.uuid4().hex[:8]}"
        try:
            with self.writing():
                output.mkdir(parents=True)
                make(output, self.work(stage, key))
                seconds = spent_seconds + time.perf_counter() - start
                record = {"stage": stage, "key": key, "seconds": seconds, **about}
                (output / "artifact.json").write_text(json.dumps(record, indent=1, default=str))
                with suppress(FileExistsError):  # another process was faster; both computed the same
                    _rename(output, final)
        except StorageError:
            # A faster process removes the checkpoints, perhaps under this one's hands.
            if found := self.find(stage, key):
                return found
            raise
        finally:
            shutil.rmtree(output, ignore_errors=True)
        # With the checkpoints go files of processes that were killed at this; of one that lives, it takes ours then.
        for leftover in [self.work(stage, key), *self.root.glob(f"{stage}/{key}.tmp-*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        return Artifact(stage, key, final, seconds, cached=False)

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


def store_root(folder: str | None) -> Path:
    """The store that a configuration names, absolute; without one the default."""
    return Path(folder).expanduser().resolve() if folder else default_store()


def default_store() -> Path:
    """$V2A_STORE, or `runs/artifacts` below the present folder."""
    return Path(os.environ.get("V2A_STORE") or "runs/artifacts").expanduser().resolve()


def _rename(source: Path, destination: Path) -> None:
    if destination.exists():
        if (destination / "artifact.json").exists():
            raise FileExistsError(destination)
        shutil.rmtree(destination)
    source.rename(destination)
