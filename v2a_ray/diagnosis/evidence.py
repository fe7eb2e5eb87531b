"""What a finished run left behind: its tables, the columns its stages computed, and the labels that nobody read.

Shape suffixes: N transitions of the source, n of them examined, E episodes, M held-out target transitions.
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
"""A domain is near the target when its median mismatch is below this: its deviations, if they all point one way, add up
to one ordinary step of the robot in twenty steps or more. Hopper's gravity-0.9, where stock policies mostly work, is at
0.017; gravity-0.5, whose policies fail on the stock robot, at 0.083."""
CONTROL_ROWS = 2000


@dataclass(frozen=True)
class FinishedRun:
    """A run directory.

    Attributes:
        folder: that `v2a run` wrote.
        config: of the run.
        artifacts: node of the plan to its folder.
        score: what policies are compared by (`score_of`); None where the target has no references.
    """

    folder: Path
    config: ExperimentConfig
    artifacts: dict[str, Path]
    score: float | None

    @property
    def store(self) -> ArtifactStore:
        """The store that holds the artifacts, wherever the configuration would look for it now."""
        return ArtifactStore(self.artifacts["data/target"].parents[1])

    @property
    def preprocessing(self) -> Preprocessing:
        """What the run did to observations and rewards."""
        inputs = {"source": self.artifacts["source"], "target": self.artifacts["data/target"]}
        return preprocessing(Job(self.config, inputs, self.folder, self.folder))


def open_run(folder: Path) -> FinishedRun:
    """The run in `folder`. Raises DataError when it is none, is not finished, or an artifact is gone or damaged."""
    result = read_result(folder)
    artifacts = {stage["name"]: Path(stage["artifact"]) for stage in result["stages"]}
    for name, path in artifacts.items():
        if not ArtifactStore(path.parents[1]).find(path.parent.name, path.name):
            raise DataError(
                f"the run's {name} is gone or was damaged",
                where=str(path),
                remedy="the `v2a run` that made it makes it again",
            )
    config = validate(ExperimentConfig, result["config"], folder / RESULT_FILE)
    return FinishedRun(folder, config, artifacts, score_of(result))


@dataclass(frozen=True)
class Evidence:
    """Everything that the audits look at.

    Attributes:
        run: where it comes from.
        source, target: the tables.
        alignment: (N,) the column h, if the run has it.
        held_out: (M,) h of target transitions kept from the estimator's fit.
        advantage: (N,) the run's value column.
        latent: (E, Z) the column z.
        rows: (n,) transitions of the source that are examined: all, or those of some of its episodes.
        mismatch: (n,) how far each is from what the target's dynamics would have done (`mismatch`), NaN where its state
            is not known; None where none can be known.
        unknown: why the mismatch is not known, or empty.
        control: median mismatch of the target's own transitions; above 1e-3 the target's data are not of its domain.
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
        """(E, Z) what encoders said of each episode: z without the name of the source that `per_source` puts first."""
        return None if self.latent is None else self.latent[:, -self.run.config.modality.latent_dim :]

    @cached_property
    def domain_of_episode(self) -> Labels:
        """(E,) without robot and physics, which all have in common."""
        return np.asarray([short_name(name) for name in self.source.domain])

    @cached_property
    def behavior_of_episode(self) -> Labels:
        """(E,)."""
        return np.asarray(self.source.behavior)

    @cached_property
    def domain(self) -> Labels:
        """(n,) true domain of every examined transition."""
        return self.domain_of_episode[self.source.episode_of_row[self.rows]]

    @cached_property
    def behavior(self) -> Labels:
        """(n,) behaviour of every examined transition."""
        return self.behavior_of_episode[self.source.episode_of_row[self.rows]]

    @property
    def target_domain(self) -> str:
        """The target's, named as in `domain`."""
        return short_name(parse_domain(self.run.config.target.domain).name)

    @cached_property
    def domains(self) -> list[str]:
        """The source's domains, the nearest to the target first."""
        return sorted(set(self.domain), key=lambda name: (self.domain_mismatch.get(name, 0.0), name))

    @cached_property
    def parts(self) -> list[tuple[str, str]]:
        """Domain and behaviour of each part of the source, in the order of `domains`."""
        present = set(zip(self.domain.tolist(), self.behavior.tolist(), strict=True))
        return sorted(present, key=lambda part: (self.domains.index(part[0]), part[1]))

    @cached_property
    def domain_mismatch(self) -> dict[str, float]:
        """Median mismatch of each domain's transitions; empty if it is not known."""
        if self.mismatch is None:
            return {}
        medians = {name: self.mismatch[self.domain == name] for name in np.unique(self.domain).tolist()}
        return {name: float(np.nanmedian(values)) for name, values in medians.items() if np.isfinite(values).any()}

    @property
    def near_domains(self) -> list[str]:
        """Those whose transitions could about as well be the target's."""
        return [name for name in self.domains if self.domain_mismatch.get(name, np.inf) < NEAR_MISMATCH]

    def of_part(self, part: tuple[str, str]) -> NDArray[np.bool_]:
        """(n,) whether an examined transition belongs to the part."""
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
