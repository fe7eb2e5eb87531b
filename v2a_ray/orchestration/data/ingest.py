"""Combines one table per source into the source table, with Ray Data. `ray.init` must have been called.

The order of episodes is planned first, from the numbers of episodes alone, so each part file needs a known piece of
every source. Ray Data runs one task per part, which reads, checks, labels and writes the part. Tasks shuffle nothing
between them, a task needs the memory of its part, and the result does not depend on Ray's scheduling. This process
writes small tables itself, part by part, with the same result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from v2a_ray.data.checks import Severities, check_table, regrade
from v2a_ray.data.checks.findings import Finding, raise_errors
from v2a_ray.data.mixing.mixture import relabel
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import count_episodes, finish_folder, part_bounds, read_episodes, table_bytes, write_part
from v2a_ray.data.table.manifest import PartSummary, summarize_part
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError
from v2a_ray.experiments.plugins import all_sources, load_shipped
from v2a_ray.orchestration.cluster.capacity import capacity
from v2a_ray.orchestration.cluster.session import quiet_ray_data, user_error
from v2a_ray.orchestration.train.memory import reserved_memory
from v2a_ray.outputs import new_folder
from v2a_ray.robot_interface import RobotInterface

MIN_FILES = 8
"""So that as many tasks can write or read a small table in parallel."""
PART_BYTES = 256 * 2**20
"""About the uncompressed size of a part of a large table; one task holds several copies of its part."""
COPIES_OF_PART = 3
"""What such a task takes in memory."""
ONE_PROCESS_BYTES = 8 * 2**20
"""Up to this uncompressed size, one process combines a table in a second, while Ray Data takes several to start."""
VALIDATION = "validation"
"""Name of the folder with the held-out episodes, beside the table's folder."""


@dataclass(frozen=True)
class IngestSource:
    """One source to combine.

    Attributes:
        path: folder of its episode table (`data.store.write_table`).
        name: its `source` label, and the first part of its episodes' ids.
        domain: its domain's name.
        behavior: its `behavior` label; None keeps the table's labels.
    """

    path: Path
    name: str
    domain: str
    behavior: str | None = None


