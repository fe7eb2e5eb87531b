"""A quick list of the datasets under a folder: it reads manifests, metadata and single columns, but no observations."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from v2a_ray.data.checks.findings import place
from v2a_ray.data.formats.d4rl import open_recording
from v2a_ray.data.formats.folders import parquet_dataset
from v2a_ray.data.formats.hdf5 import dataset, member, opened, subgroups
from v2a_ray.data.formats.known_formats import FORMATS, detect_format
from v2a_ray.data.formats.lerobot_files import INFO
from v2a_ray.data.formats.location import Location, locate
from v2a_ray.data.formats.minari_files import read_metadata
from v2a_ray.data.formats.npz import require_stored
from v2a_ray.data.formats.parquet_files import read_columns, schema_names
from v2a_ray.data.formats.rllib_columns import EPISODE
from v2a_ray.data.formats.robomimic import DATA as DEMONSTRATIONS
from v2a_ray.data.table.folder import MANIFEST, folder_labels, read_manifest, with_labels
from v2a_ray.errors import DataError, V2AError
from v2a_ray.files import parse_json
from v2a_ray.settings.behavior_names import UNKNOWN, behavior_of_name

ENDS = ("rewards", "terminals", "timeouts")
"""The keys of D4RL's layout that are read: rewards and the ends of episodes."""
PROBLEM_SEVERITIES = ("error", "warning")
LABELLED = ("domain", "behavior")
"""The labels that are shown."""


@dataclass(frozen=True)
class Listed:
    """One dataset. A value is None if it is unknown without reading everything.

    Attributes:
        name: its path below the folder that was listed.
        path: its path.
        format: of the registry; empty if it cannot be read.
        num_episodes, num_transitions: counts.
        mean_return: undiscounted return per episode.
        domain, behavior: from the labels or the name; empty if unknown.
        problems: checks that fired when the table was made, with their counts, or why the data cannot be read.
        unreadable: whether the data cannot be read.
    """

    name: str
    path: str
    format: str = ""
    num_episodes: int | None = None
    num_transitions: int | None = None
    mean_return: float | None = None
    domain: str = ""
    behavior: str = ""
    problems: str = ""
    unreadable: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def list_datasets(folder: Path) -> list[Listed]:
    """Every dataset under `folder`, sorted by path; an unreadable dataset is listed with the reason.

    Raises DataError if `folder` is not a readable folder.
    """
    if not folder.is_dir():
        raise DataError("is no folder", where=str(folder), remedy="give the folder that datasets are in")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError("cannot be read: Permission denied", where=str(folder), remedy="check permissions")
    return [_listed(path, folder) for path in _candidates(folder)]


def _candidates(folder: Path) -> Iterator[Path]:
    """The folder itself if it is a dataset; otherwise the datasets and the files with a known ending below it."""
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
    """Whether a folder is one dataset. True also for a folder without permissions, which is listed as unreadable."""
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
    told = {label: value for label, value in details.items() if value not in ("", UNKNOWN)}
    named = {"domain": _domain_of_name(path), "behavior": behavior_of_name(str(path)) or ""}
    return Listed(name, str(path), entry.name, **(named | told))


def _details(path: Path, format_name: str) -> dict[str, Any]:
    try:
        if (path / MANIFEST).exists() and format_name == "parquet":
            return _of_manifest(read_manifest(path))
        if format_name == "parquet":
            return _of_tables(path)
        if format_name == "rllib-columns":
            return _of_columns(path)
        if format_name == "robomimic":
            return _of_demonstrations(path)
        if format_name == "lerobot":
            told = parse_json((path / INFO).read_bytes())
            return {"num_episodes": told.get("total_episodes"), "num_transitions": told.get("total_frames")}
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
        **_labels({name: [source[name] for source in manifest["sources"]] for name in LABELLED}),
        "problems": ", ".join(
            f"{check} × {fired.count(check)}" if fired.count(check) > 1 else check for check in dict.fromkeys(fired)
        ),
    }


