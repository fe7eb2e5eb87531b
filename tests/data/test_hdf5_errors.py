"""Each cause for which an HDF5 file cannot be read has its own message and its own remedy."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.data.another_user import message_to_another_user
from tests.data.builders import arrays_of, assert_same, make_table, write_hdf5
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.data.inspection.listing import list_datasets
from v2a_ray.errors import DataError


@pytest.fixture
def path(tmp_path: Path):
    return write_hdf5(tmp_path / "a.hdf5", arrays_of(make_table((50, 40))))


def fails(path, message, remedy, **options) -> None:
    """Reading raises this error, and listing shows its message as far as there is room."""
    with pytest.raises(DataError, match=message) as caught:
        read_table(path, **options)
    assert remedy in caught.value.remedy
    assert "\n" not in caught.value.what
    if not options:
        (listed,) = list_datasets(path.parent)
        assert listed.unreadable and listed.problems in str(caught.value)


def compress(path, code, name=b"") -> None:
    """Replace the rewards by an array that claims to be compressed by a filter."""
    with h5py.File(path, "a") as file:
        count = len(file["rewards"])
        del file["rewards"]
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((count,))
        settings.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple((count,))
        h5py.h5d.create(file.id, b"rewards", h5py.h5t.IEEE_F32LE, space, settings).write_direct_chunk((0,), b"\0" * 9)


def test_a_filter_that_is_not_installed(path) -> None:
    compress(path, 32099)
    fails(path, r"field rewards: is compressed by HDF5 filter 32099 \(of unknown name\), which is not", "hdf5plugin")


def test_a_type_that_numpy_lacks(path) -> None:
    with h5py.File(path, "a") as file:
        count = len(file["rewards"])
        del file["rewards"]
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_ebias(100_000)
        h5py.h5d.create(file.id, b"rewards", kind, h5py.h5s.create_simple((count,)))
    fails(path, "field rewards: is of a type that numpy lacks", "float32")


def test_a_file_that_another_process_writes(path) -> None:
    script = f"import h5py, sys; file = h5py.File({str(path)!r}, 'a'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        fails(path, "is locked: another process has it open for writing", "wait until that has closed it")
        writer.stdin.close()
    assert read_table(path).table.num_episodes == 2


def test_a_file_whose_writer_was_killed(path) -> None:
    """With the newest format, HDF5 keeps a flag in the file."""
    script = (
        "import h5py, os, sys\n"
        f"file = h5py.File({str(path)!r}, 'w', libver='latest'); file['x'] = [1.0]; file.flush(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    fails(path, "was not closed by the program that writes it", "h5clear")


def test_no_permission_inside_of_a_dataset(tmp_path: Path) -> None:
    export_table(make_table(), tmp_path / "data", format="minari")
    (tmp_path / "data" / "data" / "main_data.hdf5").chmod(0)
    said = message_to_another_user(lambda: read_table(tmp_path / "data"), tmp_path)
    assert said.startswith("cannot be read: Permission denied · ") and said.endswith("permissions")


@pytest.mark.parametrize("size", [512, 4096])
def test_a_user_block_is_skipped(size, tmp_path: Path) -> None:
    table = make_table((50, 40))
    with h5py.File(tmp_path / "a.hdf5", "w", userblock_size=size) as file:
        for key, values in arrays_of(table).items():
            file[key] = values
    with (tmp_path / "a.hdf5").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    assert_same(read_table(tmp_path / "a.hdf5").table, table, labels=False)
    assert_same(read_table(f"file://{tmp_path}/a.hdf5", format="d4rl").table, table, labels=False)
    assert [each.num_episodes for each in list_datasets(tmp_path)] == [2]


def test_arrays_that_matlab_stored_columns_first(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w", userblock_size=512) as file:
        for key, values in arrays_of(make_table((50, 40))).items():
            file[key] = np.atleast_2d(values.T).astype(float)
            file[key].attrs["MATLAB_class"] = np.bytes_("double")
    with pytest.raises(DataError, match="field observations: lies transposed, 3 rows of 90") as caught:
        read_table(tmp_path / "a.hdf5")
    assert "transpose every array" in caught.value.remedy


def test_truncated(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:1500])
    fails(path, f"it ends after 1,500 of {len(content):,} bytes", "download or copy it again")


def test_a_damaged_chunk(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    export_table(make_table((50, 40)), path)
    with h5py.File(path) as file:
        begin = file["rewards"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 32] = b"\1" * 32
    path.write_bytes(content)
    fails(path, "it is damaged", "download or copy it again")


def test_no_hdf5_and_a_newer_one(path) -> None:
    content = bytearray(path.read_bytes())
    content[8] = 99
    path.write_bytes(content)
    fails(path, "is of an HDF5 version newer than this h5py's", "update h5py")
    path.write_bytes(b"no data at all, but long enough to hold a user block" * 40)
    fails(path, "is of no known format", "known formats")
