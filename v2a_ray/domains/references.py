"""Reference returns that a normalised score is measured between: 0 is random, 100 is expert.

Sources: D4RL for stock robots; ODRL and OTDF for the shifts they published; D4RL's stock numbers elsewhere, said so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.domain import Domain

# robot -> (random, expert)
_D4RL = {
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "halfcheetah": (-280.178953, 12135.0),
    "ant": (-325.6, 3879.7),
}
# ODRL and OTDF use their own random returns for these two robots.
_ODRL_RANDOM = {"hopper": -26.336, "walker2d": 10.079}
_ODRL_STOCK_EXPERT = {"ant": 5139.832}
# robot -> shift -> expert
_OTDF_EXPERT = {
    "hopper": {"otdf-kinematic": 2842.73, "otdf-morph": 3152.75, "gravity-0.5": 3234.3},
    "walker2d": {"otdf-kinematic": 3257.51, "otdf-morph": 4398.43, "gravity-0.5": 5194.713},
    "halfcheetah": {"otdf-kinematic": 7065.03, "otdf-morph": 9713.59, "gravity-0.5": 9509.15},
    "ant": {"otdf-kinematic": 5122.57, "otdf-morph": 5722.01, "gravity-0.5": 4317.065},
}
_FACTORS = ("0.1", "0.5", "2", "5")
_ODRL_FRICTION = {
    "hopper": (3234.3, 3234.3, 3234.3, 3234.3),
    "walker2d": (3360.181, 4229.348, 5180.044, 4988.835),
    # 41,696 is not plausible for a robot whose stock expert earns 12,135; kept because published tables divide by it.
    "halfcheetah": (41696.547, 7357.071, 11255.968, 10199.327),
    "ant": (7938.962, 8301.338, 5167.376, 4545.021),
}
_ODRL_GRAVITY = {
    "hopper": (3234.3, 3234.3, 3234.3, 3234.3),
    "walker2d": (2074.904, 5194.713, 5056.445, 3665.385),
    "halfcheetah": (2466.85, 9509.15, 9509.15, 3756.24),
    "ant": (2782.098, 4317.065, 6705.12, 6226.89),
}


@dataclass(frozen=True)
class References:
    """Undiscounted returns of a random and an expert policy, and where the numbers come from."""

    random_return: float
    expert_return: float
    source: str


def references(domain: Domain) -> References:
    """The reference returns of `domain`; `source` says when they are those of another one."""
    random, expert = _D4RL[domain.robot]
    if not domain.shifts:
        return References(random, expert, "D4RL")
    random = _ODRL_RANDOM.get(domain.robot, random)
    shift = domain.shift_name
    if shift in _OTDF_EXPERT[domain.robot]:
        return References(random, _OTDF_EXPERT[domain.robot][shift], "OTDF")
    kind, _, level = shift.partition("-")
    table = {"friction": _ODRL_FRICTION, "gravity": _ODRL_GRAVITY}.get(kind)
    if len(domain.shifts) == 1 and table and level in _FACTORS:
        return References(random, table[domain.robot][_FACTORS.index(level)], "ODRL")
    if len(domain.shifts) == 1 and kind in ("kinematic", "morph") and isinstance(domain.shifts[0].level, str):
        return References(random, _ODRL_STOCK_EXPERT.get(domain.robot, expert), "ODRL (equal to stock)")
    return References(*_D4RL[domain.robot], "D4RL's stock robot; none is published for this shift")


@overload
def normalized_score(domain: Domain, return_: float) -> float: ...


@overload
def normalized_score(domain: Domain, return_: NDArray[np.float64]) -> NDArray[np.float64]: ...


def normalized_score(domain: Domain, return_: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    """100 (return - random) / (expert - random), for one return or an array of them."""
    between = references(domain)
    return 100.0 * (return_ - between.random_return) / (between.expert_return - between.random_return)
