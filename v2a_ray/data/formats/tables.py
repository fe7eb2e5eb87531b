"""Tables with one row per step, whose columns the user names: Parquet and CSV, and what LeRobot is made of.

Without `episode` every file is one recording, in which `timeout` and `terminated` say where episodes end.

Shape suffixes: N rows, O observation dimension, A action dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.config import Columns
from v2a_ray.data.formats.arrays import Arrays, check_rows, check_shape, convert, segment, to_reading
from v2a_ray.data.formats.arrow_columns import features, group_episodes, labels, matrix
from v2a_ray.data.formats.folders import parquet_dataset
from v2a_ray.data.formats.location import Location
from v2a_ray.data.formats.names import chosen, matching, unmatched
from v2a_ray.data.formats.parquet_files import read_columns, schema_names
from v2a_ray.data.rewards import no_rewards
from v2a_ray.errors import DataError
from v2a_ray.robot_interface import RobotInterface

VECTORS = {"observation": "observations", "action": "actions", "next_observation": "next_observations"}
NUMBERS = {"reward": "rewards", "terminated": "terminals", "timeout": "timeouts"}
REQUIRED = ("observation", "action")
Chosen = Mapping[str, list[str]]
"""Names by role, the fields of `Columns`; a role that nothing has is absent."""
Fetch = Callable[[list[str]], pa.Table]


def read_named(location: Location, robot: RobotInterface | None, columns: Columns) -> Reading:
    """Read Parquet, a file or the files of a folder, by the columns that `columns` names. Raises DataError."""
    files = parquet_dataset(location)
    found = choose(columns, {}, schema_names(files[0]), str(files[0]))
    wanted = [name for names in found.values() for name in names]
    tables = {str(file): read_columns(file, list(dict.fromkeys(wanted))) for file in files}
    return to_episodes(tables, found, location, robot)


def choose(
    columns: Columns,
    defaults: Mapping[str, Sequence[str]],
    present: Sequence[str],
    where: str,
    roles: Sequence[str] = tuple(Columns.model_fields),
) -> Chosen:
    """The columns of each of the `roles`: those that the user names, else those of `defaults` that are there.

    Raises:
        DataError: what the user names matches nothing, or nothing is an observation or an action.
    """
    found = {}
    for role in roles:
        given = getattr(columns, role)
        if given is False:
            continue
        if given is not None:
            found[role] = chosen([given] if isinstance(given, str) else given, present, where, role)
            continue
        usual = [name for pattern in defaults.get(role, ()) for name in matching(pattern, present)]
        if usual:
            found[role] = usual
        elif role in REQUIRED:
            raise unmatched(next(iter(defaults.get(role, ())), role), present, where, role)
    for role in found.keys() - VECTORS.keys():
        if len(found[role]) > 1:
            raise DataError(
                f"matches {', '.join(found[role])}", where=place(where, field=role), remedy=f"name one (columns.{role})"
            )
    return found


def to_episodes(
    tables: Mapping[str, pa.Table], found: Chosen, location: Location, robot: RobotInterface | None
) -> Reading:
    """Tables of one recording, by the names of their files, as checked episodes. Raises DataError."""
    where = str(location)
    pieces = {file: _arrays(table, found, file) for file, table in tables.items()}
    _require_one_width(pieces)
    arrays: Arrays = {
        key: np.concatenate([piece[key] for piece in pieces.values()]) for key in next(iter(pieces.values()))
    }
    for key, array in arrays.items():
        check_shape(array, array.ndim, place(where, field=key))
    check_rows({key: array.shape for key, array in arrays.items()}, where)
    findings: list[Finding] = []
    if "rewards" not in arrays:
        arrays["rewards"] = np.zeros(len(arrays["observations"]), dtype=np.float32)
        findings.append(no_rewards(where))
    arrays.setdefault("terminals", np.zeros(len(arrays["observations"]), dtype=bool))
    if "episode" in found or len(tables) > 1:
        episode, step = _episodes(tables, found)
        findings += group_episodes(arrays, episode, step, where)
    rows, more = segment(arrays, where)
    return to_reading(rows, findings + more, location.stem, where, robot)


def _arrays(table: pa.Table, found: Chosen, file: str) -> Arrays:
    """The arrays of one file. Raises DataError for a column that is not what its role needs."""
    arrays: Arrays = {}
    for role, key in VECTORS.items():
        if role in found:
            parts = [features(table.column(name), place(file, field=name)) for name in found[role]]
            arrays[key] = convert(key, np.concatenate(parts, axis=1), place(file, field=role))
    for role, key in NUMBERS.items():
        if role in found:
            (name,) = found[role]
            arrays[key] = convert(key, matrix(table.column(name), 1, place(file, field=name)), file)
    return arrays


def _require_one_width(pieces: Mapping[str, Arrays]) -> None:
    first_file, first = next(iter(pieces.items()))
    for file, piece in pieces.items():
        for key in VECTORS.values():
            if key in first and piece[key].shape[1] != first[key].shape[1]:
                raise DataError(
                    f"has {piece[key].shape[1]} features where {first_file} has {first[key].shape[1]}",
                    where=place(file, field=key),
                    remedy="one dataset is of one robot; split it",
                )


def _episodes(tables: Mapping[str, pa.Table], found: Chosen) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """(N,) what tells episodes apart, the column or else the file, and (N,) the steps, if a column has them."""

    def joined(role: str, get: Callable[[pa.ChunkedArray, str], NDArray[Any]]) -> NDArray[Any]:
        (name,) = found[role]
        return np.concatenate([get(table.column(name), place(file, field=name)) for file, table in tables.items()])

    step = joined("step", lambda column, where: matrix(column, 1, where)) if "step" in found else None
    if "episode" in found:
        return joined("episode", labels), step
    return np.repeat(np.arange(len(tables)), [table.num_rows for table in tables.values()]), step
