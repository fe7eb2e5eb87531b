"""Finds the policy that a user's text names."""

from __future__ import annotations

from pathlib import Path

from v2a_ray.errors import DataError
from v2a_ray.export.formats import WANTED, open_export
from v2a_ray.export.policies import Policy, behavior_policy, open_trained
from v2a_ray.outputs import ABOUT


def find_policy(text: str) -> Policy:
    """The run, export or behaviour that `text` names; an existing file or folder takes precedence over a behaviour.

    Raises DataError if it is none of these, DomainError for an unknown behaviour.
    """
    path = Path(text)
    if path.is_dir() and not (path / ABOUT).exists():
        trained = open_trained(path)
        return Policy(text, trained.domain, trained.actor.act_numpy, trained)
    if not path.exists() and ":" in text:
        return behavior_policy(text)
    if not path.exists():
        raise DataError("neither a file or folder nor DOMAIN:BEHAVIOR", where=text, remedy=WANTED)
    return open_export(path)
