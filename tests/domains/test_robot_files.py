"""A robot as MJCF and a YAML file: what it observes, earns and ends at, its shifts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import yaml

from v2a_ray.data.config import SourceSpec
from v2a_ray.domains import make_environment, normalized_score, parse_domain
from v2a_ray.domains.own.check import check_environment
from v2a_ray.domains.own.domain import GymDomain
from v2a_ray.errors import ConfigError, DomainError, V2AError

EXAMPLE = Path(__file__).parents[2] / "examples/own_robot"
CART = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body name="cart"><joint name="rail" type="slide" axis="1 0 0" range="-1 1" limited="true"/>
      <geom name="cart" type="box" size="0.1 0.1 0.1" mass="1"/><site name="front" pos="0.1 0 0"/>
      <body name="pole" pos="0 0 0.1"><joint name="hinge" axis="0 1 0" damping="0.1"/>
        <geom name="pole" type="capsule" size="0.02" fromto="0 0 0 0 0 0.5" mass="0.2"/><site name="tip" pos="0 0 0.5"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="rail" ctrlrange="-3 3" ctrllimited="true"/></actuator>
  <sensor><jointpos name="angle" joint="hinge"/></sensor>
</mujoco>
"""
FILE: dict[str, Any] = {
    "model": "cart.xml",
    "frame_skip": 2,
    "max_episode_steps": 30,
    "observation": ["joint_positions", {"joint_velocities": ["hinge"]}, {"site_offset": ["front", "tip"]}],
    "reward": [
        {"alive": True},
        {"distance": ["front", "tip"], "weight": -2.0},
        {"squared_action": True, "weight": 0.5},
    ],
    "health": [{"joint": "hinge", "range": [-0.2, 0.2]}],
    "reset": {"position_noise": 0.05, "joints": {"rail": [0.3, 0.4]}},
    "references": [0.0, 30.0],
}


def robot(folder: Path, xml: str = CART, **changes: Any) -> str:
    (folder / "cart.xml").write_text(xml)
    (folder / "cart.yaml").write_text(yaml.safe_dump(FILE | changes))
    return f"mjcf:{folder}/cart.yaml"


def test_observations_rewards_and_ends_are_those_of_the_file(tmp_path: Path) -> None:
    name = robot(tmp_path)
    environment: Any = make_environment(name)
    observation, _ = environment.reset(seed=0)
    data = environment.unwrapped.data
    assert 0.3 <= data.qpos[0] <= 0.4 and 0.0 < abs(data.qpos[1]) <= 0.05
    lengths = 0
    terminated = False
    while not terminated:
        observation, reward, terminated, truncated, _ = environment.step(np.asarray([0.5], np.float32))
        lengths += 1
        offset = data.site("tip").xpos - data.site("front").xpos
        assert np.allclose(observation, [*data.qpos, data.qvel[1], *offset])
        assert reward == pytest.approx(1.0 - 2.0 * np.linalg.norm(offset) + 0.5 * 1.5**2)
        # What the state says is what a forward computation from it says.
        mujoco.mj_forward(environment.unwrapped.model, data)
        assert np.allclose(offset, data.site("tip").xpos - data.site("front").xpos)
    assert not truncated and abs(data.qpos[1]) > 0.2 and lengths < 30
    assert environment.unwrapped.dt == 0.02 and normalized_score(parse_domain(name), 15.0) == 50.0


def test_other_terms_by_hand(tmp_path: Path) -> None:
    name = robot(
        tmp_path,
        observation=[
            {"sensor": "angle"},
            {"joint_sines": ["hinge"]},
            {"body_velocity": "pole"},
            {"body_position": "cart"},
        ],
        reward=[{"velocity": "cart"}, {"height": "pole", "weight": 3}, {"upright": "pole"}, {"squared_velocity": True}],
        health=[{"height": "pole", "range": [0.05, None]}, {"upright": "pole", "range": [-0.5, 1.1]}],
    )
    environment: Any = make_environment(name)
    environment.reset(seed=1)
    for _ in range(5):
        observation, reward, *_ = environment.step(np.asarray([1.0], np.float32))
    data = environment.unwrapped.data
    angle, rate = data.qpos[1], data.qvel[1]
    centre = np.array([0.25 * np.sin(angle), 0.0, 0.25 * np.cos(angle)])
    velocity = [data.qvel[0] + rate * centre[2], 0.0, -rate * centre[0]]
    assert np.allclose(observation, [angle, np.sin(angle), np.cos(angle), *velocity, data.qpos[0], 0.0, 0.0])
    expected = data.qvel[0] + 3 * 0.1 + np.cos(angle) + data.qvel @ data.qvel
    assert reward == pytest.approx(expected)


