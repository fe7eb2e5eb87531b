"""Any defect of a file, in any format, raises one DataError or StorageError and leaves no partial file."""

import io
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from tests.data.another_user import message_to_another_user
from tests.data.builders import arrays_of, assert_same, make_table, store, write_hdf5
from v2a_ray.data.formats.known_formats import FORMATS
from v2a_ray.data.formats.location import locate
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.errors import DataError, StorageError

every_format = pytest.mark.parametrize("name", FORMATS)
FILES = {"minari": "data/main_data.hdf5", "lerobot": "data/chunk-000/file-000.parquet"}
written_formats = pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].is_written])


def stored(name, folder, table=None):
    """A dataset of this format, and the file in it that holds the data."""
    path = folder / f"data{(*FORMATS[name].suffixes, '')[0]}"
    store(table or make_table((50, 1, 40)), path, name)
    return path, path if path.is_file() else path / FILES.get(name, "part-00000.parquet")


def fails(path, message=".", kind=DataError, **options):
    """Reading raises one error with a place and a remedy."""
    with pytest.raises(kind, match=message) as caught:
        read_table(path, **options)
    assert caught.value.where and caught.value.remedy
    assert "\n" not in caught.value.what
    return caught.value


@every_format
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_truncated(name, part, tmp_path: Path) -> None:
    path, file = stored(name, tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: max(9, int(len(content) * part))])
    fails(path)
    fails(path, format=name)


@every_format
def test_damaged(name, tmp_path: Path) -> None:
    """Changed bytes are reported, or only change values within a complete table."""
    path, file = stored(name, tmp_path)
    content = file.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(content)
        begin = int(generator.integers(8, len(content) - 64))
        damaged[begin : begin + 64] = generator.bytes(64)
        file.write_bytes(damaged)
        try:
            table = read_table(path).table
        except DataError as error:
            assert error.where and error.remedy
        else:
            assert np.isfinite(table.observation).all()


@every_format
def test_pickle_in_disguise(name, tmp_path: Path) -> None:
    path, file = stored(name, tmp_path)
    file.write_bytes(pickle.dumps({"observations": np.zeros(3)}))
    fails(path)
    fails(path, format=name)


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].magic])
def test_wrong_magic(name, tmp_path: Path) -> None:
    path, file = stored(name, tmp_path)
    file.write_bytes(b"GIF89a" + file.read_bytes()[6:])
    fails(path)
    fails(path, format=name)


@every_format
def test_empty_file_and_empty_folder(name, tmp_path: Path) -> None:
    path, file = stored(name, tmp_path)
    file.write_bytes(b"")
    fails(path)
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "is a folder without a dataset")
    fails(tmp_path / "empty", format=name)


@every_format
def test_directory_instead_of_a_file(name, tmp_path: Path) -> None:
    path, file = stored(name, tmp_path)
    file.unlink()
    file.mkdir()
    fails(path)
    fails(path, format=name)


