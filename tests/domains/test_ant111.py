"""`ant111` is Ant with the observations of D4RL's recordings, which end with 84 zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.stages.problems import table_of
from v2a_ray.data.fidelity.resimulation import resimulate
from v2a_ray.data.formats.readers import read_table
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import catalogue, make_environment, parse_domain, references
from v2a_ray.domains.behaviors import GaussianActor, UniformPolicy, load_behavior
from v2a_ray.errors import DataError, DomainError


def recorded(name: str, num_steps: int = 30) -> EpisodeTable:
    """One episode of random actions in domain `name`, in float32 as in data files."""
    environment = make_environment(name)
    observation, _ = environment.reset(seed=0)
    environment.action_space.seed(0)
    rows = []
    for _ in range(num_steps):
        action = environment.action_space.sample()
        following, reward, *_ = environment.step(action)
        rows.append((observation, action, reward, following))
        observation = following
    states, actions, rewards, next_states = (np.asarray(column, np.float32) for column in zip(*rows, strict=True))
    return table_of(states, actions, rewards, next_states, [num_steps], [False])


def ant_actor() -> GaussianActor:
    generator = np.random.default_rng(0)
    return GaussianActor(
        weights=(generator.normal(size=(8, 27)).astype(np.float32), generator.normal(size=(8, 8)).astype(np.float32)),
        biases=(np.zeros(8, np.float32), np.zeros(8, np.float32)),
        observation_mean=generator.normal(size=27).astype(np.float32),
        observation_std=np.full(27, 2.0, np.float32),
        log_std=np.zeros(8, np.float32),
    )


@pytest.mark.parametrize("shift", ["stock@d4rl", "gravity-0.5@modern", "action_delay-1+wind-3@d4rl"])
def test_ant111_is_ant_with_84_zeros(shift: str) -> None:
    wide, narrow = make_environment(f"ant111/{shift}"), make_environment(f"ant/{shift}")
    assert wide.observation_space.shape == (111,)
    one, other = wide.reset(seed=1)[0], narrow.reset(seed=1)[0]
    for _ in range(20):
        assert one.shape == (111,)
        assert np.array_equal(one[:27], other)
        assert not one[27:].any()
        action = narrow.action_space.sample()
        (one, *rest), (other, *expected) = wide.step(action), narrow.step(action)
        assert rest[:3] == expected[:3]


def test_ant111_shares_shifts_and_references() -> None:
    shifts = [domain.shift_name for domain in catalogue("ant")]
    assert [domain.shift_name for domain in catalogue("ant111")] == shifts
    for shift in shifts:
        assert references(parse_domain(f"ant111/{shift}")) == references(parse_domain(f"ant/{shift}"))
    assert parse_domain("ant111/gravity-0.5@modern").base == parse_domain("ant/gravity-0.5@modern")


def test_behaviours_of_ant_ignore_the_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ant_gravity-0.5_d4rl"
    folder.mkdir()
    save_file(ant_actor().to_tensors(), folder / "expert.safetensors")
    monkeypatch.setattr("v2a_ray.domains.behaviors.WEIGHTS_FOLDER", tmp_path)
    narrow, wide = load_behavior("ant/gravity-0.5", "expert"), load_behavior("ant111/gravity-0.5", "expert")
    observation = np.random.default_rng(1).normal(size=(5, 111))
    assert np.allclose(wide.act(observation), narrow.act(observation[:, :27]), atol=1e-5)
    with pytest.raises(DomainError, match="27 observations and 8 actions, hopper has 11 and 3"):
        load_behavior("hopper", "expert", folder=folder)
    assert isinstance(load_behavior("ant111", "random"), UniformPolicy)


def test_ant111_data_are_resimulated() -> None:
    table = recorded("ant111/gravity-0.5")
    report = resimulate(table, "ant111/gravity-0.5")
    assert report.median_error < 1e-5
    assert resimulate(table, "ant111").median_error > 1e-3


@pytest.mark.parametrize(("data", "width", "claimed"), [("ant", 27, "ant111"), ("ant111", 111, "ant")])
def test_data_of_the_other_width_are_refused_with_the_name_that_fits(
    data: str, width: int, claimed: str, tmp_path: Path
) -> None:
    table = recorded(data, num_steps=3)
    said = f"{width} observations and 8 actions are those of {data}: write {data} instead of {claimed}"
    with pytest.raises(DomainError, match=said):
        resimulate(table, claimed)
    write_table(table, tmp_path / "data", robot=data)
    with pytest.raises(DataError, match=said):
        read_table(tmp_path / "data", robot=parse_domain(claimed).robot_spec)
    read_table(tmp_path / "data", robot=parse_domain(data).robot_spec)
