"""Reference returns are published ones if they exist, else our measurements, and name their source."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from v2a_ray.domains import catalogue, normalized_score, parse_domain, references, robot_spec
from v2a_ray.domains.references import OWN_REFERENCES, published_references

MEASURED = json.loads(OWN_REFERENCES.read_text())["domains"]


def test_every_named_domain_has_references_of_its_own() -> None:
    for domain in catalogue():
        found = references(domain)
        assert "none is published" not in found.source, domain.name
        own = domain.name.removesuffix("@d4rl") in MEASURED
        assert own is (published_references(domain) is None), domain.name
        assert own is found.source.startswith("ours"), domain.name
        # A score is divided by this difference.
        assert found.expert_return - found.random_return > 300, domain.name


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_measured_references_are_used(name: str) -> None:
    found, measured = references(parse_domain(name)), MEASURED[name]
    assert found.random_return == measured["random"]["return_mean"]
    expert = measured["expert"]
    if expert is None or f"{expert['behavior']} of {expert['policy_domain']}" not in found.source:
        # No measured policy is clearly better than random, and the source names the expert used instead.
        stock = references(parse_domain(name.split("/")[0]))
        assert found.expert_return == stock.expert_return
        assert "expert of D4RL's stock robot" in found.source
        if expert:
            gap = expert["return_mean"] - measured["random"]["return_mean"]
            spread = expert["return_std"] + measured["random"]["return_std"]
            assert gap <= max(spread, 0.1 * (stock.expert_return - stock.random_return))
    else:
        assert found.expert_return == expert["return_mean"]
        assert parse_domain(expert["policy_domain"]).robot == name.split("/")[0]


def test_variants_and_modern_physics_take_the_robots_references_and_say_so() -> None:
    assert references(parse_domain("ant111/gravity-2")) == references(parse_domain("ant/gravity-2"))
    modern, recorded = references(parse_domain("hopper@modern")), references(parse_domain("hopper"))
    assert (modern.random_return, modern.expert_return) == (recorded.random_return, recorded.expert_return)
    assert modern.source == "D4RL; measured in d4rl physics"


@pytest.mark.parametrize("name", ["hopper/gravity-0.73", "ant/wind-4.5", "halfcheetah/gravity-2+friction-2"])
def test_unnamed_domains_use_stock_references_and_say_so(name: str) -> None:
    domain = parse_domain(name)
    stock = references(parse_domain(domain.robot))
    found = references(domain)
    assert (found.random_return, found.expert_return) == (stock.random_return, stock.expert_return)
    assert found.source == "D4RL's stock robot; none is published for this shift"


def test_scores_of_arrays_are_those_of_their_elements() -> None:
    domain = parse_domain("walker2d/wind-10")
    returns = np.asarray([0.0, 1000.0, 4000.0])
    scores = normalized_score(domain, returns)
    assert scores.tolist() == [normalized_score(domain, float(value)) for value in returns]


def test_a_robot_of_a_plugin_has_no_references_and_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    for register in ("_ROBOTS", "_MODULES"):
        monkeypatch.setattr(robot_spec, register, dict(getattr(robot_spec, register)))
    robot_spec.register_robot(replace(robot_spec.robot("hopper"), name="somebodys_hopper"))
    for name in ("somebodys_hopper/stock", "somebodys_hopper/gravity-0.5", "somebodys_hopper/stock@modern"):
        assert references(parse_domain(name)) is None
        assert normalized_score(parse_domain(name), 100.0) is None
    known = replace(robot_spec.robot("hopper"), name="somebodys_known_hopper", references=(10, 210))
    robot_spec.register_robot(known)
    for name in ("somebodys_known_hopper/stock", "somebodys_known_hopper/gravity-0.5"):
        assert normalized_score(parse_domain(name), 110.0) == 50.0
