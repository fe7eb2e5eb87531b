"""Reference returns that define the normalised score: 0 is random, 100 is expert.

Sources: D4RL for stock robots; ODRL and OTDF for the shifts they published; our own measurements for the other named
shifts (`own_references.json`, written by `benchmarks/measure_references.py`). All other domains use D4RL's stock
numbers, and `References.source` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.base import Domain
from v2a_ray.domains.domain import RobotDomain, require_robot
from v2a_ray.domains.own.domain import GymDomain
from v2a_ray.domains.recorded import RecordedDomain
from v2a_ray.files import read_json

OWN_REFERENCES = Path(__file__).parent / "own_references.json"
# Our expert's return must exceed random's by this share of D4RL's gap in stock, and by more than the two standard
# deviations. Otherwise a score of 100 would mean a failing policy, or measure noise.
SMALLEST_GAP = 0.1
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
    # 41,696 is implausible for a robot whose stock expert earns 12,135; kept because published tables divide by it.
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


def references(domain: Domain) -> References | None:
    """The reference returns of `domain`; `source` says when they are those of another one.

    Those of anybody's environment are given with it (`references: [RANDOM, EXPERT]`), and those of a plugin's robot
    with its specification, or there are none.

    A variant of a robot has that robot's. All were measured in d4rl physics, and stand for modern physics too.
    """
    if isinstance(domain, RecordedDomain):
        return None
    if isinstance(domain, GymDomain):
        given = domain.references
        return References(float(given[0]), float(given[1]), "given with the environment") if given else None
    domain = require_robot(domain, "a table of references")
    base = domain.base
    if base.robot not in _D4RL:
        given = base.robot_spec.references
        return References(*given, source="given with the robot, without shifts") if given else None
    found = published_references(base) or _own_references(base)
    if found is None:
        found = References(*_D4RL[base.robot], "D4RL's stock robot; none is published for this shift")
    if domain.physics == "d4rl":
        return found
    return replace(found, source=f"{found.source}; measured in d4rl physics")


def published_references(domain: RobotDomain) -> References | None:
    """What D4RL, OTDF or ODRL published for a domain of a robot in its own right; None where they have nothing."""
    domain = domain.base
    if domain.robot not in _D4RL:
        return None
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
    return None


def _own_references(domain: RobotDomain) -> References | None:
    """What we measured in the domain; the expert's return only where it is clearly above random's (`SMALLEST_GAP`)."""
    measured = _measurements().get(f"{domain.robot}/{domain.shift_name}")
    if measured is None:
        return None
    random, expert = measured["random"], measured["expert"]
    stock_random, stock_expert = _D4RL[domain.robot]
    source = f"ours: random over {random['num_episodes']} episodes"
    if expert is None:
        reason = "no expert of this robot is packaged"
    elif expert["return_mean"] - random["return_mean"] <= max(
        expert["return_std"] + random["return_std"], SMALLEST_GAP * (stock_expert - stock_random)
    ):
        reason = "the best packaged one is hardly above random here"
    else:
        source += f", {expert['behavior']} of {expert['policy_domain']} over {expert['num_episodes']}"
        return References(random["return_mean"], expert["return_mean"], source)
    return References(random["return_mean"], stock_expert, f"{source}; expert of D4RL's stock robot, because {reason}")


@cache
def _measurements() -> dict[str, Any]:
    """`robot/shift` -> {"random": ..., "expert": ... or None}; see `benchmarks/measure_references.py`."""
    domains: dict[str, Any] = read_json(OWN_REFERENCES)["domains"]
    return domains


@overload
def normalized_score(domain: Domain, return_: float) -> float | None: ...


@overload
def normalized_score(domain: Domain, return_: NDArray[np.float64]) -> NDArray[np.float64] | None: ...


def normalized_score(domain: Domain, return_: float | NDArray[np.float64]) -> float | NDArray[np.float64] | None:
    """100 (return - random) / (expert - random), for one return or an array of them; None without references."""
    between = references(domain)
    if between is None:
        return None
    return 100.0 * (return_ - between.random_return) / (between.expert_return - between.random_return)
