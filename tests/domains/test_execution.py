"""Noisy and delayed execution: the simulation gets the executed action, the reward the command, a seed decides both."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2a_ray.domains import Execution, make_environment, parse_domain
from v2a_ray.domains.shifts.execution import ActionChannel

ROBOTS = ("hopper", "walker2d", "halfcheetah", "ant")


def commands(num_steps: int, action_dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (num_steps, action_dim)).astype(np.float32)


def executed(environment: Any, actions: np.ndarray) -> np.ndarray:
    """The action that the actuators got for each of `actions`."""
    result = []
    for action in actions:
        environment.step(action)
        result.append(environment.unwrapped.data.ctrl.copy())
    return np.stack(result)


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("delay", [1, 4])
def test_a_delayed_action_is_executed_later_and_zeros_before(robot: str, delay: int) -> None:
    environment = make_environment(f"{robot}/action_delay-{delay}")
    actions = commands(8, environment.unwrapped.model.nu)
    for seed in (0, 1):
        # The second episode begins with zeros again, not with delayed actions of the first.
        environment.reset(seed=seed)
        got = executed(environment, actions)
        assert not got[:delay].any()
        assert np.array_equal(got[delay:], actions[:-delay])


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_delay_is_the_stock_robot_with_later_actions(robot: str) -> None:
    late, stock = make_environment(f"{robot}/action_delay-2"), make_environment(robot)
    assert np.array_equal(late.reset(seed=3)[0], stock.reset(seed=3)[0])
    actions = commands(6, stock.unwrapped.model.nu)
    shifted = np.concatenate([np.zeros_like(actions[:2]), actions[:-2]])
    for commanded, performed in zip(actions, shifted, strict=True):
        assert np.array_equal(late.step(commanded)[0], stock.step(performed)[0])


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_reward_uses_the_commanded_action(robot: str) -> None:
    environment = make_environment(f"{robot}/action_delay-3+action_noise-0.4")
    rewards = []
    for size in (0.0, 1.0):
        environment.reset(seed=0)
        action = np.full(environment.action_space.shape or (), size, np.float32)
        # No action is executed within the first step, so only its cost differs.
        rewards.append(float(environment.step(action)[1]))
    weight = environment.unwrapped._ctrl_cost_weight
    assert rewards[0] - rewards[1] == pytest.approx(weight * environment.unwrapped.model.nu)


def test_noise_has_the_named_spread_and_stays_in_bounds() -> None:
    environment = make_environment("halfcheetah/action_noise-0.2")
    environment.reset(seed=0)
    noise = executed(environment, np.zeros((500, 6), np.float32))
    assert noise.std() == pytest.approx(0.2, rel=0.05)
    assert abs(noise.mean()) < 0.02
    full = executed(environment, np.ones((100, 6), np.float32))
    assert full.max() == 1.0
    assert 0.3 < (full == 1.0).mean() < 0.7


def test_a_seed_decides_the_noise() -> None:
    actions = commands(10, 3)
    environment = make_environment("hopper/action_noise-0.1+action_delay-1")
    seen = []
    for seed in (5, 5, 6):
        environment.reset(seed=seed)
        seen.append(executed(environment, actions))
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
    # Episodes of one environment differ when the seed is not given again.
    environment.reset()
    assert not np.array_equal(executed(environment, actions), seen[2])


def test_a_pickled_environment_starts_without_delayed_actions() -> None:
    environment = make_environment("hopper/action_delay-2")
    environment.reset(seed=0)
    environment.step(np.ones(3, np.float32))
    copy = pickle.loads(pickle.dumps(environment))
    copy.reset(seed=0)
    assert not executed(copy, np.ones((2, 3), np.float32)).any()


def test_an_action_of_another_shape_is_refused_as_in_stock() -> None:
    for name in ("hopper", "hopper/action_noise-0.1", "hopper/action_delay-2"):
        environment = make_environment(name)
        environment.reset(seed=0)
        with pytest.raises(ValueError, match=r"\(1,\)"):
            environment.step(np.zeros(1, np.float32))


def test_execution_follows_from_the_name() -> None:
    assert parse_domain("hopper/gravity-0.5").execution == Execution()
    assert parse_domain("hopper/action_delay-2+gravity-0.5").execution == Execution(delay_steps=2)
    both = parse_domain("ant/action_noise-0.25+action_delay-1").execution
    assert both == Execution(noise_std=0.25, delay_steps=1)
    assert not both.is_exact


@given(st.integers(0, 5), st.integers(1, 12))
def test_a_channel_without_noise_is_a_shift_register(delay: int, num_steps: int) -> None:
    channel = ActionChannel(Execution(delay_steps=delay), action_dim=2)
    generator = np.random.default_rng(0)
    action = np.empty(2, np.float32)
    given_, got = commands(num_steps, 2), []
    for command in given_:
        # One array for every command, as in some roll-out loops.
        action[:] = command
        got.append(channel.execute(action, generator))
    expected = np.concatenate([np.zeros((delay, 2)), given_])[:num_steps]
    assert np.array_equal(np.stack(got), expected)
