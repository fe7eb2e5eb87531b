"""Actions recorded in the robot's own units, scaled to [-1, 1] where it is asked for: 2 (a - low) / (high - low) - 1.

Shape suffixes: N transitions, A action dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.findings import Finding, Reading
from v2a_ray.data.config import ActionBounds
from v2a_ray.data.formats.location import Location, reading
from v2a_ray.errors import DataError
from v2a_ray.files import parse_json

SCALED = "actions_scaled"
"""Of a finding, which records the bounds."""
_CHECK = "action_bounds"
STATISTICS = "meta/stats.json"
"""Where LeRobot's folder has the least and largest action."""
_SLACK = 1e-3
_REMEDY = "`action_bounds: measured`, or [LOW, HIGH] of each action"


def with_scaled_actions(found: Reading, bounds: ActionBounds, location: Location) -> Reading:
    """A reading whose actions are scaled from `bounds` to [-1, 1], with a finding that records them.

    Raises:
        DataError: there are other numbers of bounds than actions, nothing declares them, or an action lies outside.
    """
    action, where = found.table.action.astype(np.float64), str(location)
    if bounds == "measured":
        low_A, high_A = action.min(axis=0), action.max(axis=0)
    else:
        pairs = _declared(location) if bounds == "declared" else bounds
        if len(pairs) != action.shape[1]:
            raise DataError(f"{len(pairs)} bounds for {action.shape[1]} actions", where=where, remedy=_REMEDY)
        low_A, high_A = np.asarray(pairs, dtype=np.float64).T
    flat = np.flatnonzero(~(high_A > low_A))
    if len(flat):
        raise DataError(
            f"action {flat[0]} has bounds {low_A[flat[0]]:g} and {high_A[flat[0]]:g}",
            where=where,
            remedy="[LOW, HIGH] of each action, the second one larger; an action that never moves needs no column",
        )
    scaled = 2.0 * (action - low_A) / (high_A - low_A) - 1.0
    _require_inside(scaled, action, where)
    kept = [finding for finding in found.findings if finding.check != _CHECK]
    shown = ", ".join(f"[{low:.6g}, {high:.6g}]" for low, high in zip(low_A, high_A, strict=True))
    note = Finding(SCALED, "info", f"actions are scaled to [-1, 1] from {shown}", where)
    table = found.table.replace(action=np.clip(scaled, -1.0, 1.0).astype(np.float32))
    return Reading(table, [*kept, note])


def _require_inside(scaled_NA: NDArray[np.float64], action_NA: NDArray[np.float64], where: str) -> None:
    outside = np.argwhere(~(np.abs(scaled_NA) <= 1.0 + _SLACK))
    if len(outside):
        row, column = outside[0]
        raise DataError(
            f"action {column} is {action_NA[row, column]:g} in transition {row}, outside its bounds "
            f"({len(outside)} such numbers in all)",
            where=where,
            remedy=_REMEDY,
        )


def _declared(location: Location) -> Sequence[tuple[float, float]]:
    file = location / STATISTICS if location.is_folder else None
    if file is None or not file.exists():
        raise DataError("declares no bounds of actions", where=str(location), remedy=_REMEDY)
    with reading(file), file.open() as stream:
        content = stream.read()
    try:
        action = parse_json(content)["action"]
        return list(zip(np.ravel(action["min"]).tolist(), np.ravel(action["max"]).tolist(), strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{Path(STATISTICS).name} has no least and largest action", where=str(file), remedy=_REMEDY
        ) from error
