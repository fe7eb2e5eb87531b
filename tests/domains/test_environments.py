"""The contract of every named domain, and its agreement with gymnasium's own environments."""

from __future__ import annotations

import pickle

import gymnasium
import numpy as np
import pytest

from v2a_ray.domains import Domain, catalogue, make_environment, parse_domain
from v2a_ray.domains.domain import require_robot

DOMAINS = [*catalogue(), *catalogue("ant111")]


def rollout(domain: Domain, seed: int, num_steps: int) -> np.ndarray:
    environment = make_environment(domain)
    observation, _ = environment.reset(seed=seed)
    environment.action_space.seed(seed)
    seen = [observation]
    for _ in range(num_steps):
        observation, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
        seen.append(np.append(observation[:-1], reward))
        if terminated or truncated:
            break
    return np.stack(seen)


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_contract(domain: Domain) -> None:
    spec = domain.robot_spec
    environment = make_environment(domain)
    assert isinstance(environment.observation_space, gymnasium.spaces.Box)
    assert environment.observation_space.shape == (spec.observation_dim,)
    assert isinstance(environment.action_space, gymnasium.spaces.Box)
    assert environment.action_space.shape == (spec.action_dim,)
    assert (environment.action_space.low == -1).all()
    assert (environment.action_space.high == 1).all()
    assert environment.unwrapped._reset_noise_scale == spec.reset_noise_scale  # type: ignore[attr-defined]
    first, again, other = rollout(domain, 3, 20), rollout(domain, 3, 20), rollout(domain, 4, 20)
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], other[0])
    assert gymnasium.spec(require_robot(domain, "this test").gym_id).kwargs == {"domain": domain.name}


# Each of these robots stands still or lies until the time limit.
@pytest.mark.parametrize(
    "name",
    ["halfcheetah/gravity-0.5", "ant/action_delay-1", "ant111", "hopper/gravity-0.001", "walker2d/gravity-0.001"],
)
def test_truncation_at_1000(name: str) -> None:
    environment = make_environment(name)
    environment.reset(seed=0)
    flags = [environment.step(np.zeros(environment.action_space.shape, np.float32))[2:4] for _ in range(1000)]
    assert flags[:-1] == [(False, False)] * 999
    assert flags[-1] == (False, True)


@pytest.mark.parametrize(
    "name", ["hopper/otdf-morph@modern", "ant", "ant111", "hopper/action_delay-3+action_noise-0.2"]
)
def test_pickling_an_environment_keeps_its_domain(name: str) -> None:
    environment = make_environment(name)
    copy = pickle.loads(pickle.dumps(environment))
    assert copy.unwrapped.domain == parse_domain(name)
    assert np.array_equal(environment.reset(seed=1)[0], copy.reset(seed=1)[0])


def test_every_domain_can_be_sent_to_a_ray_actor(ray_cluster: None) -> None:
    import ray

    def first_steps(environment: gymnasium.Env) -> np.ndarray:
        """The observations of a seeded reset and of three steps at full action."""
        observation, _ = environment.reset(seed=7)
        action = np.ones(environment.action_space.shape or (), np.float32)
        return np.stack([observation, *(environment.step(action)[0] for _ in range(3))])

    @ray.remote(num_cpus=1)
    class Prober:
        """Receives environments from another process and reports how they behave here."""

        def probe(self, environments: list[gymnasium.Env]) -> list[np.ndarray]:
            return [first_steps(environment) for environment in environments]

    environments = [make_environment(domain) for domain in DOMAINS]
    here = [first_steps(environment) for environment in environments]
    there = ray.get(Prober.remote().probe.remote(environments))  # type: ignore[attr-defined]
    for domain, one, other in zip(DOMAINS, here, there, strict=True):
        assert np.array_equal(one, other), domain


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("robot", "gym_id"),
    [("hopper", "Hopper-v4"), ("walker2d", "Walker2d-v4"), ("halfcheetah", "HalfCheetah-v4"), ("ant", "Ant-v4")],
)
def test_modern_stock_is_gymnasiums_v4(robot: str, gym_id: str) -> None:
    ours, theirs = make_environment(f"{robot}@modern"), gymnasium.make(gym_id)
    assert np.array_equal(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
    theirs.action_space.seed(0)
    for _ in range(30):
        action = theirs.action_space.sample()
        one, other = ours.step(action), theirs.step(action)
        assert np.array_equal(one[0], other[0])
        assert one[1:4] == other[1:4]


def test_nothing_but_a_time_limit_wraps_the_robot() -> None:
    environment = make_environment("hopper/friction-2")
    assert isinstance(environment, gymnasium.wrappers.TimeLimit)
    assert environment.env is environment.unwrapped


def test_gymnasium_makes_a_named_domain() -> None:
    environment = gymnasium.make("v2a/hopper-gravity-0.5-d4rl-v0")
    assert environment.unwrapped.model.opt.gravity[2] == pytest.approx(-4.905)
    assert environment.spec is not None
    assert environment.spec.max_episode_steps == 1000
