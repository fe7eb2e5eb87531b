"""Any Gymnasium environment is a domain: vectors, bounds, limits, references, shifts of its model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from v2a_ray.data.checks.source_dynamics import fit_domains
from v2a_ray.data.collection.rolling import collect_episodes
from v2a_ray.data.config import SourceSpec
from v2a_ray.domains import catalogue, make_environment, normalized_score, parse_domain
from v2a_ray.domains.behaviors import load_behavior, same_robot
from v2a_ray.domains.own.check import check_environment
from v2a_ray.domains.rollout import roll_out
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import DomainError
from v2a_ray.experiments.experiment import ExperimentConfig

OWN = "gym:own_environments"
CART = f"{OWN}:Cart?max_episode_steps=20"


@pytest.fixture(autouse=True)
def own_environments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module beside this file can be imported, as one that a user has installed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield


def policy(observations: Any) -> Any:
    """Deterministic, of every dimension."""
    return np.sin(3.0 * observations[:, :3] + 1.0).astype(np.float32)


def test_hopper_earns_in_our_evaluation_what_it_earns_in_a_loop_by_hand() -> None:
    expected, lengths = [], []
    environment = gymnasium.make("Hopper-v5")
    for seed in range(7, 12):
        observation, _ = environment.reset(seed=seed)
        total, length, done = 0.0, 0, False
        while not done:
            observation, reward, terminated, truncated, _ = environment.step(policy(observation[None])[0])
            total, length, done = total + float(reward), length + 1, terminated or truncated
        expected.append(total)
        lengths.append(length)
    returns, steps = roll_out(policy, "gym:Hopper-v5", 5, seed=7)
    assert returns.tolist() == expected
    assert steps.tolist() == lengths


def test_bounds_are_scaled_and_recorded() -> None:
    domain = parse_domain("gym:Pendulum-v1")
    assert (domain.describe()["action_low"], domain.describe()["action_high"]) == ((-2.0,), (2.0,))
    ours, theirs = make_environment(domain), gymnasium.make("Pendulum-v1")
    assert (ours.action_space.low, ours.action_space.high) == (-1.0, 1.0)
    ours.reset(seed=3)
    theirs.reset(seed=3)
    for action in (-1.0, -0.25, 0.5, 1.0):
        mine, his = ours.step(np.asarray([action], np.float32)), theirs.step(np.asarray([2 * action], np.float32))
        assert np.array_equal(mine[0], his[0]) and mine[1] == his[1]


def test_bounds_that_are_not_symmetric_are_scaled() -> None:
    environment: Any = make_environment(CART)
    environment.reset(seed=0)
    pushed = []
    for action in (-1.0, 0.0, 1.0):
        environment.step(np.asarray([action], np.float32))
        pushed.append(environment.unwrapped.pushed)
    assert pushed == [0.0, 2.0, 4.0]


def test_dict_observations_are_joined_in_the_order_that_is_asked_for() -> None:
    by_default, asked = parse_domain(CART), parse_domain(f'{CART}&observation_keys=["state","goal"]')
    assert by_default.robot_spec.observation_keys == ("goal", "state")  # type: ignore[attr-defined]
    one, other = make_environment(by_default), make_environment(asked)
    first, second = one.reset(seed=5)[0], other.reset(seed=5)[0]
    assert first.tolist() == [*second[2:], *second[:2]] and first[0] != 0.0
    assert parse_domain(f'{CART}&observation_keys=["state"]').robot_spec.observation_dim == 2


def test_time_limits_are_the_environments_own_or_given() -> None:
    assert parse_domain("gym:Pendulum-v1").robot_spec.max_episode_steps == 200
    lengths = roll_out(lambda observations: np.zeros((len(observations), 1), np.float32), CART, 3)[1]
    assert lengths.tolist() == [20, 20, 20]
    with pytest.raises(DomainError, match=r"no time limit.*\n.*max_episode_steps"):
        parse_domain(f"{OWN}:Cart")


def test_settings_beside_the_domain_become_part_of_its_name() -> None:
    spec = SourceSpec.model_validate(
        {
            "domain": f"{OWN}:Cart/action_delay-2",
            "environment": {"mass": 2.0, "max_episode_steps": 20, "observation_keys": ["state"]},
            "behavior": "random",
            "num_transitions": 10,
        }
    )
    domain = parse_domain(spec.domain)
    assert domain.name == f'{OWN}:Cart?mass=2.0&max_episode_steps=20&observation_keys=["state"]/action_delay-2'
    assert parse_domain(domain.name) == domain
    assert SourceSpec.model_validate(spec.model_dump()) == spec
    assert spec.label == "own_environments-Cart-action_delay-2-random"
    environment: Any = make_environment(domain)
    assert environment.unwrapped.mass == 2.0


def test_scores_need_references() -> None:
    assert normalized_score(parse_domain(CART), 5.0) is None
    assert normalized_score(parse_domain(f"{CART}&references=[-10,-5]"), -7.5) == 50.0


def test_collected_data_are_the_steps_of_the_environment() -> None:
    table = collect_episodes(parse_domain(CART), "own_environments:push_left", range(3), noise_std=0.0)
    assert table.lengths.tolist() == [20, 20, 20] and not table.terminated.any()
    assert np.unique(table.action).tolist() == [-0.5]
    # An action of -0.5 is a push of 1 N, of which the environment takes 2 N off.
    velocity = table.next_observation[:, 2] - table.observation[:, 2]
    assert np.allclose(velocity, -0.1, atol=1e-6)


def test_policies_and_data_are_shared_between_environments_of_the_same_dimensions() -> None:
    hopper = parse_domain("gym:Hopper-v5")
    assert same_robot(parse_domain("hopper/gravity-2"), hopper)
    assert not same_robot(parse_domain("ant"), hopper)
    # What our simulator cannot predict is no evidence against a label.
    table = collect_episodes(hopper, "random", range(2))
    assert fit_domains(table, [hopper]) == {}


SHIFTS = {
    "gravity-0.5": ("opt.gravity", (0.0, 0.0, -4.905)),
    "friction:foot_geom-0.5": ("geom_friction", (1.0, 0.0025, 5e-5)),
    "mass:thigh-2": ("body_mass", None),
    "damping:leg_joint-3": ("dof_damping", (3.0,)),
    "actuator-0.5": ("actuator_gainprm", None),
    "wind-10": ("opt.wind", (-10.0, 0.0, 0.0)),
    "joint-range:foot_joint-0.2": ("jnt_range", (-np.pi / 20, np.pi / 20)),
    "geom-size:foot_geom-1.5": ("geom_size", (0.09, 0.2925, 0.0)),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifts_edit_the_compiled_model_and_nothing_else(shift: str) -> None:
    field, value = SHIFTS[shift]
    domain: Any = parse_domain(f"gym:Hopper-v5/{shift}")
    edits = {edit["edit"]: edit for edit in domain.describe()["edits"]}
    if value is not None:
        assert any(np.allclose(edit["new"], value) for edit in edits.values())
    check = check_environment([domain])
    assert check.passes and field in check.domains[1].intended
    assert check.domains[1].distance_to_stock > 0.0


def test_what_an_environment_undoes_is_found_by_the_check() -> None:
    with pytest.raises(DomainError, match="option gravity anew at every reset"):
        parse_domain(f"{OWN}:Restless/gravity-0.5")
    parse_domain(f"{OWN}:Restless/mass-2")


def test_half_the_strength_is_half_the_torque() -> None:
    ours = make_environment("gym:Hopper-v5/actuator-0.5").unwrapped
    stock = gymnasium.make("Hopper-v5").unwrapped
    torques = []
    for environment, action in ((ours, 1.0), (stock, 0.5)):
        environment.reset(seed=0)
        environment.data.ctrl[:] = action
        mujoco.mj_forward(environment.model, environment.data)
        torques.append(environment.data.qfrc_actuator.copy())
    assert np.array_equal(*torques) and torques[0].any()


def test_late_actions_are_executed_late() -> None:
    environment: Any = make_environment(f"{CART}/action_delay-2")
    environment.reset(seed=0)
    pushed = []
    for action in (1.0, 0.5, -1.0):
        environment.step(np.asarray([action], np.float32))
        pushed.append(environment.unwrapped.pushed)
    assert pushed == [2.0, 2.0, 4.0]


def test_the_code_of_an_environment_is_part_of_what_artifacts_are_keyed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "robots_of_mine"
    package.mkdir()
    file = package / "cart.py"
    file.write_text("import own_environments\n\nclass Cart(own_environments.Cart):\n    weight = 1.0\n")
    (package / "__init__.py").write_text("from robots_of_mine.cart import Cart\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = [f"gym:robots_of_mine{inner}:Cart?max_episode_steps=20" for inner in (".cart", "")]

    def keys(name: str) -> dict[str, str]:
        target = {"domain": name, "behavior": "random", "num_transitions": 50}
        content = {"name": "x", "method": "bc_target", "sources": [], "target": target}
        return {node.name: node.key for node in make_plan(ExperimentConfig.model_validate(content)).values()}

    before = [keys(name) for name in names]
    assert [keys(name) for name in names] == before
    file.write_text(file.read_text().replace("1.0", "-7.0"))
    for name, old in zip(names, before, strict=True):
        new = keys(name)
        assert {node for node in old if old[node] != new[node]} == {"data/target", "rows/target", "policy"}
    # An ID of the registry stands for a version of its environment.
    assert parse_domain("gym:Pendulum-v1").identity == "gym:Pendulum-v1"


REFUSED = {
    "gym:": "no environment is named",
    "gym:Hoper-v5": "Hoper",
    "gym:no_such_package:Robot": "No module named 'no_such_package'",
    "gym:own_environments:Nobody": "has no attribute 'Nobody'",
    "gym:CartPole-v1": "actions are Discrete",
    f"{OWN}:Pictures?max_episode_steps=5": "not a vector",
    f"{OWN}:Boundless?max_episode_steps=5": "no bounds",
    f"{OWN}:Cart?max_episode_steps=0": "max_episode_steps is 0",
    f"{CART}&colour=red": "unexpected keyword argument 'colour'",
    f'{CART}&observation_keys=["speed"]': "no observation 'speed'",
    f"{CART}&references=[5,1]": r"references are \[5, 1\]",
    f"{CART}/gravity-0.5": "edits a MuJoCo model",
    "gym:Pendulum-v1/mass-2": "edits a MuJoCo model",
    "gym:Hopper-v5/joint-range:foot_join-0.5": "no joint named 'foot_join'(.|\n)*foot_joint",
    "gym:Hopper-v5/joint-range-0.5": "joint-range:JOINT-K",
    "gym:Hopper-v5/gravity:torso-0.5": "gravity-K",
    "gym:Hopper-v5/geom-size:floor-0.5": "plane",
    "gym:Hopper-v5/joint-range:rootx-0.5": "has no range",
    "gym:Hopper-v5/gravity-1": "stock itself",
    "gym:Hopper-v5/gravity-0.5+gravity-2": "both set option gravity",
    "gym:Hopper-v5/mass-2+mass:torso-3": "both set body torso mass",
    "gym:Hopper-v5/speed-2": "no shift 'speed-2'",
    "gym:Hopper-v5?frame_skip/gravity-2": "is not KEY=VALUE",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused(name: str) -> None:
    with pytest.raises(DomainError, match=REFUSED[name]):
        parse_domain(name)


def test_functions_that_are_no_policies_are_refused() -> None:
    domain = parse_domain(CART)
    for name in ("own_environments:nobody", "no_such_module:act", "own_environments:OWN"):
        with pytest.raises(DomainError, match=r"cannot be imported|is no function"):
            load_behavior(domain, name)
    with pytest.raises(DomainError, match=r"gives \[0.0, 0.0\]"):
        load_behavior(domain, "own_environments:push_everywhere").act(np.zeros((1, 3)))


def test_our_own_robots_are_what_they_were() -> None:
    assert [str(domain) for domain in catalogue("hopper")][:2] == ["hopper/stock@d4rl", "hopper/friction-0.1@d4rl"]


def test_a_reward_in_an_array_of_one_element_is_a_number() -> None:
    name = f"{OWN}:InArrays?max_episode_steps=5"
    table = collect_episodes(parse_domain(name), "random", [0])
    goal, place = table.next_observation[:, 0], table.next_observation[:, 1]
    np.testing.assert_allclose(table.reward, -abs(goal - place), atol=1e-6)
    with pytest.raises(DomainError, match=r"(?s)InArrays.*the reward is array\(\[.*return one number"):
        collect_episodes(parse_domain(f"{name}&elements=2"), "random", [0])
