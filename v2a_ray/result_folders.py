"""Folders of results: on a disk, or in object storage with a local copy that commands read and write.

While a command writes to an address it holds a lease on it (`.lease/`), and changed files follow every few seconds. A
run's `result.json` is uploaded after the files that it speaks of, so a reader finds a finished run whole.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from v2a_ray.errors import StorageError
from v2a_ray.files import sole_writer
from v2a_ray.leases import BEAT_SECONDS, LEASE_SECONDS, Lease
from v2a_ray.mirror import Mirror, kept
from v2a_ray.objects import ObjectFolder, cache_root, is_address
from v2a_ray.outputs import prepare_results_folder

LEASE = ".lease"
TUNE = "tune"
"""Ray Tune's own state, which lies at the address itself: every node writes there."""


@contextmanager
def results_folder(name: str | Path) -> Iterator[Path]:
    """The local folder to write results into while the block runs, for a path or an address.

    Raises StorageError as `prepare_results_folder`, and when another process writes to the address.
    """
    if not is_address(name):
        yield prepare_results_folder(Path(name))
        return
    objects = ObjectFolder(str(name))
    copy = _copy_of(objects)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        lease = _sole_lease(objects)
        stack.callback(lease.release)
        mirror = _mirror(objects, copy)
        _fetch(mirror)
        # Before anything is written: another folder's files are left alone.
        prepare_results_folder(copy)
        stack.enter_context(kept([mirror], [lease]))
        yield copy


def readable_folder(name: str | Path) -> Path:
    """A path as it is; of an address a local copy of all files below it, as they are now.

    Raises StorageError when there are none.
    """
    if not is_address(name):
        return Path(name)
    objects = ObjectFolder(str(name))
    copy = _copy_of(objects).with_name(f"{_copy_of(objects).name}-read")
    copy.mkdir(parents=True, exist_ok=True)
    with sole_writer(copy.parent):
        _fetch(_mirror(objects, copy))
    if not any(copy.iterdir()):
        raise StorageError("nothing is there", where=objects.address, remedy="give what --run-dir was given")
    return copy


def address_of(folder: Path) -> str | None:
    """The address whose local copy a folder is."""
    note = folder.with_name(f"{folder.name}.address")
    if not folder.is_relative_to(cache_root()):
        return None
    return note.read_text() if note.exists() else None


def _sole_lease(objects: ObjectFolder) -> Lease:
    """The lease on results. A killed command's is waited for."""
    lease, start = Lease(objects / LEASE), time.monotonic()
    while not lease.acquire():
        if time.monotonic() - start > LEASE_SECONDS + 2 * BEAT_SECONDS:
            raise StorageError(
                "another process is at work here", where=objects.address, remedy="wait for it, or another --run-dir"
            )
        time.sleep(1)
    return lease


def _mirror(objects: ObjectFolder, copy: Path) -> Mirror:
    return Mirror(copy, objects, last="result.json", without=[LEASE, TUNE])


def _fetch(mirror: Mirror) -> None:
    """What lies at the address counts, not what an earlier command has left here."""
    shutil.rmtree(mirror.folder, ignore_errors=True)
    mirror.folder.mkdir(parents=True)
    mirror.folder.with_name(f"{mirror.folder.name}.address").write_text(mirror.objects.address)
    mirror.fetch()


def _copy_of(objects: ObjectFolder) -> Path:
    digest = hashlib.sha256(objects.address.encode()).hexdigest()[:16]
    # The last part is the name that a report shows.
    return cache_root() / "results" / digest / objects.address.rsplit("/", 1)[-1]
