"""Keeps a copy of a local folder in object storage, and a lease alive, while a process works in the folder."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from v2a_ray.errors import StorageError
from v2a_ray.leases import BEAT_SECONDS, Lease
from v2a_ray.objects import ObjectFolder

_log = logging.getLogger(__name__)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}|\.lock|\.\w+-[0-9a-f]{8,}")
"""Files that are being written, locks and probes."""


class Mirror:
    """A folder and its copy. Every file is uploaded whole; those that `last` names come after all others."""

    def __init__(self, folder: Path, objects: ObjectFolder, last: str = "", without: Sequence[str] = ()) -> None:
        """`without` are folders inside that stay here."""
        self.folder, self.objects, self.last, self.without = folder, objects, last, frozenset(without)
        self._uploaded: dict[str, tuple[int, int]] = {}
        """Name to size and modification time; what is known of the copy."""
        self._lock = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether the copy has no files, as far as this process knows."""
        return not self._uploaded

    def fetch(self) -> None:
        """Bring the copy's files here; those that are here already count."""
        names = [name for name in self.objects.names() if name.partition("/")[0] not in self.without]
        if self.folder.exists() and any(self.folder.iterdir()):
            self._uploaded = dict.fromkeys(names, (-1, -1))
            return
        self.objects.download(names, self.folder)
        self._uploaded = self._files()

    def clear(self) -> None:
        """Remove the copy's files."""
        with self._lock:
            self.objects.remove(self._uploaded)
            self._uploaded = {}

    def update(self) -> None:
        """Upload what has changed, and remove from the copy what was uploaded and is gone, unless the folder is."""
        with self._lock:
            if self.folder.exists():
                self._update()

    def _update(self) -> None:
        files = self._files()
        changed = [name for name, state in files.items() if self._uploaded.get(name) != state]
        for final in (False, True):
            names = [name for name in changed if (Path(name).name == self.last) == final]
            self.objects.upload({name: self.folder / name for name in names})
        self.objects.remove(self._uploaded.keys() - files.keys())
        self._uploaded = files

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self.folder.rglob("*"):
            inside = path.relative_to(self.folder)
            if inside.parts[0] in self.without or any(_TEMPORARY.fullmatch(part) for part in inside.parts):
                continue
            with suppress(OSError):  # it was replaced or removed at this moment
                status = path.stat()
                if path.is_file():
                    found[inside.as_posix()] = (status.st_size, status.st_mtime_ns)
        return found


@contextmanager
def kept(mirrors: Sequence[Mirror], leases: Sequence[Lease]) -> Iterator[None]:
    """Update the mirrors and the leases every BEAT_SECONDS while the block runs, and the mirrors at its end.

    A storage that does not answer for a while costs nothing but a warning, unless it is so at the end: StorageError.
    Nothing is written any more once another process has taken one of the leases.
    """
    over, lost = threading.Event(), threading.Event()

    def keep() -> None:
        while not over.wait(BEAT_SECONDS) and not lost.is_set():
            try:
                for lease in leases:
                    if not lease.beat():
                        _log.warning("%s: another process has taken over", lease.objects.address)
                        lost.set()
                        return
                for mirror in mirrors:
                    mirror.update()
            except (StorageError, OSError) as error:
                _log.warning("%s; it is tried again", str(error).splitlines()[0])

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for mirror in mirrors:
            if not lost.is_set():
                mirror.update()
