"""Our own format in the registry: an episode table as a Parquet file or a folder of them."""

from __future__ import annotations

from pathlib import Path

from v2a_ray.data.checks import check_table
from v2a_ray.data.checks.findings import Reading
from v2a_ray.data.formats.folders import parquet_dataset
from v2a_ray.data.formats.location import Location, local_copy, locate
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import read_table_folder, write_table
from v2a_ray.errors import DataError
from v2a_ray.robot_interface import RobotInterface


def holds(location: Location) -> bool:
    """True for any Parquet file that no other format claims: `read` reports the columns that it lacks."""
    return not location.is_folder


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read a table and check it again: files may come from elsewhere."""
    with local_copy(location) as path:
        try:
            files = [Path(file.path) for file in parquet_dataset(locate(path))]
            table = read_table_folder(path, files)
        except DataError as error:
            # The user does not know the path of the local copy.
            raise DataError(
                error.what, where=error.where.replace(str(path), str(location)), remedy=error.remedy
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"holds damaged text: {error}", where=str(location), remedy="download or copy it again"
            ) from error
    return Reading(table, check_table(table, where=str(location), robot=robot))


def write(table: EpisodeTable, path: Path) -> None:
    """Write a table folder with its manifest."""
    write_table(table, path)
