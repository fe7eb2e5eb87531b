"""Properties of any table: partitions lose nothing, cuts and selections keep alignment, resets are found."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.builders import arrays_of, assert_same, make_table, write_hdf5
from v2a_ray.data.checks import check_table
from v2a_ray.data.checks.overlap import Content, find_duplicates
from v2a_ray.data.formats.readers import read_table
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.data.table.folder import part_bounds, part_files, read_parts, write_table

tables = st.builds(make_table, st.lists(st.integers(1, 9), min_size=1, max_size=12), seed=st.integers(0, 5))
# Every example has its own seed-named folder, so sharing tmp_path is safe.
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def transitions(table: EpisodeTable) -> list[bytes]:
    """The multiset of transitions, as sorted bytes."""
    rows = np.concatenate([table.observation, table.action, table.reward[:, None], table.next_observation], axis=1)
    return sorted(row.tobytes() for row in rows)


def errors(table: EpisodeTable) -> list[str]:
    """The errors that make a piece unusable. Pieces of one-step episodes are rightly reported as unordered."""
    return [finding.message for finding in check_table(table, where="piece") if finding.check != "unordered"]


@few
@given(table=tables, num_files=st.integers(1, 9), data=st.data())
def test_any_partition_over_shards_holds_every_transition_once(table, num_files, data, tmp_path: Path) -> None:
    write_table(table, tmp_path / "table", num_files=num_files)
    files = part_files(tmp_path / "table")
    world_size = data.draw(st.integers(1, len(files)))
    shards = [read_parts(files[rank::world_size]) for rank in range(world_size)]
    assert transitions(concatenate(shards)) == transitions(table)
    assert all(errors(shard) == [] for shard in shards)


@given(num_episodes=st.integers(1, 200), num_files=st.integers(1, 20))
def test_part_bounds_cover_all_evenly(num_episodes, num_files) -> None:
    bounds = part_bounds(num_episodes, num_files)
    sizes = [end - begin for begin, end in bounds]
    assert (bounds[0][0], bounds[-1][1]) == (0, num_episodes)
    assert all(end == begin for (_, end), (begin, _) in pairwise(bounds))
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@given(table=tables, data=st.data())
def test_head_takes_exactly_as_many_and_stays_aligned(table, data) -> None:
    count = data.draw(st.integers(1, table.num_transitions))
    cut = table.head(count)
    assert cut.num_transitions == count
    np.testing.assert_array_equal(cut.observation, table.observation[:count])
    assert errors(cut) == []
    assert (cut.terminated != cut.truncated).all()
    if count not in table.offsets:
        assert cut.truncated[-1]


@given(table=tables, data=st.data())
def test_select_keeps_the_asked_for_episodes_in_order(table, data) -> None:
    chosen = data.draw(st.lists(st.integers(0, table.num_episodes - 1), min_size=1, max_size=5, unique=True))
    part = table.select(chosen)
    assert part.episode_id == tuple(table.episode_id[index] for index in chosen)
    assert part.lengths.tolist() == table.lengths[chosen].tolist()
    assert errors(part) == []


@few
@given(table=tables)
def test_hdf5_and_back(table, tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / f"{table.num_transitions}.hdf5", arrays_of(table))
    assert_same(read_table(path).table, table, labels=False)


def test_duplicates_are_found_under_other_names() -> None:
    first, second = make_table((50, 50), seed=0), make_table((50, 50), seed=1)
    tables = {"a": first, "b": second, "c": first.head(80)}
    found = find_duplicates({name: Content.of(table) for name, table in tables.items()})
    assert [(finding.where, finding.message) for finding in found] == [
        ("a", "80 of 80 distinct transitions are also in c")
    ]


def walker(num_episodes: int, length: int, seed: int = 0) -> EpisodeTable:
    """A damped oscillator driven by actions: positions follow velocities, and episodes start near rest."""
    generator = np.random.default_rng(seed)
    parts = []
    for _ in range(num_episodes):
        state, states, actions = 0.01 * generator.normal(size=6), [], []
        states.append(state)
        for _ in range(length):
            action = generator.uniform(-1, 1, 3)
            velocity = 0.98 * state[3:] - 0.1 * state[:3] + 2.0 * action
            state = np.concatenate([state[:3] + 0.05 * velocity, velocity])
            states.append(state)
            actions.append(action)
        parts.append((np.asarray(states, np.float32), np.asarray(actions, np.float32)))
    count = num_episodes
    return EpisodeTable(
        observation=np.concatenate([states[:-1] for states, _ in parts]),
        action=np.concatenate([actions for _, actions in parts]),
        reward=np.ones(count * length, np.float32),
        next_observation=np.concatenate([states[1:] for states, _ in parts]),
        offsets=np.arange(count + 1) * length,
        terminated=np.zeros(count, bool),
        truncated=np.ones(count, bool),
        episode_id=tuple(str(index) for index in range(count)),
        source=("",) * count,
        domain=("",) * count,
        behavior=("",) * count,
    )


@pytest.mark.parametrize("damaged", [[], [199], [199, 599]])
def test_resets_as_next_observations_are_named_and_dropped(damaged, tmp_path: Path) -> None:
    table = walker(5, 200)
    arrays = arrays_of(table, timeouts=False)
    for row in damaged:
        arrays["next_observations"][row] = arrays["observations"][row + 1]
    read, findings = read_table(write_hdf5(tmp_path / "a.hdf5", arrays))
    assert read.num_episodes == 5
    assert read.num_transitions == 1000 - len(damaged)
    named = [finding.message for finding in findings if finding.check == "reset_as_next"]
    assert len(named) == bool(damaged)
    if damaged:
        assert named[0].endswith("row " + ", ".join(str(row) for row in damaged))
