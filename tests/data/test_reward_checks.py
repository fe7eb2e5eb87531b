"""Rewards that differ from the simulator's are found and named; a domain's own recordings raise no warning."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from v2a_ray.data.checks import check_sources
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.fidelity.recorded import Recording, compare
from v2a_ray.data.table.episodes import unlabelled
from v2a_ray.domains import parse_domain


@cache
def collected(domain, episodes):
    parsed = parse_domain(domain)
    return EpisodeCollector(parsed, "random", policy_domain=parse_domain(parsed.robot)).collect(range(episodes))


def noisy(rewards):
    return rewards + np.random.default_rng(0).normal(size=len(rewards)).astype(np.float32) * 0.3


def noisy_in_part(rewards):
    changed = rewards.copy()
    changed[::8] += np.float32(0.5)
    return changed


OTHER_REWARDS: dict[str, tuple[Any, str]] = {
    "row before": (lambda rewards: np.roll(rewards, 1), "rewards are those of the row before: .* explains [0-9.]+%"),
    "row after": (lambda rewards: np.roll(rewards, -1), "rewards are those of the row after"),
    "row before, scaled": (lambda rewards: 10 * np.roll(rewards, 1), "rewards are those of the row before"),
    "noise": (noisy, r"explains [0-9.]+% of their variance, and (9\d|100)% of them get another reward"),
    "noise in every eighth row": (noisy_in_part, "of them get another reward"),
    "shuffled": (lambda rewards: np.random.default_rng(0).permutation(rewards), "explains [0-4].[0-9]% of"),
    "one for every step": (np.ones_like, "explains 0.0% of"),
    "of another function": (lambda rewards: np.square(rewards), "explains [0-9.]+% of"),
}


@pytest.mark.parametrize("name", OTHER_REWARDS)
def test_rewards_that_differ_from_the_simulator(name) -> None:
    check_other_rewards("hopper/stock", name)


@pytest.mark.parametrize("name", ["row before", "noise"])
def test_rewards_that_lag(name) -> None:
    check_other_rewards("ant/gravity-0.5", name)


def check_other_rewards(domain, name) -> None:
    """One warning with its place. If a neighbouring row explains all, it says how to move the rewards."""
    table, (change, said) = collected(domain, 25), OTHER_REWARDS[name]
    (finding,) = check_sources({"a": table.replace(reward=change(table.reward))}, {"a": parse_domain(domain)})
    assert (finding.check, finding.severity) == ("rewards_unexplained", "warning")
    assert re.search(said, finding.message), finding.message
    assert finding.where == "a · field reward"
    for row, direction in (("before", "one row up"), ("after", "one row down")):
        assert (direction in finding.remedy) == (f"those of the row {row}" in finding.message)


EVERY_KIND = [
    *(
        "hopper/stock@modern",
        "walker2d/mass-2",
        "hopper/action_delay-2",
        "hopper/action_noise-0.1",
        "ant/action_delay-1",
    ),
    *(
        pytest.param(domain, marks=pytest.mark.slow)
        for domain in ("halfcheetah/damping-2", "ant/wind-5", "ant111/stock", "halfcheetah/actuator-0.5@modern")
    ),
]


@pytest.mark.parametrize("domain", EVERY_KIND)
def test_rewards_that_equal_the_simulator(domain) -> None:
    """Also if the reward lags behind the state and a fifth of the previous steps are missing."""
    table = collected(domain, 4)
    assert check_sources({"a": table}, {"a": parse_domain(domain)}) == []
    begins = np.unique(np.concatenate([table.offsets[:-1], np.arange(0, table.num_transitions, 5)]))
    ends = np.append(begins[1:], table.num_transitions)
    pieces = unlabelled(
        **{name: getattr(table, name) for name in ("observation", "action", "reward", "next_observation")},
        lengths=ends - begins,
        terminated=np.isin(ends, table.offsets[1:][table.terminated]),
        episode_id=[str(index) for index in range(len(begins))],
    )
    assert [each.check for each in check_sources({"a": pieces}, {"a": parse_domain(domain)})] == []


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda rewards: np.roll(rewards, 1), "steps recorded in this domain; rewards are those of the row before"),
        (noisy, "steps recorded in this domain; what it pays for the same steps explains"),
        (lambda rewards: rewards / 10, "steps recorded in this domain; rewards are 0.1 times"),
        (lambda rewards: rewards, "recorded in this domain$"),
    ],
)
def test_fidelity_reports_other_rewards(change, said, tmp_path: Path) -> None:
    domain = parse_domain("hopper/gravity-0.5")
    table = collected(domain.name, 10)
    found = compare(Recording(tmp_path, domain, table.replace(reward=change(table.reward))), max_rows=150)
    assert re.match(said, found.verdict), found.verdict
    assert found.is_right == said.endswith("$")
    assert bool(found.to_dict()["reward_problem"]) != found.is_right
