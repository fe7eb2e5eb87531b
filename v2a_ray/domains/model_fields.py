"""Compiled MuJoCo models as named numbers, so that two of them can be compared field by field."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np


def fields(model: mujoco.MjModel) -> dict[str, Any]:
    """Every number in a compiled model: its arrays, and those of its options and statistics."""
    found = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    for group in ("opt", "stat"):
        part = getattr(model, group)
        found |= {f"{group}.{name}": getattr(part, name) for name in dir(part) if not name.startswith("_")}
    return {name: value for name, value in found.items() if isinstance(value, (np.ndarray, int, float, bytes))}


def changed_fields(first: mujoco.MjModel, second: mujoco.MjModel) -> set[str]:
    """Names of the fields in which two models differ in any bit."""
    one, other = fields(first), fields(second)
    assert one.keys() == other.keys()
    return {name for name in one if not np.array_equal(np.asarray(one[name]), np.asarray(other[name]))}
