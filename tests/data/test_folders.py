"""Listing, reading and detection agree for every folder on whether it is a dataset."""

from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.builders import arrays_of as flat_arrays
from tests.data.builders import assert_same, make_table, write_hdf5
from v2a_ray.data.formats.known_formats import detect_format
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.data.inspection.listing import list_datasets
from v2a_ray.data.table.episodes import concatenate
from v2a_ray.data.table.folder import write_table
from v2a_ray.errors import DataError

FIRST, SECOND = make_table((5, 3), source="first"), make_table((4,), seed=1, source="second")
WIDE = FIRST.replace(
    observation=np.tile(FIRST.observation, 2), next_observation=np.tile(FIRST.next_observation, 2), source=("wide",) * 2
)


def part(table, file: Path, columns=None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    arrow = table.to_arrow()
    pq.write_table(arrow.drop_columns(columns) if columns else arrow, file)


def subfolders(folder: Path) -> None:
    part(FIRST, folder / "a" / "part-0.parquet")
    part(SECOND, folder / "b" / "c" / "part-0.parquet")


def hive(folder: Path) -> None:
    """As DuckDB and pandas write: the files lack the column that the folder names give."""
    part(FIRST, folder / "source=first" / "part-0.parquet", ["source"])
    part(SECOND, folder / "source=second" / "part-0.parquet", ["source"])


def temporary_leftovers(folder: Path) -> None:
    subfolders(folder)
    part(SECOND, folder / "_temporary" / "0" / "part-0.parquet")
    part(SECOND, folder / ".old" / "part-0.parquet")
    (folder / "_SUCCESS").touch()


def with_validation(folder: Path) -> None:
    """As `v2a data mix` writes."""
    write_table(concatenate([FIRST, SECOND]), folder)
    write_table(SECOND, folder / "validation")


ONE = (subfolders, hive, temporary_leftovers, with_validation)


@pytest.mark.parametrize("make", ONE, ids=lambda make: make.__name__)
def test_one_dataset_of_parquet_files(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "data")
    assert_same(read_table(tmp_path / "data").table, concatenate([FIRST, SECOND]))
    write_hdf5(tmp_path / "z.hdf5", flat_arrays(FIRST))
    assert [(each.name, each.format) for each in list_datasets(tmp_path)] == [("data", "parquet"), ("z.hdf5", "d4rl")]
    assert [each.path for each in list_datasets(tmp_path / "data")] == [str(tmp_path / "data")]


def test_rllib_recordings_in_subfolders(tmp_path: Path) -> None:
    for index, table in enumerate((FIRST, SECOND)):
        export_table(table, tmp_path / "data" / f"run-{index}", format="rllib")
    assert read_table(tmp_path / "data").table.num_episodes == 3
    listed = [(each.path, each.format) for each in list_datasets(tmp_path / "data")]
    assert listed == [(str(tmp_path / "data"), "rllib")]


def tables(folder: Path) -> None:
    write_table(FIRST, folder / "a")
    write_table(SECOND, folder / "b")


def mixed_formats(folder: Path) -> None:
    part(FIRST, folder / "a" / "part-0.parquet")
    export_table(SECOND, folder / "b", format="rllib")


def two_robots(folder: Path) -> None:
    part(FIRST, folder / "a" / "part-0.parquet")
    part(WIDE, folder / "b" / "part-0.parquet")


def beside_hdf5(folder: Path) -> None:
    part(FIRST, folder / "a" / "part-0.parquet")
    write_hdf5(folder / "b", flat_arrays(SECOND)).rename(folder / "b.hdf5")


def beside_minari(folder: Path) -> None:
    part(FIRST, folder / "a" / "part-0.parquet")
    export_table(SECOND, folder / "b", format="minari")


SEVERAL = (tables, mixed_formats, two_robots, beside_hdf5, beside_minari)


@pytest.mark.parametrize("make", SEVERAL, ids=lambda make: make.__name__)
def test_a_place_for_datasets(make: Callable[[Path], None], tmp_path: Path) -> None:
    """No dataset in it is read as if it were the whole folder, and the message names the datasets of the list."""
    make(tmp_path)
    listed = [each.name for each in list_datasets(tmp_path)]
    assert len(listed) == 2 and not any(each.unreadable for each in list_datasets(tmp_path))
    for read in (detect_format, read_table):
        with pytest.raises(DataError, match="of its own; inside lie " + ", ".join(listed) + "\n") as caught:
            read(tmp_path)
        assert "data list" in str(caught.value.remedy)


@pytest.mark.filterwarnings("ignore:`")
@pytest.mark.parametrize("storage", ["arrow", "parquet"])
def test_minari_with_another_storage(storage, tmp_path: Path) -> None:
    """A folder that Minari wrote; no function takes it for a table, and every message has a remedy."""
    storages = pytest.importorskip("minari.dataset.minari_storage")
    buffers = pytest.importorskip("minari.data_collector.episode_buffer")
    spaces = (gymnasium.spaces.Box(-9, 9, (3,), np.float32), gymnasium.spaces.Box(-1, 1, (2,), np.float32))
    folder = tmp_path / "still-v0"
    (folder / "data").mkdir(parents=True)
    made = storages.MinariStorage.new(folder / "data", *spaces, data_format=storage)
    observations, actions = list(np.zeros((3, 3), np.float32)), list(np.zeros((2, 2), np.float32))
    flags = {"rewards": [0.0, 0.0], "terminations": [False, False], "truncations": [False, True]}
    made.update_episodes([buffers.EpisodeBuffer(id=0, observations=observations, actions=actions, **flags)])
    for path in (folder, folder / "data"):
        with pytest.raises(DataError, match=f"data_format '{storage}' is not read"):
            read_table(path)
    (listed,) = list_datasets(tmp_path)
    assert listed.name == "still-v0" and listed.unreadable
    assert listed.problems == f"data_format '{storage}' is not read"


def test_parts_of_two_widths_are_one_error(tmp_path: Path) -> None:
    part(FIRST, tmp_path / "a.parquet")
    part(WIDE, tmp_path / "b.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"b.parquet: has other \(observation, action\) dimensions than a.parquet"):
        read_table(tmp_path)


def test_a_folder_called_like_a_column(tmp_path: Path) -> None:
    part(FIRST, tmp_path / "length=5" / "domain=other" / "part-0.parquet")
    assert_same(read_table(tmp_path).table, FIRST)
