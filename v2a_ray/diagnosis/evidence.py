"""Loads the artifacts of a finished run: its tables, the columns of its stages, and the labels that no stage read.

Shape suffixes: N transitions of the source, n examined transitions, E episodes, M held-out target transitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from v2a_ray.data.loading.sampler import Preprocessing
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import read_table_folder
from v2a_ray.diagnosis.mismatch import examined_episodes, one_step, true_mismatch
from v2a_ray.domains import parse_domain
from v2a_ray.engine.columns import read_episode_column, read_step_column
from v2a_ray.engine.context import Job, preprocessing
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.errors import DataError, DomainError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.finished import RESULT_FILE, read_result, score_of
from v2a_ray.settings.yaml_files import validate

Float = NDArray[np.floating[Any]]
Labels = NDArray[np.str_]

NEAR_MISMATCH = 0.05
"""A domain is near the target if its median mismatch is below this. Then, even if all deviations have one direction, it
takes twenty steps or more until they add up to one ordinary step of the robot. Hopper's gravity-0.9, where stock
policies mostly work, is at 0.017; gravity-0.5, whose policies fail on the stock robot, is at 0.083."""
CONTROL_ROWS = 2000


@dataclass(frozen=True)
class FinishedRun:
    """A run directory.

    Attributes:
        folder: the folder that `v2a run` wrote.
        config: the run's settings.
        artifacts: maps a node of the plan to its folder.
        score: mean normalised score in the target; None if the target has no reference returns.
    """

    folder: Path
    config: ExperimentConfig
    artifacts: dict[str, Path]
    score: float | None

    @property
    def store(self) -> ArtifactStore:
        """The store of the artifacts, even if the settings now name another one."""
        return ArtifactStore(self.artifacts["source"].parents[1])

    @property
    def preprocessing(self) -> Preprocessing:
        """The run's preprocessing of observations and rewards."""
        inputs = {"source": self.artifacts["source"], "target": self.artifacts["data/target"]}
        return preprocessing(Job(self.config, inputs, self.folder, self.folder))


def open_run(folder: Path) -> FinishedRun:
    """The run in `folder`. Raises DataError if it is not a finished run, or an artifact is gone or damaged."""
    result = read_result(folder)
    artifacts = {stage["name"]: Path(stage["artifact"]) for stage in result["stages"]}
    for name, path in artifacts.items():
        if not ArtifactStore(path.parents[1]).find(path.parent.name, path.name):
            raise DataError(
                f"the run's {name} is gone or was damaged",
                where=str(path),
                remedy="run the same `v2a run` again: it recomputes the artifact",
            )
    config = validate(ExperimentConfig, result["config"], folder / RESULT_FILE)
    return FinishedRun(folder, config, artifacts, score_of(result))


