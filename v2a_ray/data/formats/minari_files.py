"""The files and metadata of a Minari dataset's folder, without HDF5."""

from __future__ import annotations

from typing import Any

from pyarrow.fs import FileType

from v2a_ray.data.formats.location import Location, reading
from v2a_ray.errors import DataError
from v2a_ray.files import parse_json

MAIN_FILE, METADATA = "main_data.hdf5", "metadata.json"
METADATA_PARTS = (f"data/{METADATA}", METADATA)
MAX_METADATA_BYTES = 16 * 2**20


def is_minari_folder(location: Location) -> bool:
    """Whether it is a dataset's folder, or its `data` folder.

    True also for a dataset with Arrow or Parquet files, which we do not read, so that the error can name Minari.
    """
    return main_file(location) is not None or any(is_metadata(location / part) for part in METADATA_PARTS)


def main_file(location: Location) -> Location | None:
    """The data of a dataset's folder or of its `data` folder. Raises DataError if it is a link out of the folder."""
    for part in (f"data/{MAIN_FILE}", MAIN_FILE):
        if (location / part).exists():
            return location.member(part)
    return None


def read_metadata(location: Location) -> dict[str, Any]:
    """The dataset's metadata; empty for older datasets without any. Raises DataError if they are unusable."""
    for part in METADATA_PARTS:
        if not (location / part).exists():
            continue
        file = location.member(part)
        with reading(file), file.open() as stream:
            content = stream.read()
        try:
            metadata = parse_json(content)
        except ValueError as error:
            raise DataError(f"is no JSON: {error}", where=str(file), remedy="download the dataset again") from error
        if not isinstance(metadata, dict):
            raise DataError("is no JSON object", where=str(file), remedy="download the dataset again")
        if metadata.get("data_format", "hdf5") != "hdf5":
            raise DataError(
                f"data_format {metadata['data_format']!r} is not read",
                where=str(file),
                remedy='write it again with Minari\'s `data_format="hdf5"`',
            )
        return metadata
    return {}


def is_metadata(file: Location) -> bool:
    """Whether a file is the metadata of a Minari dataset; the name `metadata.json` alone does not show it."""
    if file.kind() != FileType.File:
        return False
    with reading(file), file.open() as stream:
        try:
            content = parse_json(stream.read(MAX_METADATA_BYTES))
        except ValueError:
            return False
    return isinstance(content, dict) and bool({"minari_version", "data_format"} & set(content))
