"""Converts one large HDF5 file with many Ray tasks; table and findings equal those of a single process.

Every task checks its own episodes (`check_table`). Three facts concern the whole file and need few numbers per task:
whether rows are in order of time (counts of episodes), whether transitions repeat (a 64-bit hash of each; tasks compare
a range of hashes each), and which rows hold another episode's reset (`data.defects.Survey`: episode starts and a
sample). Only if one of these finds
something does one process check the whole table again, so that findings name the same places and counts as for a small
file. So a file with findings has to fit into the driver's memory.

Each slice is read once. Ray's object store, which spills to disk, holds it until its part of the table is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from v2a_ray.data.checks import Severities, check_table, regrade
from v2a_ray.data.checks.arrivals import BadArrivals, mend
from v2a_ray.data.checks.content import num_distinct, row_hashes
from v2a_ray.data.checks.findings import Finding, raise_errors
from v2a_ray.data.checks.reset_rows import ResetDetector, Survey, merge, survey
from v2a_ray.data.formats.arrays import derived_findings, require_rows
from v2a_ray.data.formats.d4rl import read_rows, scan
from v2a_ray.data.formats.location import Location
from v2a_ray.data.mixing.mixture import relabel
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import finish_folder, part_files, read_parts, write_part
from v2a_ray.data.table.manifest import PartSummary, summarize_part
from v2a_ray.data.table.segmentation import Rows, too_many_cuts
from v2a_ray.domains import Domain
from v2a_ray.experiments.plugins import all_sources, load_shipped
from v2a_ray.orchestration.cluster.session import quiet_ray_data, user_error
from v2a_ray.orchestration.data.hdf5_source import FIRST_ROW, SLICE_ROWS, EpisodeDatasource, slice_bounds
from v2a_ray.outputs import new_folder
from v2a_ray.robot_interface import RobotInterface

Progress = Callable[[int, int], None]
HASHES_AT_ONCE = 2**22
"""Of a file, in one task."""


def convert_hdf5(
    location: Location,
    output: Path,
    *,
    domain: Domain,
    name: str,
    behavior: str = "unknown",
    checks: Severities | None = None,
    rows_per_slice: int = SLICE_ROWS,
    progress: Progress | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Read, check, label and write a file as an episode table with one part file per slice; returns its manifest.

    Args:
        name, behavior: labels.
        checks: severities that differ from the default.
        progress: called as progress(done_tasks, tasks).
        extra: more keys for the manifest.

    Raises:
        DataError: the file cannot be read, or a check fails; nothing is written then.
        StorageError: no space, or no permission.
    """
    found = scan(location)
    slices = slice_bounds(found, rows_per_slice)
    job = _Job(str(location), domain, name, behavior)
    with quiet_ray_data(), new_folder(output.absolute()) as partial:
        try:
            # Without the number of blocks, Ray Data splits the results of its read tasks.
            source = EpisodeDatasource(location, slices)
            recorded = ray.data.read_datasource(source, override_num_blocks=len(slices)).materialize()
            blocks = recorded.to_arrow_refs()
            report = _Counter(3 * len(blocks), progress)
            surveys = _each(_survey, [(block, found.num_rows) for block in blocks], report)
            order = np.argsort([each.first_row for each in surveys])
            blocks, surveys = [blocks[i] for i in order], [surveys[i] for i in order]
            num_kept = sum(each.survey.num_rows for each in surveys)
            ordered = not too_many_cuts(sum(each.num_truncated for each in surveys), num_kept)
            detector = ray.put(ResetDetector(merge([each.survey for each in surveys])) if ordered else None)
            counts = _each(_count_episodes, [(block, detector, job) for block in blocks], report)
            firsts = np.cumsum([0, *counts]).tolist()
            tasks = [(block, detector, job, firsts[i], str(partial), i) for i, block in enumerate(blocks)]
            # Numbers and hashes of all rows of a large file would fill this process.
            references = [_write.options(num_returns=3).remote(*each) for each in tasks]
            written, numbers, hashes = zip(*references, strict=True)
            parts = _results(written, report)
        except ray.exceptions.RayError as error:
            if mine := user_error(error):
                raise mine from None
            raise
        _, reading = read_rows(location, *slices[0])
        if reading:
            has_timeouts = all(finding.check != "episode_ends_unknown" for finding in reading)
            reading = derived_findings(found.num_rows - num_kept, has_timeouts, str(location))
        findings = regrade([*reading, *_whole(parts, numbers, hashes, partial, ordered, job)], checks or {})
        raise_errors(findings)
        summaries = [part.summary for part in parts]
        return finish_folder(partial, summaries, robot=domain.robot, findings=findings, extra=dict(extra or {}))


@dataclass(frozen=True)
class _Job:
    """Settings that all tasks of a conversion share."""

    where: str
    domain: Domain
    name: str
    behavior: str
    plugins: Mapping[str, str] = field(default_factory=all_sources)

    @property
    def robot(self) -> RobotInterface:
        load_shipped(self.plugins)
        return self.domain.robot_spec


