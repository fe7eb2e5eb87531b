"""The grammar of domain names, and the messages for wrong names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2a_ray.domains import catalogue, normalized_score, parse_domain, references
from v2a_ray.domains.domain import require_robot
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
    domain = require_robot(parse_domain(text), "this test")
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
        ("hopper/tailwind-3", "kinematic-PART-LEVEL"),
        ("hopper/tailwind-3", "actuator-K, damping-K, mass-K, wind-V, action_noise-S, action_delay-D"),
        ("hopper/gravity", "gravity-0.5"),
        ("hopper/gravity-0", "between 0.001 and 20"),
        ("hopper/gravity-nan", "between 0.001 and 20"),
        ("hopper/friction--1", "between 0.001 and 20"),
        ("hopper/gravity-1", "gravity factor 1 is stock itself"),
        ("hopper/kinematic-footjnt-1.0", "is stock itself"),
        ("hopper/kinematic-footjnt-20", "between 0.001 and 2"),
        ("hopper/actuator-inf", "actuator factor 'inf' is not a number between 0.01 and 10"),
        ("hopper/damping-0", "between 0.01 and 50"),
        ("hopper/mass--2", "between 0.1 and 50"),
        ("hopper/wind-0", "is stock itself"),
        ("hopper/wind--1000", "between 0.1 and 50 (or the negative of one)"),
        ("hopper/wind-strong", "for example wind-20"),
        ("ant/wind-strong", "for example wind-3"),
        ("hopper/action_noise-0", "is stock itself"),
        ("hopper/action_noise-nan", "between 0.001 and 2"),
        ("hopper/action_delay-1.5", "not a whole number between 1 and 100"),
        ("hopper/action_delay-1e9", "not a whole number between 1 and 100"),
        ("hopper/kinematic-hipjnt-easy", "footjnt, legjnt"),
        ("hopper/kinematic-footjnt-extreme", "easy, medium, hard"),
        ("hopper/morph-foot-0.7", "easy, medium, hard"),
        ("hopper/morph-ear-easy", "foot, torso"),
        ("hopper/otdf-friction", "otdf-kinematic"),
        ("hopper/gravity-0.5+gravity-2", "both set option gravity"),
        ("hopper/mass-2+mass-3", "both set body torso mass_factor"),
        ("hopper/wind-2+wind--2", "both set option wind"),
        ("hopper/action_noise-0.1+action_noise-0.1", "both set noise_std"),
        ("hopper/action_delay-1+gravity-2+action_delay-2", "action_delay-1 and action_delay-2 both set delay_steps"),
        ("hopper/otdf-kinematic+kinematic-footjnt-easy", "both set joint foot_joint range"),
    ],
)
def test_a_wrong_name_is_refused_with_what_exists(text: str, said: str) -> None:
    with pytest.raises(DomainError) as caught:
        parse_domain(text)
    assert said in str(caught.value)


# Numbers of continuous shifts; all of these shifts can be combined.
NUMBERS = {
    "gravity": st.floats(1e-3, 20),
    "friction": st.floats(1e-3, 20),
    "kinematic-footjnt": st.floats(1e-3, 2),
    "actuator": st.floats(1e-2, 10),
    "damping": st.floats(1e-2, 50),
    "mass": st.floats(0.1, 50),
    "wind": st.floats(0.1, 50) | st.floats(-50, -0.1),
    "action_noise": st.floats(1e-3, 2),
    "action_delay": st.integers(1, 100),
}


@given(st.fixed_dictionaries({}, optional=NUMBERS))
def test_every_domain_is_read_back_from_its_name(numbers: dict[str, float]) -> None:
    text = "+".join(f"{kind}-{np.format_float_positional(number)}" for kind, number in numbers.items() if number != 1.0)
    domain = require_robot(parse_domain(f"hopper/{text}" if text else "hopper"), "this test")
    assert parse_domain(domain.name) == domain
    assert [shift.level for shift in domain.shifts] == [number for number in numbers.values() if number != 1.0]


def test_catalogue_holds_stock_and_every_named_shift_once() -> None:
    for robot in ("hopper", "walker2d", "halfcheetah", "ant", "ant111"):
        count = 23 + 6 * 3
        names = [domain.name for domain in catalogue(robot)]
        assert len(names) == len(set(names)) == count
        assert names[0] == f"{robot}/stock@d4rl"
    assert len(catalogue()) == 4 * 41
    assert not any(domain.robot == "ant111" for domain in catalogue())


def test_description_is_plain_and_gives_old_and_new_numbers() -> None:
    described = json.loads(json.dumps(parse_domain("hopper/kinematic-footjnt-easy").describe()))
    assert described["edits"] == [
        {"shift": "kinematic-footjnt-easy", "edit": "joint foot_joint range", "old": [-45, 45], "new": [-36, 36]}
    ]
    assert described["execution"] == {"noise_std": 0, "delay_steps": 0}


def test_description_of_shifts_that_are_no_edits() -> None:
    described = json.loads(json.dumps(parse_domain("hopper/action_delay-2+mass-1.5+action_noise-0.1").describe()))
    assert described["edits"] == [{"shift": "mass-1.5", "edit": "body torso mass_factor", "old": [1], "new": [1.5]}]
    assert described["execution"] == {"noise_std": 0.1, "delay_steps": 2}


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
