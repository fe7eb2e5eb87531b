"""Each defect of a file raises one DataError that names the place."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.builders import arrays_of, make_table, write_hdf5
from v2a_ray.data.formats.readers import read_table
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError


def changed(**changes):
    """A good file's arrays with some replaced, or removed by None."""
    return {key: values for key, values in (arrays_of(make_table()) | changes).items() if values is not None}


def with_value(key, row, column, value):
    values = arrays_of(make_table())[key].copy()
    values[row, column] = value
    return {key: values}


BAD_ARRAYS = {
    "missing key": ({"rewards": None}, "field rewards: missing"),
    "wrong rank": ({"actions": np.zeros(12)}, r"field actions: has shape \(12,\), expected \(rows, features\)"),
    "0-d": ({"rewards": np.float32(1)}, r"field rewards: has shape \(\)"),
    "wide reward": ({"rewards": np.zeros((12, 2))}, r"field rewards: has shape \(12, 2\)"),
    "zero rows": ({"observations": np.zeros((0, 3))}, "field observations: holds zero rows"),
    "unequal rows": ({"rewards": np.zeros(7)}, "field rewards: has 7 rows where observations has 12"),
    "unequal features": ({"next_observations": np.zeros((12, 4))}, "has 4 features where observations has 3"),
    "text": ({"rewards": np.asarray([b"a"] * 12)}, "field rewards: holds .*not numbers"),
    "object": ({"rewards": np.asarray(["a"] * 12, dtype=h5py.string_dtype())}, "field rewards: holds object"),
    "nan": (with_value("observations", 6, 1, np.nan), "row 6 · episode 1 · step 1 · field observation: value nan"),
    "inf": (with_value("next_observations", 4, 0, np.inf), "episode 0 · step 4 · field next_observation: value inf"),
    "bounds": (with_value("actions", 9, 1, 1.5), "episode 2 · step 1 · field action: value 1.5 in column 1"),
}


@pytest.mark.parametrize("changes, message", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays(changes, message, tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "bad.hdf5", changed(**changes))
    with pytest.raises(DataError, match=message) as caught:
        read_table(path)
    assert "bad.hdf5" in caught.value.where
    assert caught.value.remedy


def test_truncated_file(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.hdf5", changed())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="not readable as HDF5"):
        read_table(path)


def test_damaged_chunk(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for key, values in arrays_of(make_table((5000,))).items():
            file.create_dataset(key, data=values, compression="gzip")
        begin = file["actions"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 64] = b"\0" * 64
    path.write_bytes(content)
    with pytest.raises(DataError, match="not readable as HDF5"):
        read_table(path)


def test_group_and_external_link_in_place_of_an_array(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.hdf5", changed(rewards=None))
    with h5py.File(path, "a") as file:
        file.create_group("rewards")
    with pytest.raises(DataError, match="is a group"):
        read_table(path)
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file["rewards"] = h5py.ExternalLink("other.hdf5", "/rewards")
    with pytest.raises(DataError, match=r"(link to another file|missing)"):
        read_table(path)


def test_files_that_are_no_data(tmp_path: Path) -> None:
    disguised = tmp_path / "pickle.hdf5"
    disguised.write_bytes(pickle.dumps({"observations": [1, 2, 3]}))
    empty = tmp_path / "empty.hdf5"
    empty.touch()
    for path, message in (
        (disguised, "is of no known format"),
        (empty, "is empty"),
        (tmp_path, "is a folder without a dataset"),
        (tmp_path / "absent.hdf5", "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(path)


def test_link_loop(tmp_path: Path) -> None:
    (tmp_path / "a.hdf5").symlink_to(tmp_path / "b.hdf5")
    (tmp_path / "b.hdf5").symlink_to(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "a.hdf5")


def test_dimensions_of_another_robot(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.hdf5", changed())
    with pytest.raises(DataError, match=r"field observation: has 3 features, hopper has 11 \(and 1 more problem\)"):
        read_table(path, robot=parse_domain("hopper").robot_spec)


def drop_reward(arrow):
    return arrow.drop_columns(["reward"])


def shorten_length(arrow):
    lengths = arrow["length"].to_pylist()
    return arrow.set_column(1, "length", pa.array([lengths[0] - 1, *lengths[1:]], pa.int32()))


def repeat_id(arrow):
    return arrow.set_column(0, "episode_id", pa.array(["same"] * arrow.num_rows))


def null_flag(arrow):
    return arrow.set_column(6, "terminated", pa.array([None] * arrow.num_rows, pa.bool_()))


def misalign(arrow):
    values = arrow["next_observation"].to_pylist()
    values[1][0][2] += 1.0
    return arrow.set_column(5, "next_observation", pa.array(values, arrow.schema.field(5).type))


def null_step(arrow):
    values = arrow["action"].to_pylist()
    values[1][2] = None
    return arrow.set_column(3, "action", pa.array(values, pa.list_(pa.list_(pa.float32(), len(values[0][0])))))


BAD_TABLES = [
    (null_step, "episode 1 · step 2 · field action: is null"),
    (lambda arrow: arrow.append_column("reward", arrow["reward"]), "column reward is there twice"),
    (drop_reward, "column reward missing"),
    (shorten_length, "episode 0 · field observation: has 5 steps where length says 4"),
    (repeat_id, "field episode_id: names an episode twice"),
    (null_flag, "field terminated: has null entries"),
    (misalign, "episode 1 · step 0 · field next_observation: .* is not the next step's observation"),
    (lambda arrow: arrow.slice(0, 0), "holds zero rows"),
]


@pytest.mark.parametrize("change, message", BAD_TABLES)
def test_bad_parquet(change, message, tmp_path: Path) -> None:
    pq.write_table(change(make_table().to_arrow()), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.parquet")


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(make_table().to_arrow(), path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="not readable as Parquet"):
        read_table(path)
