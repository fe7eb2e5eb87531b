"""The checks of the catalogue pass on the shipped domains and find spoilt ones."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest
from typer.testing import CliRunner

from v2a_ray.cli.domain_commands import app
from v2a_ray.domains import PHYSICS, catalogue, parse_domain
from v2a_ray.domains import catalogue_checks as checks
from v2a_ray.domains.catalogue_checks import RobotCheck, check_model, check_robot, check_survival
from v2a_ray.domains.compiled_model import compile_model
from v2a_ray.domains.domain import RobotDomain, require_robot
from v2a_ray.domains.environments import make_environment
from v2a_ray.domains.probes import distances, make_probes, one_step
from v2a_ray.domains.shifts.intentions import Change, intended_changes

FEW = ["hopper", "hopper/friction-0.1", "hopper/friction-0.5", "hopper/friction-2", "hopper/kinematic-legjnt-medium"]


def robot_domain(name: str) -> RobotDomain:
    return require_robot(parse_domain(name), "this test")


def model(domain: RobotDomain | str) -> mujoco.MjModel:
    domain = robot_domain(domain) if isinstance(domain, str) else domain
    return compile_model(domain.robot_spec, domain.shifts, domain.physics)


def intention(domain: RobotDomain | str) -> tuple[Change, ...]:
    domain = robot_domain(domain) if isinstance(domain, str) else domain
    return tuple(change for shift in domain.shifts for change in intended_changes(shift, domain.robot_spec) or ())


@pytest.fixture(scope="module")
def few() -> RobotCheck:
    return check_robot("hopper", domains=[robot_domain(name) for name in FEW])


@pytest.mark.parametrize("physics", PHYSICS)
@pytest.mark.parametrize("robot", ["hopper", "walker2d", "halfcheetah", "ant"])
def test_every_shift_changes_exactly_what_is_declared(robot: str, physics: str) -> None:
    stock, *shifted = catalogue(robot, physics)  # type: ignore[arg-type]
    stock_model = model(stock)
    for domain in shifted:
        declared = [intended_changes(shift, domain.robot_spec) for shift in domain.shifts]
        assert None not in declared, domain
        assert check_model(stock_model, model(domain), intention(domain)) == (), domain


def test_compositions_and_continuous_shifts_are_declared_too() -> None:
    name = "walker2d/gravity-0.73+morph-leg-easy+kinematic-footjnt-0.9+actuator-0.8"
    assert check_model(model("walker2d"), model(name), intention(name)) == ()


@pytest.mark.parametrize(
    ("domain", "spoil", "said"),
    [
        # A friction shift that also touches the floor, which Hopper's must leave alone.
        ("friction-2", lambda m: m.geom("floor").friction.__setitem__(0, 2.0), "geom_friction .* floor"),
        ("gravity-0.5", lambda m: m.opt.gravity.__setitem__(2, -4.9), r"opt\.gravity .* 2"),
        ("gravity-0.5", lambda m: m.jnt_range.__setitem__((3, 0), -1.0), "jnt_range .* thigh_joint"),
        ("morph-foot-hard", lambda m: m.body_mass.__setitem__(1, 9.0), "body_mass .* torso"),
        ("morph-foot-hard", lambda m: m.dof_invweight0.__setitem__(3, 9.0), "dof_invweight0 .* thigh_joint"),
        ("kinematic-footjnt-easy", lambda m: setattr(m.opt, "timestep", 0.001), "timestep"),
        ("action_noise-0.1", lambda m: m.dof_damping.__setitem__(4, 9.0), "dof_damping .* leg_joint"),
    ],
)
def test_unintended_changes_are_found(domain: str, spoil: Callable[[mujoco.MjModel], None], said: str) -> None:
    spoiled = copy.copy(model(f"hopper/{domain}"))
    spoil(spoiled)
    (problem,) = check_model(model("hopper"), spoiled, intention(f"hopper/{domain}"))
    assert re.search(said, problem)


def test_an_intention_that_covers_less_than_is_edited_is_found() -> None:
    foot_alone = intention("hopper/morph-foot-hard")
    problems = check_model(model("hopper"), model("hopper/morph-torso-hard"), foot_alone)
    assert any("geom_size" in problem and "torso_geom" in problem for problem in problems)
    assert any("should change and does not at foot_geom" in problem for problem in problems)


def test_a_shift_that_nobody_declared_is_found() -> None:
    assert check_model(model("hopper"), model("hopper"), None) == ("nobody declared what this shift means to change",)


def test_friction_at_a_tenth_and_a_half_are_the_same_on_hopper(few: RobotCheck) -> None:
    (pair,) = few.identical
    assert {pair.first, pair.second} == {"friction-0.1", "friction-0.5"}
    assert "the floor keeps 1.0" in pair.reason
    assert few.passes
    assert few.matrix[1, 2] == 0.0
    assert few.matrix[1, 3] > 0.05


def test_joint_limits_that_an_expert_never_reaches_are_nearly_vacuous_but_not_the_same(few: RobotCheck) -> None:
    leg = few.domains[-1]
    assert few.policies[-1] == "expert"
    assert leg.is_vacuous
    assert leg.distance_to_stock > 0.5
    assert not any(row.is_vacuous for row in few.domains[:-1])


def test_distances_are_symmetric_and_zero_to_itself(few: RobotCheck) -> None:
    assert np.array_equal(few.matrix, few.matrix.T)
    assert not few.matrix.diagonal().any()
    assert few.domains[3].nearest_distance == few.matrix[3][few.matrix[3] > 0].min()


def test_two_names_for_the_same_dynamics_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "KNOWN_IDENTICAL", {})
    check = check_robot("hopper", domains=[robot_domain(name) for name in FEW[:3]])
    assert not check.passes


@pytest.mark.parametrize("kind", ["action_delay", "action_noise"])
def test_late_and_noisy_execution_show_in_one_step(kind: str) -> None:
    first, second = {"action_delay": (1, 2), "action_noise": (0.1, 0.2)}[kind]
    domains = [
        robot_domain(name) for name in ("halfcheetah", f"halfcheetah/{kind}-{first}", f"halfcheetah/{kind}-{second}")
    ]
    probes = make_probes(domains[0], num_earlier_actions=2)
    matrix, _ = distances([one_step(make_environment(domain), probes) for domain in domains], probes)
    assert matrix[np.triu_indices(3, k=1)].min() > 0.05
    again = one_step(make_environment(domains[1]), probes)
    assert np.array_equal(again, one_step(make_environment(domains[1]), probes))


def test_a_robot_that_explodes_is_found() -> None:
    environment = make_environment("halfcheetah")
    assert check_survival(environment) == ()
    environment.unwrapped.model.actuator_gear[:] = 1e12
    assert "diverges after" in check_survival(environment)[0]


@pytest.fixture
def short_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(robot: str | None = None, physics: str = "d4rl") -> list[RobotDomain]:
        assert robot in (None, "hopper")
        return [robot_domain(f"{name}@{physics}") for name in FEW[:3]]

    monkeypatch.setattr("v2a_ray.domains.catalogue", short)
    monkeypatch.setattr(checks, "catalogue", short)


@pytest.mark.usefixtures("short_catalogue")
def test_the_command_writes_a_page_and_a_picture_and_prints_json(tmp_path: Path) -> None:
    page = tmp_path / "sub" / "check.md"
    result = CliRunner().invoke(app, ["check", "--physics", "modern", "--output", str(page), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["passes"] is True
    assert [each["shift"] for each in found["robots"][0]["domains"]] == ["stock", "friction-0.1", "friction-0.5"]
    assert found["robots"][0]["matrix"][1][2] == 0
    assert "hopper: friction-0.1 and friction-0.5 are the same dynamics" in page.read_text()
    assert "| friction-0.1 | geom_friction |" in page.read_text()
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("short_catalogue")
def test_the_command_exits_with_1_when_a_domain_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "KNOWN_IDENTICAL", {})
    result = CliRunner().invoke(app, ["check", "hopper"])
    assert result.exit_code == 1
    assert "FAILS hopper: friction-0.1 and friction-0.5 are the same dynamics" in result.stdout
    assert "0 of 1 robots pass" in result.stdout