@every_format
def test_link_loop_and_absent(name, tmp_path: Path) -> None:
    path, file = stored(name, tmp_path)
    file.unlink()
    file.symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(file)
    fails(path)
    fails(path, format=name)
    fails(tmp_path / "absent", "no such file", format=name)
    fails(tmp_path / "absent", "no such file")


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].folder and FORMATS[name].is_written])
def test_link_out_of_the_folder(name, tmp_path: Path) -> None:
    path, file = stored(name, tmp_path)
    shutil.move(file, tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    fails(path, "leads out of its dataset's folder, to .*elsewhere")
    # A link that stays inside is followed.
    file.unlink()
    shutil.move(tmp_path / "elsewhere", file.with_suffix(".moved"))
    file.symlink_to(file.with_suffix(".moved").name)
    assert read_table(path).table.num_episodes == 3


@every_format
def test_unreadable(name, tmp_path: Path) -> None:
    path, file = stored(name, tmp_path)
    file.chmod(0)
    said = message_to_another_user(lambda: read_table(path, format=name), tmp_path)
    assert "ermission denied" in said and not said.startswith("unexpected")


@every_format
def test_nan_and_infinity(name, tmp_path: Path) -> None:
    for field, episode, step, value in (("observation", 0, 7, np.nan), ("reward", 2, 3, np.inf)):
        table = make_table((50, 1, 40))
        values = getattr(table, field).copy()
        values[table.offsets[episode] + step] = value
        path, _ = stored(name, tmp_path, table.replace(**{field: values}))
        # Without next_observations the value also belongs to the previous step.
        fails(path, rf"episode {episode} · step {step} · field {field}: value {value}")


@every_format
def test_a_single_step(name, tmp_path: Path) -> None:
    table = make_table((1,))
    path, _ = stored(name, tmp_path, table)
    assert_same(read_table(path).table, table, labels=FORMATS[name].keeps_labels)


LIMIT_BYTES = 2000
WRITE = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from tests.data.builders import make_table
from v2a_ray.data.formats.known_formats import FORMATS
from v2a_ray.data.formats.readers import export_table
from v2a_ray.errors import StorageError
table = make_table((500,) * 4)
FORMATS[{name!r}].load()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    export_table(table, {path!r}, format={name!r})
except StorageError as error:
    said = "cannot be written: " in str(error) and "File too large" in str(error)
    sys.exit(0 if said else f"another message: {{error}}")
sys.exit("written")
"""


@written_formats
@pytest.mark.parametrize("before", [pytest.param(False, marks=pytest.mark.slow), True])
def test_disk_full(name, before, tmp_path: Path) -> None:
    """When the disk is full in the middle of writing: one message, no partial file, and the old file stays."""
    path = tmp_path / "out" / "data"
    path.parent.mkdir()
    if before:
        export_table(make_table((2, 3)), path, format=name)
    script = WRITE.format(tests=str(Path(__file__).parent), name=name, path=str(path), limit=LIMIT_BYTES)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in path.parent.iterdir()] == ["data"] * before
    if before:
        assert read_table(path, format=name).table.num_transitions == 5


@written_formats
def test_writing_where_one_cannot(name, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written") as caught:
        export_table(make_table(), tmp_path / "file" / "data", format=name)
    assert caught.value.remedy


@written_formats
def test_a_broken_upload_leaves_nothing(name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bucket").mkdir()
    below = fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem())
    copy = fs.copy_files

    def interrupted(*arguments, **options) -> None:
        copy(*arguments, **options)
        raise OSError("connection reset")

    monkeypatch.setattr(fs, "copy_files", interrupted)
    with pytest.raises(StorageError, match="cannot be written: connection reset"):
        export_table(make_table(), locate("data", below), format=name)
    assert list((tmp_path / "bucket").iterdir()) == []


def hdf5_without(path, *keys):
    arrays = {key: values for key, values in arrays_of(make_table()).items() if key not in keys}
    return write_hdf5(path, arrays)


def test_hdf5_never_leads_out_of_the_file(tmp_path: Path) -> None:
    """External, soft and virtual data are refused before the file that they point to is opened."""
    other = hdf5_without(tmp_path / "other.hdf5")
    rewards = arrays_of(make_table())["rewards"]
    (tmp_path / "raw").write_bytes(rewards.tobytes())
    layout = h5py.VirtualLayout(shape=rewards.shape, dtype=rewards.dtype)
    layout[:] = h5py.VirtualSource(str(other), "rewards", shape=rewards.shape)
    makers = {
        "is a link to another file": lambda file: file.__setitem__(
            "rewards", h5py.ExternalLink("other.hdf5", "rewards")
        ),
        "is a soft link": lambda file: file.__setitem__("rewards", h5py.SoftLink("/elsewhere/rewards")),
        "keeps its values in another file": lambda file: file.create_virtual_dataset("rewards", layout),
        "keeps its values in another": lambda file: file.create_dataset(
            "rewards", rewards.shape, rewards.dtype, external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
        ),
    }
    for index, (message, make) in enumerate(makers.items()):
        path = hdf5_without(tmp_path / f"{index}.hdf5", "rewards")
        with h5py.File(path, "a") as file:
            file["elsewhere"] = h5py.ExternalLink("other.hdf5", "/")
            make(file)
        fails(path, f"field rewards: {message}")


def test_trajectory_groups_that_are_links(tmp_path: Path) -> None:
    hdf5_without(tmp_path / "other.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["traj_0"] = h5py.ExternalLink("other.hdf5", "/")
        file["episode_0"] = h5py.ExternalLink("other.hdf5", "/")
    fails(tmp_path / "a.hdf5", "field episode_0: is a link to another file")
    fails(tmp_path / "a.hdf5", "field episode_0: is a link to another file", format="d4rl")


@pytest.mark.parametrize("key", ["terminals", "timeouts"])
def test_flags_that_are_no_flags(key, tmp_path: Path) -> None:
    arrays = arrays_of(make_table())
    arrays[key] = arrays[key].astype(float)
    arrays[key][7] = np.nan
    fails(write_hdf5(tmp_path / "a.hdf5", arrays), f"row 7 · field {key}: value nan is no flag")
    np.savez(tmp_path / "a.npz", **arrays)
    fails(tmp_path / "a.npz", f"row 7 · field {key}: value nan is no flag")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rewards": None}, "field rewards: missing"),
        ({"actions": np.zeros(12)}, r"field actions: has shape \(12,\)"),
        ({"rewards": np.float32(1)}, r"field rewards: has shape \(\)"),
        ({"observations": np.zeros((0, 3))}, "field observations: holds zero rows"),
        ({"rewards": np.zeros(7)}, "field rewards: has 7 rows where observations has 12"),
        ({"rewards": np.asarray(["a"] * 12)}, "field rewards: holds <U1, not numbers"),
        ({"rewards": np.asarray([1.0, "a"] * 6, dtype=object)}, "field rewards: holds object, not numbers"),
    ],
)
def test_bad_npz(changes, message, tmp_path: Path) -> None:
    arrays = {key: values for key, values in (arrays_of(make_table()) | changes).items() if values is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    fails(tmp_path / "a.npz", message)


def test_npz_that_is_one_array_or_any_archive(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    fails(tmp_path / "a.npz", "is of no known format")
    fails(tmp_path / "a.npz", "is not npz", format="npz")
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path, "a.npz")
    fails(tmp_path / "b.zip", "field observations: missing")


def test_parquet_that_is_no_table(tmp_path: Path) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    fails(tmp_path / "a.parquet", "column episode_id, .* missing")
