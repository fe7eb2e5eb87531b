"""Files with D4RL's keys give the right episodes, read at once or in slices."""

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.builders import arrays_of, assert_same, make_table, write_hdf5
from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.formats.d4rl import read_rows, scan
from v2a_ray.data.formats.location import locate
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.data.formats.rllib_columns import KEYS
from v2a_ray.data.table.episodes import concatenate
from v2a_ray.errors import DataError


def test_breaks_end_episodes_without_timeouts(tmp_path: Path) -> None:
    table = make_table((5, 3, 4))
    arrays = arrays_of(table, timeouts=False)
    arrays["rewards"], arrays["terminals"] = arrays["rewards"][:, None], arrays["terminals"].astype(float)[:, None]
    read, findings = read_table(write_hdf5(tmp_path / "a.hdf5", arrays))
    assert_same(read, table, labels=False)
    assert findings == []


def test_without_next_observations_the_last_row_of_a_cut_episode_is_dropped(tmp_path: Path) -> None:
    table = make_table((5, 3, 4), terminated=[True, False, False])
    path = write_hdf5(tmp_path / "a.hdf5", arrays_of(table, next_observations=False))
    read, findings = read_table(path)
    assert read.lengths.tolist() == [5, 2, 3]
    assert read.terminated.tolist() == [True, False, False]
    np.testing.assert_array_equal(read.next_observation[5:7], table.observation[6:8])
    assert [finding.check for finding in findings] == ["next_observation_derived"]
    assert "2 last rows" in findings[0].message


def test_without_next_observations_and_timeouts_terminals_end_episodes(tmp_path: Path) -> None:
    arrays = arrays_of(make_table((5, 3, 4)), timeouts=False, next_observations=False)
    read, findings = read_table(write_hdf5(tmp_path / "a.hdf5", arrays))
    # The second episode was cut, and the file does not say where.
    assert read.lengths.tolist() == [5, 7]
    assert read.terminated.tolist() == [True, True]
    assert "episode_ends_unknown" in checks(findings)


def test_unordered_transitions_are_read_with_a_warning(tmp_path: Path) -> None:
    table = make_table((200,), terminated=[False])
    drawn = np.random.default_rng(0).permutation(200)[:100]
    arrays = {key: values[drawn] for key, values in arrays_of(table, timeouts=False).items()}
    reading = read_table(write_hdf5(tmp_path / "a.hdf5", arrays))
    assert not reading.ordered
    assert reading.table.num_transitions == 100
    assert "unordered" in checks(reading.findings)


def test_float64_observations_with_float32_successors_are_one_episode(tmp_path: Path) -> None:
    table = make_table((50,), terminated=[False])
    arrays = arrays_of(table, timeouts=False)
    arrays["observations"] = arrays["observations"].astype(np.float64) + 1e-9
    assert read_table(write_hdf5(tmp_path / "a.hdf5", arrays)).table.num_episodes == 1


PRECISIONS = (np.float16, np.float32, np.float64)


@pytest.mark.parametrize("name", ["d4rl", "npz", "rllib-columns"])
@pytest.mark.parametrize("before", PRECISIONS)
@pytest.mark.parametrize("after", PRECISIONS)
@pytest.mark.parametrize("timeouts", [False, True])
def test_observations_and_successors_of_different_precision(name, before, after, timeouts, tmp_path: Path) -> None:
    """All recorded episodes are found, and the table can be written and read back."""
    states = np.random.default_rng(0).normal(size=(6002, 3)).cumsum(axis=0)
    last = np.zeros(6000, dtype=bool)
    last[[1999, 5999]] = True
    arrived = states[1:6001].copy()
    arrived[1999] += 5.0
    arrays = {
        "observations": states[:6000].astype(before),
        # Convert through float32, so that numbers halfway between two float16 numbers are rounded to the other one.
        "next_observations": arrived.astype(np.float32).astype(after),
        "actions": np.random.default_rng(1).uniform(-1, 1, (6000, 2)).astype(np.float32),
        "rewards": np.ones(6000, np.float32),
        "terminals": np.zeros(6000, dtype=bool),
        **({"timeouts": last} if timeouts else {}),
    }
    table = read_table(stored(name, tmp_path, arrays)).table
    assert table.lengths.tolist() == [2000, 4000]
    export_table(table, tmp_path / "table", format="parquet")
    assert_same(read_table(tmp_path / "table").table, table)


