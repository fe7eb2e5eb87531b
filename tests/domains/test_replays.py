"""Replays of recorded episodes: exact where they were recorded, and in order of what a shift does over many steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.modality_quality import roll_out
from tests.cli.command import v2a_here
from v2a_ray.data.config import TargetSpec
from v2a_ray.data.fidelity.replays import Replays, far, replay_episodes
from v2a_ray.data.mixing.mixture import CollectionRequest, take
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError, DomainError


def recorded(domain: str, behavior: str = "random", num_transitions: int = 400) -> EpisodeTable:
    return roll_out(CollectionRequest(domain, domain, behavior, num_transitions, 0, 0.0))


@pytest.mark.parametrize("domain", ["hopper/stock", "walker2d/gravity-0.5@d4rl", "halfcheetah/wind-20", "ant/stock"])
def test_recording_is_reproduced_in_its_own_domain(domain: str) -> None:
    robot = domain.partition("/")[0]
    nearest, *others = replay_episodes(
        recorded(domain), [parse_domain(name) for name in (f"{robot}/mass-2", domain, f"{robot}/otdf-morph")], 10
    )
    assert nearest.domain == parse_domain(domain).name
    assert nearest.distance_RH.shape[1] == 10 and nearest.distance_RH.max() < 1e-3
    assert min(each.after(10) for each in others) > 0.01


def test_distance_grows_with_the_steps_and_the_shift() -> None:
    table = recorded("walker2d/stock", num_transitions=1_000)
    found = replay_episodes(table, [parse_domain(f"walker2d/gravity-{factor}") for factor in (0.1, 0.5, 0.9)])
    assert [each.domain.partition("@")[0] for each in found] == [f"walker2d/gravity-{x}" for x in (0.9, 0.5, 0.1)]
    for each in found:
        assert each.after(1) < each.after(5) < each.after(20)


def test_far_is_what_is_far_beside_the_nearest() -> None:
    def found(*distances: float) -> list[float]:
        replays = [Replays(f"domain {distance}", np.full((2, 3), distance)) for distance in distances]
        return [each.distance for each in far(replays)]

    assert found(0.2, 0.59, 0.61, 2.0) == [0.61, 2.0]
    assert found(0.4, 0.5, 1.1) == []
    # The target's own dynamics replay to rounding; a tenth of a standard deviation is near all the same.
    assert found(1e-7, 0.09, 0.11) == [0.11]
    assert found() == []


def test_the_same_parts_are_replayed_again_with_the_same_seed() -> None:
    table, domains = recorded("hopper/stock"), [parse_domain("hopper/gravity-0.5")]
    first, again, other = (replay_episodes(table, domains, 5, 3, seed=seed)[0].distance_RH for seed in (0, 0, 1))
    assert len(first) == 3
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_cannot_be_replayed_is_refused() -> None:
    table = recorded("hopper/stock")
    with pytest.raises(DomainError, match="noise on its action"):
        replay_episodes(table, [parse_domain("hopper/action_noise-0.1")])
    with pytest.raises(DomainError, match="walker2d has 17 and 6"):
        replay_episodes(table, [parse_domain("hopper"), parse_domain("walker2d")])
    unknown = table.replace(observation=np.full_like(table.observation, np.nan))
    with pytest.raises(DataError, match="known states at both ends"):
        replay_episodes(unknown, [parse_domain("hopper")])


def test_command_names_the_nearest_of_all_named_domains_first(tmp_path: Path) -> None:
    write_table(recorded("hopper/stock", num_transitions=200), tmp_path / "episodes", robot="hopper")
    done = v2a_here("data", "replay", "episodes", "--steps", "3", "--max-replays", "4", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found[0]["median_distance"][-1] < 1e-3 < found[-1]["median_distance"][-1]
    assert len(found) > 20 and {each["replays"] for each in found} == {4}
    names = [each["domain"] for each in found]
    assert names.index(parse_domain("hopper/stock").name) < names.index(parse_domain("hopper/gravity-5").name)
    shown = v2a_here("data", "replay", "episodes", "-d", "hopper/stock", "--steps", "3", cwd=tmp_path)
    assert "hopper/stock" in shown.stdout and "3 steps" in shown.stdout and "median of" in shown.stdout


def test_command_says_that_single_transitions_cannot_be_replayed(tmp_path: Path) -> None:
    drawn = TargetSpec(
        domain="hopper/stock", behavior="random", path="file", num_transitions=400, subsample="transitions"
    )
    rows = take(recorded("hopper/stock"), drawn)
    write_table(rows, tmp_path / "rows", robot="hopper")
    done = v2a_here("data", "replay", "rows", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no episode has 20 steps in a row" in " ".join(done.stderr.split())
