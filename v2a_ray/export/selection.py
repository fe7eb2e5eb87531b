"""Selects among policies without a simulator: fitted Q evaluation on held-out target episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from v2a_ray.data.formats.readers import read_table
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.data.table.folder import read_table_folder
from v2a_ray.domains import Domain
from v2a_ray.errors import DataError
from v2a_ray.evaluation.fitted_q_evaluation import FittedQConfig, OfflineValue, hold_out_first_states, offline_value
from v2a_ray.evaluation.returns import evaluate
from v2a_ray.export.policies import Policy, require_robot_of

OnProgress = Callable[[str, int, int], None]
"""Called as on_progress(policy, step, num_steps)."""
TRUE_SEED = 3000


@dataclass(frozen=True)
class SelectionData:
    """The data for comparing policies.

    Attributes:
        target: episodes of the target; some are held out.
        source: additional episodes to fit to, or None.
        domain: the target.
    """

    target: EpisodeTable
    source: EpisodeTable | None
    domain: Domain


@dataclass(frozen=True)
class Candidate:
    """A policy with its estimated value. `true_return` is undiscounted; None if the policy was not rolled out."""

    name: str
    value: OfflineValue
    true_return: float | None


def selection_data(policies: Sequence[Policy], path: Path | None, with_source: bool) -> SelectionData:
    """The data in `path`, or else the target data that the runs among `policies` share.

    Raises DataError without a run and a path, or if the runs' target data differ or are gone; DomainError for policies
    of different robots.
    """
    runs = [policy.run for policy in policies if policy.run]
    domain = runs[0].domain if runs else policies[0].domain
    for policy in policies:
        require_robot_of(policy, domain)
    if with_source and not runs:
        raise DataError("there is no run whose source could be taken", where="--with-source", remedy="leave it out")
    source = _stored(runs[0].source_data) if with_source else None
    if path is not None:
        return SelectionData(read_table(path, robot=domain.robot_spec).table, source, domain)
    if not runs:
        raise DataError(
            "none of the policies is a run, whose target data could be taken", where="select", remedy="give --data FILE"
        )
    other = next((run for run in runs if run.target_data.parent.name != runs[0].target_data.parent.name), None)
    if other is not None:
        raise DataError(
            f"its target data are not those of {runs[0].folder}",
            where=str(other.folder),
            remedy="values on different data do not compare: give --data FILE for all, or runs of one target",
        )
    return SelectionData(_stored(runs[0].target_data), source, domain)


def _stored(folder: Path) -> EpisodeTable:
    if not folder.is_dir():
        raise DataError("the run's data are gone", where=str(folder), remedy="run the same `v2a run` again, or --data")
    return read_table_folder(folder)


def estimate(
    policies: Sequence[Policy],
    data: SelectionData,
    config: FittedQConfig,
    *,
    held_out_fraction: float,
    seed: int,
    num_true_episodes: int,
    on_progress: OnProgress,
) -> list[Candidate]:
    """All policies with their values, best `OfflineValue.lower` first; all use the same episodes and seed.

    The true return is from `num_true_episodes` rollouts in the target; with 0, it is the policy's run's evaluation.
    """
    fitted, first_EO = hold_out_first_states(data.target, held_out_fraction, seed)
    table = concatenate([fitted, data.source]) if data.source else fitted
    candidates = []
    for policy in policies:

        def progress(step: int, num_steps: int, _: object, name: str = policy.name) -> None:
            on_progress(name, step, num_steps)

        value = offline_value(policy.act, table, first_EO, config, seed, progress)
        candidates.append(Candidate(policy.name, value, _true_return(policy, data.domain, num_true_episodes)))
    return sorted(candidates, key=lambda candidate: -candidate.value.lower)


def _true_return(policy: Policy, domain: Domain, num_episodes: int) -> float | None:
    if num_episodes:
        return float(evaluate(policy.act, domain, num_episodes, TRUE_SEED).returns.mean())
    known = policy.run is not None and policy.run.domain == domain
    return policy.run.return_mean if policy.run and known else None


def rank_correlation(candidates: Sequence[Candidate]) -> tuple[float, int]:
    """Spearman's correlation of `lower` and true returns (NaN below three policies or if all tie), and their number."""
    known = [(one.value.lower, one.true_return) for one in candidates if one.true_return is not None]
    if len(known) < 3 or any(len(set(column)) < 2 for column in zip(*known, strict=True)):
        return float("nan"), len(known)
    values, returns = np.asarray(known).T
    return float(spearmanr(values, returns).statistic), len(known)
