"""Environments of gymnasium-robotics, where it is installed: dict observations with goals, a hand of many joints."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from v2a_ray.domains import make_environment, parse_domain
from v2a_ray.domains.references import normalized_score
from v2a_ray.domains.rollout import roll_out
from v2a_ray.errors import DomainError

pytest.importorskip("gymnasium_robotics")

MAZE = 'gym:AntMaze_UMaze-v5?observation_keys=["observation","desired_goal"]'


def test_the_goal_of_a_maze_is_observed_in_the_order_asked_for() -> None:
    environment: Any = make_environment(MAZE)
    observation, _ = environment.reset(seed=1)
    assert observation.shape == (107,)
    assert np.array_equal(observation[-2:], environment.unwrapped.goal)
    assert parse_domain("gym:AntMaze_UMaze-v5").robot_spec.observation_dim == 109


def test_gravity_of_a_maze_is_shifted_although_its_robot_is_an_environment_inside_it() -> None:
    environment: Any = make_environment(f"{MAZE}/gravity-0.5")
    environment.reset(seed=0)
    assert environment.unwrapped.ant_env.model.opt.gravity[2] == -9.81 / 2


def test_old_environments_are_made_without_noise() -> None:
    program = (
        f"from v2a_ray.domains import make_environment; make_environment({MAZE.replace('v5', 'v4')!r}).reset(seed=0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout + done.stderr == ""


def test_a_hand_has_a_joint_that_is_nearly_broken() -> None:
    stock, broken = (make_environment(f"gym:AdroitHandDoor-v1{shift}") for shift in ("", "/joint-range:WRJ0-0.1"))
    ranges = [each.unwrapped.model.joint("WRJ0").range for each in (stock, broken)]
    assert np.allclose(ranges[1], 0.1 * ranges[0])
    returns, lengths = roll_out(lambda o: np.zeros((len(o), 28), np.float32), "gym:AdroitHandDoor-v1", 1)
    assert lengths.tolist() == [200] and np.isfinite(returns).all()
    with pytest.raises(DomainError, match=r"no joint named 'WRJ'(.|\n)*WRJ1.*of 30"):
        parse_domain("gym:AdroitHandDoor-v1/joint-range:WRJ-0.1")


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("gym:AdroitHandDoor-v1", (-56.512833, 2880.5693087298737)),
        ("gym:AdroitHandDoor-v1/joint-range:WRJ0-0.5", (-56.512833, 2880.5693087298737)),
        ("gym:AdroitHandDoor-v1?reward_type=sparse", None),
        ("gym:AdroitHandDoor-v1?references=[0,5]", (0, 5)),
        ("gym:AntMaze_UMaze-v4?continuing_task=false", (0.0, 1.0)),
        ("gym:AntMaze_UMaze-v4", None),
        ("gym:AntMaze_UMazeDense-v4?continuing_task=false", None),
    ],
)
def test_scores_are_those_of_d4rl_where_its_task_is_meant(domain: str, expected: tuple[float, float] | None) -> None:
    score = normalized_score(parse_domain(domain), 1.0)
    assert score == (expected and pytest.approx(100 * (1.0 - expected[0]) / (expected[1] - expected[0])))
