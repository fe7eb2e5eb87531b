"""Domains reproduce data that others recorded in them. Skips, saying so, where that data is absent."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from v2a_ray.data.table import EpisodeTable
from v2a_ray.domains import make_environment, parse_domain
from v2a_ray.domains.fidelity import resimulate
from v2a_ray.errors import DomainError

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = {
    f"{robot}_{name}_{quality}.hdf5": f"{robot}/{shift}@d4rl"
    for robot in ("hopper", "halfcheetah")
    for name, shift in {
        "gravity_0.5": "gravity-0.5",
        "kinematic": "otdf-kinematic",
        "morph": "otdf-morph",
        "stock": "stock",
    }.items()
    for quality in ("medium", "expert")
}


def table_of(observation, action, reward, next_observation, offsets=None) -> EpisodeTable:  # type: ignore[no-untyped-def]
    """A table for re-simulation, by default of one episode; what it does not read is made up."""
    offsets = np.asarray([0, len(observation)] if offsets is None else offsets, np.int64)
    episodes = len(offsets) - 1
    names = tuple(f"episode-{index}" for index in range(episodes))
    flags = np.zeros(episodes, bool)
    numbers = (np.asarray(values, np.float32) for values in (observation, action, reward, next_observation))
    return EpisodeTable(*numbers, offsets, flags, flags, names, names, names, names)


@pytest.mark.parametrize("file", FILES)
def test_recorded_transitions_are_reproduced(file: str) -> None:
    if not (DATA / file).exists():
        pytest.skip(f"third-party data {file} is not in ../shared/data")
    with h5py.File(DATA / file) as data:
        columns = ("observations", "actions", "rewards", "next_observations")
        table = table_of(*(data[name][:5000].reshape(len(data[name][:5000]), -1).squeeze() for name in columns))
    domain = FILES[file]
    report = resimulate(table, domain, max_rows=1500)
    assert report.domain == domain
    assert report.rows == 1500
    assert report.median_error < 1e-5
    assert report.p95_error < 1e-4
    assert report.reward_median_error < 1e-4
    clipped = (np.abs(np.stack([table.observation, table.next_observation])[:, :, 5:]) >= 10).any(axis=(0, 2)).sum()
    assert report.rows_excluded == (clipped if domain.startswith("hopper") else 0)
    if domain != "hopper/stock@d4rl":
        elsewhere = "hopper" if domain.startswith("hopper") else "halfcheetah@modern"
        assert resimulate(table, elsewhere, max_rows=300).median_error > 1e-3


@pytest.mark.parametrize("name", ["walker2d/morph-leg-easy", "ant/gravity-0.5", "ant@modern", "halfcheetah/friction-2"])
def test_own_rollouts_are_reproduced_with_their_rewards(name: str) -> None:
    environment = make_environment(name)
    environment.action_space.seed(0)
    rows, offsets = [], [0]
    for seed in range(3):
        observation, _ = environment.reset(seed=seed)
        for _ in range(40):
            action = environment.action_space.sample()
            next_observation, reward, terminated, _, _ = environment.step(action)
            rows.append((observation, action, reward, next_observation))
            observation = next_observation
            if terminated:
                break
        offsets.append(len(rows))
    report = resimulate(table_of(*(np.stack(column) for column in zip(*rows, strict=True)), offsets), name)
    assert report.rows + report.rows_excluded == len(rows)
    assert report.median_error < 1e-4
    assert report.reward_median_error < 1e-4


def test_rows_without_a_known_state_are_counted_not_compared() -> None:
    observation = np.zeros((4, 11))
    observation[:, 0] = 1.25
    next_observation = observation.copy()
    next_observation[1, 7] = -10.0
    observation[2, 6] = np.nan
    table = table_of(observation, np.zeros((4, 3)), np.zeros(4), next_observation)
    report = resimulate(table, "hopper")
    assert (report.rows, report.rows_excluded) == (2, 2)


def test_data_of_another_robot_are_refused() -> None:
    table = table_of(np.zeros((2, 17)), np.zeros((2, 6)), np.zeros(2), np.zeros((2, 17)))
    with pytest.raises(DomainError, match="17 observations and 6 actions, hopper has 11 and 3"):
        resimulate(table, parse_domain("hopper"))
