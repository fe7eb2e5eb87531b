"""Dynamics distance: how differently two domains of a robot continue from the same states with the same actions.

Probes are pairs of a state and an action, the same for every domain of a robot. Most are states that random actions and
the packaged `medium` and `expert` policies visit on the stock robot. The others are shaken: visited states with joints
anywhere in their stock range and a little beyond, speeds up to several times as high, and the lowest point around the
floor's height. Shaken states cover joint limits, contacts and speeds that no packaged policy reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from v2a_ray.domains.behaviors import BehaviorPolicy, load_behavior
from v2a_ray.domains.domain import RobotDomain
from v2a_ray.domains.environments import make_environment
from v2a_ray.errors import DomainError

Float = NDArray[np.float64]

NUM_VISITED, NUM_SHAKEN = 120, 90  # per policy; per robot
_POLICIES = ("random", "medium", "expert")
_NUM_EPISODES = 3
_MAX_EPISODE_STEPS = 300
_ACTION_NOISE_STD = 0.1  # of medium and expert, so that actions are not a function of the state
_BEYOND_RANGE = 0.05  # shaken joints, as a fraction of their range
_CLEARANCE = (-0.01, 0.1)  # metres between the lowest point of a shaken robot and the floor


@dataclass(frozen=True)
class Probes:
    """States and actions; N of them, nq positions, nv velocities, A actions, H earlier actions.

    Attributes:
        position: (N, nq), velocity: (N, nv), in the simulator's coordinates.
        action: (N, A) in [-1, 1].
        earlier_actions: (N, H, A) commanded before, oldest first: a part of the state if actions are delayed.
        visitor: (N,) index in `policies` of the policy that visited the state; -1 for shaken states.
        policies: names, from bad to good.
    """

    position: Float
    velocity: Float
    action: Float
    earlier_actions: Float
    visitor: NDArray[np.int64]
    policies: tuple[str, ...]

    @property
    def visited(self) -> NDArray[np.bool_]:
        """(N,) whether a policy visited the state."""
        return self.visitor >= 0

    @property
    def walked(self) -> NDArray[np.bool_]:
        """(N,) whether the best policy visited the state."""
        return np.asarray(self.visitor == len(self.policies) - 1)


def make_probes(domain: RobotDomain, num_earlier_actions: int = 0, seed: int = 0) -> Probes:
    """Probes for the robot and physics of `domain`, from its stock version: the same for every domain of both."""
    generator = np.random.default_rng(seed)
    stock = domain.stock.base
    environment: Any = make_environment(stock).unwrapped
    policies = _available_policies(stock)
    visits = []
    for name, policy in policies.items():
        noise_std = 0.0 if name == "random" else _ACTION_NOISE_STD
        visits += _visit(environment, policy, NUM_VISITED, noise_std, num_earlier_actions, generator)
    position, velocity, action, earlier = (np.stack(column) for column in zip(*visits, strict=True))
    chosen = generator.choice(len(position), NUM_SHAKEN, replace=False)
    shaken = [_shake(environment, position[row], velocity, generator) for row in chosen]
    uniform = generator.uniform(-1.0, 1.0, (NUM_SHAKEN, num_earlier_actions + 1, action.shape[1]))
    return Probes(
        position=np.concatenate([position, np.stack([each[0] for each in shaken])]),
        velocity=np.concatenate([velocity, np.stack([each[1] for each in shaken])]),
        action=np.concatenate([action, uniform[:, -1]]),
        earlier_actions=np.concatenate([earlier, uniform[:, :-1]]),
        visitor=np.append(np.repeat(np.arange(len(policies)), NUM_VISITED), np.full(NUM_SHAKEN, -1)),
        policies=tuple(policies),
    )


def one_step(environment: Any, probes: Probes) -> Float:
    """States (N, nq + nv) after one environment step from every probe.

    If execution is delayed or noisy, the earlier actions are commanded first, and the seed of the noise is N, so that
    domains that differ only in the size of the noise get the same draws.
    """
    base = environment.unwrapped
    exact = base.domain.execution.is_exact
    result = np.empty((len(probes.action), base.model.nq + base.model.nv))
    for index, action in enumerate(probes.action):
        if not exact:
            base.reset(seed=index)
            for earlier in probes.earlier_actions[index]:
                base.step(earlier)
        # A reset clears the constraint solver's warm start, which would carry rounding over from another probe.
        mujoco.mj_resetData(base.model, base.data)
        base.set_state(probes.position[index], probes.velocity[index])
        base.step(action)
        result[index] = np.concatenate([base.data.qpos, base.data.qvel])
    return result


def distances(predictions: list[Float], probes: Probes) -> tuple[Float, Float]:
    """Distances between domains: (D, D) over all probes, and (D, D) over the probes that the best policy visited.

    Root mean square, over probes and over the dimensions of the state, of the difference between two predictions
    (D of (N, nq + nv), stock's first). Each dimension is in units of its change in one step in stock: the standard
    deviation over the visited probes. The distance has no unit; 1 is a difference as large as a step.
    """
    step = predictions[0] - np.concatenate([probes.position, probes.velocity], axis=1)
    unit = step[probes.visited].std(axis=0)
    scaled = np.stack(predictions) / unit
    everywhere, walked = (
        squareform(pdist(values.reshape(len(values), -1))) / np.sqrt(values[0].size)
        for values in (scaled, scaled[:, probes.walked])
    )
    return everywhere, walked


def _available_policies(stock: RobotDomain) -> dict[str, BehaviorPolicy]:
    # Packaged weights were trained in d4rl physics. The states they visit in modern physics serve as well.
    found: dict[str, BehaviorPolicy] = {}
    for name in _POLICIES:
        try:
            found[name] = load_behavior(RobotDomain(stock.robot), name)
        except DomainError:
            continue
    return found


def _visit(
    environment: Any,
    policy: BehaviorPolicy,
    count: int,
    noise_std: float,
    num_earlier_actions: int,
    generator: np.random.Generator,
) -> list[tuple[Float, Float, Float, Float]]:
    """`count` steps, evenly spread over some episodes: position, velocity, action, and the actions before it."""
    steps: list[tuple[Float, Float, Float, Float]] = []
    seed = 0
    while seed < _NUM_EPISODES or len(steps) < count:
        observation, _ = environment.reset(seed=seed)
        seed += 1
        earlier = np.zeros((num_earlier_actions, environment.action_space.shape[0]))
        for _ in range(_MAX_EPISODE_STEPS):
            noise = generator.normal(0.0, noise_std, earlier.shape[1])
            action = np.clip(policy.act(observation[None])[0] + noise, -1.0, 1.0)
            steps.append((environment.data.qpos.copy(), environment.data.qvel.copy(), action, earlier))
            earlier = np.concatenate([earlier, action[None]])[1:] if num_earlier_actions else earlier
            observation, _, terminated, *_ = environment.step(action)
            if terminated:
                break
    return [steps[row] for row in np.linspace(0, len(steps) - 1, count).astype(int)]


def _shake(environment: Any, position: Float, velocity: Float, generator: np.random.Generator) -> tuple[Float, Float]:
    """A state near `position` (nq,) with speeds as high as the `velocity` (N, nv) of the visited states, and higher."""
    model = environment.model
    position = position.copy()
    for joint in np.flatnonzero(model.jnt_limited):
        low, high = model.jnt_range[joint]
        margin = _BEYOND_RANGE * (high - low)
        position[model.jnt_qposadr[joint]] = generator.uniform(low - margin, high + margin)
    speeds = generator.normal(0.0, 2.0 * velocity.std(axis=0))
    environment.set_state(position, speeds)
    height = environment.domain.robot_spec.num_unobserved_positions
    position[height] += generator.uniform(*_CLEARANCE) - lowest_point(model, environment.data)
    return position, speeds


def lowest_point(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Height in metres of the lowest point of the robot's capsules and spheres."""
    robot = model.geom_bodyid > 0
    half = np.where(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE, model.geom_size[:, 1], 0.0)
    low = data.geom_xpos[:, 2] - np.abs(data.geom_xmat[:, 8]) * half - model.geom_size[:, 0]
    return float(low[robot].min())
