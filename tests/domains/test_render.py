"""Pictures of domains: their content, their grid, and refused formats."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from v2a_ray.domains import all_robots, parse_domain
from v2a_ray.domains.domain import require_robot
from v2a_ray.domains.render import render_domains
from v2a_ray.domains.shifts.descriptions import describe_shift
from v2a_ray.errors import DomainError


def pixels(path: Path, *names: str) -> np.ndarray:
    render_domains([parse_domain(name) for name in names], path)
    return matplotlib.image.imread(path)[..., :3]


def has_orange(image: np.ndarray) -> bool:
    red, green, blue = np.moveaxis(image, -1, 0)
    return bool(((red > 0.85) & (blue < 0.35) & (green > 0.4) & (green < 0.7)).sum() > 50)


@pytest.mark.parametrize("robot", sorted(all_robots()))
def test_every_robot_is_drawn(robot: str, tmp_path: Path) -> None:
    image = pixels(tmp_path / "stock.png", robot)
    assert not has_orange(image)
    assert image.std() > 0.05
    assert min(image.shape[:2]) > 150


@pytest.mark.parametrize(
    "shift", ["gravity-0.5", "wind-10", "mass-2", "damping-5", "kinematic-legjnt-medium", "morph-foot-easy"]
)
def test_shifted_parts_are_marked(shift: str, tmp_path: Path) -> None:
    assert has_orange(pixels(tmp_path / "shifted.png", f"hopper/{shift}"))


def test_one_row_per_robot_with_stock_first(tmp_path: Path) -> None:
    one = pixels(tmp_path / "one.png", "hopper/gravity-2")
    same = pixels(tmp_path / "same.png", "hopper", "hopper/gravity-2")
    three = pixels(tmp_path / "three.png", "hopper/gravity-2", "hopper/gravity-5", "hopper/friction-2")
    two_rows = pixels(tmp_path / "rows.png", "hopper/gravity-2", "walker2d/gravity-2")
    assert np.array_equal(one, same)
    assert three.shape[1] == pytest.approx(2 * one.shape[1], rel=0.1)
    assert two_rows.shape[0] > 1.5 * one.shape[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hopper/gravity-0.5", "gravity × 0.5"),
        ("hopper/wind-10", "headwind, 10 m/s"),
        ("hopper/wind--5", "tailwind, 5 m/s"),
        ("hopper/action_delay-2", "actions 2 steps late"),
        ("walker2d/kinematic-footjnt-easy", "range of foot_joint, foot_left_joint × 0.8"),
        ("hopper/otdf-morph", "shape of torso, thigh"),
        ("ant/otdf-kinematic", "range of hip_1, hip_2"),
    ],
)
def test_shifts_in_words(name: str, words: str) -> None:
    domain = require_robot(parse_domain(name), "this test")
    assert describe_shift(domain.shifts[0], domain.robot_spec) == words


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match=r"no picture format '\.bmp'"):
        render_domains([parse_domain("hopper")], tmp_path / "picture.bmp")
