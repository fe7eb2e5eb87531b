"""Every check fires on bad data and only on them; users can change the severities."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import v2a_ray.data
from tests.data.builders import arrays_of, make_table, write_hdf5
from v2a_ray.data.checks import CHECKS, check_sources, check_table, parse_severities, regrade
from v2a_ray.data.checks.findings import Reading
from v2a_ray.data.checks.reset_rows import detector_of
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.config import CheckName
from v2a_ray.data.formats.readers import examine_table, read_table
from v2a_ray.data.mixing.mixture import load_data
from v2a_ray.data.table.segmentation import Rows
from v2a_ray.domains import parse_domain
from v2a_ray.domains.domain import require_robot
from v2a_ray.errors import ConfigError, DataError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.settings.yaml_files import validate

STOCK = require_robot(parse_domain("hopper"), "this test")


def collected(domain="hopper", behavior="medium", episodes=3, policy_domain="hopper"):
    collector = EpisodeCollector(parse_domain(domain), behavior, policy_domain=parse_domain(policy_domain))
    return collector.collect(range(episodes))


@pytest.fixture(scope="module")
def medium():
    """Hopper episodes, some of which end by the time limit, and random ones, all of which end by a fall."""
    return collected()


@pytest.fixture(scope="module")
def falling():
    return collected(behavior="random", episodes=20)


def names(findings):
    return [finding.check for finding in findings]


def fired(table, domain="hopper"):
    return names(check_table(table, where="made", robot=parse_domain(domain).robot_spec))


def changed(table, field, rows, value):
    values = getattr(table, field).copy()
    values[rows] = value
    return table.replace(**{field: values})


@pytest.mark.parametrize(
    ("domain", "behavior"),
    [("hopper", "medium"), ("walker2d", "random"), ("halfcheetah", "random"), ("ant", "random"), ("ant111", "random")],
)
def test_no_check_fires_on_simulated_data(domain, behavior) -> None:
    table = collected(domain, behavior, 4, policy_domain=domain)
    assert fired(table, domain) == []


def test_content_checks(medium) -> None:
    assert fired(medium, "walker2d") == ["dimensions", "dimensions"]
    assert fired(changed(medium, "reward", 7, np.nan)) == ["finite"]
    assert fired(changed(medium, "action", 7, 1.1)) == ["action_bounds"]
    assert fired(changed(medium, "next_observation", (7, 3), 9.0)) == ["alignment"]
    twice = medium.select([0, 0])
    assert fired(twice.replace(episode_id=("a", "b"))) == ["repeated"]


def test_other_width_names_the_robot_that_fits() -> None:
    table = collected("ant", "random", 1, policy_domain="ant")
    finding = check_table(table, where="made", robot=parse_domain("ant111").robot_spec)[0]
    assert finding.check == "dimensions" and "those of ant:" in finding.remedy


def test_terminals_against_the_health_rule(medium, falling) -> None:
    cut = falling.replace(terminated=np.zeros(20, bool), truncated=np.ones(20, bool))
    assert fired(cut) == ["unhealthy_not_terminal"]
    (finding,) = check_table(cut, where="made", robot=STOCK.robot_spec)
    assert "(20 such steps in all)" in finding.message and "episode 0" in finding.where

    early = medium.select([0]).head(100)
    ended = early.replace(terminated=np.ones(1, bool), truncated=np.zeros(1, bool))
    assert fired(ended) == ["terminal_but_healthy"]


def test_time_limit_as_terminal(medium) -> None:
    early = medium.select([0]).head(100)
    ended = early.replace(terminated=np.ones(1, bool), truncated=np.zeros(1, bool))
    limited = replace(STOCK.robot_spec, max_episode_steps=100)
    assert names(check_table(ended, where="made", robot=limited)) == ["time_limit_as_terminal"]
    assert names(check_table(early, where="made", robot=limited)) == []
    cheetah = collected("halfcheetah", "random", 1, policy_domain="halfcheetah")
    assert fired(cheetah, "halfcheetah") == []
    marked = cheetah.replace(terminated=np.ones(1, bool), truncated=np.zeros(1, bool))
    assert fired(marked, "halfcheetah") == ["time_limit_as_terminal"]


def test_a_state_at_a_threshold_contradicts_no_terminal(falling) -> None:
    row = int(falling.offsets[1]) - 1
    at_limit = changed(falling, "next_observation", (row, 0), np.nextafter(np.float32(0.7), np.float32(1)))
    upright = changed(at_limit, "next_observation", (row, 1), 0.0)
    assert fired(upright) == []
    # Well above the threshold and upright, only a clipped velocity could have ended the episode.
    healthy = changed(upright, "next_observation", (row, 0), 1.2)
    slow = changed(healthy, "next_observation", (row, slice(5, 11)), 0.0)
    assert fired(slow) == ["terminal_but_healthy"]
    assert fired(changed(slow, "next_observation", (row, 7), 10.0)) == []


def test_unrecorded_next_observation_of_a_terminal_is_no_contradiction(falling) -> None:
    table = falling
    for row in falling.offsets[1:] - 1:
        table = changed(table, "next_observation", row, falling.observation[row])
    assert fired(table) == []


def test_duplicates() -> None:
    first, second = make_table((50, 50), seed=1), make_table((50, 50), seed=2)
    copy = first.labelled(source="other", domain="hopper/gravity-0.5", behavior="expert")
    (finding,) = check_sources({"a": first, "b": second, "c": copy}, {})
    assert finding.check == "duplicate" and "same recording as c: all 100" in finding.message
    (finding,) = check_sources({"a": first, "b": second, "c": copy.select([1])}, {})
    assert finding.check == "duplicate" and "50 of 50" in finding.message


def sources(medium, **tables):
    """`medium` recorded in stock, and other tables by name of their domain."""
    domains = {name: parse_domain(name) for name in tables}
    return names(check_sources({"stock": medium, **tables}, {"stock": STOCK, **domains}))


def test_different_domains_pass(medium) -> None:
    shifted = collected("hopper/gravity-0.5", "random", 30)
    noisy = collected("hopper/action_noise-0.1", "random", 20)
    assert sources(medium, **{"hopper/gravity-0.5": shifted, "hopper/action_noise-0.1": noisy}) == []


def test_two_names_for_the_same_dynamics() -> None:
    low, lower = "hopper/friction-0.5", "hopper/friction-0.1"
    tables = {name: collected(name, "random", 15 + index) for index, name in enumerate((low, lower))}
    found = check_sources({"a": tables[low], "b": tables[lower]}, {"a": parse_domain(low), "b": parse_domain(lower)})
    assert names(found) == ["same_dynamics"]
    assert "hopper/friction-0.5@d4rl is the same dynamics as hopper/friction-0.1@d4rl" in found[0].message


def test_behaviour_that_cannot_distinguish_two_domains(medium) -> None:
    # A difference of gravity in the seventh digit is invisible in float32 recordings.
    near = "hopper/gravity-1.0000001"
    found = sources(medium, **{near: collected("hopper/gravity-0.5", "random", 30)})
    assert found == ["same_dynamics"]


def test_data_of_another_domain(medium) -> None:
    half = collected("hopper/gravity-0.5", "random", 30)
    swapped = {"says half": medium, "says stock": half}
    domains = {"says half": parse_domain("hopper/gravity-0.5"), "says stock": STOCK}
    found = check_sources(swapped, domains)
    assert names(found) == ["wrong_domain", "wrong_domain"]
    assert "but hopper/stock@d4rl reproduces it" in found[0].message


def test_scaled_rewards(medium, falling) -> None:
    tenth = falling.replace(reward=falling.reward * np.float32(0.1))
    (finding,) = check_sources({"a": medium, "b": tenth}, {"a": STOCK, "b": STOCK})
    assert finding.check == "reward_scale" and "0.1 times what hopper/stock@d4rl pays" in finding.message
    shifted = falling.replace(reward=falling.reward - np.float32(1))
    (finding,) = check_sources({"a": medium, "b": shifted}, {"a": STOCK, "b": STOCK})
    assert "1 times − 1" in finding.message
    # Without a domain, one reward function explains both.
    (finding,) = check_sources({"a": medium, "b": tenth}, {})
    assert finding.check == "reward_scale" and "0.1 times those of a" in finding.message
    assert check_sources({"a": medium, "b": falling}, {}) == []


def test_reset_as_next(medium) -> None:
    table = medium.select([0, 1, 2])
    row = int(table.offsets[1]) - 1

    def rows(following):
        last = np.zeros(table.num_transitions, bool)
        last[table.offsets[1:] - 1] = True
        numbers = np.arange(len(last))
        return Rows(table.observation, table.action, table.reward, following, last & False, last, numbers)

    def found(recording):
        return detector_of(recording).find(recording)

    assert len(found(rows(table.next_observation))) == 0
    damaged = table.next_observation.copy()
    damaged[row] = table.observation[row + 1]
    assert found(rows(damaged)).tolist() == [row]


def test_severities(tmp_path: Path) -> None:
    table = changed(make_table(), "action", (9, 1), 1.5)
    path = write_hdf5(tmp_path / "a.hdf5", arrays_of(table))
    with pytest.raises(DataError, match="outside"):
        read_table(path)
    assert examine_table(path).findings[0].severity == "error"
    assert [each.severity for each in read_table(path, checks={"action_bounds": "warning"}).findings] == ["warning"]
    assert read_table(path, checks={"action_bounds": "ignore"}).findings == []
    arrays = {key: np.concatenate([values, values]) for key, values in arrays_of(make_table()).items()}
    twice = write_hdf5(tmp_path / "b.hdf5", arrays)
    assert names(read_table(twice).findings) == ["repeated"]
    with pytest.raises(DataError, match="are copies"):
        read_table(twice, checks={"repeated": "error"})


def test_an_ignored_check_still_marks_the_table_as_unordered() -> None:
    single = make_table((1,) * 100, terminated=[False] * 100)
    findings = regrade(check_table(single, where="made"), {"unordered": "ignore"})
    assert findings == [] and not Reading(single, findings).ordered


def test_severities_of_the_command_line() -> None:
    assert parse_severities(["finite=warning", "duplicate=error"]) == {"finite": "warning", "duplicate": "error"}
    with pytest.raises(ConfigError, match=r"no check named 'fine'(.|\n)*one of dimensions, finite"):
        parse_severities(["fine=error"])
    with pytest.raises(ConfigError, match="'loud' is no severity"):
        parse_severities(["finite=loud"])


def test_severities_of_an_experiment(tmp_path: Path) -> None:
    data = {"domain": "hopper", "behavior": "medium", "num_transitions": 10}
    raw = {"name": "a", "target": data, "sources": [data]}
    config = validate(ExperimentConfig, raw | {"checks": {"action_bounds": "warning"}})
    table = changed(collected(episodes=1), "action", (9, 1), 1.5)
    write_hdf5(tmp_path / "a.hdf5", arrays_of(table))
    spec = config.target.model_copy(update={"path": "a.hdf5", "num_transitions": None})
    with pytest.raises(DataError, match="outside"):
        load_data(spec, "target", tmp_path)
    assert names(load_data(spec, "target", tmp_path, config.checks).findings) == ["action_bounds"]
    for wrong in ({"fine": "error"}, {"finite": "loud"}):
        with pytest.raises(ConfigError, match=r"checks\.fin.*'(finite|error)'"):
            validate(ExperimentConfig, raw | {"checks": wrong})


def test_every_finding_is_of_a_registered_check() -> None:
    assert tuple(CHECKS) and set(CHECKS) == set(get_args(CheckName))
    folder = Path(v2a_ray.data.__file__).parent
    used = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Finding", "found") and node.args:
                argument = node.args[0]
                used |= {argument.value} if isinstance(argument, ast.Constant) else set()
    assert {"finite", "episode_too_long", "episode_unfinished"} <= used <= set(CHECKS)
