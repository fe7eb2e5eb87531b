"""Our own format in the registry of readers: an episode table as a Parquet file or a folder of them."""

from __future__ import annotations

from pathlib import Path

from v2a_ray.data.checks import check_table
from v2a_ray.data.findings import Reading, RobotLike
from v2a_ray.data.store import read_table_folder, write_table
from v2a_ray.data.table import EpisodeTable


def read(path: Path, robot: RobotLike | None) -> Reading:
    """Read a table and check it again: files may come from elsewhere."""
    table = read_table_folder(path)
    return Reading(table, check_table(table, where=str(path), robot=robot))


def write(table: EpisodeTable, path: Path) -> None:
    """Write a table folder with its manifest."""
    write_table(table, path)
