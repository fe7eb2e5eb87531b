"""CSV with one row per step, whose columns the user names; a folder of such files has one recording in each."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import csv

from v2a_ray.data.checks.findings import Reading, place
from v2a_ray.data.config import Columns
from v2a_ray.data.formats.known_formats import CSV_SUFFIX
from v2a_ray.data.formats.location import Location
from v2a_ray.data.formats.tables import Chosen, choose, to_episodes
from v2a_ray.errors import DataError
from v2a_ray.robot_interface import RobotInterface

DEFAULTS = {
    "observation": ["observation_*"],
    "action": ["action_*"],
    "next_observation": ["next_observation_*"],
    "reward": ["reward"],
    "episode": ["episode"],
    "terminated": ["terminated"],
    "timeout": ["timeout"],
}
"""Read without being named."""
DELIMITERS = ",;\t"
HEADER_BYTES = 2**20


def holds(location: Location) -> bool:
    """Whether a file's first line is a header with names of ours; of other tables only the user knows the columns."""
    try:
        return any(name.startswith("observation_") for name in _header(location)[0])
    except DataError:
        return False


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read by the names in `DEFAULTS`. Raises DataError."""
    return read_named(location, robot, Columns())


def read_named(location: Location, robot: RobotInterface | None, columns: Columns) -> Reading:
    """Read by the columns that `columns` names. Raises DataError."""
    files = [location]
    if location.is_folder:
        files = [location.member(name) for name in location.names() if name.endswith(CSV_SUFFIX)]
    if not files:
        raise DataError("is a folder without a dataset", where=str(location), remedy="give a CSV file")
    found = choose(columns, DEFAULTS, _header(files[0])[0], str(files[0]))
    return to_episodes({str(file): _table(file, found) for file in files}, found, location, robot)


def _header(file: Location) -> tuple[list[str], str]:
    """The names of columns and the delimiter. Raises DataError for what is no text of several columns."""
    try:
        line = file.first_bytes(HEADER_BYTES).partition(b"\n")[0].decode("utf-8-sig").rstrip("\r")
    except UnicodeDecodeError:
        line = ""
    delimiter = max(DELIMITERS, key=line.count)
    names = [name.strip().strip('"') for name in line.split(delimiter)]
    if len(names) < 2 or (not line.isprintable() and delimiter != "\t"):
        raise DataError(
            "is no CSV: its first line is no header",
            where=str(file),
            remedy="begin with a line of column names, separated by comma, semicolon or tab",
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError("names two columns", where=place(file, field=twice), remedy="give each column its own name")
    return names, delimiter


def _table(file: Location, found: Chosen) -> pa.Table:
    """The chosen columns: numbers as float64, episodes as text, flags as they are. Raises DataError."""
    names, delimiter = _header(file)
    kinds = {name: pa.float64() for role in found for name in found[role] if role not in ("terminated", "timeout")}
    kinds |= {name: pa.string() for name in found.get("episode", ())}
    wanted = list(dict.fromkeys(name for group in found.values() for name in group))
    for name in wanted:
        if name not in names:
            raise DataError(
                "missing, where the first file has it", where=place(file, field=name), remedy="give all files it"
            )
    options = csv.ConvertOptions(column_types=kinds, include_columns=wanted, null_values=[""])
    with file.open() as stream:
        try:
            return csv.read_csv(
                stream,
                read_options=csv.ReadOptions(column_names=names, skip_rows=1),
                parse_options=csv.ParseOptions(delimiter=delimiter),
                convert_options=options,
            )
        except (pa.ArrowException, ValueError) as error:
            raise DataError(
                f"not readable as CSV: {str(error).splitlines()[0]}",
                where=str(file),
                remedy="the columns that are named hold numbers; mend the row, or name other columns",
            ) from error