@dataclass(frozen=True)
class Evidence:
    """All data for the audits.

    Attributes:
        run: the run of the data.
        source, target: the tables.
        alignment: (N,) the column h, if the run has it.
        held_out: (M,) h of target transitions held out of the estimator's fit.
        advantage: (N,) the run's value column.
        latent: (E, Z) the column z.
        rows: (n,) examined transitions of the source: all, or those of some episodes.
        mismatch: (n,) true dynamics mismatch (see `mismatch`), NaN for unknown states; None if it cannot be computed.
        unknown: why the mismatch is unknown, or empty.
        control: median mismatch of the target's own transitions; above 1e-3, the target data are not from its domain.
    """

    run: FinishedRun
    source: EpisodeTable
    target: EpisodeTable
    alignment: Float | None
    held_out: Float | None
    advantage: Float | None
    latent: Float | None
    rows: NDArray[np.int64]
    mismatch: Float | None
    unknown: str
    control: float | None

    @property
    def encoded(self) -> Float | None:
        """(E, Z): the encoders' z of each episode, without the source label that `per_source` puts first."""
        return None if self.latent is None else self.latent[:, -self.run.config.modality.latent_dim :]

    @cached_property
    def domain_of_episode(self) -> Labels:
        """(E,): domain of each episode, without robot and physics, which are the same for all."""
        return np.asarray([short_name(name) for name in self.source.domain])

    @cached_property
    def behavior_of_episode(self) -> Labels:
        """(E,): behaviour of each episode."""
        return np.asarray(self.source.behavior)

    @cached_property
    def domain(self) -> Labels:
        """(n,): true domain of every examined transition."""
        return self.domain_of_episode[self.source.episode_of_row[self.rows]]

    @cached_property
    def behavior(self) -> Labels:
        """(n,): behaviour of every examined transition."""
        return self.behavior_of_episode[self.source.episode_of_row[self.rows]]

    @property
    def target_domain(self) -> str:
        """The target's domain, named as in `domain`."""
        return short_name(parse_domain(self.run.config.target.domain).name)

    @cached_property
    def domains(self) -> list[str]:
        """The source's domains, nearest to the target first."""
        return sorted(set(self.domain), key=lambda name: (self.domain_mismatch.get(name, 0.0), name))

    @cached_property
    def parts(self) -> list[tuple[str, str]]:
        """Domain and behaviour of each part of the source, in the order of `domains`."""
        present = set(zip(self.domain.tolist(), self.behavior.tolist(), strict=True))
        return sorted(present, key=lambda part: (self.domains.index(part[0]), part[1]))

    @cached_property
    def domain_mismatch(self) -> dict[str, float]:
        """Median mismatch of each domain's transitions; empty if it is unknown."""
        if self.mismatch is None:
            return {}
        medians = {name: self.mismatch[self.domain == name] for name in np.unique(self.domain).tolist()}
        return {name: float(np.nanmedian(values)) for name, values in medians.items() if np.isfinite(values).any()}

    @property
    def near_domains(self) -> list[str]:
        """Domains with a median mismatch below `NEAR_MISMATCH`."""
        return [name for name in self.domains if self.domain_mismatch.get(name, np.inf) < NEAR_MISMATCH]

    def of_part(self, part: tuple[str, str]) -> NDArray[np.bool_]:
        """(n,) bool: whether each examined transition belongs to the part."""
        return np.asarray((self.domain == part[0]) & (self.behavior == part[1]))


def load_evidence(run: FinishedRun, max_rows: int) -> Evidence:
    """Read tables and columns of a run, and re-simulate about `max_rows` source transitions in the target domain."""
    artifacts = run.artifacts
    source = read_table_folder(artifacts["source"] / "table")
    target = read_table_folder(artifacts["data/target"] / "table")
    columns = {
        name: read_step_column(artifacts[name] / "column.parquet", name, source)
        for name in ("alignment", "advantage")
        if name in artifacts
    }
    held_out = latent = None
    if "alignment" in artifacts:
        column = pq.read_table(artifacts["alignment"] / "held_out.parquet").column("alignment")
        held_out = np.asarray(column.to_numpy(), dtype=np.float32)
    if "modality" in artifacts:
        latent = read_episode_column(artifacts["modality"] / "column.parquet", "z", source)
    episodes = examined_episodes(source, max_rows)
    rows = np.flatnonzero(np.isin(source.episode_of_row, episodes))
    mismatch, control, unknown = None, None, ""
    domain, unit = parse_domain(run.config.target.domain), one_step(target)
    try:
        mismatch = true_mismatch(source.select(episodes), unit, domain)
        control = float(np.nanmedian(true_mismatch(target.head(CONTROL_ROWS), unit, domain)))
    except DomainError as error:
        unknown = error.what
    found = columns.get("alignment"), held_out, columns.get("advantage"), latent
    return Evidence(run, source, target, *found, rows, mismatch, unknown, control)


def short_name(domain: str) -> str:
    """A domain's name without robot and physics."""
    return domain.partition("/")[2].partition("@")[0] or domain