def test_a_function_can_be_the_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cart_rewards.py").write_text("def reward(model, data, action):\n    return data.qpos[0] + action[0]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    environment: Any = make_environment(robot(tmp_path, reward="cart_rewards:reward"))
    environment.reset(seed=0)
    _, reward, *_ = environment.step(np.asarray([-1.0], np.float32))
    assert reward == pytest.approx(environment.unwrapped.data.qpos[0] - 3.0)


def test_shifts_work_and_the_content_is_part_of_the_identity(tmp_path: Path) -> None:
    name = robot(tmp_path)
    domain = parse_domain(f"{name}/mass:pole-2+joint-range:rail-0.5+action_delay-1")
    assert isinstance(domain, GymDomain) and parse_domain(domain.name) == domain
    environment: Any = make_environment(domain)
    assert environment.unwrapped.model.body("pole").mass[0] == pytest.approx(0.4)
    assert environment.unwrapped.model.joint("rail").range.tolist() == [-0.5, 0.5]
    checked = check_environment([parse_domain(f"{name}/gravity-0.5")])  # type: ignore[list-item]
    assert checked.passes and checked.domains[1].distance_to_stock > 0.0
    before = parse_domain(name).identity
    robot(tmp_path, CART.replace('mass="0.2"', 'mass="0.3"'))
    after = parse_domain(name).identity
    robot(tmp_path, frame_skip=4)
    assert len({before, after, parse_domain(name).identity}) == 3


def test_files_are_found_from_every_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = robot(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = SourceSpec(domain="mjcf:cart.yaml/mass:pole-2", behavior="random", num_transitions=10)
    assert spec.domain == f"{name}/mass:pole-2" and spec.label == "cart-mass-pole-2-random"
    assert parse_domain("mjcf:cart.yaml").name == name


def test_the_example_is_a_domain() -> None:
    domain = parse_domain(f"mjcf:{EXAMPLE}/arm.yaml/mass:fore-2")
    assert (domain.robot_spec.observation_dim, domain.robot_spec.action_dim) == (12, 3)


@pytest.mark.parametrize(
    ("model", "changes", "kind", "said"),
    [
        (
            CART.replace('damping="0.1"', 'dampin="0.1"'),
            {},
            DomainError,
            r"cart\.xml:7: MuJoCo does not compile.*dampin",
        ),
        (CART.replace('joint="rail" ctrl', 'joint="rial" ctrl'), {}, DomainError, r"MuJoCo does not compile.*rial"),
        (CART, {"model": "none.xml"}, DomainError, "no such file"),
        (CART, {"reward": [{"distance": ["front", "tipp"]}]}, DomainError, "no site named 'tipp'\n.*tip"),
        (CART, {"health": [{"joint": "hing", "range": [0, 1]}]}, DomainError, "no joint named 'hing'\n.*hinge"),
        (CART, {"reward": "no_such_module:reward"}, DomainError, "cannot be imported"),
        (CART, {"reward": [{"distanc": ["front", "tip"]}]}, ConfigError, r"cart\.yaml:\d+: .*distanc"),
        (CART, {"reward": [{"alive": True, "upright": "pole"}]}, ConfigError, "give exactly one of"),
        (CART, {"observation": []}, ConfigError, "observation"),
        (CART.replace(' ctrlrange="-3 3" ctrllimited="true"', ""), {}, DomainError, "actions have no bounds"),
    ],
)
def test_what_cannot_be_a_robot_is_refused(
    tmp_path: Path, model: str, changes: dict[str, Any], kind: type[V2AError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        parse_domain(robot(tmp_path, model, **changes))


def test_a_name_without_a_yaml_file_is_refused() -> None:
    with pytest.raises(DomainError, match=r"a robot's file ends in \.yaml"):
        parse_domain("mjcf:robot.xml")


def test_a_missing_file_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: no such file\n.*from the working directory: mjcf:"):
        parse_domain(f"mjcf:{tmp_path}/none.yaml")
