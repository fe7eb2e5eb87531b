"""Rows whose next observation is not where the step arrived: falls stay, and no model learns from a missing state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.builders import arrays_of, make_table, write_hdf5
from v2a_ray.data.checks.arrivals import mend
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.formats.readers import examine_table, export_table, read_table
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.segmentation import Rows
from v2a_ray.domains import parse_domain

HOPPER = parse_domain("hopper/stock").robot_spec


@pytest.fixture(scope="module")
def falling() -> EpisodeTable:
    """Real episodes of a random policy on Hopper, which all end in a fall."""
    hopper = parse_domain("hopper/stock")
    return EpisodeCollector(hopper, "random", policy_domain=hopper).collect(range(60))


def with_automatic_reset(table: EpisodeTable) -> EpisodeTable:
    """As a vectorised environment is recorded: the last next observation is the next episode's first state."""
    following = table.next_observation.copy()
    ends, starts = table.offsets[1:-1] - 1, table.offsets[1:-1]
    following[ends] = table.observation[starts]
    return table.replace(next_observation=following)


def falls(table: EpisodeTable) -> int:
    return int(table.terminated.sum())


def recorded_rows(table: EpisodeTable) -> Rows:
    last = np.zeros(table.num_transitions, dtype=bool)
    last[table.offsets[1:] - 1] = True
    return Rows(
        table.observation,
        table.action,
        table.reward,
        table.next_observation,
        table.terminal_rows > 0,
        last,
        np.arange(table.num_transitions),
    )


@pytest.mark.parametrize("suffix", ["hdf5", "npz"])
def test_falls_survive_a_recorder_with_automatic_reset(falling: EpisodeTable, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"reset.{suffix}"
    damaged = with_automatic_reset(falling)
    arrays = arrays_of(damaged)
    write_hdf5(path, arrays) if suffix == "hdf5" else np.savez(path, **arrays)
    table, findings = read_table(path, robot=HOPPER)
    assert falls(table) == falls(falling) > 40
    assert table.num_transitions == falling.num_transitions
    np.testing.assert_array_equal(table.reward, falling.reward)
    unknown = ~table.arrival_recorded
    np.testing.assert_array_equal(np.flatnonzero(unknown), falling.offsets[1:-1] - 1)
    assert [finding.check for finding in findings] == ["terminal_reset_as_next"]
    assert str(int(falling.offsets[1]) - 1) in findings[0].message


def test_falls_survive_every_format(falling: EpisodeTable, tmp_path: Path) -> None:
    damaged = with_automatic_reset(falling)
    mended, _ = mend(recorded_rows(damaged), None, None)
    table = mended.to_table("mended")
    for name, format in (("a.hdf5", "d4rl"), ("a.npz", "npz"), ("table", "parquet"), ("columns", "rllib-columns")):
        export_table(table, tmp_path / name, format=format)
        again = read_table(tmp_path / name).table
        assert falls(again) == falls(falling), format
        np.testing.assert_array_equal(again.arrival_recorded, table.arrival_recorded, err_msg=format)


def test_steps_that_are_cut_at_a_reset_are_dropped(falling: EpisodeTable, tmp_path: Path) -> None:
    """Without the terminal flag there is no state to bootstrap from."""
    damaged = with_automatic_reset(falling)
    cut = damaged.replace(terminated=np.zeros_like(damaged.terminated), truncated=np.ones_like(damaged.truncated))
    table, findings = read_table(write_hdf5(tmp_path / "a.hdf5", arrays_of(cut)), robot=HOPPER)
    assert "reset_as_next" in {finding.check for finding in findings}
    assert table.num_transitions < falling.num_transitions and falls(table) == 0


def test_an_episode_beyond_the_time_limit_is_split(tmp_path: Path) -> None:
    """1,999 rows without `timeouts`, as from two joined episodes with Hopper's limit of 1,000."""
    table = make_table([1999], [False], seed=5)
    wide = table.replace(observation=_wide(table.observation, 11), next_observation=_wide(table.next_observation, 11))
    wide = wide.replace(action=_wide(table.action, 3))
    path = write_hdf5(tmp_path / "long.hdf5", arrays_of(wide, timeouts=False))
    read, findings = examine_table(path, robot=HOPPER)
    assert read.lengths.tolist() == [999, 999]
    (finding,) = [each for each in findings if each.check == "episode_too_long"]
    assert finding.severity == "warning" and "row 999" in finding.message
    assert examine_table(path).table.lengths.tolist() == [1999]  # no robot, no limit


def _wide(values: np.ndarray, width: int) -> np.ndarray:
    return np.tile(values, (1, width))[:, :width].copy()


def test_a_last_row_that_repeats_itself_is_dropped(tmp_path: Path) -> None:
    table = make_table([6, 5], [False, False])
    following = table.next_observation.copy()
    following[table.offsets[1:] - 1] = table.observation[table.offsets[1:] - 1]
    path = write_hdf5(tmp_path / "a.hdf5", arrays_of(table.replace(next_observation=following)))
    read, findings = read_table(path)
    assert read.lengths.tolist() == [5, 4]
    (finding,) = findings
    assert finding.check == "next_observation_repeated" and "row 5, 10" in finding.message


def test_a_robot_that_stands_still_keeps_its_rows(tmp_path: Path) -> None:
    table = make_table([6], [False])
    still = np.repeat(table.observation[:1], 6, axis=0)
    path = write_hdf5(tmp_path / "a.hdf5", arrays_of(table.replace(observation=still, next_observation=still)))
    assert examine_table(path).table.num_transitions == 6


@pytest.mark.parametrize("padding", [1, 40])
def test_rows_that_were_never_written_are_named(falling: EpisodeTable, padding: int, tmp_path: Path) -> None:
    arrays = arrays_of(falling.head(100))
    for key, values in arrays.items():
        arrays[key] = np.concatenate([values, np.zeros((padding + 1, *values.shape[1:]), values.dtype)])
    _, findings = examine_table(write_hdf5(tmp_path / "padded.hdf5", arrays), robot=HOPPER)
    (finding,) = [each for each in findings if each.check == "unwritten"]
    assert finding.severity == "error" and "row 100" in finding.where and "never written" in finding.message


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=6), data=st.data())
def test_only_the_arrival_is_lost(lengths: list[int], data: st.DataObject) -> None:
    """For any terminal episodes that end in a reset, every (s, a, r, terminated) is kept, in order."""
    table = make_table(lengths, [True] * len(lengths))
    damaged = with_automatic_reset(table)
    chosen = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    mixed = np.where(
        np.asarray(chosen)[table.episode_of_row][:, None], damaged.next_observation, table.next_observation
    )
    rows, bad = mend(recorded_rows(table.replace(next_observation=mixed)), None, None)
    for field in ("observation", "action", "reward"):
        np.testing.assert_array_equal(getattr(rows, field), getattr(table, field))
    assert rows.to_table("a").terminated.tolist() == [True] * len(lengths)
    expected = [int(end) - 1 for end, reset in zip(table.offsets[1:-1], chosen, strict=False) if reset]
    assert bad.terminal_resets.tolist() == expected
    assert np.flatnonzero(~rows.to_table("a").arrival_recorded).tolist() == expected


