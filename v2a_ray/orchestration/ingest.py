"""From one table per source to the combined source table, with Ray Data. `ray.init` was called before.

Ray Data reads the sources' Parquet files, checks and labels every block where it lies, and brings the episodes of one
part file together; one task writes each part. The order of episodes is planned beforehand from ids alone, so the
result does not depend on how Ray schedules it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from v2a_ray.data.checks import Severities, check_table, regrade
from v2a_ray.data.findings import Finding, RobotLike, raise_errors
from v2a_ray.data.manifest import PartSummary, summarize_part
from v2a_ray.data.mixture import relabel
from v2a_ray.data.store import finish_folder, new_folder, part_bounds, part_files, write_part
from v2a_ray.data.table import EpisodeTable
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError, V2AError
from v2a_ray.orchestration.session import quiet_ray_data

DEFAULT_NUM_FILES = 8
VALIDATION = "validation"
"""Name of the folder with the held-out episodes, beside that of the table."""


@dataclass(frozen=True)
class IngestSource:
    """One source to combine.

    Attributes:
        path: folder of its episode table (`data.store.write_table`).
        name: its `source` label, and the first part of its episodes' ids.
        domain: its domain's name.
        behavior: its `behavior` label; None keeps the labels that the table has.
    """

    path: Path
    name: str
    domain: str
    behavior: str | None = None


def ingest(
    sources: Sequence[IngestSource],
    output: Path,
    *,
    robot: RobotLike,
    num_files: int = DEFAULT_NUM_FILES,
    findings: Sequence[Finding] = (),
    checks: Severities | None = None,
    held_out: Mapping[str, NDArray[np.int64]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Combine sources into one table folder and return its manifest.

    Episodes stay whole and keep their order within a source; sources are interleaved evenly, so that every part, and
    with it every worker's shard, holds all of them in about their proportions.

    Args:
        num_files: part files; fewer if there are fewer episodes. At least the number of workers that will share it.
        findings: what reading the sources said, for the manifest.
        checks: severities of checks that are to be others than by default.
        held_out: source name to episodes (indices) that are left out of the table and written to the table folder
            `validation` beside `output` instead.
        extra: more keys for the manifest.

    Raises:
        DataError: no source, a source that cannot be read, or a check that fails.
        StorageError: no space, or no permission.
    """
    if not sources:
        raise DataError("there is no source", where="mix", remedy="give at least one source with transitions")
    ids = [[name for file in part_files(source.path) for name in _episode_ids(file)] for source in sources]
    out = [set((held_out or {}).get(source.name, np.empty(0, np.int64)).tolist()) for source in sources]
    if any(out):
        chosen = [[name for i, name in enumerate(names) if i in left] for names, left in zip(ids, out, strict=True)]
        _combine(
            sources, chosen, output.with_name(VALIDATION), robot, num_files, (), checks or {}, {"part": VALIDATION}
        )
    chosen = [[name for i, name in enumerate(names) if i not in left] for names, left in zip(ids, out, strict=True)]
    return _combine(sources, chosen, output, robot, num_files, findings, checks or {}, extra or {})


