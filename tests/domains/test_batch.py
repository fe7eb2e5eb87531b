"""Simulations stepped together are the same, to the last bit, as environments stepped one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v2a_ray.domains import make_environment
from v2a_ray.domains.batch import BatchedEnvironment, available_threads
from v2a_ray.domains.rollout import roll_out

DOMAINS = [
    "hopper",
    "hopper@modern",
    "hopper/gravity-0.5",
    "hopper/otdf-morph",
    "hopper/action_delay-2+action_noise-0.1",
    "walker2d",
    "walker2d/kinematic-footjnt-hard@modern",
    "walker2d/friction-0.5",
    "halfcheetah",
    "halfcheetah/morph-thigh-hard@modern",
    "halfcheetah/wind-10+action_delay-1",
    "ant",
    "ant/gravity-2@modern",
    "ant111/action_noise-0.2",
]


def alone(name: str, seed: int, actions: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """(observation, reward, terminated, truncated) per step of an environment, until its episode ends."""
    environment = make_environment(name)
    steps: list[tuple[np.ndarray, ...]] = [(environment.reset(seed=seed)[0],)]
    for action in actions:
        steps.append(environment.step(action)[:4])
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


def together(
    name: str, seeds: list[int], actions: np.ndarray, num_threads: int | None
) -> list[list[tuple[np.ndarray, ...]]]:
    """The same values from simulations stepped side by side, one list per seed; `actions` is (seeds, steps, A)."""
    with BatchedEnvironment(name, len(seeds), num_threads) as environment:
        episodes: list[list[tuple[np.ndarray, ...]]] = [[(each,)] for each in environment.reset(seeds)]
        running = np.arange(len(seeds))
        for step in range(actions.shape[1]):
            result = environment.step(actions[running, step], running)
            for index, simulation in enumerate(running):
                episodes[simulation].append(tuple(each[index] for each in result))
            running = running[~(result[2] | result[3])]
            if not len(running):
                break
    return episodes


def assert_same(one: list[tuple[np.ndarray, ...]], other: list[tuple[np.ndarray, ...]]) -> None:
    assert len(one) == len(other)
    for step, expected in zip(one, other, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(step, expected, strict=True))


def random_actions(name: str, num_episodes: int, num_steps: int, scale: float, seed: int = 0) -> np.ndarray:
    action_dim = make_environment(name).action_space.shape[0]
    generator = np.random.default_rng(seed)
    return generator.uniform(-scale, scale, (num_episodes, num_steps, action_dim)).astype(np.float32)


@pytest.mark.parametrize("name", DOMAINS)
def test_episodes_are_those_of_single_environments(name: str) -> None:
    seeds = [3, 1, 4, 15]
    # With weak actions robots stand for hundreds of steps, with strong actions they fall.
    actions: np.ndarray = random_actions(name, len(seeds), 300, 1.0)
    actions[:2] *= np.float32(0.05)
    episodes = together(name, seeds, actions, num_threads=2)
    for seed, action, episode in zip(seeds, actions, episodes, strict=True):
        assert_same(episode, alone(name, seed, action))


@pytest.mark.parametrize("robot", ["hopper", "walker2d", "ant"])
def test_robots_that_can_fall_do_terminate(robot: str) -> None:
    # Otherwise the test above would not cover termination.
    (episode,) = together(robot, [0], random_actions(robot, 1, 1000, 1.0), num_threads=1)
    assert len(episode) < 1000
    assert [bool(step[2]) for step in episode[1:]] == [False] * (len(episode) - 2) + [True]
    assert not episode[-1][3]


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(DOMAINS),
    seeds=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5),
    num_threads=st.sampled_from([None, 1, 3]),
    scale=st.floats(0.0, 1.0),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_seeds_actions_and_threads(
    name: str, seeds: list[int], num_threads: int | None, scale: float, dtype: type
) -> None:
    actions: np.ndarray = random_actions(name, len(seeds), 25, scale, seeds[0]).astype(dtype)
    for seed, action, episode in zip(seeds, actions, together(name, seeds, actions, num_threads), strict=True):
        assert_same(episode, alone(name, seed, action))


def test_a_simulation_can_be_used_again_while_others_run() -> None:
    name = "ant/action_delay-1"
    actions: np.ndarray = random_actions(name, 2, 20, 1.0)
    with BatchedEnvironment(name, 2) as environment:
        environment.reset([1, 2])
        for step in range(10):
            environment.step(actions[:, step])
        again = [(environment.reset([7], [1])[0],)]
        for step in range(20):
            result = environment.step(actions[:, step])
            again.append(tuple(each[1] for each in result))
    assert_same(again, alone(name, 7, actions[1]))  # type: ignore[arg-type]


def test_episodes_are_truncated_at_1000_steps() -> None:
    with BatchedEnvironment("halfcheetah", 2) as environment:
        environment.reset([0, 1])
        flags = [environment.step(np.zeros((2, 6), np.float32))[3].all() for _ in range(1000)]
    assert flags == [False] * 999 + [True]


def test_actions_of_another_shape_are_refused() -> None:
    with BatchedEnvironment("hopper", 2) as environment:
        environment.reset([0, 1])
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            environment.step(np.zeros((1, 3), np.float32))


def test_roll_out_sums_the_rewards_of_single_environments() -> None:
    def act(observations: np.ndarray) -> np.ndarray:
        return np.sin(observations[:, :3] * 5).astype(np.float32)

    returns, lengths = roll_out(act, "hopper/gravity-0.5", 4, seed=11)
    for index in range(4):
        environment = make_environment("hopper/gravity-0.5")
        observation, _ = environment.reset(seed=11 + index)
        total, length, ended = 0.0, 0, False
        while not ended:
            observation, reward, terminated, truncated, _ = environment.step(act(observation[None])[0])
            total, length, ended = total + float(reward), length + 1, terminated or truncated
        assert (returns[index], lengths[index]) == (total, length)


def test_threads_are_the_cpus_that_ray_or_the_user_assigns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert available_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert available_threads() >= 1
