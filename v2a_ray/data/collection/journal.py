"""Episodes that a collection has finished so far, so that a killed collection can resume.

The journal is a folder of part files and a `request.json` that describes the collection. A part's name holds the index
of its first episode and the SHA-256 of its bytes; it is renamed into place when complete. A damaged part is collected
again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from v2a_ray.checksums import file_digest, read_sealed, write_sealed
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import read_parts
from v2a_ray.files import sync, temporary_name
from v2a_ray.outputs import storage_errors

REQUEST = "request.json"


class EpisodeJournal:
    """The journal of one request in `folder`. A journal of another request in the same place is removed.

    Raises StorageError when the folder cannot be written.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        self.folder = folder
        with storage_errors(folder):
            if not self._is_of(request) and any(folder.glob("*.parquet")):
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            write_sealed(folder / REQUEST, request)

    def add(self, first_index: int, table: EpisodeTable) -> None:
        """Keep episodes `first_index`, `first_index` + 1, ... Raises StorageError when there is no space."""
        with storage_errors(self.folder):
            # Another process with the same request may have finished and removed the folder.
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = temporary_name(self.folder / f"{first_index:010d}")
            try:
                pq.write_table(table.to_arrow(), fresh, compression="none", use_dictionary=False)
                sync(fresh)
                fresh.replace(self.folder / f"{first_index:010d}.{file_digest(fresh)}.parquet")
            finally:
                fresh.unlink(missing_ok=True)

    def load(self) -> dict[int, EpisodeTable]:
        """The episodes of each part by the index of its first episode, in order."""
        parts = {}
        for file in sorted(self.folder.glob("*.parquet")):
            index, _, digest = file.stem.partition(".")
            if file_digest(file) == digest:
                parts[int(index)] = read_parts([file])
            else:
                file.unlink()
        return parts

    def _is_of(self, request: Mapping[str, Any]) -> bool:
        try:
            return read_sealed(self.folder / REQUEST) == dict(request)
        except (OSError, ValueError):
            return False
