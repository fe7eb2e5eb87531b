"""The datasets under a folder, at a glance: manifests, metadata and single columns are read, observations are not."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from v2a_ray.data.formats.arrays import check_keys
from v2a_ray.data.formats.hdf5 import dataset, opened
from v2a_ray.data.formats.location import locate
from v2a_ray.data.formats.minari_files import read_metadata
from v2a_ray.data.formats.npz import require_stored
from v2a_ray.data.formats.registry import FORMATS, detect_format
from v2a_ray.data.table.folder import MANIFEST, read_manifest
from v2a_ray.errors import DataError, V2AError

ENDS = ("rewards", "terminals", "timeouts")
"""What of D4RL's layout is read: what episodes earn and where they end."""
PROBLEM_SEVERITIES = ("error", "warning")


@dataclass(frozen=True)
class Listed:
    """One dataset; what is not known without reading all of it is None.

    Attributes:
        name: its path below the folder that was listed.
        path: its path.
        format: of the registry; empty if it cannot be read.
        num_episodes, num_transitions: counts.
        mean_return: undiscounted return per episode.
        domain: labels, or what the name tells; empty if nothing does.
        problems: names of the checks that fired when it was made, with how often, or why it cannot be read.
        unreadable: whether `problems` is the latter.
    """

    name: str
    path: str
    format: str = ""
    num_episodes: int | None = None
    num_transitions: int | None = None
    mean_return: float | None = None
    domain: str = ""
    problems: str = ""
    unreadable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def list_datasets(folder: Path) -> list[Listed]:
    """Every dataset under `folder`, sorted by path; one that cannot be read is listed with the reason.

    Raises DataError if `folder` is no folder that can be read.
    """
    if not folder.is_dir():
        raise DataError("is no folder", where=str(folder), remedy="give the folder that datasets are in")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError("cannot be read: Permission denied", where=str(folder), remedy="check permissions")
    return [_listed(path, folder) for path in _candidates(folder)]


def _candidates(folder: Path) -> Iterator[Path]:
    """The folder, if it is a dataset, or else what below it is one or has the ending of a known format."""
    if _is_dataset(folder):
        yield folder
        return
    # What has no first bytes of its own, CSV, is a dataset only by what the user says of it.
    suffixes = {suffix for entry in FORMATS.values() if entry.magic for suffix in entry.suffixes}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _candidates(entry)
        elif entry.suffix in suffixes:
            yield entry


def _is_dataset(folder: Path) -> bool:
    """Whether a folder is one dataset, or can at least not be looked into, which then is said of it."""
    try:
        detect_format(folder)
    except DataError:
        return not os.access(folder, os.R_OK | os.X_OK)
    return True


def _listed(path: Path, folder: Path) -> Listed:
    name = str(path.relative_to(folder)) if path != folder else path.name
    try:
        entry = detect_format(path)
        details = _details(path, entry.name)
    except V2AError as error:
        return Listed(name, str(path), problems=error.what, unreadable=True)
    return Listed(name, str(path), entry.name, **({"domain": _domain_of_name(path)} | details))


def _details(path: Path, format_name: str) -> dict[str, Any]:
    try:
        if (path / MANIFEST).exists() and format_name == "parquet":
            return _of_manifest(read_manifest(path))
        if format_name == "parquet" and path.is_file():
            return _of_parquet(path)
        if format_name == "d4rl":
            return _of_hdf5(path)
        if format_name == "npz":
            return _of_npz(path)
        if format_name == "minari" and path.is_dir():
            metadata = read_metadata(locate(path))
            return {"num_episodes": metadata.get("total_episodes"), "num_transitions": metadata.get("total_steps")}
    except (
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        pa.ArrowException,
    ) as error:
        raise DataError(
            f"not readable: {(str(error).splitlines() or [type(error).__name__])[0]}", where=str(path)
        ) from error
    return {}


def _of_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    fired = [each["check"] for each in manifest.get("findings", []) if each["severity"] in PROBLEM_SEVERITIES]
    return {
        "num_episodes": manifest["num_episodes"],
        "num_transitions": manifest["num_transitions"],
        "mean_return": manifest["return"]["mean"],
        "domain": ", ".join(dict.fromkeys(source["domain"] for source in manifest["sources"])),
        "problems": ", ".join(
            f"{check} × {fired.count(check)}" if fired.count(check) > 1 else check for check in dict.fromkeys(fired)
        ),
    }


def _of_parquet(path: Path) -> dict[str, Any]:
    """Of a table's file without manifest, from three columns."""
    table = pq.read_table(path, columns=["length", "reward", "domain"])
    rewards = table.column("reward").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    domains = [label for label in pc.unique(table.column("domain")).to_pylist() if label != "unknown"]
    return {
        "num_episodes": table.num_rows,
        "num_transitions": int(pc.sum(table.column("length")).as_py() or 0),
        "mean_return": float(rewards.sum(dtype=np.float64)) / max(table.num_rows, 1),
    } | ({"domain": ", ".join(domains)} if domains else {})


def _of_hdf5(path: Path) -> dict[str, Any]:
    """Of a file in D4RL's layout."""
    where = str(path)
    with opened(locate(path)) as file:
        check_keys(file, where)
        return _of_arrays({key: np.asarray(dataset(file, key, where)) for key in ENDS if key in file})


def _of_npz(path: Path) -> dict[str, Any]:
    """Of an archive with the keys of D4RL's layout."""
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            if key in ENDS:
                require_stored(archive, key, str(path))
        return _of_arrays({key: archive[key] for key in ENDS if key in archive})


def _of_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Of `rewards`, `terminals` and `timeouts`. Without timeouts, only observations say where episodes end."""
    rewards = arrays["rewards"]
    known: dict[str, Any] = {"num_transitions": len(rewards)}
    if "timeouts" not in arrays or not len(rewards):
        return known
    ends = (arrays["terminals"].reshape(-1) > 0.5) | (arrays["timeouts"].reshape(-1) > 0.5)
    ends[-1] = True
    count = int(ends.sum())
    return known | {"num_episodes": count, "mean_return": float(np.sum(rewards, dtype=np.float64)) / count}


def _domain_of_name(path: Path) -> str:
    # Names of domains load MuJoCo, which a list of tables with manifests has no use for.
    from v2a_ray.domains.file_names import domain_of_file_name

    domain = domain_of_file_name(path)
    return domain.name if domain else ""
