"""Environment steps per second of a shifted domain against gymnasium's own stock environment, one core.

Our robots against gymnasium's v4, and anybody's environments, `gym:ID` and `mjcf:FILE`, against the bare one.
"""

from __future__ import annotations

import argparse
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import RescaleAction, TimeLimit

from benchmarks.record import Result, interleaved, record, seconds
from v2a_ray.domains import make_environment
from v2a_ray.domains.own.mjcf import MJCFRobot
from v2a_ray.settings.environment_names import without_folders

TARGET = 0.95
# Robot -> gymnasium's environment and a shift that keeps the robot doing what it does in stock, so that both simulate
# comparable contacts: a solver's time depends on them, and gravity or friction would change them.
PAIRS = {
    "hopper": ("Hopper-v4", "kinematic-legjnt-easy"),
    "walker2d": ("Walker2d-v4", "kinematic-thighjnt-easy"),
    "halfcheetah": ("HalfCheetah-v4", "kinematic-footjnt-easy"),
    "ant": ("Ant-v4", "kinematic-anklejnt-easy"),
}

# The bare environment and a shift of it; InvertedPendulum has its actions scaled from [-3, 3].
OWN = {"Hopper-v5": "joint-range:leg_joint-0.8", "Swimmer-v5": "joint-range:motor1_rot-0.9", "InvertedPendulum-v5": ""}

# A robot's file against its own environment without anything around it but a time limit.
ROBOT_FILE = Path(__file__).parents[1] / "examples/own_robot/arm.yaml"


def steps_per_second(environment: gymnasium.Env[Any, Any], num_steps: int, seed: int) -> float:
    """Per second of CPU time, with random actions made beforehand. Resets count, as in collection."""
    shape = (num_steps, *environment.action_space.shape)
    actions = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    environment.reset(seed=seed)

    def run() -> None:
        for action in actions:
            *_, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                environment.reset()

    return num_steps / seconds(run, time.process_time)


def _reference(name: str) -> gymnasium.Env[Any, Any]:
    """Gymnasium's environment; of v4, which our robots are, without what `make` wraps around it."""
    if name == ROBOT_FILE.name:
        bare = MJCFRobot(ROBOT_FILE)
        return RescaleAction(TimeLimit(bare, bare.robot.max_episode_steps), np.float32(-1.0), np.float32(1.0))
    if name in OWN:
        return gymnasium.make(name, disable_env_checker=True)
    return TimeLimit(gymnasium.make(name).unwrapped, 1000)


def main() -> None:
    """Measure every robot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, no recording")
    parser.add_argument("--num-steps", type=int, default=2000, help="per repetition and environment")
    parser.add_argument("--repetitions", type=int, default=25)
    arguments = parser.parse_args()
    num_steps, repetitions = (1000, 5) if arguments.quick else (arguments.num_steps, arguments.repetitions)
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # gymnasium's, of v4, which recorded data are of.
    results = []
    pairs = [(f"{robot}/{shift}", theirs) for robot, (theirs, shift) in PAIRS.items()]
    pairs += [(f"gym:{theirs}/{shift}".rstrip("/"), theirs) for theirs, shift in OWN.items()]
    pairs += [(f"mjcf:{ROBOT_FILE}/mass:fore-1.1", ROBOT_FILE.name)]
    for domain, theirs in pairs:
        ours, reference = make_environment(domain), _reference(theirs)
        for environment in (ours, reference):
            steps_per_second(environment, num_steps, seed=0)  # Warm up.
        measured = interleaved(
            partial(steps_per_second, ours, num_steps, 1),
            partial(steps_per_second, reference, num_steps, 1),
            repetitions,
        )
        name = f"stepping {without_folders(domain)} against {theirs}"
        results.append(Result(name, *measured[:2], "steps/s", measured[2], TARGET))
    record(results, write=not arguments.quick)


if __name__ == "__main__":
    main()