@dataclass(frozen=True)
class _Surveyed:
    first_row: int
    survey: Survey
    num_truncated: int


@dataclass(frozen=True)
class _Part:
    """A written part: its share of the manifest, and the result of its own check."""

    summary: PartSummary
    num_transitions: int
    bad: BadArrivals
    clean: bool


class _Counter:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def step(self) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)


def _each(task: Any, arguments: Sequence[tuple[Any, ...]], report: _Counter) -> list[Any]:
    """Results of one task per tuple of arguments, in order."""
    return _results([task.remote(*each) for each in arguments], report)


def _results(references: Sequence[Any], report: _Counter) -> list[Any]:
    waiting = list(references)
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=1)
        report.step()
    return list(ray.get(list(references)))


@ray.remote
def _survey(block: pa.Table, num_file_rows: int) -> _Surveyed:
    rows, table = _recorded(block)
    return _Surveyed(int(rows.number[0]), survey(rows, num_file_rows), int(table.truncated.sum()))


@ray.remote
def _count_episodes(block: pa.Table, detector: ResetDetector | None, job: _Job) -> int:
    """Number of episodes that are kept; the episode numbers of the following slices depend on it."""
    rows, _ = _mended(block, detector, job)
    return rows.to_table("").num_episodes if len(rows) else 0


@ray.remote
def _write(
    block: pa.Table, detector: ResetDetector | None, job: _Job, first_episode: int, folder: str, part: int
) -> tuple[_Part, NDArray[np.int64], NDArray[np.uint64]]:
    """Write a part; returns also the numbers of its rows in the file, and their sorted hashes."""
    rows, bad = _mended(block, detector, job)
    require_rows(rows, job.where)
    table = relabel(rows.to_table(job.name), job.name, job.domain, job.behavior)
    ids = tuple(f"{job.name}/{first_episode + index:06d}" for index in range(table.num_episodes))
    table = table.replace(episode_id=ids)
    write_part(table, Path(folder), part)
    clean = not check_table(table, where=job.where, robot=job.robot)
    made = _Part(summarize_part(table), table.num_transitions, bad, clean)
    return made, rows.number, np.sort(row_hashes(table))


def _all_distinct(hashes: Sequence[Any], count: int) -> bool:
    """Whether none of `count` hashes occurs twice, by tasks that look at a range of hashes each.

    Args:
        hashes: references to the sorted hashes of each part.
    """
    num_ranges = -(-count // HASHES_AT_ONCE)
    edges = [index * 2**64 // num_ranges for index in range(num_ranges)]
    found = [_repeat.remote(hashes, low, high - 1) for low, high in pairwise([*edges, 2**64])]
    return not any(ray.get(found))


@ray.remote
def _repeat(hashes: Sequence[Any], low: int, high: int) -> bool:
    """Whether a hash in [low, high] occurs twice in arrays of sorted hashes, one of which is looked at at a time."""
    within = []
    for reference in hashes:
        values = ray.get(reference)
        begin = np.searchsorted(values, np.uint64(low), side="left")
        end = np.searchsorted(values, np.uint64(high), side="right")
        within.append(values[begin:end].copy())
        del values
    together = np.concatenate(within)
    return num_distinct(together) < len(together)


def _mended(block: pa.Table, detector: ResetDetector | None, job: _Job) -> tuple[Rows, BadArrivals]:
    return mend(_recorded(block)[0], detector, job.robot.max_episode_steps)


def _recorded(block: pa.Table) -> tuple[Rows, EpisodeTable]:
    """The rows and episodes of a block of `EpisodeDatasource`."""
    table = EpisodeTable.from_arrow(block)
    first_rows = block.column(FIRST_ROW).to_numpy()
    last = np.zeros(table.num_transitions, dtype=bool)
    last[table.offsets[1:] - 1] = True
    step = np.arange(table.num_transitions) - np.repeat(table.offsets[:-1], table.lengths)
    rows = Rows(
        observation=table.observation,
        action=table.action,
        reward=table.reward,
        next_observation=table.next_observation,
        terminal=table.terminal_rows > 0,
        last=last,
        number=np.repeat(first_rows, table.lengths) + step,
    )
    return rows, table


def _whole(
    parts: Sequence[_Part],
    numbers: Sequence[Any],
    hashes: Sequence[Any],
    folder: Path,
    ordered: bool,
    job: _Job,
) -> list[Finding]:
    """The findings that one process would have in the whole file.

    Args:
        numbers, hashes: references to what `_write` returns of each part.
    """
    named = BadArrivals.merge([part.bad for part in parts]).findings(job.where)
    count = sum(part.num_transitions for part in parts)
    if ordered and all(part.clean for part in parts) and _all_distinct(hashes, count):
        return named
    table = read_parts(part_files(folder))
    row_number = np.concatenate(ray.get(list(numbers)))
    return named + check_table(table, where=job.where, robot=job.robot, row_number=row_number)
