"""Episodes that a collection has finished so far, so that one that was killed goes on from there.

A folder of part files named by the index of their first episode, each renamed into place when it is whole, and a
`request.json` that says what is being collected. A part that cannot be read is collected again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from v2a_ray.data.store import read_parts, storage_errors
from v2a_ray.data.table import EpisodeTable
from v2a_ray.errors import DataError
from v2a_ray.files import read_json, replacing, write_json

REQUEST = "request.json"


class EpisodeJournal:
    """The journal of one request in `folder`; one of another request, which is in the way, is removed.

    Raises StorageError when the folder cannot be written.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        self.folder = folder
        with storage_errors(folder):
            if not self._is_of(request) and any(folder.glob("*.parquet")):
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / REQUEST, dict(request))

    def add(self, first_index: int, table: EpisodeTable) -> None:
        """Keep episodes `first_index`, `first_index` + 1, ... Raises StorageError when there is no space."""
        path = self.folder / f"{first_index:010d}.parquet"
        with storage_errors(path):
            # Another process that collects the same may have finished and removed the folder.
            self.folder.mkdir(parents=True, exist_ok=True)
        with storage_errors(path), replacing(path) as partial:
            pq.write_table(table.to_arrow(), partial, compression="none", use_dictionary=False)

    def load(self) -> dict[int, EpisodeTable]:
        """Index of the first episode to episodes, in order."""
        parts = {}
        for file in sorted(self.folder.glob("*.parquet")):
            try:
                parts[int(file.stem)] = read_parts([file])
            except (DataError, ValueError):
                file.unlink()
        return parts

    def _is_of(self, request: Mapping[str, Any]) -> bool:
        try:
            return bool(read_json(self.folder / REQUEST) == dict(request))
        except (OSError, ValueError):
            return False
