"""Leases in object storage: who computes an artifact, who writes to a folder of results.

A lease is a folder of objects `00000001`, `00000002`, ... The process that created the last one holds it; the storage
lets only one process create each. The holder rewrites its object every BEAT_SECONDS. A process that sees the object
unchanged for LEASE_SECONDS assumes that the holder is gone, and creates the next one. No clocks are compared.

A holder that is cut off from the storage for that long may go on beside the next one. So what is computed under a lease
must be published by a conditional write too.
"""

from __future__ import annotations

import json
import time
import uuid

from v2a_ray.objects import ObjectFolder

BEAT_SECONDS = 10.0
"""Two requests each time, for every artifact in the making: at thousands of trials that is what storage costs."""
LEASE_SECONDS = 45.0


class Lease:
    """One process's part in a lease at `objects`."""

    def __init__(self, objects: ObjectFolder) -> None:
        self.objects = objects
        self._me, self._beats, self._mine = uuid.uuid4().hex, 0, ""
        self._seen: tuple[str, bytes | None] = ("", None)
        self._since = 0.0

    def acquire(self) -> bool:
        """Whether this process holds the lease now. While another does, ask again now and then."""
        names = self.objects.names()
        if names:
            seen = names[-1], self.objects.read(names[-1])
            if seen != self._seen:
                self._seen, self._since = seen, time.monotonic()
            if seen[1] is not None and time.monotonic() - self._since < LEASE_SECONDS:
                return False
        generation = f"{int(names[-1]) + 1 if names else 1:08d}"
        if not self.objects.create(generation, self._content()):
            return False
        self._mine = generation
        self.objects.remove(names)
        return True

    def beat(self) -> bool:
        """Say that the holder is alive; false if another process has taken the lease."""
        if any(name > self._mine for name in self.objects.names()):
            return False
        self.objects.write(self._mine, self._content())
        return True

    def release(self) -> None:
        """Give the lease up."""
        self.objects.remove([self._mine])

    def _content(self) -> bytes:
        self._beats += 1
        return json.dumps({"holder": self._me, "beat": self._beats}).encode()
