"""The grammar of domain names, and what is said when a name is wrong."""

from __future__ import annotations

import json

import pytest

from v2a_ray.domains import catalogue, normalized_score, parse_domain, references
from v2a_ray.errors import DomainError


@pytest.mark.parametrize(
    ("text", "name", "slug", "gym_id"),
    [
        ("hopper", "hopper/stock@d4rl", "hopper_stock_d4rl", "v2a/hopper-stock-d4rl-v0"),
        ("hopper@modern", "hopper/stock@modern", "hopper_stock_modern", "v2a/hopper-stock-modern-v0"),
        ("hopper/stock", "hopper/stock@d4rl", "hopper_stock_d4rl", "v2a/hopper-stock-d4rl-v0"),
        (
            "hopper/otdf-gravity",
            "hopper/gravity-0.5@d4rl",
            "hopper_gravity-0.5_d4rl",
            "v2a/hopper-gravity-0.5-d4rl-v0",
        ),
        ("hopper/friction-2.0", "hopper/friction-2@d4rl", "hopper_friction-2_d4rl", "v2a/hopper-friction-2-d4rl-v0"),
        (
            "hopper/gravity-0.73+kinematic-footjnt-0.7@modern",
            "hopper/gravity-0.73+kinematic-footjnt-0.7@modern",
            "hopper_gravity-0.73+kinematic-footjnt-0.7_modern",
            "v2a/hopper-gravity-0.73_kinematic-footjnt-0.7-modern-v0",
        ),
    ],
)
def test_canonical_names(text: str, name: str, slug: str, gym_id: str) -> None:
    domain = parse_domain(text)
    assert (domain.name, domain.slug, domain.gym_id) == (name, slug, gym_id)
    assert parse_domain(domain.name) == domain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hoper", "hopper"),
        ("", "hopper"),
        ("hopper@mujoco4", "d4rl, modern"),
        ("hopper@", "d4rl, modern"),
        ("hopper/", "gravity-K"),
        ("hopper/wind-3", "kinematic-PART-LEVEL"),
        ("hopper/gravity", "gravity-0.5"),
        ("hopper/gravity-0", "between 0.001 and 20"),
        ("hopper/gravity-nan", "between 0.001 and 20"),
        ("hopper/friction--1", "between 0.001 and 20"),
        ("hopper/kinematic-hipjnt-easy", "footjnt, legjnt"),
        ("hopper/kinematic-footjnt-extreme", "easy, medium, hard"),
        ("hopper/morph-foot-0.7", "easy, medium, hard"),
        ("hopper/morph-ear-easy", "foot, torso"),
        ("hopper/otdf-friction", "otdf-kinematic"),
        ("hopper/gravity-0.5+gravity-2", "both set option gravity"),
        ("hopper/otdf-kinematic+kinematic-footjnt-easy", "both set joint foot_joint range"),
    ],
)
def test_a_wrong_name_is_refused_with_what_exists(text: str, said: str) -> None:
    with pytest.raises(DomainError) as caught:
        parse_domain(text)
    assert said in str(caught.value)


def test_catalogue_holds_stock_and_every_published_shift_once() -> None:
    for robot, count in {"hopper": 23, "walker2d": 23, "halfcheetah": 23, "ant": 23}.items():
        names = [domain.name for domain in catalogue(robot)]
        assert len(names) == len(set(names)) == count
        assert names[0] == f"{robot}/stock@d4rl"
    assert len(catalogue()) == 92


def test_description_is_plain_and_gives_old_and_new_numbers() -> None:
    described = json.loads(json.dumps(parse_domain("hopper/kinematic-footjnt-easy").describe()))
    assert described["edits"] == [
        {"shift": "kinematic-footjnt-easy", "edit": "joint foot_joint range", "old": [-45, 45], "new": [-36, 36]}
    ]


@pytest.mark.parametrize(
    ("domain", "random", "expert", "source"),
    [
        ("hopper", -20.272305, 3234.3, "D4RL"),
        ("hopper/gravity-0.5", -26.336, 3234.3, "OTDF"),
        ("hopper/otdf-kinematic", -26.336, 2842.73, "OTDF"),
        ("hopper/otdf-morph", -26.336, 3152.75, "OTDF"),
        ("hopper/kinematic-footjnt-easy", -26.336, 3234.3, "ODRL (equal to stock)"),
        ("hopper/friction-2", -26.336, 3234.3, "ODRL"),
        ("walker2d/gravity-2", 10.079, 5056.445, "ODRL"),
        ("ant/kinematic-hipjnt-easy", -325.6, 5139.832, "ODRL (equal to stock)"),
        ("hopper/gravity-0.73", -20.272305, 3234.3, "D4RL's stock robot; none is published for this shift"),
    ],
)
def test_references(domain: str, random: float, expert: float, source: str) -> None:
    found = references(parse_domain(domain))
    assert (found.random_return, found.expert_return, found.source) == (random, expert, source)


def test_normalized_score_is_0_for_random_and_100_for_expert() -> None:
    domain = parse_domain("hopper")
    assert normalized_score(domain, -20.272305) == 0.0
    assert normalized_score(domain, 3234.3) == 100.0
