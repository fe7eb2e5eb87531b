"""The contract of every registered format: found by looking, round trip, from anywhere, checked when read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from tests.data.builders import arrays_of, assert_same, make_table, store, write_hdf5
from v2a_ray.data.formats.known_formats import FORMATS, detect_format
from v2a_ray.data.formats.location import locate
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=12)
every_format = pytest.mark.parametrize("name", FORMATS)
LABELS = {"source": "a source", "domain": "hopper/stock@d4rl", "behavior": "medium"}


def labelled_table():
    """With a one-step episode, and labels."""
    return make_table((5, 1, 4, 7)).labelled(**LABELS)


def stored(name: str, folder: Path) -> Path:
    """A dataset in this format, named as formats of its kind are."""
    path = folder / f"data{(*FORMATS[name].suffixes, '')[0]}"
    store(labelled_table(), path, name)
    return path


@every_format
def test_round_trip(name, tmp_path: Path) -> None:
    path = stored(name, tmp_path)
    assert detect_format(path).name == name
    for chosen in (None, name):
        reading = read_table(path, format=chosen)
        assert_same(reading.table, labelled_table(), labels=FORMATS[name].keeps_labels)
        assert reading.findings == []
        assert reading.ordered
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "temporary files are left"


@every_format
def test_writing_again_replaces(name, tmp_path: Path) -> None:
    path = stored(name, tmp_path)
    smaller = make_table((3, 2), seed=1)
    store(smaller, path, name)
    assert_same(read_table(path).table, smaller, labels=FORMATS[name].keeps_labels)


@every_format
@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_uri(name, scheme, tmp_path: Path) -> None:
    uri = f"{scheme}://{tmp_path}/{name}/data"
    try:
        store(labelled_table(), uri, name)
        table = read_table(uri).table
    finally:
        if scheme == "memory":
            fsspec.filesystem("memory").store.clear()
    assert_same(table, labelled_table(), labels=FORMATS[name].keeps_labels)


@every_format
def test_pyarrow_filesystem(name, tmp_path: Path) -> None:
    path = stored(name, tmp_path)
    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    table = read_table(path.name, filesystem=below).table
    assert_same(table, labelled_table(), labels=FORMATS[name].keeps_labels)


@every_format
def test_checks_fire(name, tmp_path: Path) -> None:
    table = labelled_table()
    action = table.action.copy()
    action[6, 1] = 1.5
    path = tmp_path / "data"
    store(table.replace(action=action), path, name)
    with pytest.raises(DataError, match=r"episode 2 · step 0 · field action: value 1\.5 in column 1"):
        read_table(path)
    with pytest.raises(DataError, match="has 3 features, hopper has 11"):
        read_table(stored(name, tmp_path), robot=parse_domain("hopper").robot_spec)


@every_format
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.builds(
        make_table,
        st.lists(st.integers(1, 6), min_size=1, max_size=12),
        seed=st.integers(0, 1000),
        source=st.just("ü s"),
    ),
    shift=st.sampled_from([0.0, 1e-30, 1e6]),
)
def test_any_table_round_trips(name, table, shift, tmp_path: Path) -> None:
    table = table.replace(reward=table.reward + np.float32(shift))
    path = tmp_path / "data"
    store(table, path, name)
    assert_same(read_table(path, format=name).table, table, labels=FORMATS[name].keeps_labels)


@every_format
def test_terminated_and_cut_episodes_are_told_apart(name, tmp_path: Path) -> None:
    table = make_table((2, 2, 1, 1), terminated=[True, False, False, True])
    store(table, tmp_path / "data", name)
    read = read_table(tmp_path / "data").table
    assert read.terminated.tolist() == [True, False, False, True]
    assert read.truncated.tolist() == [False, True, True, False]


def test_the_ending_chooses_the_format(tmp_path: Path) -> None:
    assert export_table(labelled_table(), tmp_path / "a.hdf5") == "d4rl"
    assert export_table(labelled_table(), tmp_path / "a.npz") == "npz"
    with pytest.raises(DataError, match="csv is read only"):
        export_table(labelled_table(), tmp_path / "a.csv")
    for path in (tmp_path / "a.xlsx", tmp_path / "a"):
        with pytest.raises(
            DataError,
            match=r"known formats: minari \(folder\), robomimic \(HDF5\), d4rl \(\.hdf5 \.h5\), npz",
        ):
            export_table(labelled_table(), path)
    with pytest.raises(DataError, match="there is no format 'xlsx'"):
        read_table(tmp_path / "a.npz", format="xlsx")
    with pytest.raises(DataError, match=r"a\.npz: is not d4rl: it begins with b'PK"):
        read_table(tmp_path / "a.npz", format="d4rl")
    with pytest.raises(DataError, match="is a folder, and d4rl is one file"):
        read_table(tmp_path, format="d4rl")


def test_addresses_that_are_none() -> None:
    for address, message in (
        ("nonsense://bucket/a", "not a usable address"),
        ("minari://../../etc", "is no id of a Minari dataset"),
        ("minari://D4RL/hopper", "is no id of a Minari dataset"),
        ("file:///nowhere/a.hdf5", "no such file"),
        ("memory://nowhere/a.hdf5", "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(address)


def test_formats_are_imported_when_used() -> None:
    heavy = "[name for name in sys.modules if 'h5py' in name or 'msgpack' in name]"
    script = f"import sys, v2a_ray.data.formats.readers; print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_manifest_of_a_copied_table(tmp_path: Path) -> None:
    """A manifest that disagrees with its parts is said also when the table is read from a URI."""
    path = stored("parquet", tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"num_episodes": 9}))
    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    for location in (locate(path), locate("data.parquet", below)):
        with pytest.raises(DataError, match=r"holds 4 episodes .* where its manifest says 9") as caught:
            read_table(location)
        assert caught.value.where == str(location)
    shutil.rmtree(path)


def test_nested_keys_in_one_group(tmp_path: Path) -> None:
    table = make_table((5, 3))
    path = write_hdf5(tmp_path / "a.hdf5", {f"data/{key}": values for key, values in arrays_of(table).items()})
    assert_same(read_table(path).table, table, labels=False)
