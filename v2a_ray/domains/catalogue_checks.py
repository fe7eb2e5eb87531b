"""Checks of the catalogue: does every named domain do what it says, and does it differ from all others?

For each robot, every shift must change exactly what `intentions` declares, no two domains may have the same dynamics
except known pairs, and every domain must survive a reset and some random steps. The checks also find shifts that hardly
affect a good policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.compiled_model import has_diverged, quiet_mujoco
from v2a_ray.domains.domain import Physics, RobotDomain, catalogue
from v2a_ray.domains.environments import make_environment
from v2a_ray.domains.model_proof import unintended
from v2a_ray.domains.probes import distances, make_probes, one_step
from v2a_ray.domains.shifts.intentions import Change, intended_changes

Float = NDArray[np.float64]

# Equal dynamics give equal bits, so even a distance of rounding errors means that a parameter had an effect.
IDENTICAL_DISTANCE = 1e-9
# On Hopper, in the best policy's states, a shift has a distance of exactly 0 (leg joint) or at least 0.015, and the
# weakest nonzero one (wind--10) already reduces that policy's return from 2,884 to 911.
VACUOUS_DISTANCE = 0.01
NUM_SURVIVAL_STEPS = 50

KNOWN_IDENTICAL: Mapping[tuple[str, frozenset[str]], str] = {
    ("hopper", frozenset({"friction-0.1", "friction-0.5"})): (
        "published so: a contact's friction is the larger of robot's and floor's, the floor keeps 1.0, and neither "
        "factor leaves the robot above it"
    ),
}
"""(robot, shifts) -> why two named domains have the same dynamics. Any other such pair fails the check."""


@dataclass(frozen=True)
class DomainCheck:
    """Results for one domain.

    Attributes:
        domain: canonical name; shift: `stock` or the name of the shift.
        intended: fields of the compiled model that the shift means to change.
        problems: in words; empty if the domain passes.
        distance_to_stock: dynamics distance over all probes; 0 for stock.
        walked_distance_to_stock: dynamics distance over the states that the best policy visits in stock.
        nearest: shift of the nearest other domain, at `nearest_distance`.
    """

    domain: str
    shift: str
    intended: tuple[str, ...]
    problems: tuple[str, ...]
    distance_to_stock: float
    walked_distance_to_stock: float
    nearest: str
    nearest_distance: float

    @property
    def is_vacuous(self) -> bool:
        """Whether the shift hardly affects the best policy."""
        return self.shift != "stock" and self.walked_distance_to_stock < VACUOUS_DISTANCE


@dataclass(frozen=True)
class IdenticalPair:
    """Two domains with the same dynamics; `reason` is empty unless the pair is known and intended."""

    first: str
    second: str
    reason: str


@dataclass(frozen=True)
class RobotCheck:
    """Results for the domains of one robot.

    Attributes:
        policies: policies whose visited states are among the probes, the best last.
        num_probes: pairs of a state and an action.
        domains: one per domain of the catalogue, stock first.
        matrix: (D, D) pairwise dynamics distance over all probes, see `probes.distances`.
        identical: pairs with equal dynamics.
    """

    robot: str
    physics: str
    policies: tuple[str, ...]
    num_probes: int
    domains: tuple[DomainCheck, ...]
    matrix: Float
    identical: tuple[IdenticalPair, ...]

    @property
    def passes(self) -> bool:
        """Whether all domains pass."""
        return not any(each.problems for each in self.domains) and all(pair.reason for pair in self.identical)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        domains = [vars(each) | {"is_vacuous": each.is_vacuous} for each in self.domains]
        identical = [vars(pair) for pair in self.identical]
        return vars(self) | {
            "passes": self.passes,
            "domains": domains,
            "identical": identical,
            "matrix": self.matrix.tolist(),
        }


def check_robot(
    robot_name: str,
    physics: Physics = "d4rl",
    progress: Callable[[RobotDomain], None] = lambda domain: None,
    domains: Sequence[RobotDomain] | None = None,
) -> RobotCheck:
    """Check `domains` of one robot and physics, stock first; by default those of the catalogue.

    `progress` is called after each domain. Raises DomainError for a robot that does not exist.
    """
    domains = domains or catalogue(robot_name, physics)
    stock, *_ = domains
    probes = make_probes(stock, max(each.execution.delay_steps for each in domains))
    stock_model: mujoco.MjModel = None
    predictions, problems, intended = [], [], []
    for domain in domains:
        environment: Any = make_environment(domain)
        model = environment.unwrapped.model
        stock_model = stock_model or model
        changes = _intention(domain)
        problems.append((*check_model(stock_model, model, changes), *check_survival(environment)))
        intended.append(tuple(dict.fromkeys(name for change in changes or () for name in change.fields)))
        predictions.append(one_step(environment, probes))
        progress(domain)
    matrix, walked = distances(predictions, probes)
    apart = matrix + np.diag(np.full(len(matrix), np.inf))
    names = [domain.shift_name for domain in domains]
    rows = [
        DomainCheck(
            domain=domain.name,
            shift=names[index],
            intended=intended[index],
            problems=problems[index],
            distance_to_stock=float(matrix[0, index]),
            walked_distance_to_stock=float(walked[0, index]),
            nearest=names[int(apart[index].argmin())] if len(names) > 1 else "",
            nearest_distance=float(apart[index].min()),
        )
        for index, domain in enumerate(domains)
    ]
    return RobotCheck(
        robot=robot_name,
        physics=physics,
        policies=probes.policies,
        num_probes=len(probes.action),
        domains=tuple(rows),
        matrix=matrix,
        identical=tuple(_identical(stock.base.robot, names, matrix)),
    )


def check_model(stock: mujoco.MjModel, shifted: mujoco.MjModel, changes: Sequence[Change] | None) -> tuple[str, ...]:
    """Problems of a shift's compiled model. `changes` is None if the shift's intended changes are not declared."""
    if changes is None:
        return ("nobody declared what this shift means to change",)
    return tuple(unintended(stock, shifted, changes))


def check_survival(environment: Any) -> tuple[str, ...]:
    """Problems in a reset and `NUM_SURVIVAL_STEPS` random steps; the episode restarts when the robot falls."""
    generator = np.random.default_rng(0)
    data = getattr(environment.unwrapped, "data", None)
    observation, _ = environment.reset(seed=0)
    for step in range(NUM_SURVIVAL_STEPS):
        action = generator.uniform(-1.0, 1.0, environment.action_space.shape).astype(np.float32)
        with quiet_mujoco():
            observation, reward, terminated, *_ = environment.step(action)
        if not np.isfinite([*observation, reward]).all() or (isinstance(data, mujoco.MjData) and has_diverged(data)):
            return (f"diverges after {step + 1} random steps",)
        if terminated:
            observation, _ = environment.reset()
    return ()


def _intention(domain: RobotDomain) -> list[Change] | None:
    changes: list[Change] = []
    for shift in domain.shifts:
        declared = intended_changes(shift, domain.robot_spec)
        if declared is None:
            return None
        changes += declared
    return changes


def _identical(robot_name: str, names: Sequence[str], matrix: Float) -> list[IdenticalPair]:
    pairs = np.argwhere(np.triu(matrix < IDENTICAL_DISTANCE, k=1))
    return [
        IdenticalPair(
            names[first],
            names[second],
            KNOWN_IDENTICAL.get((robot_name, frozenset({names[first], names[second]})), ""),
        )
        for first, second in pairs
    ]
