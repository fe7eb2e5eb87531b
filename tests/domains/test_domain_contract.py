"""What every kind of domain promises, old and new: names, sizes, seeds, batches, data that the checks accept.

The contract of every format of data is in `tests/data/test_formats.py`.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from v2a_ray.data.collection.rolling import collect_episodes
from v2a_ray.data.formats.readers import read_table
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import make_environment, normalized_score, parse_domain, references
from v2a_ray.domains.batch import make_batch
from v2a_ray.domains.behaviors import same_robot
from v2a_ray.errors import DomainError

ROBOT_FILE = Path(__file__).parents[2] / "examples/own_robot/arm.yaml"
SIMULATED = [
    "hopper/stock@d4rl",
    "walker2d/gravity-0.5+action_delay-1@modern",
    "ant111/stock@d4rl",
    "gym:InvertedPendulum-v5/mass:pole-2",
    "gym:Pendulum-v1/action_noise-0.1",
    'gym:own_environments:Cart?max_episode_steps=20&observation_keys=["state"]',
    f"mjcf:{ROBOT_FILE}/mass:fore-2",
]
RECORDED = "real:arm?action_dim=2&observation_dim=3"
every_domain = pytest.mark.parametrize("name", [*SIMULATED, RECORDED])
every_simulation = pytest.mark.parametrize("name", SIMULATED)


@pytest.fixture(autouse=True)
def own_environments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield


@every_domain
def test_a_name_says_everything(name: str) -> None:
    domain = parse_domain(name)
    assert domain.name == name and parse_domain(domain.name) == domain and hash(domain) == hash(parse_domain(name))
    assert pickle.loads(pickle.dumps(domain)) == domain
    assert re.fullmatch(r"[\w.+-]+", domain.slug) and name in domain.identity
    assert json.loads(json.dumps(domain.describe(), default=str))["name"] == name
    assert not domain.stock.shift_names and domain.stock.stock == domain.stock
    assert same_robot(domain, domain.stock) and domain.stock.robot == domain.robot
    between = references(domain)
    score = normalized_score(domain, 0.0 if between is None else between.expert_return)
    assert score == (None if between is None else 100.0)


@every_domain
def test_other_dimensions_are_explained(name: str) -> None:
    spec = parse_domain(name).robot_spec
    told = spec.remedy_for(spec.observation_dim + 1, spec.action_dim)
    assert str(spec.observation_dim) in told or spec.name in told
    states = np.zeros((2, spec.observation_dim))
    assert all(each.shape == (2,) for each in spec.observed_health(states))


@every_simulation
def test_an_environment_has_the_sizes_and_repeats_itself(name: str) -> None:
    domain = parse_domain(name)
    spec = domain.robot_spec
    rewards: list[list[float]] = []
    for _ in range(2):
        environment: Any = make_environment(domain)
        assert environment.action_space.shape == (spec.action_dim,)
        assert (environment.action_space.low == -1.0).all() and (environment.action_space.high == 1.0).all()
        observation, _ = environment.reset(seed=3)
        assert observation.shape == (spec.observation_dim,)
        generator = np.random.default_rng(0)
        steps = [environment.step(generator.uniform(-1, 1, spec.action_dim).astype(np.float32)) for _ in range(5)]
        rewards.append([float(step[1]) for step in steps])
        environment.close()
    assert rewards[0] == rewards[1]


@every_simulation
def test_a_batch_is_its_environments(name: str) -> None:
    domain = parse_domain(name)
    actions = np.random.default_rng(1).uniform(-1, 1, (3, 2, domain.robot_spec.action_dim)).astype(np.float32)
    with make_batch(domain, 2) as batch:
        started = batch.reset([5, 6])
        stepped = [batch.step(action) for action in actions]
    for row, seed in enumerate((5, 6)):
        environment: Any = make_environment(domain)
        assert np.array_equal(environment.reset(seed=seed)[0], started[row])
        for action, (observations, earned, ended, _) in zip(actions, stepped, strict=True):
            observation, reward, terminated, _, _ = environment.step(action[row])
            assert np.array_equal(observation, observations[row])
            assert (reward, terminated) == (earned[row], ended[row])


@every_simulation
def test_collected_data_pass_the_checks_of_their_domain(name: str, tmp_path: Path) -> None:
    domain = parse_domain(name)
    table = collect_episodes(domain, "random", range(2), noise_std=0.0)
    write_table(table, tmp_path / "data", robot=domain.robot)
    found, findings = read_table(tmp_path / "data", robot=domain.robot_spec)
    assert [finding for finding in findings if finding.severity == "error"] == []
    assert np.array_equal(found.observation, table.observation) and set(found.domain) == {domain.name}


def test_without_a_simulator_nothing_is_rolled_out() -> None:
    for make in (make_environment, lambda domain: make_batch(domain, 1)):
        with pytest.raises(DomainError, match="has no simulator"):
            make(parse_domain(RECORDED))
