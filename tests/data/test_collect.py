"""Collected data depend only on their seed, not on batching, order, or the number of actors."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.builders import assert_same
from v2a_ray.data.checks import check_table
from v2a_ray.data.collection.rolling import EpisodeCollector, collect_episodes
from v2a_ray.data.config import SourceSpec
from v2a_ray.data.mixing.mixture import CollectionRequest
from v2a_ray.data.table.episodes import concatenate
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError, DomainError

HOPPER = parse_domain("hopper/gravity-0.5")


class Constant:
    """Pushes every joint the same way."""

    def act(self, observation):
        return np.full((len(observation), 3), 0.9, np.float32)


def test_episodes_do_not_depend_on_the_other_episodes() -> None:
    together = collect_episodes(HOPPER, "random", range(5), seed=3)
    alone = concatenate([collect_episodes(HOPPER, "random", [index], seed=3) for index in range(5)])
    assert_same(together, alone)
    assert_same(collect_episodes(HOPPER, "random", [4, 1], seed=3), together.select([4, 1]))
    other = collect_episodes(HOPPER, "random", [0], seed=4)
    assert not np.array_equal(other.observation[0], together.observation[0])


@pytest.mark.parametrize(("component", "noise_std"), [("random", 0.0), ("medium", 0.0), ("medium", 0.5)])
def test_episodes_do_not_depend_on_how_many_run_side_by_side(component, noise_std) -> None:
    # A trained network, because the rounding of a matrix product depends on the number of rows.
    one_by_one, *others = (EpisodeCollector(HOPPER, component, 3, noise_std, num_side_by_side=n) for n in (1, 3, 16))
    expected = one_by_one.collect(range(8))
    assert len(set(expected.lengths)) > 1
    for collector in others:
        collector.collect([20, 21])  # Earlier episodes in the same simulations do not matter either.
        assert_same(collector.collect(range(8)), expected)


def test_collected_episodes_pass_the_checks() -> None:
    table = collect_episodes(HOPPER, "random", range(5))
    assert check_table(table, where="collected", robot=HOPPER.robot_spec) == []
    assert table.observation.dtype == table.action.dtype == table.reward.dtype == np.float32
    assert (table.terminated != table.truncated).all()
    assert set(table.behavior) == {"random"} and set(table.domain) == {HOPPER.name}


def test_noise_is_added_to_the_mean_and_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v2a_ray.data.collection.rolling.load_behavior", lambda *_: Constant())
    still = collect_episodes(HOPPER, "pushing", range(3), noise_std=0.0)
    assert (still.action == np.float32(0.9)).all()
    noisy = collect_episodes(HOPPER, "pushing", range(3), noise_std=0.3)
    assert noisy.action.max() == 1.0
    assert 0.05 < noisy.action.std() < 0.3


def test_an_unknown_behavior_is_a_domain_error() -> None:
    with pytest.raises(DomainError):
        collect_episodes(HOPPER, "no-such-policy", [0])


def test_the_number_of_actors_does_not_matter(ray_cluster: None) -> None:
    from v2a_ray.orchestration.data.collect import collect

    requests = [CollectionRequest(HOPPER.name, HOPPER.name, "random", count, 5, 0.1) for count in (333, 50)]
    calls: list[tuple[int, int]] = []
    # Three actors on two CPUs: one actor never starts, and the collection does not wait for it.
    results = [
        collect(requests, num_actors=count, progress=lambda done, total: calls.append((done, total)))
        for count in (1, 3)
    ]
    for one, three in zip(*results, strict=True):
        assert_same(one, three)
    assert [table.num_transitions for table in results[0]] == [333, 50]
    expected = collect_episodes(HOPPER, "random", range(100), seed=5).head(333)
    assert_same(results[0][0], expected)
    assert calls[-1] == (383, 383)


def test_sources_are_labelled_and_errors_arrive_unwrapped(ray_cluster: None) -> None:
    from v2a_ray.orchestration.data.collect import collect, collect_data

    spec = SourceSpec(name="near", domain=HOPPER.name, behavior="random", num_transitions=60)
    (table,) = collect_data([spec], num_actors=1)
    assert set(table.source) == {"near"} and set(table.behavior) == {"random"}
    with pytest.raises(DomainError):
        collect([CollectionRequest(HOPPER.name, HOPPER.name, "no-such-policy", 10, 0, 0.1)], num_actors=1)


@pytest.mark.slow
def test_episodes_of_an_actor_that_dies_are_collected_by_another(ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.data.collection.journal import EpisodeJournal
    from v2a_ray.orchestration.data.collect import collect

    killed: list[int] = []

    def kill_two(done: int, total: int) -> None:
        # Kill both, busy or idle, so that no actor is left.
        if not killed and len(actors := collectors()) == 2 and done > 2000:
            for actor in actors:
                os.kill(actor, signal.SIGKILL)
            killed.extend(actors)

    request = CollectionRequest("hopper/stock", "hopper/stock", "random", 20_000, 3, 0.0)
    journal = EpisodeJournal(tmp_path, {})
    (table,) = collect([request], num_actors=2, progress=kill_two, journals=[journal])
    assert len(killed) == 2
    domain = parse_domain("hopper/stock")
    assert_same(table, collect_episodes(domain, "random", range(table.num_episodes), seed=3).head(20_000))


@pytest.mark.slow
def test_episodes_that_kill_every_actor_are_given_up(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from v2a_ray.orchestration.data import collect

    class Fatal(collect._Collector):
        def collect(self, request: Any, indices: Any) -> Any:
            os._exit(1)

    monkeypatch.setattr(collect, "_Collector", Fatal)
    with pytest.raises(DataError, match=r"episodes 0 to 0.*died 4 times"):
        collect.collect([CollectionRequest(HOPPER.name, HOPPER.name, "random", 10, 0, 0.1)], num_actors=1)


def collectors() -> list[int]:
    """Process ids of this session's roll-out actors, found by their process names."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::_Collector"):
                found.append(int(folder.name))
    return [pid for pid in found if os.getpid() in ancestors(pid, parents)]


def ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    return [] if pid not in parents else [parents[pid], *ancestors(parents[pid], parents)]
