"""Rewards that a recording lacks: a constant or a function that the user names, or none at all.

Shape suffixes: N transitions, O observation dimension, A action dimension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.table.episodes import EpisodeTable, Float
from v2a_ray.errors import DataError
from v2a_ray.imports import import_named

MISSING = "rewards_missing"
"""Of a finding. It is no check that a user may ignore: what reads rewards has to be able to refuse."""
REMEDY = "name them, `reward: module:function` or `reward: 0.0`, or choose a method that reads none, such as bc_target"
_OF_REWARDS = place("", field="reward")
"""How the place of a finding about recorded rewards ends."""


def no_rewards(where: str) -> Finding:
    """That a recording has no rewards; its table has zeros in their place."""
    return Finding(MISSING, "warning", "rewards were not recorded", where, REMEDY)


def missing_rewards(manifest: Mapping[str, Any]) -> list[Finding]:
    """What a table's manifest says of recordings without rewards that it was made from."""
    return [no_rewards(finding["where"]) for finding in manifest["findings"] if finding["check"] == MISSING]


def require_rewards(manifest: Mapping[str, Any], what: str) -> None:
    """Raise DataError if a table was made from a recording without rewards; `what` needs them."""
    for finding in missing_rewards(manifest):
        raise DataError(f"has no rewards, which {what} needs", where=finding.where, remedy=REMEDY)


def with_reward(reading: Reading, reward: float | str, where: str) -> Reading:
    """A reading with the rewards that the user names in place of the recorded ones, and without findings about those.

    Raises:
        DataError: the function cannot be imported, fails, or returns anything but a finite number per transition.
    """
    values = _values(reading.table, reward, where)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise DataError(
            f"is {values[wrong[0]]} in transition {wrong[0]}",
            where=place(where, reward=reward),
            remedy="return finite numbers",
        )
    kept = [each for each in reading.findings if each.check != MISSING and not each.where.endswith(_OF_REWARDS)]
    return Reading(reading.table.replace(reward=values), kept)


def parse_reward(text: str) -> float | str:
    """A reward as the command line has it: a number, or else the name of a function."""
    try:
        return float(text)
    except ValueError:
        return text


def identity(reward: float | str) -> float | dict[str, str]:
    """What stands for named rewards in a key: the number, or the function's name and its module's SHA-256.

    Raises DataError if the function cannot be imported.
    """
    if isinstance(reward, float | int):
        return float(reward)
    _function(reward)
    file = getattr(import_module(reward.partition(":")[0]), "__file__", None)
    source = Path(file).read_bytes() if file else b""
    return {"function": reward, "module": hashlib.sha256(source).hexdigest()}


def _values(table: EpisodeTable, reward: float | str, where: str) -> Float:
    count = table.num_transitions
    if isinstance(reward, float | int):
        return np.full(count, reward, dtype=np.float32)
    function = _function(reward)
    try:
        values = np.asarray(function(table.observation, table.action, table.next_observation), dtype=np.float32)
    except Exception as error:
        raise DataError(
            f"failed: {type(error).__name__}: {error}",
            where=place(where, reward=reward),
            remedy="it takes observations (N, O), actions (N, A) and next observations (N, O)",
        ) from error
    if values.shape != (count,):
        raise DataError(
            f"returned shape {values.shape} for {count} transitions",
            where=place(where, reward=reward),
            remedy="return one number per transition, (N,)",
        )
    return values


def _function(name: str) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = import_named(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(
            f"cannot be imported: {error}",
            where=f"reward {name}",
            remedy="write module:function, and put the module's folder on PYTHONPATH on every node",
        ) from error
    return found
