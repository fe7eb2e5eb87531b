"""Whether a process ended because its node did: a spot machine that was taken back, a power cut, a broken network.

Ray itself leaves out only losses that were announced (a drained node); a machine that is gone without a word would use
up the retries that are there for processes which crash.
"""

from __future__ import annotations

import time

import ray

KNOWN_SECONDS = 60.0
"""By then Ray knows of a lost node; with its default settings after some 20 seconds."""


def node_was_lost(error: BaseException) -> bool:
    """Whether a task or an actor failed with its node.

    Args:
        error: as `ray.get` raised it, or as Ray Train passes it on.
    """
    if isinstance(error, ray.exceptions.NodeDiedError):
        return True
    if isinstance(error, ray.exceptions.RayActorError):
        return error.preempted or (error.actor_id is not None and actor_lost_its_node(error.actor_id))
    cause = getattr(error, "cause", None)
    return isinstance(cause, BaseException) and node_was_lost(cause)


def actor_lost_its_node(actor_id: str) -> bool:
    """Whether an actor that has failed did so with its node.

    A broken connection is noticed at once, and a lost node only when it has missed several heartbeats: this waits until
    Ray knows one or the other.

    Args:
        actor_id: in hexadecimal digits.
    """
    deadline = time.monotonic() + KNOWN_SECONDS
    while True:
        info = ray._private.state.actors(actor_id)
        if not info:
            return False
        if info["State"] == "DEAD":
            return bool(info["DeathCause"].actor_died_error_context.HasField("node_death_info"))
        node = info["Address"]["NodeID"]
        if not any(each["NodeID"] == node and each["Alive"] for each in ray.nodes()):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
