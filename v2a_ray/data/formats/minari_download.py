"""Published Minari datasets by id (`minari://D4RL/hopper/medium-v0`), through the optional package `minari`."""

from __future__ import annotations

import re
from pathlib import Path

from v2a_ray.data.formats.location import Location, locate
from v2a_ray.errors import DataError

ID = re.compile(r"[\w-]+(/[\w-]+)*-v\d+")


def download(dataset_id: str) -> Location:
    """The local folder of a dataset, downloaded into Minari's own folder if it is missing.

    Raises DataError if the id does not exist, the network fails, or the package is not installed.
    """
    where = f"minari://{dataset_id}"
    if not ID.fullmatch(dataset_id):
        raise DataError(
            "is no id of a Minari dataset", where=where, remedy="for example minari://D4RL/hopper/medium-v0"
        )
    try:
        import minari
        from minari.storage import get_dataset_path
    except ImportError as error:
        raise DataError("needs the package minari", where=where, remedy="pip install 'v2a_ray[minari]'") from error
    folder = Path(get_dataset_path(dataset_id))
    if not (folder / "data").exists():
        try:
            minari.download_dataset(dataset_id)
        # Minari's servers answer through several clients, each with its own exceptions.
        except Exception as error:
            message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(
                f"cannot be downloaded: {message}", where=where, remedy="check the id and the network"
            ) from error
    return locate(folder)