def _labels(values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Distinct labels of each kind, joined; what nothing says is left out."""
    return {name: ", ".join(each for each in dict.fromkeys(found) if each != UNKNOWN) for name, found in values.items()}


def _of_tables(path: Path) -> dict[str, Any]:
    """Details of a table's files without manifest, from four columns."""
    table = pa.concat_tables(
        [_labelled(file, ["length", "reward", *LABELLED]) for file in parquet_dataset(locate(path))]
    )
    rewards = table.column("reward").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return {
        "num_episodes": table.num_rows,
        "num_transitions": int(pc.sum(table.column("length")).as_py() or 0),
        "mean_return": float(rewards.sum(dtype=np.float64)) / max(table.num_rows, 1),
        **_labels({name: pc.unique(table.column(name)).to_pylist() for name in LABELLED}),
    }


def _labelled(file: Location, names: list[str]) -> pa.Table:
    """These columns of a table's file, with labels that only its folders' names give."""
    path, present = Path(file.path), schema_names(file)
    stored = [name for name in names if name in present or name not in folder_labels(path)]
    return with_labels(read_columns(file, stored), path).select(names)


def _of_columns(path: Path) -> dict[str, Any]:
    """Details of RLlib's recorded columns, a row per step; without ids, only observations show episodes' ends."""
    first = parquet_dataset(locate(path))[0]
    ids = [name for name in (EPISODE,) if name in schema_names(first)]
    table = _columns(path, ["rewards", *ids])
    known: dict[str, Any] = {"num_transitions": table.num_rows}
    if not ids:
        return known
    count = len(pc.unique(table.column(EPISODE)))
    total = float(pc.sum(table.column("rewards")).as_py() or 0.0)
    return known | {"num_episodes": count, "mean_return": total / max(count, 1)}


def _columns(path: Path, names: list[str]) -> pa.Table:
    """These columns of a file, or of all files of a folder."""
    return pa.concat_tables([read_columns(file, names) for file in parquet_dataset(locate(path))])


def _of_demonstrations(path: Path) -> dict[str, Any]:
    """Details of robomimic's file: the lengths of its groups' actions."""
    where = str(path)
    with opened(locate(path)) as file:
        group = member(file, DEMONSTRATIONS, where)
        demos = subgroups(group, place(where, group=DEMONSTRATIONS))
        lengths = [len(dataset(group[demo], "actions", place(where, episode=demo))) for demo in demos]
    return {"num_episodes": len(lengths), "num_transitions": sum(lengths)}


def _of_hdf5(path: Path) -> dict[str, Any]:
    """Details of a file in D4RL's layout: flat, in a group, or in a group per trajectory."""
    with open_recording(locate(path)) as recording:
        return _of_arrays(recording.arrays(ENDS, 0, recording.num_rows))


def _of_npz(path: Path) -> dict[str, Any]:
    """Details of an archive with the keys of D4RL's layout."""
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            if key in ENDS:
                require_stored(archive, key, str(path))
        return _of_arrays({key: archive[key] for key in ENDS if key in archive})


def _of_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Details from `rewards`, `terminals` and `timeouts`. Without timeouts, only observations show episodes' ends."""
    rewards = arrays["rewards"]
    known: dict[str, Any] = {"num_transitions": len(rewards)}
    if "timeouts" not in arrays or not len(rewards):
        return known
    ends = (arrays["terminals"].reshape(-1) > 0.5) | (arrays["timeouts"].reshape(-1) > 0.5)
    ends[-1] = True
    count = int(ends.sum())
    return known | {"num_episodes": count, "mean_return": float(np.sum(rewards, dtype=np.float64)) / count}


def _domain_of_name(path: Path) -> str:
    # Imported late: parsing domain names loads MuJoCo, which tables with manifests do not need.
    from v2a_ray.domains.file_names import domain_of_file_name

    domain = domain_of_file_name(path)
    return domain.name if domain else ""
