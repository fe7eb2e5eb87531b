"""A store in object storage. Every node has a cache, which is an ordinary store in a local folder.

<address>/records/<stage>/<key>.json         the sealed record, created last, by one writer alone: the artifact is there
<address>/<stage>/<key>/<attempt>/...        its files, under a name of each writer's own; small ones are in the record
<address>/work/<stage>/<key>/...             checkpoints of an artifact in the making
<address>/leases/<stage>/<key>/...           who makes it, or who left checkpoints
<cache>/published/<stage>-<key>              a node's note that there is the record

So nothing is renamed, and a reader sees a whole artifact or none: a writer that is killed leaves files that no record
names. What computes reads and maps the cache's files, whose checksums were compared after the download.

Requests take long and cost money, so little is asked twice. An artifact never changes: who has it in the cache and
knows of its record asks no more, for VERIFIED_SECONDS. Many artifacts are looked for with one listing (`surveyed`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from v2a_ray.checksums import damage, sealed, unsealed, write_sealed
from v2a_ray.engine.store import RECORD, VERIFIED_SECONDS, Artifact, ArtifactStore
from v2a_ray.files import parse_json, prepare_folder
from v2a_ray.leases import Lease
from v2a_ray.mirror import Mirror, kept
from v2a_ray.objects import ObjectFolder, cache_root

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.5, 5.0
"""How often who waits for an artifact asks for it, at first and later."""
INLINE_BYTES = 2**19
"""Files of a smaller artifact, together, lie in its record: one request instead of one for each."""
PUBLISHED = "published"
FEW = 3
"""So many artifacts of a stage are looked for one by one; more with a listing."""
Names = tuple[str, str]
"""Stage and key."""


class ObjectStore(ArtifactStore):
    """Artifacts at an address; see `ArtifactStore` for the methods."""

    is_shared_folder = False

    def __init__(self, address: str) -> None:
        self.objects = ObjectFolder(address)
        super().__init__(cache_root() / "artifacts" / hashlib.sha256(self.objects.address.encode()).hexdigest()[:16])
        self._forget()

    def _forget(self) -> None:
        self._published: set[Names] = set()
        """Artifacts that are known to have a record."""
        self._absent: set[Names] = set()
        """Those that were just seen to have none."""
        self._held: dict[Names, Mirror] = {}
        """The copies of the checkpoints of those that this process makes."""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"objects": self.objects}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._forget()

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
        if record is None:
            return None
        if "inline" in record:  # it is here already
            return self._fetch(stage, key, record)
        return Artifact(stage, key, self.path(stage, key), float(record["seconds"]), cached=True)

    def lookup(self) -> Callable[[str, str], bool]:
        """See `ArtifactStore`: from one listing, so that records which are damaged count too."""
        names = frozenset(self.objects.names("records"))
        return lambda stage, key: _record_name(stage, key) in names

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact, in the cache. One that arrives damaged twice is taken out of the storage, with a warning."""
        cached = super().find(stage, key)
        if cached and self._is_published(stage, key):
            return cached
        record = self._record(stage, key)
        if record is None:
            return None
        found = cached or self._fetch(stage, key, record)
        if found:
            self._note_published(stage, key)
        return found

    @contextmanager
    def surveyed(self, wanted: Collection[Names]) -> Iterator[None]:
        # A note of this node's does not count: what it speaks of may have been removed from the storage.
        unknown = set(wanted) - self._published
        absent = set[Names]()
        for stage in sorted({stage for stage, _ in unknown}):
            keys = sorted(key for each, key in unknown if each == stage)
            there = {key for key in keys if self._look_anew(stage, key)} if len(keys) <= FEW else self._listed(stage)
            absent |= {(stage, key) for key in keys if key not in there}
        for stage, key in absent:
            self._published_note(stage, key).unlink(missing_ok=True)
        self._published |= unknown - absent
        self._absent |= absent
        try:
            yield
        finally:
            self._absent -= absent

    def _listed(self, stage: str) -> set[str]:
        """Keys of the stage's artifacts."""
        names = self.objects.names(f"records/{stage}")
        return {name.rsplit("/", 1)[-1].removesuffix(".json") for name in names}

    def _look_anew(self, stage: str, key: str) -> bool:
        """Whether there is a record. The files that it holds are brought into the cache."""
        record = self._record(stage, key)
        if record and "inline" in record and not super().look(stage, key):
            return self._fetch(stage, key, record) is not None
        return record is not None

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
            made = ArtifactStore(self.root).get_or_make(stage, key, make, about, spent_seconds)
            return self._upload(replace(made, cached=False))

    @contextmanager
    def computing(self, stage: str, keys: Sequence[str]) -> Iterator[None]:
        """Hold the leases of those artifacts that are not there, and keep their checkpoints in the storage too."""
        leases, mirrors = [], []
        with ExitStack() as stack:
            for key in sorted({key for key in keys if (stage, key) not in self._held}):
                if lease := self._leased(stage, key):
                    mirror = Mirror(
                        self.work(stage, key), self.objects / f"work/{stage}/{key}", without=["train", "streamed"]
                    )
                    stack.callback(self._give_up, stage, key, lease, mirror)
                    self._held[stage, key] = mirror
                    if not lease.is_first:
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
        if super().find(stage, key) and self.find(stage, key):
            return None
        seconds, longest = POLL_SECONDS
        # The lease first: what is computed is seldom there, and has to be looked for once the lease is had.
        while not lease.acquire():
            if self.find(stage, key):
                return None
            time.sleep(seconds)
            seconds = min(1.5 * seconds, longest)
        if self.find(stage, key):
            lease.release()
            return None
        self._absent.add((stage, key))
        return lease

    def _give_up(self, stage: str, key: str, lease: Lease, mirror: Mirror) -> None:
        """Let others make an artifact, or go on from its checkpoints."""
        self._absent.discard((stage, key))
        del self._held[stage, key]
        lease.release(unfinished=not mirror.is_empty)

    def _is_published(self, stage: str, key: str) -> bool:
        """Whether there is known to be a record, to this process or by a note of this node's that is not old."""
        if (stage, key) not in self._published:
            try:
                age = time.time() - self._published_note(stage, key).stat().st_mtime
            except OSError:
                return False
            if not 0 <= age < VERIFIED_SECONDS:
                return False
            self._published.add((stage, key))
        return True

    def _note_published(self, stage: str, key: str) -> None:
        self._absent.discard((stage, key))
        self._published.add((stage, key))
        with suppress(OSError):
            self._published_note(stage, key).parent.mkdir(exist_ok=True)
            self._published_note(stage, key).touch()

    def _published_note(self, stage: str, key: str) -> Path:
        return self.root / PUBLISHED / f"{stage}-{key}"

    def _record(self, stage: str, key: str) -> dict[str, Any] | None:
        """The record; one that is damaged names no artifact and is removed, so that the artifact is made again."""
        if (stage, key) in self._absent:
            return None
        name = _record_name(stage, key)
        content = self.objects.read(name)
        if content is None:
            self._published.discard((stage, key))
            self._published_note(stage, key).unlink(missing_ok=True)
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
                    try:
                        self._download(stage, key, record, partial)
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

    def _download(self, stage: str, key: str, record: Mapping[str, Any], folder: Path) -> None:
        """Write an artifact's files into `folder`."""
        plain = {name: value for name, value in record.items() if name not in ("inline", "attempt")}
        if "inline" in record:
            for name, text in record["inline"].items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(base64.b64decode(text))
        else:
            files = self.objects / f"{stage}/{key}/{record['attempt']}"
            files.download(record["files"], folder)
        write_sealed(folder / RECORD, plain)

    def _upload(self, artifact: Artifact) -> Artifact:
        """Publish an artifact of the cache, unless another process was faster: then it is that one."""
        stage, key, attempt = artifact.stage, artifact.key, uuid.uuid4().hex[:8]
        record = unsealed(parse_json((artifact.path / RECORD).read_bytes())) | {"attempt": attempt}
        files, names = self.objects / f"{stage}/{key}/{attempt}", list(record["files"])
        if sum(size for size, _ in record["files"].values()) < INLINE_BYTES:
            contents = {name: (artifact.path / name).read_bytes() for name in names}
            record["inline"] = {name: base64.b64encode(content).decode() for name, content in contents.items()}
            names = []
        files.upload({name: artifact.path / name for name in names})
        # From here on another's may be there.
        self._absent.discard((stage, key))
        if not self.objects.create(_record_name(stage, key), json.dumps(sealed(record)).encode()):
            files.remove(names)
            shutil.rmtree(artifact.path, ignore_errors=True)
            return self.require(stage, key)
        self._note_published(stage, key)
        if mirror := self._held.get((stage, key)):
            mirror.clear()
        return artifact

    def _remove_remote_work(self, stage: str, key: str) -> None:
        for folder in ("work", "leases"):
            objects = self.objects / f"{folder}/{stage}/{key}"
            objects.remove(objects.names())


def _record_name(stage: str, key: str) -> str:
    return f"records/{stage}/{key}.json"