def ingest(
    sources: Sequence[IngestSource],
    output: Path,
    *,
    robot: RobotInterface,
    num_files: int | None = None,
    findings: Sequence[Finding] = (),
    checks: Severities | None = None,
    held_out: Mapping[str, NDArray[np.int64]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Combine sources into one table folder and return its manifest.

    Episodes stay whole and keep their order within a source. Sources are interleaved evenly, so every part, and thus
    every worker's shard, holds all sources in about their proportions.

    Args:
        num_files: part files; fewer if there are fewer episodes. By default as many as `PART_BYTES` requires, and at
            least `MIN_FILES`.
        findings: from reading the sources, for the manifest.
        checks: severities that differ from the default.
        held_out: source name to indices of the episodes that go to the table folder `validation` beside `output`
            instead of the table.
        extra: more keys for the manifest.

    Raises:
        DataError: there is no source, a source cannot be read, or a check fails.
        StorageError: no space, or no permission.
    """
    if not sources:
        raise DataError("there is no source", where="mix", remedy="give at least one source with transitions")
    num_files = num_files or max(MIN_FILES, -(-_total_bytes(sources) // PART_BYTES))
    counts = [count_episodes(source.path) for source in sources]
    out = [(held_out or {}).get(source.name, np.empty(0, dtype=np.int64)) for source in sources]
    if any(len(episodes) for episodes in out):
        validation = output.with_name(VALIDATION)
        _combine(sources, out, validation, robot, num_files, (), checks or {}, {"part": VALIDATION})
    kept = [np.setdiff1d(np.arange(count), episodes) for count, episodes in zip(counts, out, strict=True)]
    return _combine(sources, kept, output, robot, num_files, findings, checks or {}, extra or {})


def _combine(
    sources: Sequence[IngestSource],
    chosen: Sequence[NDArray[np.int64]],
    output: Path,
    robot: RobotInterface,
    num_files: int,
    findings: Sequence[Finding],
    checks: Severities,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the `chosen` episodes (sorted indices, per source) as one table and return its manifest."""
    parts = _plan([len(episodes) for episodes in chosen], num_files)
    with new_folder(output.absolute()) as partial:
        write = functools.partial(
            _write_parts,
            sources=sources,
            chosen=chosen,
            parts=parts,
            folder=partial,
            robot_name=robot.name,
            checks=checks,
            plugins=all_sources(),
        )
        every = {"id": np.arange(len(parts))}
        part_bytes = _total_bytes(sources) // max(1, len(parts))
        written = write(every) if is_small(sources) else _written_by_ray_data(write, len(parts), part_bytes)
        summaries = dict(zip(written["part"], map(PartSummary.from_json, written["summary"]), strict=True))
        return finish_folder(
            partial,
            [summaries[part] for part in range(len(parts))],
            robot=robot.name,
            findings=findings,
            extra=dict(extra),
        )


def is_small(sources: Sequence[IngestSource]) -> bool:
    """Whether one process combines the sources before Ray Data would have started."""
    return _total_bytes(sources) <= ONE_PROCESS_BYTES


def _total_bytes(sources: Sequence[IngestSource]) -> int:
    return sum(table_bytes(source.path) for source in sources)


def _written_by_ray_data(
    write: Callable[[dict[str, Any]], dict[str, list[Any]]], num_parts: int, part_bytes: int
) -> dict[str, Any]:
    """The results of `write` for all parts, one task per part of `part_bytes` bytes in memory."""
    with quiet_ray_data():
        options = reserved_memory(COPIES_OF_PART * part_bytes, capacity())
        rows = ray.data.range(num_parts, override_num_blocks=num_parts).map_batches(write, batch_size=1, **options)
        try:
            found = rows.take_all()
        except ray.exceptions.RayError as error:
            raise user_error(error) or error from None
    return {name: [row[name] for row in found] for name in ("part", "summary")}


@dataclass(frozen=True)
class _PartPlan:
    """The episodes of one part file.

    Attributes:
        ranges: source index to the range (begin, end) of its chosen episodes in this part.
        order: for every episode of the part, its place in the concatenation of `ranges`.
    """

    ranges: dict[int, tuple[int, int]]
    order: NDArray[np.int64]


def _plan(num_episodes: Sequence[int], num_files: int) -> list[_PartPlan]:
    """The parts of the combined table, from the number of episodes of each source.

    Episode i of a source with n episodes goes to the place (i + 1/2) / n of the combined table. So every part holds
    consecutive episodes of each source and can be written from one piece of every source, without a shuffle.
    """
    source = np.repeat(np.arange(len(num_episodes)), num_episodes)
    episode = np.concatenate([np.arange(count) for count in num_episodes])
    # A stable sort: episodes at the same place stay in the order of the sources.
    order = np.argsort((episode + 0.5) / np.asarray(num_episodes)[source], kind="stable")
    parts = []
    for begin, end in part_bounds(len(order), num_files):
        sources, episodes = source[order[begin:end]], episode[order[begin:end]]
        ranges = {int(index): _bounds(episodes[sources == index]) for index in np.unique(sources)}
        firsts = np.cumsum([0, *(last - first for first, last in ranges.values())])
        start = {index: int(first) - ranges[index][0] for index, first in zip(ranges, firsts, strict=False)}
        place = np.asarray([start[int(index)] for index in sources], dtype=np.int64) + episodes
        parts.append(_PartPlan(ranges, place))
    return parts


def _bounds(consecutive: NDArray[np.int64]) -> tuple[int, int]:
    return int(consecutive[0]), int(consecutive[-1]) + 1


def _write_parts(
    batch: dict[str, NDArray[np.int64]],
    *,
    sources: Sequence[IngestSource],
    chosen: Sequence[NDArray[np.int64]],
    parts: Sequence[_PartPlan],
    folder: Path,
    robot_name: str,
    checks: Severities,
    plugins: Mapping[str, str],
) -> dict[str, list[Any]]:
    """Read, check, label and write the episodes of some parts; returns their shares of the manifest."""
    load_shipped(plugins)
    # Not sent itself: functions of a plugin's robot are found only after the plugin is loaded.
    robot = parse_domain(robot_name).robot_spec
    written: dict[str, list[Any]] = {"part": [], "summary": []}
    for part in batch["id"].tolist():
        plan = parts[part]
        # Order the episodes in Arrow, which takes episodes of several tables with one copy.
        pieces = [
            _labelled(sources[index], chosen[index][begin:end], robot, checks).to_arrow()
            for index, (begin, end) in plan.ranges.items()
        ]
        table = EpisodeTable.from_arrow(pa.concat_tables(pieces).take(pa.array(plan.order)))
        write_part(table, folder, part)
        written["part"].append(part)
        written["summary"].append(summarize_part(table).to_json())
    return written


def _labelled(
    source: IngestSource, episodes: NDArray[np.int64], robot: RobotInterface, checks: Severities
) -> EpisodeTable:
    """The given episodes (sorted indices) of a source, checked and labelled."""
    table = read_episodes(source.path, episodes)
    raise_errors(regrade(check_table(table, where=str(source.path), robot=robot, name_episodes=True), checks))
    labelled = relabel(table, source.name, parse_domain(source.domain), source.behavior)
    # Ids are unique within a source; numbers within the part would repeat.
    prefix = f"{source.name}/"
    names = tuple(name if name.startswith(prefix) else prefix + name for name in table.episode_id)
    return labelled.replace(episode_id=names)