def test_recorded_steps_drops_steps_without_a_recorded_arrival() -> None:
    table = make_table([3, 1, 2], [True, True, True])
    following = table.next_observation.copy()
    following[[2, 3]] = table.observation[[2, 3]]
    table = table.replace(next_observation=following)
    kept = table.recorded_steps()
    assert kept.lengths.tolist() == [2, 2] and kept.episode_id == (table.episode_id[0], table.episode_id[2])
    assert kept.terminated.tolist() == [False, True] and kept.truncated.tolist() == [True, False]
    assert make_table().recorded_steps().num_transitions == make_table().num_transitions
    assert table.replace(terminated=np.zeros(3, dtype=bool)).recorded_steps().num_transitions == 6


def test_a_goal_that_is_reached_many_times_in_a_row_is_named(falling: EpisodeTable, tmp_path: Path) -> None:
    """As D4RL's AntMaze, -v0 to -v2, is recorded: terminal while the ant is at the goal, without an end."""
    generator = np.random.default_rng(0)
    walks = [np.cumsum(generator.normal(0.0, 0.1, (30, 29)), axis=0) + 20.0 * walk for walk in range(3)]
    at_goal, ends = np.arange(30) >= 25, np.arange(30) == 29
    arrays = {
        "observations": np.concatenate(walks).astype(np.float32),
        "actions": generator.uniform(-1.0, 1.0, (90, 8)).astype(np.float32),
        "rewards": np.tile(at_goal, 3).astype(np.float32),
        "terminals": np.tile(at_goal, 3),
        "timeouts": np.tile(ends, 3),
    }
    _, findings = examine_table(write_hdf5(tmp_path / "antmaze-umaze-v2.hdf5", arrays))
    (finding,) = [each for each in findings if each.check == "terminal_continues"]
    assert finding.severity == "warning" and "row 26" in finding.where and "12 terminal steps" in finding.message
    _, findings = examine_table(write_hdf5(tmp_path / "falls.hdf5", arrays_of(falling)), robot=HOPPER)
    assert not [each for each in findings if each.check == "terminal_continues"]
