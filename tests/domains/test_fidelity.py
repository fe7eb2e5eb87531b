"""Domains reproduce data that were recorded in them, and file names give the domain. Skips if data are missing."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.shared_data import needs_shared_data, shared_file
from v2a_ray.cli.data_commands import app
from v2a_ray.data.fidelity.recorded import Comparison, compare, recordings
from v2a_ray.data.fidelity.resimulation import FidelityReport, resimulate
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import all_robots, catalogue, make_environment, parse_domain
from v2a_ray.domains.behaviors import load_behavior
from v2a_ray.domains.file_names import domain_of_file_name
from v2a_ray.errors import DomainError
from v2a_ray.report.fidelity_table import render_comparisons

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


def table_of(observation: Any, action: Any, reward: Any, next_observation: Any, offsets: Any = None) -> EpisodeTable:
    """A table for re-simulation, by default with one episode; columns that it does not read are made up."""
    offsets = np.asarray([0, len(observation)] if offsets is None else offsets, np.int64)
    episodes = len(offsets) - 1
    names = tuple(f"episode-{index}" for index in range(episodes))
    flags = np.zeros(episodes, bool)
    columns = {"observation": observation, "action": action, "reward": reward, "next_observation": next_observation}
    return EpisodeTable(
        **{name: np.asarray(values, np.float32) for name, values in columns.items()},
        offsets=offsets, terminated=flags, truncated=flags,
        episode_id=names, source=names, domain=names, behavior=names,
    )  # fmt: skip


@needs_shared_data
@pytest.mark.parametrize("file", FILES)
def test_recorded_transitions_are_reproduced(file: str) -> None:
    with h5py.File(shared_file(file)) as data:
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


@pytest.mark.parametrize(
    "name",
    [
        "walker2d/morph-leg-easy",
        "ant/gravity-0.5",
        "ant@modern",
        "halfcheetah/friction-2",
        "hopper/action_delay-2",
        "ant/action_delay-1",
        "halfcheetah/wind-20",
    ],
)
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
    report = resimulate(table_of(*map(np.stack, zip(*rows, strict=True)), offsets), name)  # type: ignore[call-arg]
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


def record(
    path: Path, name: str, num_episodes: int, max_steps: int = 200, behavior: str = "random", **labels: Any
) -> dict[str, Any]:
    """Roll out `name` into a float32 HDF5 file in D4RL's layout, written without the product's readers and writers."""
    environment = make_environment(name)
    domain = parse_domain(name)
    policy = load_behavior(domain, behavior, seed=3)
    columns: dict[str, list[Any]] = {
        key: [] for key in ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    }
    for seed in range(num_episodes):
        observation, _ = environment.reset(seed=seed)
        for step in range(max_steps):
            action = policy.act(observation[None])[0]
            next_observation, reward, terminated, _, _ = environment.step(action)
            last = step == max_steps - 1 and not terminated
            values = (observation, action, reward, next_observation, terminated, last)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
            observation = next_observation
            if terminated:
                break
    arrays = {key: np.asarray(values) for key, values in columns.items()}
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array if array.dtype == bool else array.astype(np.float32)
    return arrays


@pytest.mark.parametrize(
    ("file", "name", "num_episodes"),
    [
        ("walker2d_gravity_2_medium.hdf5", "walker2d/gravity-2", 20),
        ("walker2d-random-v2.hdf5", "walker2d/stock", 20),
        ("walker2d_kinematic_expert.hdf5", "walker2d/otdf-kinematic", 20),
        ("ant_stock_random.hdf5", "ant/stock", 3),
        ("ant-medium-v2.hdf5", "ant111/stock", 3),
        ("ant_morph_medium.hdf5", "ant111/otdf-morph", 3),
        ("ant_friction_0.5_expert.hdf5", "ant/friction-0.5", 3),
    ],
)
def test_files_of_robots_with_clipping_lag_and_padding(tmp_path: Path, file: str, name: str, num_episodes: int) -> None:
    arrays = record(tmp_path / file, name, num_episodes)
    (recording,) = recordings(tmp_path / file)
    found = compare(recording)
    assert found.claimed.domain == parse_domain(name).name
    assert found.claimed.median_error < 1e-5
    assert found.claimed.p95_error < 1e-3
    assert found.claimed.reward_median_error < 1e-4
    assert found.verdict == "recorded in this domain"
    assert found.claimed.rows + found.claimed.rows_excluded == len(arrays["rewards"])
    if name.startswith("walker2d"):
        both = np.stack([arrays["observations"], arrays["next_observations"]])
        clipped = (np.abs(both[:, :, 8:]) >= 10.0).any(axis=(0, 2)).sum()
        assert found.claimed.rows_excluded == clipped > 0
    else:
        assert found.claimed.rows_excluded == 0
        assert arrays["observations"].shape[1] == (111 if name.startswith("ant111") else 27)
    assert found.modern.median_error > 1e-4


def test_ants_reward_needs_the_step_before() -> None:
    # Without that step the torso's position would not lag, and the reward error would be far above rounding.
    environment = make_environment("ant")
    observation, _ = environment.reset(seed=0)
    environment.action_space.seed(0)
    rows = []
    for _ in range(60):
        action = environment.action_space.sample()
        next_observation, reward, *_ = environment.step(action)
        rows.append((observation, action, reward, next_observation))
        observation = next_observation
    columns: Any = [np.stack(column) for column in zip(*rows, strict=True)]
    together, apart = table_of(*columns), table_of(*columns, range(len(rows) + 1))  # type: ignore[call-arg]
    assert resimulate(together, "ant").reward_median_error < 1e-5
    assert resimulate(apart, "ant").reward_median_error > 1e-4


def test_steps_whose_next_observation_was_not_recorded_are_excluded(tmp_path: Path) -> None:
    path = tmp_path / "hopper_stock_random.hdf5"
    arrays = record(path, "hopper", 5)
    with h5py.File(path, "a") as file:
        del file["next_observations"]
    (recording,) = recordings(path)
    report = resimulate(recording.table, recording.domain)
    assert arrays["terminals"].sum() == 5
    assert report.rows_excluded == 5
    assert report.p95_error < 1e-3


def test_action_noise_cannot_be_resimulated() -> None:
    table = table_of(np.zeros((2, 11)), np.zeros((2, 3)), np.zeros(2), np.zeros((2, 11)))
    with pytest.raises(DomainError, match="noise on its action was not recorded"):
        resimulate(table, "hopper/action_noise-0.1")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["fidelity", *arguments])


def test_the_table_says_what_its_columns_mean_and_marks_what_is_alarming(tmp_path: Path) -> None:
    path = tmp_path / "hopper_stock_expert.hdf5"
    record(path, "hopper/stock", 3)
    result = run(str(path), "--max-rows", "50")
    words = " ".join(result.stdout.split())
    assert "steps error here reward in stock in modern" in words and "left out 95 % error 95 % 95 %" in words
    for explained in ("m, rad, m/s or rad/s", "a median of 1e-05 or more", "above 1e-03", "the reward's own unit"):
        assert explained in words
    assert max(map(len, result.stdout.splitlines())) <= 80
    fine = FidelityReport("hopper/stock@d4rl", 90, 10, 5e-7, 2e-6, 1e-7, "")
    strange = replace(
        fine, rows=10, rows_excluded=90, median_error=5e-2, p95_error=2e-1, reward_problem="is paid twice"
    )
    report = Comparison(path, strange, stock=strange, modern=strange, nearest=fine)
    shown = io.StringIO()
    Console(file=shown, force_terminal=True, width=80).print(render_comparisons([report]))
    alarming = re.findall(r"\x1b\[1;31m *([0-9e+-]+)", shown.getvalue())
    assert sorted(alarming) == ["1e-07", "2e-01", "5e-02", "90"], "of this domain alone"
    shown = io.StringIO()
    Console(file=shown, force_terminal=True, width=80).print(render_comparisons([replace(report, claimed=fine)]))
    assert "\x1b[1;31m" not in shown.getvalue()


def test_command_finds_a_mislabelled_file(tmp_path: Path) -> None:
    path = tmp_path / "hopper_stock_expert.hdf5"
    record(path, "hopper/gravity-2", 6)
    page = tmp_path / "pages" / "fidelity.md"
    result = run(str(path), "--json", "--max-rows", "100", "--output", str(page))
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["file"], found["domain"], found["rows"]) == (str(path), "hopper/stock@d4rl", 100)
    assert found["median_error"] > 1e-3
    assert found["nearest"]["domain"] == "hopper/gravity-2@d4rl"
    assert found["verdict"] == "not this domain: recorded in hopper/gravity-2@d4rl"
    assert found["stock"]["median_error"] == found["median_error"]
    assert found["modern"]["domain"] == "hopper/stock@modern"
    assert "| hopper_stock_expert.hdf5 | hopper/stock@d4rl | 100 |" in page.read_text()
    assert str(tmp_path) not in page.read_text()
    right = json.loads(run(str(path), "--json", "--domain", "hopper/gravity-2").stdout)
    assert right["verdict"] == "recorded in this domain"
    assert right["median_error"] < 1e-5 < 1e-3 < right["stock"]["median_error"]


def test_command_takes_the_labels_of_an_episode_table(tmp_path: Path) -> None:
    names = ("hopper/gravity-0.5@d4rl", "hopper/friction-2@d4rl")
    tables = []
    for name in names:
        record(tmp_path / "any.hdf5", name, 4)
        (recording,) = recordings(tmp_path / "any.hdf5", parse_domain(name))
        tables.append(recording.table.labelled(source=name, domain=name, behavior="random"))
    write_table(concatenate(tables), tmp_path / "mix", robot="hopper")
    found = json.loads(run(str(tmp_path / "mix"), "--json").stdout)
    assert [each["domain"] for each in found] == list(names)
    assert [each["verdict"] for each in found] == ["recorded in this domain"] * 2
    shown = run(str(tmp_path / "mix")).stdout
    assert all(name in shown for name in names)


@pytest.mark.parametrize(
    ("file", "arguments", "said"),
    [
        ("mystery.hdf5", [], "--domain"),
        ("halfcheetah_stock_medium.hdf5", [], "11 observations and 3 actions"),
        ("mystery.hdf5", ["--domain", "ant/gravity-2"], "11 observations and 3 actions"),
        ("mystery.hdf5", ["--domain", "hopper/gravity-0"], "gravity"),
    ],
)
def test_command_refuses(tmp_path: Path, file: str, arguments: list[str], said: str) -> None:
    record(tmp_path / file, "hopper", 1)
    result = run(str(tmp_path / file), *arguments)
    assert isinstance(result.exception, DomainError)
    assert said in " ".join(str(result.exception).split())


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("hopper_gravity_0.5_expert.hdf5", "hopper/gravity-0.5@d4rl"),
        ("halfcheetah_kinematic_medium_expert.hdf5", "halfcheetah/otdf-kinematic@d4rl"),
        ("ant_morph_medium.h5", "ant/otdf-morph@d4rl"),
        ("walker2d-medium-replay-v2.hdf5", "walker2d/stock@d4rl"),
        ("odrl_walker_friction_2.0_random.hdf5", "walker2d/friction-2@d4rl"),
        ("hopper_kinematic_footjnt_medium_medium.hdf5", "hopper/kinematic-footjnt-medium@d4rl"),
        ("HalfCheetah-morph-thigh-hard_expert (2).hdf5", "halfcheetah/morph-thigh-hard@d4rl"),
        ("hopper_gravity-0.73+kinematic-footjnt-0.7_modern", "hopper/gravity-0.73+kinematic-footjnt-0.7@modern"),
        ("hopper.hdf5", None),
        ("hopper_mine.hdf5", None),
        ("hopper_gravity_99_medium.hdf5", None),
        ("hopper_kinematic_ear_easy_medium.hdf5", None),
        ("hopper_or_ant_stock_medium.hdf5", None),
        ("medium.hdf5", None),
    ],
)
def test_domains_in_file_names(file: str, name: str | None) -> None:
    found = domain_of_file_name(Path(file))
    assert (found and found.name) == name


@pytest.mark.parametrize("robot", list(all_robots()))
def test_domains_in_our_own_file_names(robot: str) -> None:
    for physics in ("d4rl", "modern"):
        for domain in catalogue(robot, physics):
            identifier = domain.gym_id.removeprefix("v2a/")
            for name in (domain.slug, f"{domain.slug}_medium_expert.hdf5", identifier):
                assert domain_of_file_name(Path(name)) == domain, name
