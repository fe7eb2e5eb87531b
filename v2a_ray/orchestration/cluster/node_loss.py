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
        unclear = isinstance(error, ray.exceptions.ActorUnavailableError)
        return error.preempted or (error.actor_id is not None and actor_lost_its_node(error.actor_id, unclear=unclear))
    cause = getattr(error, "cause", None)
    return isinstance(cause, BaseException) and node_was_lost(cause)


def node_of(actor_id: str) -> str | None:
    """Identity of the node that an actor runs on; both in hexadecimal digits."""
    info = ray._private.state.actors(actor_id)
    return info["Address"]["NodeID"] if info else None


def actor_lost_its_node(actor_id: str, node: str | None = None, *, unclear: bool) -> bool:
    """Whether an actor that has failed did so with its node.

    Args:
        actor_id: in hexadecimal digits.
        node: that it ran on; Ray may forget it when the actor is dead.
        unclear: the connection to it broke, and Ray did not know why. It notices a lost node only when the node has
            missed several heartbeats, so this waits until it does, or knows that the process alone has died.
    """
    deadline = time.monotonic() + (KNOWN_SECONDS if unclear else 0.0)
    while True:
        info = ray._private.state.actors(actor_id)
        died = info["DeathCause"].actor_died_error_context if info and info["State"] == "DEAD" else None
        if died and died.HasField("node_death_info"):
            return True
        node = node or node_of(actor_id)
        if node and not any(each["NodeID"] == node and each["Alive"] for each in ray.nodes()):
            return True
        if (died and died.reason == died.WORKER_DIED) or time.monotonic() > deadline:
            return False
        time.sleep(0.5)
