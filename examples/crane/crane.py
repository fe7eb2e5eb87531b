"""A gantry crane: a trolley on a rail, and a load that hangs from it. Bring the load over a goal, without swinging."""

from __future__ import annotations

from typing import Any

import gymnasium
import h5py
import mujoco
import numpy as np
from numpy.typing import NDArray

EPISODE_STEPS = 150
XML = """<mujoco><option timestep="0.01"/><worldbody>
<body name="trolley" pos="0 0 2"><joint name="rail" type="slide" axis="1 0 0" damping="2"/>
<geom name="box" type="box" size=".15 .1 .05" mass="3"/>
<body name="load"><joint name="cable" type="hinge" axis="0 1 0" damping=".02"/>
<geom name="rope" type="capsule" fromto="0 0 0 0 0 -1.2" size=".02" mass=".1"/>
<geom name="load" type="sphere" pos="0 0 -1.2" size=".1" mass="2"/></body></body></worldbody>
<actuator><motor name="drive" joint="rail" gear="40" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""


class Crane(gymnasium.Env[NDArray[Any], NDArray[Any]]):
    """Observed: the trolley's place, sine and cosine of the cable's angle, both velocities, and how far the goal is."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(XML)
        self.data = mujoco.MjData(self.model)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,))
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def _look(self) -> NDArray[Any]:
        x, angle = self.data.qpos
        return np.array([x, np.sin(angle), np.cos(angle), *self.data.qvel, self.goal - x])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[Any], dict[str, Any]]:
        """A new goal, the load at rest."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self.np_random.uniform(-0.1, 0.1, 2)
        self.goal = self.np_random.uniform(-2, 2)
        mujoco.mj_forward(self.model, self.data)
        return self._look(), {}

    def step(self, action: NDArray[Any]) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """0.04 s. The episode ends when the load swings above the rail."""
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data, 4)
        x, angle = self.data.qpos
        reward = np.exp(-abs(self.goal - x - 1.2 * np.sin(-angle))) - 0.1 * angle**2
        return self._look(), float(reward), bool(abs(angle) > 1.5), False, {}


def act(observation: NDArray[Any]) -> NDArray[Any]:
    """A careful hand: towards the goal, damped by the swing."""
    _, sine, _, velocity, swing, to_go = observation
    return np.clip([0.3 * to_go - 0.35 * velocity + 0.5 * sine + 0.2 * swing], -1, 1)


def record() -> None:
    """Twenty episodes by an unsteady hand, as D4RL's HDF5: crane.hdf5."""
    crane, generator = Crane(), np.random.default_rng(0)
    rows: dict[str, list[Any]] = {
        key: [] for key in ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts")
    }
    for episode in range(20):
        observation, _ = crane.reset(seed=episode)
        for step in range(EPISODE_STEPS):
            action = np.clip(act(observation) + generator.normal(0, 0.3, 1), -1, 1)
            following, reward, terminated, _, _ = crane.step(action)
            timeout = step == EPISODE_STEPS - 1 and not terminated
            for key, value in zip(rows, (observation, following, action, reward, terminated, timeout), strict=True):
                rows[key].append(value)
            observation = following
            if terminated:
                break
    with h5py.File("crane.hdf5", "w") as file:
        for key, values in rows.items():
            file[key] = np.asarray(values, dtype=bool if key in ("terminals", "timeouts") else "f4")


if __name__ == "__main__":
    record()