def stored(name, folder, arrays):
    """A file of these arrays, each in its own precision."""
    if name == "d4rl":
        return write_hdf5(folder / "a.hdf5", arrays)
    if name == "npz":
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"
    names = {key: column for column, key in KEYS.items()}
    columns = {
        names[key]: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        if values.ndim == 2
        else pa.array(values)
        for key, values in arrays.items()
    }
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def checks(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings]


LAYOUTS = {
    "all keys": {},
    "no timeouts": {"timeouts": False},
    "no next_observations": {"next_observations": False},
    "neither": {"timeouts": False, "next_observations": False},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("per_trajectory", [False, True])
def test_slices_between_episode_ends_give_the_whole_file(layout, per_trajectory, tmp_path: Path) -> None:
    table = make_table((5, 3, 4, 1, 6), terminated=[True, False, False, True, False])
    if per_trajectory:
        path = write_hdf5(tmp_path / "a.hdf5", trajectories(table, **layout))
    else:
        path = write_hdf5(tmp_path / "a.hdf5", arrays_of(table, **layout))
    location = locate(path)
    bounds = scan(location).bounds
    assert bounds[0] == 0 and bounds[-1] == table.num_transitions == scan(location).num_rows
    whole = read_table(path).table
    parts = [read_rows(location, int(begin), int(end))[0] for begin, end in pairwise(bounds)]
    assert np.concatenate([part.number for part in parts]).tolist() == read_rows(location)[0].number.tolist()
    joined = concatenate([part.to_table(f"slice{index}") for index, part in enumerate(parts)])
    assert_same(joined, whole, labels=False)


def test_scan_reads_flags_alone(tmp_path: Path) -> None:
    """With timeouts, observations are not read: here they are unreadable."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for key, values in arrays_of(make_table((500, 300))).items():
            file.create_dataset(key, data=values, compression="gzip")
        begin = file["observations"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 64] = b"\0" * 64
    path.write_bytes(content)
    found = scan(locate(path))
    assert found.bounds.tolist() == [0, 500, 800]
    assert found.terminated.tolist() == [True, False]
    with pytest.raises(DataError, match="not readable as HDF5"):
        read_rows(locate(path), 0, 500)


def test_breaks_are_found_across_blocks_of_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v2a_ray.data.formats.d4rl.SCAN_ROWS", 4)
    table = make_table((4, 3, 1, 5), terminated=[False] * 4)
    path = write_hdf5(tmp_path / "a.hdf5", arrays_of(table, timeouts=False))
    assert scan(locate(path)).bounds.tolist() == table.offsets.tolist()


def test_one_group_per_trajectory_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    table = make_table((2,) * 12)
    shuffled = dict(reversed(trajectories(table).items()))
    assert_same(read_table(write_hdf5(tmp_path / "a.hdf5", shuffled)).table, table, labels=False)
    below = {f"data/{key}": values for key, values in shuffled.items()}
    assert_same(read_table(write_hdf5(tmp_path / "b.hdf5", below)).table, table, labels=False)


def test_trajectories_that_do_not_fit_together(tmp_path: Path) -> None:
    table = make_table((5, 3))
    arrays = trajectories(table)
    del arrays["traj_1/timeouts"]
    with pytest.raises(DataError, match="group traj_1 · field timeouts: missing, where other trajectories have it"):
        read_table(write_hdf5(tmp_path / "a.hdf5", arrays))
    arrays = trajectories(table) | {"traj_1/actions": np.zeros((3, 4))}
    with pytest.raises(DataError, match=r"group traj_1: \(observation, action\) dimensions differ"):
        read_table(write_hdf5(tmp_path / "b.hdf5", arrays))


def trajectories(table, **layout):
    """The arrays of every episode in its own group."""
    return {
        f"traj_{episode}/{key}": values
        for episode in range(table.num_episodes)
        for key, values in arrays_of(table.select([episode]), **layout).items()
    }