def _combine(
    sources: Sequence[IngestSource],
    chosen: Sequence[Sequence[str]],
    output: Path,
    robot: RobotLike,
    num_files: int,
    findings: Sequence[Finding],
    checks: Severities,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the `chosen` episodes (ids, per source) as one table and return its manifest."""
    files = {str(file.absolute()): index for index, source in enumerate(sources) for file in part_files(source.path)}
    plan = _plan(chosen, num_files)
    num_parts = 1 + max(part for part, _ in plan.values())
    with new_folder(output.absolute()) as partial, quiet_ray_data():
        rows = (
            ray.data.read_parquet(list(files), include_paths=True, shuffle=None)
            .map_batches(
                _check_and_label,
                fn_kwargs={"sources": sources, "files": files, "plan": plan, "robot": robot, "checks": checks},
                batch_format="pyarrow",
                batch_size=None,
            )
            .groupby("part", num_partitions=num_parts)
            .map_groups(_write_group, fn_kwargs={"folder": str(partial)}, batch_format="pyarrow")
        )
        try:
            summaries = {row["part"]: PartSummary.from_json(row["summary"]) for row in rows.take_all()}
        except ray.exceptions.RayError as error:
            raise _cause(error) from None
        return finish_folder(
            partial,
            [summaries[part] for part in range(num_parts)],
            robot=robot.name,
            findings=findings,
            extra=dict(extra),
        )


def shard_files(paths: Sequence[Path], world_size: int) -> list[list[str]]:
    """The part files of every worker's shard of the tables `paths`: files rank, rank + world_size, ... Disjoint.

    Raises DataError when there are fewer files than workers.
    """
    files = [str(file) for path in paths for file in part_files(path)]
    if world_size > len(files):
        raise DataError(
            f"{len(files)} part files cannot be shared by {world_size} workers",
            where=", ".join(str(path) for path in paths),
            remedy="use fewer workers, or ingest with more part files",
        )
    return [files[rank::world_size] for rank in range(world_size)]


def _plan(chosen: Sequence[Sequence[str]], num_files: int) -> dict[tuple[int, str], tuple[int, int]]:
    """(source index, episode id) -> (part, position in the combined table), from the ids of each source's episodes.

    Episode i of a source of n stands at (i + 1/2) / n of the combined table.
    """
    keys, places = [], []
    for index, ids in enumerate(chosen):
        keys += [(index, name) for name in ids]
        places += ((np.arange(len(ids)) + 0.5) / len(ids)).tolist()
    # A stable sort: episodes at the same place stay in the order of the sources.
    order = np.argsort(places, kind="stable")
    part_of_position = [
        part for part, (begin, end) in enumerate(part_bounds(len(keys), num_files)) for _ in range(begin, end)
    ]
    return {keys[episode]: (part_of_position[position], position) for position, episode in enumerate(order)}


def _episode_ids(file: Path) -> list[str]:
    try:
        ids: list[str] = pq.read_table(file, columns=["episode_id"]).column("episode_id").to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"not readable as an episode table: {error}", where=str(file), remedy="make the table again"
        ) from error
    return ids


def _check_and_label(
    block: pa.Table,
    *,
    sources: Sequence[IngestSource],
    files: dict[str, int],
    plan: dict[tuple[int, str], tuple[int, int]],
    robot: RobotLike,
    checks: Severities,
) -> pa.Table:
    """A Ray Data task: check the episodes of a block, label them, and add the columns `part` and `position`.

    Ray Data decides what a block is: a piece of a file, or several small files together.
    """
    indices = np.asarray([files[path] for path in block.column("path").to_pylist()], dtype=np.int64)
    pieces = []
    for index in np.unique(indices):
        source = sources[index]
        wanted = [(int(index), name) in plan for name in block.column("episode_id").to_pylist()]
        rows = block.filter(pa.array((indices == index) & np.asarray(wanted)))
        if not rows.num_rows:
            continue
        table = EpisodeTable.from_arrow(rows, where=str(source.path))
        found = check_table(table, where=str(source.path), robot=robot, name_episodes=True)
        raise_errors(regrade(found, checks))
        labelled = relabel(table, source.name, parse_domain(source.domain), source.behavior)
        # Ids are unique in a source; a number within the block would not be.
        prefix = f"{source.name}/"
        names = tuple(name if name.startswith(prefix) else prefix + name for name in table.episode_id)
        labelled = labelled.replace(episode_id=names)
        targets = np.asarray([plan[int(index), name] for name in table.episode_id], dtype=np.int64)
        arrow = labelled.to_arrow().append_column("part", pa.array(targets[:, 0]))
        pieces.append(arrow.append_column("position", pa.array(targets[:, 1])))
    if pieces:
        return pa.concat_tables(pieces)
    numbers = pa.array([], pa.int64())
    return block.slice(0, 0).drop_columns(["path"]).append_column("part", numbers).append_column("position", numbers)


def _write_group(group: pa.Table, *, folder: str) -> pa.Table:
    """A Ray Data task: write all episodes of one part, in order, and return their share of the manifest."""
    part = int(group.column("part")[0].as_py())
    ordered = group.sort_by("position") if group.num_rows > 1 else group
    table = EpisodeTable.from_arrow(ordered.drop_columns(["part", "position"]))
    write_part(table, Path(folder), part)
    return pa.table({"part": [part], "summary": [summarize_part(table).to_json()]})


def _cause(error: BaseException) -> BaseException:
    """What a task of ours raised, without Ray's wrapping, if it is a user's mistake; else the error itself."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, V2AError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return error
