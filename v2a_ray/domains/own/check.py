"""Does a shift of anybody's environment change what it says, can it be simulated, and how far from stock is it?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.base import Domain
from v2a_ray.domains.catalogue_checks import IDENTICAL_DISTANCE, DomainCheck, IdenticalPair, RobotCheck, check_survival
from v2a_ray.domains.model_fields import changed_fields
from v2a_ray.domains.own.domain import GymDomain
from v2a_ray.domains.own.edits import apply_edits
from v2a_ray.domains.own.environment import model_of
from v2a_ray.domains.probes import Probes, distances

Float = NDArray[np.float64]

NUM_PROBES = 150
_NUM_EPISODES, _MAX_EPISODE_STEPS = 3, 300
# Positions, velocities, warm start and whatever else the next step depends on.
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


def check_environment(
    domains: Sequence[GymDomain], progress: Callable[[Domain], None] = lambda domain: None
) -> RobotCheck:
    """Check domains of one environment, beside its stock one, as `catalogue_checks.check_robot` does with our robots.

    Probes are states that random actions visit in stock. Without a MuJoCo model no state can be set, so that distances
    are NaN. Raises DomainError.
    """
    stock = domains[0].stock
    every = list(dict.fromkeys([stock, *domains]))
    environment: Any = stock.make()
    probes = _probes(environment) if stock.robot_spec.is_mujoco else None
    rows, predictions = [], []
    for domain in every:
        environment = domain.make()
        fields, problems = _check_model(domain, environment) if probes else ((), ())
        rows.append((fields, (*problems, *check_survival(environment))))
        predictions.append(_one_step(environment, probes) if probes else np.full((1, 1), np.nan))
        environment.close()
        progress(domain)
    matrix = _distances(predictions, probes) if probes else np.full((len(every), len(every)), np.nan)
    apart = np.where(np.isnan(matrix), np.inf, matrix) + np.diag(np.full(len(matrix), np.inf))
    names = [domain.shift_name for domain in every]
    checks = [
        DomainCheck(
            domain=domain.name,
            shift=names[index],
            intended=rows[index][0],
            problems=rows[index][1],
            distance_to_stock=float(matrix[0, index]),
            walked_distance_to_stock=float(matrix[0, index]),
            nearest=names[int(apart[index].argmin())] if probes and len(names) > 1 else "",
            nearest_distance=float(apart[index].min()),
        )
        for index, domain in enumerate(every)
    ]
    same = np.argwhere(np.triu(matrix < IDENTICAL_DISTANCE, k=1))
    return RobotCheck(
        robot=stock.robot,
        physics="MuJoCo" if probes else "unknown",
        policies=("random",),
        num_probes=NUM_PROBES if probes else 0,
        domains=tuple(checks),
        matrix=matrix,
        # A random policy may not get where they differ, so this is no failure.
        identical=tuple(IdenticalPair(names[a], names[b], "wherever random actions get") for a, b in same),
    )


class _States:
    """Full states (N, S) and actions (N, A) that random actions visit."""

    def __init__(self, states: Float, positions: Float, actions: NDArray[np.float32]) -> None:
        self.states, self.positions, self.actions = states, positions, actions


def _probes(environment: Any) -> _States:
    generator = np.random.default_rng(0)
    model, data = environment.unwrapped.model, environment.unwrapped.data
    visits: list[tuple[Float, Float, NDArray[np.float32]]] = []
    seed = 0
    while seed < _NUM_EPISODES or len(visits) < NUM_PROBES:
        environment.reset(seed=seed)
        seed += 1
        for _ in range(_MAX_EPISODE_STEPS):
            action = generator.uniform(-1.0, 1.0, environment.action_space.shape).astype(np.float32)
            state = np.empty(mujoco.mj_stateSize(model, _STATE))
            mujoco.mj_getState(model, data, state, _STATE)
            visits.append((state, np.concatenate([data.qpos, data.qvel]), action))
            _, _, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                break
    chosen = np.linspace(0, len(visits) - 1, NUM_PROBES).astype(int)
    states, positions, actions = (np.stack(column) for column in zip(*(visits[row] for row in chosen), strict=True))
    return _States(states, positions, actions)


def _one_step(environment: Any, probes: _States) -> Float:
    """Positions and velocities (N, nq + nv) after one step from every probe; noise and delay start at a reset."""
    model, data = environment.unwrapped.model, environment.unwrapped.data
    result = np.empty(probes.positions.shape)
    for index, (state, action) in enumerate(zip(probes.states, probes.actions, strict=True)):
        environment.reset(seed=index)
        mujoco.mj_setState(model, data, state, _STATE)
        mujoco.mj_forward(model, data)
        environment.step(action)
        result[index] = np.concatenate([data.qpos, data.qvel])
    return result


def _distances(predictions: Sequence[Float], probes: _States) -> Float:
    """(D, D): see `v2a_ray.domains.probes.distances`. What does not move in stock has no unit and is left out."""
    moves = (predictions[0] - probes.positions).std(axis=0) > 0
    start, count = probes.positions[:, moves], len(probes.positions)
    nothing = np.empty((count, 0))
    view = Probes(
        start, nothing, probes.actions.astype(np.float64), nothing[:, None], np.zeros(count, np.int64), ("random",)
    )
    return distances([each[:, moves] for each in predictions], view)[0]


def _check_model(domain: GymDomain, environment: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fields that the shifts edit, and what is wrong: after a reset the model has to be stock's with these edits."""
    stock: Any = domain.stock.make()
    expected, before = copy.copy(model_of(stock)), copy.copy(model_of(stock))
    edits = [edit for _, edit in domain.edits()]
    apply_edits(expected, edits)
    for each in (stock, environment):
        each.reset(seed=0)
    # Some environments move a goal or an object in the model at every reset, and may do so.
    restless = changed_fields(before, model_of(stock))
    wrong = sorted(changed_fields(expected, model_of(environment)) - restless)
    stock.close()
    fields = tuple(dict.fromkeys(edit.field for edit in edits))
    return fields, tuple(f"{name} is not as intended" for name in wrong)
