"""Selects among policies without a simulator, by numbers on held-out target episodes such as fitted Q evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from v2a_ray.data.formats.readers import read_table
from v2a_ray.data.rewards import MISSING, REMEDY, missing_rewards
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.data.table.folder import read_manifest, read_table_folder
from v2a_ray.data.table.splits import split_target
from v2a_ray.domains import Domain
from v2a_ray.errors import DataError
from v2a_ray.evaluation.fitted_q_evaluation import FittedQConfig, first_states, has_whole_episodes, hold_out
from v2a_ray.evaluation.offline import OfflineData, OfflineNumbers, evaluate_offline
from v2a_ray.evaluation.returns import evaluate
from v2a_ray.export.policies import Policy, require_robot_of
from v2a_ray.settings.measures import OfflineMeasure, rank_score

OnProgress = Callable[[str, int, int], None]
"""Called as on_progress(policy, step, num_steps)."""
TRUE_SEED = 3000


@dataclass(frozen=True)
class SelectionData:
    """The data for comparing policies.

    Attributes:
        target: episodes of the target.
        held_out: more of them, which no policy was trained on; None if some of `target` are to be held out.
        source: additional episodes to fit to, or None.
        has_rewards: whether the target's rewards are known.
        domain: the target.
    """

    target: EpisodeTable
    held_out: EpisodeTable | None
    source: EpisodeTable | None
    has_rewards: bool
    domain: Domain

    @staticmethod
    def stored(target: Path, held_out: Path | None, source: Path | None, domain: Domain) -> SelectionData:
        """From the folders of tables that an experiment has made. Raises DataError where one is gone."""
        unseen, others = (None if folder is None else _stored(folder) for folder in (held_out, source))
        return SelectionData(_stored(target), unseen, others, not missing_rewards(read_manifest(target)), domain)

    @property
    def starts_in_source(self) -> bool:
        """Whether first states are the source's, because the target's are not known: it has no five whole episodes."""
        return self.source is not None and self.held_out is None and not has_whole_episodes(self.target)

    @property
    def target_return(self) -> float:
        """See `mean_return`."""
        return mean_return(self.target, self.domain.robot_spec.max_episode_steps)

    @property
    def source_return(self) -> float:
        """See `mean_return`; NaN without a source."""
        limit = self.domain.robot_spec.max_episode_steps
        return float("nan") if self.source is None else mean_return(self.source, limit)

    def split(self, fraction: float, seed: int) -> OfflineData:
        """What critics are fitted to and what is held out of the target. Raises DataError without first states."""
        fitted, held_out = self.target, self.held_out
        if held_out is None:
            split = split_target if self.starts_in_source else hold_out
            fitted, held_out = split(self.target, fraction, seed)
        if self.source is None:
            return OfflineData(fitted, held_out, self.has_rewards)
        first_EO = first_states(self.source) if self.starts_in_source else None
        return OfflineData(concatenate([fitted, self.source]), held_out, self.has_rewards, first_EO)


@dataclass(frozen=True)
class Candidate:
    """A policy and what is known of it.

    Attributes:
        score: the number that candidates are ranked by, the largest first.
        true_return: undiscounted; None where nobody rolled the policy out.
    """

    name: str
    numbers: OfflineNumbers
    score: float
    true_return: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "policy": self.name,
            "score": self.score,
            "value": self.numbers.of("fitted_q_mean"),
            "lower_value": self.numbers.of("fitted_q_lower"),
            "value_of_critic": self.numbers.value.of_critic.tolist() if self.numbers.value else None,
            "td_error": self.numbers.td_error,
            "action_log_likelihood": self.numbers.action_log_likelihood,
            "num_held_out_episodes": self.numbers.num_episodes,
            "true_return": self.true_return,
        }


def mean_return(table: EpisodeTable, max_episode_steps: int) -> float:
    """Undiscounted return of an average episode: mean reward times steps between terminals, at most an episode's limit.

    So it is known of transitions that were drawn one by one too.
    """
    return float(table.reward.mean() / max(table.terminal_rows.mean(), 1 / max_episode_steps))


def selection_data(policies: Sequence[Policy], path: Path | None, with_source: bool) -> SelectionData:
    """The data in `path`, or else the target data that the runs among `policies` share.

    Raises DataError without a run and a path, or if the runs' target data differ or are gone; DomainError for policies
    of different robots.
    """
    runs = [policy.run for policy in policies if policy.run]
    domain = runs[0].domain if runs else policies[0].domain
    for policy in policies:
        require_robot_of(policy, domain)
    source = None
    if with_source:
        source = next((run.source_data for run in runs if run.source_data), None)
        if source is None:
            raise DataError("no policy is a run with sources", where="--with-source", remedy="leave it out")
    if path is not None:
        reading = read_table(path, robot=domain.robot_spec)
        has_rewards = all(finding.check != MISSING for finding in reading.findings)
        return SelectionData(reading.table, None, None if source is None else _stored(source), has_rewards, domain)
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
    return SelectionData.stored(runs[0].target_data, runs[0].held_out_data, source, domain)


def _stored(folder: Path) -> EpisodeTable:
    if not folder.is_dir():
        raise DataError("the run's data are gone", where=str(folder), remedy="run the same `v2a run` again, or --data")
    return read_table_folder(folder)


def estimate(
    policies: Sequence[Policy],
    data: SelectionData,
    config: FittedQConfig,
    *,
    measure: OfflineMeasure,
    held_out_fraction: float,
    seed: int,
    num_true_episodes: int,
    on_progress: OnProgress,
) -> list[Candidate]:
    """All policies with their numbers, best by `measure` first; all are fitted to the same episodes and seed.

    The true return is from `num_true_episodes` rollouts in the target; with 0, it is the policy's run's evaluation.
    Raises DataError for a measure that needs rewards if the data have none, and without first states.
    """
    if not data.has_rewards and measure != "action_log_likelihood":
        raise DataError(
            f"no rewards, which {measure} needs", where="target", remedy=f"--by action_log_likelihood, or {REMEDY}"
        )
    episodes = data.split(held_out_fraction, seed)
    candidates = []
    for policy in policies:

        def progress(step: int, num_steps: int, _: object, name: str = policy.name) -> None:
            on_progress(name, step, num_steps)

        numbers = evaluate_offline(policy.act, episodes, config, seed, progress)
        value = numbers.of(measure)
        assert value is not None, "refused above"
        true_return = _true_return(policy, data.domain, num_true_episodes)
        candidates.append(Candidate(policy.name, numbers, rank_score(measure, value), true_return))
    return sorted(candidates, key=lambda candidate: -candidate.score)


def _true_return(policy: Policy, domain: Domain, num_episodes: int) -> float | None:
    if num_episodes:
        return float(evaluate(policy.act, domain, num_episodes, TRUE_SEED).returns.mean())
    known = policy.run is not None and policy.run.domain == domain
    return policy.run.return_mean if policy.run and known else None


def rank_correlation(candidates: Sequence[Candidate]) -> tuple[float, int]:
    """Spearman's correlation of scores and true returns (NaN below three policies or if all tie), and their number."""
    known = [(one.score, one.true_return) for one in candidates if one.true_return is not None]
    if len(known) < 3 or any(len(set(column)) < 2 for column in zip(*known, strict=True)):
        return float("nan"), len(known)
    values, returns = np.asarray(known).T
    return float(spearmanr(values, returns).statistic), len(known)
