"""Decides whether a folder is one dataset or only contains datasets. All code that accepts a folder uses this module.

A folder with our manifest is a table that consists of the files directly in it. Any other folder is a dataset if all
data in it, at any depth, are Parquet files of one layout, because RLlib and Hive write subfolders. If anything inside
is a dataset by itself, the folder is not one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from v2a_ray.data.formats.lerobot_files import INFO
from v2a_ray.data.formats.location import Location
from v2a_ray.data.formats.minari_files import MAIN_FILE, METADATA, is_metadata
from v2a_ray.data.formats.parquet_files import agree, layout
from v2a_ray.data.table.folder import MANIFEST
from v2a_ray.errors import DataError

SINGLE_FILES = (".hdf5", ".h5", ".npz")
MAX_NAMED = 5


@dataclass(frozen=True)
class Contents:
    """The data in a folder.

    Attributes:
        parquet: the Parquet files that form one dataset, in order; empty if the folder is not a Parquet dataset.
        datasets: names of files and folders inside that are datasets by themselves, so that the folder is not one.
    """

    parquet: Sequence[Location] = ()
    datasets: Sequence[str] = ()


def contents_of(folder: Location) -> Contents:
    """The data in a folder that is no Minari dataset. Raises DataError if something in it cannot be read."""
    names = folder.names()
    if MANIFEST in names:
        return Contents([folder.member(name) for name in names if name.endswith(".parquet") and "/" not in name])
    inner = {_parent(name) for name in names if name.rpartition("/")[2] in (MANIFEST, MAIN_FILE)}
    inner |= {_parent(name) for name in names if name.endswith(f"data/{METADATA}") and is_metadata(folder / name)}
    inner = {name.removesuffix("/data") for name in inner}
    inner |= {name.removesuffix(f"/{INFO}") for name in names if name.endswith(f"/{INFO}")}
    singles = {name for name in names if name.endswith(SINGLE_FILES) and not _is_below(name, inner)}
    parquet = [name for name in names if name.endswith(".parquet") and not _is_below(name, inner)]
    if not inner and not singles:
        files = [folder.member(name) for name in parquet]
        # Only one file of each subfolder is opened, because opening thousands of remote files takes long.
        first = {_parent(file.path) if "/" in name else name: file for name, file in zip(parquet, files, strict=True)}
        layouts = [layout(file) for file in first.values()]
        if all(agree(layouts[0], other) for other in layouts):
            return Contents(files)
    return Contents(datasets=sorted(inner | singles | {name.partition("/")[0] for name in parquet}))


def parquet_dataset(location: Location) -> Sequence[Location]:
    """The Parquet files of a dataset: the file, or the files of a folder. Raises DataError if it is no such dataset."""
    if not location.is_folder:
        return [location]
    found = contents_of(location)
    if not found.parquet:
        raise no_dataset(location, found)
    return found.parquet


def no_dataset(location: Location, found: Contents) -> DataError:
    """The error for a folder that is no dataset; it names the datasets inside."""
    named = ", ".join(found.datasets[:MAX_NAMED])
    named += f" and {len(found.datasets) - MAX_NAMED} more" if len(found.datasets) > MAX_NAMED else ""
    return DataError(
        "is a folder without a dataset" + (f" of its own; inside lie {named}" if named else ""),
        where=str(location),
        remedy="give one of those; `v2a data list` shows them" if named else "give a file, or a folder with data in it",
    )


def _is_below(name: str, folders: set[str]) -> bool:
    return any(name.startswith(f"{folder}/") for folder in folders)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
