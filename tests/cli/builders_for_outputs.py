"""Small real data to write from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.formats.readers import export_table
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains import parse_domain


@cache
def _episodes() -> EpisodeTable:
    hopper = parse_domain("hopper/stock")
    return EpisodeCollector(hopper, "random", policy_domain=hopper).collect(range(4))


def hdf5_file(path: Path) -> None:
    export_table(_episodes(), path, format="d4rl")


def table_folder(path: Path) -> None:
    export_table(_episodes(), path, format="parquet")
