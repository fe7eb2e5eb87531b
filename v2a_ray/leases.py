"""Leases in object storage: who computes an artifact, who writes to a folder of results.

A lease is a folder of objects `00000001`, `00000002`, ... The process that created the last one holds it; the storage
lets only one process create each. The holder rewrites its object every BEAT_SECONDS. A process that sees the object
unchanged for LEASE_SECONDS assumes that the holder is gone, and creates the next one. No clocks are compared.

The first object stays until the lease is given up. So who can create it holds the lease, without a look at the others,
which is how nearly every lease is got.

A holder that is cut off from the storage for that long may go on beside the next one. So what is computed under a lease
must be published by a conditional write too.
"""

from __future__ import annotations

import json
import time
import uuid

from v2a_ray.files import parse_json
from v2a_ray.objects import ObjectFolder

BEAT_SECONDS = 10.0
"""Two requests each time, for every artifact in the making: at thousands of trials that is what storage costs."""
LEASE_SECONDS = 45.0
_FIRST = "00000001"


class Lease:
    """One process's part in a lease at `objects`.

    Attributes:
        is_first: whether nobody held it since it was last given up, once it is acquired.
    """

    def __init__(self, objects: ObjectFolder) -> None:
        self.objects = objects
        self.is_first = False
        self._me, self._beats, self._mine = uuid.uuid4().hex, 0, ""
        self._others: list[str] = []
        """Objects of earlier holders."""
        self._is_contended = False
        self._seen: tuple[str, bytes | None] = ("", None)
        self._since = self._heard = 0.0
        """When the last holder's object was seen to change, and when this process last knew that it holds the lease."""

    def acquire(self) -> bool:
        """Whether this process holds the lease now. While another does, ask again now and then."""
        names: list[str] = []
        if self._is_contended:
            names = self.objects.names()
            if names and not self._is_free(names[-1]):
                return False
        generation = f"{int(names[-1]) + 1 if names else 1:08d}"
        if not self.objects.create(generation, self._content()):
            self._is_contended = True
            return False
        self._mine, self._others, self._heard = generation, names, time.monotonic()
        self.is_first = not names
        return True

    def beat(self) -> bool:
        """Say that the holder is alive; false if another process has taken the lease."""
        if self._is_overtaken():
            self._heard = float("-inf")
            return False
        self.objects.write(self._mine, self._content())
        self._heard = time.monotonic()
        return True

    def release(self, unfinished: bool = False) -> None:
        """Give the lease up. After `unfinished` work the next holder finds that it is not the first."""
        late = time.monotonic() - self._heard > 2 * BEAT_SECONDS
        if late and self._is_overtaken():
            self.objects.remove([self._mine] if self._mine != _FIRST else [])
            return
        if unfinished:
            self.objects.write(self._mine, self._content(is_free=True))
            return
        # The first one last: without it another process would hold the lease at once.
        for names in ({self._mine, *self._others} - {_FIRST}, {_FIRST}):
            self.objects.remove(sorted(names))

    def _is_free(self, name: str) -> bool:
        """Whether the holder whose object this is has given the lease up, or is gone."""
        content = self.objects.read(name)
        if (name, content) != self._seen:
            self._seen, self._since = (name, content), time.monotonic()
        if content is None or time.monotonic() - self._since >= LEASE_SECONDS:
            return True
        return bool(parse_json(content).get("is_free"))

    def _is_overtaken(self) -> bool:
        # Who takes the lease creates the next object, which stays until that lease is given up.
        return self.objects.read(f"{int(self._mine) + 1:08d}") is not None

    def _content(self, is_free: bool = False) -> bytes:
        self._beats += 1
        return json.dumps({"holder": self._me, "beat": self._beats, "is_free": is_free}).encode()
