"""A store in object storage. Every node has a cache, which is an ordinary store in a local folder.

<address>/records/<stage>/<key>.json         the sealed record, created last, by one writer alone: the artifact is there
<address>/<stage>/<key>/<attempt>/...        its files, under a name of each writer's own
<address>/work/<stage>/<key>/...             checkpoints of an artifact in the making
<address>/leases/<stage>/<key>/...           who makes it

So nothing is renamed, and a reader sees a whole artifact or none: a writer that is killed leaves files that no record
names. What computes reads and maps the cache's files, whose checksums were compared after the download.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from v2a_ray.checksums import damage, sealed, unsealed
from v2a_ray.engine.store import RECORD, Artifact, ArtifactStore
from v2a_ray.files import parse_json, prepare_folder
from v2a_ray.leases import Lease
from v2a_ray.mirror import Mirror, kept
from v2a_ray.objects import ObjectFolder, cache_root

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.5
"""How often who waits for an artifact asks for it."""


class ObjectStore(ArtifactStore):
    """Artifacts at an address; see `ArtifactStore` for the methods."""

    is_shared_folder = False

    def __init__(self, address: str) -> None:
        self.objects = ObjectFolder(address)
        super().__init__(cache_root() / "artifacts" / hashlib.sha256(self.objects.address.encode()).hexdigest()[:16])
        self._published: set[tuple[str, str]] = set()
        """Artifacts that are known to have a record."""
        self._held: set[tuple[str, str]] = set()
        """Artifacts that this process makes."""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"objects": self.objects, "_published": set(), "_held": set()}

    @property
    def address(self) -> str:
        return self.objects.address

    def prepare(self) -> None:
        prepare_folder(self.root)
        self.objects.prepare()

    def look(self, stage: str, key: str) -> Artifact | None:
        if found := super().look(stage, key):
            return found
        record = self._record(stage, key)
        return Artifact(stage, key, self.path(stage, key), float(record["seconds"]), cached=True) if record else None

    def lookup(self) -> Callable[[str, str], bool]:
        """See `ArtifactStore`: from one listing, so that records which are damaged count too."""
        names = frozenset(self.objects.names("records"))
        return lambda stage, key: _record_name(stage, key) in names

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact, in the cache. One that arrives damaged twice is taken out of the storage, with a warning."""
        cached = super().find(stage, key)
        if cached and (stage, key) in self._published:
            return cached
        record = self._record(stage, key)
        if record is None:
            return None
        self._published.add((stage, key))
        return cached or self._fetch(stage, key, record)

    def here(self, artifact: Artifact) -> Artifact:
        """An artifact that another node made, in this node's cache."""
        return replace(self.require(artifact.stage, artifact.key), seconds=artifact.seconds, cached=artifact.cached)

    def discard_work(self, stage: str, key: str) -> None:
        super().discard_work(stage, key)
        if (stage, key) not in self._published:  # else they went when it was published
            self._remove_remote_work(stage, key)

    def get_or_make(
        self,
        stage: str,
        key: str,
        make: Callable[[Path, Path], None],
        about: Mapping[str, Any],
        spent_seconds: float = 0.0,
    ) -> Artifact:
        with self.computing(stage, [key]):
            if found := self.find(stage, key):
                return found
            # A process that was killed between the two may have left it in the cache.
            made = ArtifactStore.find(self, stage, key)
            made = made or super().get_or_make(stage, key, make, about, spent_seconds)
            return self._upload(replace(made, cached=False))

    @contextmanager
    def computing(self, stage: str, keys: Sequence[str]) -> Iterator[None]:
        """Hold the leases of those artifacts that are not there, and keep their checkpoints in the storage too."""
        leases, mirrors = [], []
        with ExitStack() as stack:
            for key in sorted({key for key in keys if (stage, key) not in self._held}):
                if lease := self._leased(stage, key):
                    stack.callback(lease.release)
                    self._held.add((stage, key))
                    stack.callback(self._held.discard, (stage, key))
                    mirror = Mirror(self.work(stage, key), self.objects / f"work/{stage}/{key}", without=["train"])
                    if not self.work(stage, key).exists():
                        mirror.fetch()
                    leases.append(lease)
                    mirrors.append(mirror)
            if not leases:
                yield
                return
            with kept(mirrors, leases):
                yield

    def _leased(self, stage: str, key: str) -> Lease | None:
        """The lease of an artifact, once it can be had; None if there is the artifact."""
        lease = Lease(self.objects / f"leases/{stage}/{key}")
        while not self.find(stage, key):
            if lease.acquire():
                return lease
            time.sleep(POLL_SECONDS)
        return None

    def _record(self, stage: str, key: str) -> dict[str, Any] | None:
        """The record; one that is damaged names no artifact and is removed, so that the artifact is made again."""
        name = _record_name(stage, key)
        content = self.objects.read(name)
        if content is None:
            return None
        try:
            record = unsealed(parse_json(content))
            if (record["stage"], record["key"]) == (stage, key):
                return record
            what = "it is of another artifact"
        except (ValueError, KeyError) as error:
            what = str(error)
        _log.warning("%s/%s: damaged: %s; the artifact is made again", self.address, name, what)
        self.objects.remove([name])
        return None

    def _fetch(self, stage: str, key: str, record: Mapping[str, Any]) -> Artifact | None:
        """Bring an artifact's files into the cache."""
        what = None
        for _ in range(2):
            partial = self.root / stage / f"{key}.tmp-{uuid.uuid4().hex[:8]}"
            try:
                with self.writing():
                    partial.mkdir(parents=True)
                    self._mark()
                    files = self.objects / f"{stage}/{key}/{record['attempt']}"
                    try:
                        files.download([*record["files"], RECORD], partial)
                    except FileNotFoundError as error:
                        what = f"{error} is not there"
                        continue
                    what = damage(partial, record["files"])
                    if what is None:
                        self._publish(partial, stage, key)
                        return ArtifactStore.find(self, stage, key)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        _log.warning("%s/%s/%s: damaged: %s; it is made again", self.address, stage, key, what)
        self.objects.remove([_record_name(stage, key)])
        self._published.discard((stage, key))
        return None

    def _upload(self, artifact: Artifact) -> Artifact:
        """Publish an artifact of the cache, unless another process was faster: then it is that one."""
        stage, key, attempt = artifact.stage, artifact.key, uuid.uuid4().hex[:8]
        record = unsealed(parse_json((artifact.path / RECORD).read_bytes())) | {"attempt": attempt}
        names = [*record["files"], RECORD]
        files = self.objects / f"{stage}/{key}/{attempt}"
        files.upload({name: artifact.path / name for name in names})
        if not self.objects.create(_record_name(stage, key), json.dumps(sealed(record)).encode()):
            files.remove(names)
            shutil.rmtree(artifact.path, ignore_errors=True)
            return self.require(stage, key)
        self._published.add((stage, key))
        self._remove_remote_work(stage, key)
        return artifact

    def _remove_remote_work(self, stage: str, key: str) -> None:
        work = self.objects / f"work/{stage}/{key}"
        work.remove(work.names())


def _record_name(stage: str, key: str) -> str:
    return f"records/{stage}/{key}.json"
