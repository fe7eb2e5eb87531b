"""Files that declare more than they hold, or are no files, give one message without allocating or waiting."""

import io
import json
import os
import warnings
import zipfile
from pathlib import Path

import h5py
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.builders import arrays_of, make_table, write_hdf5
from v2a_ray.data.formats import rllib
from v2a_ray.data.formats.numpy_msgpack import pack, unpack
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.data.inspection.inspect import inspect_datasets
from v2a_ray.data.inspection.listing import list_datasets
from v2a_ray.data.table.folder import read_row_groups, read_table_folder
from v2a_ray.errors import DataError
from v2a_ray.report.dataset_page import write_inspection


def test_an_hdf5_array_that_was_never_filled(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "a.hdf5", arrays_of(make_table((5,))))
    with h5py.File(path, "a") as file:
        for key in list(file):
            shape = (10**10, *file[key].shape[1:])
            del file[key]
            file.create_dataset(key, shape, "f4", chunks=(1000, *shape[1:]))
    with pytest.raises(DataError, match=r"claims [\d,]+,000,000,000 bytes, but the file stores 0"):
        read_table(path)


def test_an_npz_header_that_claims_more_than_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays_of(make_table((5,))))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(path) as old:
        kept = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in (kept | {"rewards.npy": header.getvalue()}).items():
            new.writestr(name, content)
    with pytest.raises(DataError, match="field rewards: claims 4,000,000,000,000 bytes"):
        read_table(path)
    (listed,) = list_datasets(tmp_path)
    assert listed.unreadable


def test_a_minari_episode_with_an_enormous_number(tmp_path: Path) -> None:
    export_table(make_table((5, 4)), tmp_path / "mine", format="minari")
    with h5py.File(tmp_path / "mine/data/main_data.hdf5", "a") as file:
        file.move("episode_1", "episode_99999999999999")
    (finding,) = read_table(tmp_path / "mine").findings
    assert "99999999999998 numbers are missing, the first is 1" in finding.message


def test_a_linked_trajectory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("traj_0", "traj_²"):
            for key, values in arrays_of(make_table((5,))).items():
                file[f"{name}/{key}"] = values
    assert read_table(path).table.num_episodes == 2
    with h5py.File(path, "a") as file:
        file["traj_1"] = h5py.SoftLink("/traj_0")
    with pytest.raises(DataError, match="traj_1: is a soft link"):
        read_table(path)


@pytest.mark.parametrize("group", ["/", "traj_0"])
def test_a_name_that_is_no_text(tmp_path: Path, group) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for key, values in arrays_of(make_table((5,))).items():
            file[f"{group}/{key}"] = values
        file[group].id.link(b"observations", b"\xff\xfe", h5py.h5g.LINK_HARD)
    with pytest.raises(DataError, match="holds a name that is not UTF-8"):
        read_table(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read_table(tmp_path / "a.hdf5")


def test_one_bad_manifest_does_not_hide_the_other_datasets(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_table(make_table((5,)), tmp_path / name, format="parquet")
    path = tmp_path / "a" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"return": None}))
    assert [each.unreadable for each in list_datasets(tmp_path)] == [True, False]


def test_an_npz_that_inflates_to_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    arrays = arrays_of(make_table((5,)))
    rows = 300 * 2**20 // 12
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, values in arrays.items():
            shape = (rows, *values.shape[1:])
            header = io.BytesIO()
            description = np.lib.format.dtype_to_descr(values.dtype)
            np.lib.format.write_array_header_1_0(header, {"descr": description, "fortran_order": False, "shape": shape})
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                member.write(header.getvalue())
                for _ in range(int(np.prod(shape)) * values.dtype.itemsize // 2**20 + 1):
                    member.write(bytes(2**20))
    assert path.stat().st_size < 6e6
    with pytest.raises(DataError, match="claims"):
        read_table(path)


def test_a_parquet_file_that_inflates_to_a_quarter_of_a_gigabyte(tmp_path: Path) -> None:
    """Runs of equal values take no space: 7 · 10^7 rewards are some kilobytes."""
    table = make_table((5,)).to_arrow()
    rewards = pa.ListArray.from_arrays([0, 7 * 10**7], pa.array(np.zeros(7 * 10**7, dtype=np.float32)))
    place = table.schema.get_field_index("reward")
    path = tmp_path / "bomb.parquet"
    pq.write_table(table.set_column(place, "reward", rewards), path, compression="zstd")
    assert path.stat().st_size < 1e6
    for reads in (read_table, read_table_folder, lambda path: list(read_row_groups(path))):
        with pytest.raises(DataError, match="claims"):
            reads(path)


@pytest.mark.parametrize("field", ["rewards", "observations", "actions"])
def test_an_rllib_episode_of_numbers_instead_of_arrays(tmp_path: Path, field) -> None:
    """`nd: false` marks a single NumPy number."""
    table = make_table((5,))
    state = rllib._state(table, 0)
    state[field]["data"] = np.float32(1.0)
    (tmp_path / "data").mkdir()
    column = pa.array([pack(state)], pa.binary())
    pq.write_table(pa.table({rllib.COLUMN: column}), tmp_path / "data" / "part.parquet")
    with pytest.raises(DataError, match="is no episode of vectors"):
        read_table(tmp_path / "data")


def test_a_packed_number_without_bytes() -> None:
    with pytest.raises(ValueError, match="no msgpack"):
        unpack(msgpack.packb({b"nd": False, b"type": "<f4", b"data": b""}))


@pytest.mark.parametrize("rewards", [np.full(5, 2**62, np.int64), np.full(5, 1e30, np.float32), np.full(5, 1e300)])
def test_rewards_of_any_size_are_looked_at(tmp_path: Path, rewards) -> None:
    arrays = arrays_of(make_table((5,)), timeouts=False) | {"rewards": rewards}
    path = write_hdf5(tmp_path / "a.hdf5", arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inspection = inspect_datasets([str(path)])
        write_inspection(tmp_path / "a.html", inspection)
    told = {finding.check for finding in inspection.findings}
    assert ("finite" in told) == (rewards.dtype == np.float64)
