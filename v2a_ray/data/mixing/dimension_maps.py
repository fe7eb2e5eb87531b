"""Sources of robots with other dimensions: what a source observes and does, in the target's dimensions.

A map is a list with an entry for every number of the target: the index of the source's number that stands for it, or
null for zero; or a matrix with a row for every number of the target, by which the source's numbers are multiplied.
Every transition is mapped alike, state and next state, so that transitions stay transitions of one robot.

Shape suffixes: N transitions, D source dimension, T target dimension.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.config import DimensionMap, SourceSpec
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import ConfigError
from v2a_ray.robot_interface import RobotInterface


def is_mapped(spec: object) -> bool:
    """Whether a part of the data is a source whose dimensions are mapped."""
    return isinstance(spec, SourceSpec) and (spec.observation_map is not None or spec.action_map is not None)


def require_maps(spec: SourceSpec, source: RobotInterface, target: RobotInterface, where: str) -> None:
    """Raise ConfigError unless the maps of a source lead from its robot's dimensions to the target's."""
    sides = {
        "observation": (spec.observation_map, source.observation_dim, target.observation_dim),
        "action": (spec.action_map, source.action_dim, target.action_dim),
    }
    for name, (entries, dim, wanted) in sides.items():
        if entries is None and dim == wanted:
            continue
        if entries is None:
            raise ConfigError(
                f"the source has {dim} {name}s, the target {wanted}",
                where=f"{where}.{name}_map",
                remedy=f"`{name}_map: [...]`, {wanted} entries: indices below {dim}, or null for zero",
            )
        if len(entries) != wanted:
            raise ConfigError(
                f"maps to {len(entries)} {name}s, and the target has {wanted}",
                where=f"{where}.{name}_map",
                remedy=f"an entry for each of the target's {wanted}",
            )
        if wrong := _beyond(entries, dim):
            raise ConfigError(
                f"{wrong}, and the source has {dim} {name}s", where=f"{where}.{name}_map", remedy="mend it"
            )


def mapped(table: EpisodeTable, spec: SourceSpec) -> EpisodeTable:
    """The table in the target's dimensions."""
    observation, following, action = table.observation, table.next_observation, table.action
    if spec.observation_map is not None:
        observation, following = (_apply(spec.observation_map, each) for each in (observation, following))
    if spec.action_map is not None:
        action = _apply(spec.action_map, action)
    return table.replace(observation=observation, next_observation=following, action=action)


def _beyond(entries: DimensionMap, dim: int) -> str:
    """What of a map does not fit a source of `dim` numbers; empty if all does."""
    for index, entry in enumerate(entries):
        if isinstance(entry, list) and len(entry) != dim:
            return f"row {index} has {len(entry)} numbers"
        if isinstance(entry, int) and entry >= dim:
            return f"entry {index} is {entry}"
    return ""


def _apply(entries: DimensionMap, values_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, T)"""
    matrix_TD = np.zeros((len(entries), values_ND.shape[1]), dtype=np.float32)
    for row, entry in zip(matrix_TD, entries, strict=True):
        if isinstance(entry, list):
            row[:] = entry
        elif entry is not None:
            row[entry] = 1.0
    return values_ND @ matrix_TD.T
