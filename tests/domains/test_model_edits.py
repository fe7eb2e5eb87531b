"""Each Hopper shift changes exactly the documented parameters of the compiled model, to the documented numbers.

The numbers are written out here, not taken from the code: they are ODRL's and OTDF's, in metres and degrees.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from v2a_ray.domains import PHYSICS, RobotDomain, Shift, catalogue, make_environment, parse_domain
from v2a_ray.domains.compiled_model import compile_model
from v2a_ray.domains.domain import require_robot
from v2a_ray.domains.model_fields import changed_fields
from v2a_ray.errors import DomainError

# What MuJoCo derives from a geom's shape: its bounds, the mass of bodies, and constants of the whole mechanism.
DERIVED_FROM_SHAPE = {
    *("geom_aabb", "geom_rbound", "geom_sameframe", "bvh_aabb", "body_sameframe"),
    *("body_mass", "body_ipos", "body_inertia", "body_subtreemass", "body_invweight0"),
    *("dof_M0", "dof_invweight0", "dof_length", "actuator_acc0", "cam_poscom0", "light_poscom0"),
    *("stat.meaninertia", "stat.meanmass", "stat.meansize"),
}
FRICTION = {
    "friction-0.1": {"torso_geom": 0.09, "thigh_geom": 0.09, "leg_geom": 0.09, "foot_geom": 0.2},
    "friction-0.5": {"torso_geom": 0.45, "thigh_geom": 0.45, "leg_geom": 0.45, "foot_geom": 1.0},
    "friction-2": {"torso_geom": 1.8, "thigh_geom": 1.8, "leg_geom": 1.8, "foot_geom": 4.0},
    "friction-5": {"torso_geom": 4.5, "thigh_geom": 4.5, "leg_geom": 4.5, "foot_geom": 10.0},
}
GRAVITY = {"gravity-0.1": -0.981, "gravity-0.5": -4.905, "gravity-2": -19.62, "gravity-5": -49.05}
RANGES: dict[str, dict[str, Any]] = {
    "kinematic-footjnt-easy": {"foot_joint": (-36, 36)},
    "kinematic-footjnt-medium": {"foot_joint": (-22.5, 22.5)},
    "kinematic-footjnt-hard": {"foot_joint": (-9, 9)},
    "kinematic-legjnt-easy": {"leg_joint": (-120, 0)},
    "kinematic-legjnt-medium": {"leg_joint": (-75, 0)},
    "kinematic-legjnt-hard": {"leg_joint": (-30, 0)},
    "otdf-kinematic": {"thigh_joint": (-0.15, 0), "foot_joint": (-18, 18)},
}
# shift -> Newton metres per unit of action, N m s/rad, kilograms of the torso (d4rl, modern), m/s along x
ACTUATOR = {"actuator-0.8": 160.0, "actuator-0.5": 100.0, "actuator-0.2": 40.0}
DAMPING = {"damping-0.2": 0.2, "damping-2": 2.0, "damping-5": 5.0}
MASS = {"mass-1.25": (4.41786, 4.58149), "mass-1.5": (5.30144, 5.49779), "mass-2": (7.06858, 7.33038)}
WIND = {"wind-10": -10.0, "wind-20": -20.0, "wind--10": 10.0}
# What MuJoCo derives from the mass of a body.
DERIVED_FROM_MASS = {
    *("body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0", "actuator_acc0"),
    *("stat.meaninertia", "stat.meanmass", "cam_poscom0", "light_poscom0"),
}
ROBOTS = ("hopper", "walker2d", "halfcheetah", "ant")
# shift -> geom -> (one end, other end, radius), in the body's frame
CAPSULES: dict[str, dict[str, Any]] = {
    "morph-foot-easy": {"foot_geom": ((-0.234, 0, 0.1), (0.078, 0, 0.1), 0.048)},
    "morph-foot-medium": {"foot_geom": ((-0.208, 0, 0.1), (0.026, 0, 0.1), 0.036)},
    "morph-foot-hard": {"foot_geom": ((-0.182, 0, 0.1), (-0.026, 0, 0.1), 0.024)},
    "morph-torso-easy": {"torso_geom": ((0, 0, 0.28), (0, 0, -0.2), 0.075)},
    "morph-torso-medium": {"torso_geom": ((0, 0, 0.44), (0, 0, -0.2), 0.1)},
    "morph-torso-hard": {"torso_geom": ((0, 0, 0.6), (0, 0, -0.2), 0.125)},
    "otdf-morph": {
        "torso_geom": ((0, 0, 0.2), (0, 0, -0.2), 0.125),
        "thigh_geom": ((0, 0, 0), (0, 0, -0.45), 0.04),
    },
}


def model(name: str) -> mujoco.MjModel:
    domain = require_robot(parse_domain(name), "this test")
    return compile_model(domain.robot_spec, domain.shifts, domain.physics)


@pytest.fixture(params=PHYSICS)
def physics(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stock(physics: str) -> mujoco.MjModel:
    return model(f"hopper@{physics}")


def unchanged_elsewhere(stock: mujoco.MjModel, shifted: mujoco.MjModel, field: str, rows: set[int]) -> bool:
    others = [row for row in range(len(getattr(stock, field))) if row not in rows]
    return np.array_equal(getattr(stock, field)[others], getattr(shifted, field)[others])


def test_every_shift_of_the_catalogue_is_covered_here() -> None:
    named = {domain.shift_name for domain in catalogue("hopper") if domain.execution.is_exact}
    assert named == {"stock", *FRICTION, *GRAVITY, *RANGES, *CAPSULES, *ACTUATOR, *DAMPING, *MASS, *WIND}


@pytest.mark.parametrize("shift", FRICTION)
def test_friction_changes_only_the_sliding_coefficient_of_the_robot(
    shift: str, physics: str, stock: mujoco.MjModel
) -> None:
    shifted = model(f"hopper/{shift}@{physics}")
    assert changed_fields(stock, shifted) == {"geom_friction"}
    for geom, sliding in FRICTION[shift].items():
        assert shifted.geom(geom).friction[0] == pytest.approx(sliding, abs=1e-12)
    assert np.array_equal(stock.geom_friction[:, 1:], shifted.geom_friction[:, 1:])
    assert shifted.geom("floor").friction[0] == 1.0


@pytest.mark.parametrize("shift", GRAVITY)
def test_gravity_changes_only_gravity(shift: str, physics: str, stock: mujoco.MjModel) -> None:
    shifted = model(f"hopper/{shift}@{physics}")
    assert changed_fields(stock, shifted) == {"opt.gravity"}
    assert shifted.opt.gravity == pytest.approx([0, 0, GRAVITY[shift]], abs=1e-12)


@pytest.mark.parametrize("shift", RANGES)
def test_kinematic_changes_only_the_named_joint_ranges(shift: str, physics: str, stock: mujoco.MjModel) -> None:
    shifted = model(f"hopper/{shift}@{physics}")
    assert changed_fields(stock, shifted) == {"jnt_range"}
    for joint, degrees in RANGES[shift].items():
        assert shifted.joint(joint).range == pytest.approx(np.radians(degrees), abs=1e-12)
    joints = {shifted.joint(joint).id for joint in RANGES[shift]}
    assert unchanged_elsewhere(stock, shifted, "jnt_range", joints)


@pytest.mark.parametrize("shift", CAPSULES)
def test_morphology_changes_only_the_named_capsules_and_what_follows(
    shift: str, physics: str, stock: mujoco.MjModel
) -> None:
    shifted = model(f"hopper/{shift}@{physics}")
    changed = changed_fields(stock, shifted)
    assert "geom_size" in changed
    assert changed <= {"geom_size", "geom_pos"} | DERIVED_FROM_SHAPE
    geoms = {shifted.geom(geom).id for geom in CAPSULES[shift]}
    bodies = {int(shifted.geom_bodyid[geom]) for geom in geoms}
    for field in ("geom_size", "geom_pos", "geom_rbound"):
        assert unchanged_elsewhere(stock, shifted, field, geoms), field
    for field in ("body_mass", "body_ipos", "body_inertia"):
        assert unchanged_elsewhere(stock, shifted, field, bodies), field
    for geom, (one, other, radius) in CAPSULES[shift].items():
        length = float(np.linalg.norm(np.subtract(one, other)))
        assert shifted.geom(geom).size[:2] == pytest.approx([radius, length / 2], abs=1e-12)
        assert shifted.geom(geom).pos == pytest.approx(np.add(one, other) / 2, abs=1e-12)
        # A capsule of density 1000: today exact, in D4RL's time a cylinder half a radius too long at either end.
        caps = radius if physics == "d4rl" else 4 / 3 * radius
        body = int(shifted.geom(geom).bodyid[0])
        assert shifted.body_mass[body] == pytest.approx(1000 * np.pi * radius**2 * (length + caps), rel=1e-9)
        assert shifted.body_ipos[body] == pytest.approx(np.add(one, other) / 2, abs=1e-12)


@pytest.mark.parametrize(
    ("robot", "legacy", "exact"),
    [("hopper", 15.27, 15.82), ("walker2d", 22.70, 23.68), ("halfcheetah", 14.0, 14.0), ("ant", 0.879, 0.911)],
)
def test_total_mass_follows_the_physics(robot: str, legacy: float, exact: float) -> None:
    assert model(f"{robot}@d4rl").body_mass.sum() == pytest.approx(legacy, rel=5e-4)
    assert model(f"{robot}@modern").body_mass.sum() == pytest.approx(exact, rel=5e-4)


def test_physics_changes_only_inertia(physics: str) -> None:
    changed = changed_fields(model("hopper@d4rl"), model("hopper@modern"))
    assert changed <= DERIVED_FROM_SHAPE
    assert {"body_mass", "body_inertia"} <= changed


def test_shifts_compose() -> None:
    composed = model("hopper/gravity-0.5+friction-2+kinematic-footjnt-easy")
    assert changed_fields(model("hopper"), composed) == {"opt.gravity", "geom_friction", "jnt_range"}


@pytest.mark.parametrize("shift", ACTUATOR)
def test_actuator_changes_only_gears(shift: str, physics: str, stock: mujoco.MjModel) -> None:
    shifted = model(f"hopper/{shift}@{physics}")
    # `actuator_acc0` is the acceleration that a unit of action causes, which MuJoCo derives.
    assert changed_fields(stock, shifted) == {"actuator_gear", "actuator_acc0"}
    assert shifted.actuator_gear[:, 0] == pytest.approx([ACTUATOR[shift]] * 3)
    assert not shifted.actuator_gear[:, 1:].any()


@pytest.mark.parametrize("shift", DAMPING)
def test_damping_changes_only_actuated_joints(shift: str, physics: str, stock: mujoco.MjModel) -> None:
    shifted = model(f"hopper/{shift}@{physics}")
    assert changed_fields(stock, shifted) == {"dof_damping"}
    assert shifted.dof_damping == pytest.approx([0, 0, 0, *[DAMPING[shift]] * 3])


@pytest.mark.parametrize("robot", ROBOTS)
def test_stock_damps_and_drives_every_actuated_joint(robot: str) -> None:
    stock = model(robot)
    joints = stock.actuator_trnid[:, 0]
    assert (stock.dof_damping[stock.jnt_dofadr[joints]] > 0).all()
    weak, damped = model(f"{robot}/actuator-0.5"), model(f"{robot}/damping-5")
    assert np.array_equal(weak.actuator_gear, 0.5 * stock.actuator_gear)
    assert damped.dof_damping == pytest.approx(5 * stock.dof_damping)


@pytest.mark.parametrize("shift", MASS)
def test_mass_changes_only_the_torso_and_what_follows(shift: str, physics: str, stock: mujoco.MjModel) -> None:
    shifted = model(f"hopper/{shift}@{physics}")
    changed = changed_fields(stock, shifted)
    assert {"body_mass", "body_inertia"} <= changed <= {"body_mass", "body_inertia"} | DERIVED_FROM_MASS
    assert shifted.body("torso").mass[0] == pytest.approx(MASS[shift][physics == "modern"], rel=1e-5)


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("also", ["", "gravity-2+", "morph-torso-hard+"])
def test_a_load_is_the_factor_in_both_physics_and_comes_on_top_of_the_total(
    robot: str, also: str, physics: str
) -> None:
    if "morph" in also and robot == "ant":
        also = "morph-alllegs-hard+"
    bare = model(f"{robot}/{also.removesuffix('+') or 'stock'}@{physics}")
    loaded = model(f"{robot}/{also}mass-1.7@{physics}")
    torso = bare.body("torso").id
    factors = np.ones(bare.nbody)
    factors[torso] = 1.7
    assert loaded.body_mass == pytest.approx(factors * bare.body_mass, rel=1e-12)
    assert loaded.body_inertia == pytest.approx(factors[:, None] * bare.body_inertia, rel=1e-12)
    assert np.array_equal(loaded.body_ipos, bare.body_ipos)
    if robot == "halfcheetah":
        assert bare.body_mass.sum() == pytest.approx(14)
        assert loaded.body_mass.sum() == pytest.approx(14 + 0.7 * bare.body_mass[torso])


@pytest.mark.parametrize("shift", WIND)
def test_wind_changes_only_the_air(shift: str, physics: str, stock: mujoco.MjModel) -> None:
    shifted = model(f"hopper/{shift}@{physics}")
    assert changed_fields(stock, shifted) == {"opt.wind", "opt.density", "opt.viscosity"}
    assert shifted.opt.wind.tolist() == [WIND[shift], 0, 0]
    assert (shifted.opt.density, shifted.opt.viscosity) == (1.2, 1.8e-5)


@pytest.mark.parametrize("robot", ROBOTS)
def test_headwind_pushes_backwards_with_the_square_of_its_speed(robot: str) -> None:
    def push(speed: int) -> float:
        shifted = model(f"{robot}/wind-{speed}")
        data = mujoco.MjData(shifted)
        mujoco.mj_forward(shifted, data)
        return float(data.qfrc_fluid[0])

    assert push(10) < 0 < push(-10)
    assert push(20) == pytest.approx(4 * push(10), rel=0.01)


def test_a_model_that_diverges_is_refused_by_name_and_leaves_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # The grammar's bounds keep a name from getting here.
    domain = RobotDomain("ant", (Shift("gravity", level=0.5), Shift("damping", level=1e6)))
    with pytest.raises(DomainError, match=r"damping-1000000@d4rl.*joint ankle_4 damping.*diverges at reset"):
        make_environment(domain)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""
