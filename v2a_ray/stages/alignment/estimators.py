"""The estimators of alignment, by `alignment.kind`: from two tables to h of the source and of held-out target steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.loading.sampler import Preprocessing, Transitions, TransitionSampler, of_recorded_arrivals
from v2a_ray.data.loading.streaming import open_transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.columns import EpisodeIndex, read_episode_column, write_step_column
from v2a_ray.engine.context import Job, preprocessing, require_memory
from v2a_ray.engine.trainer import History, Learner
from v2a_ray.stages.alignment.classifier import ClassifierLearner
from v2a_ray.stages.alignment.contrastive import ContrastiveLearner
from v2a_ray.stages.alignment.optimal_transport import OptimalTransport
from v2a_ray.stages.alignment.residual import ResidualLearner
from v2a_ray.stages.alignment.scores import Alignment, carried, modality_scores, ranks, split_target, window_average
from v2a_ray.stages.alignment.state_ratio import StateRatioLearner
from v2a_ray.stages.modality.fit import load_modality
from v2a_ray.stages.policy.training import TARGET_COLUMN
from v2a_ray.stages.sections import AlignmentConfig
from v2a_ray.stages.support.conditional_vae import DynamicsDensityLearner

Float = NDArray[np.float32]
Fitted = tuple[Alignment, History]


class ScoringLearner(Learner, Protocol):
    """A learner that scores transitions once it is trained."""

    def score(self, transitions: TransitionSampler) -> Tensor:
        """(N,), on the device of the transitions."""
        ...


class AlignmentTables:
    """The two tables of a job, as estimators of alignment read them; what one does not read is not opened.

    Attributes:
        rows: the source's.
        target: all of it.
        fitted, held_out: its parts.
        of_states: whether only states matter, so that steps without a recorded arrival count too.
    """

    def __init__(self, job: Job, of_states: bool) -> None:
        self.job, self.of_states, self.config = job, of_states, job.config.alignment
        self.seed, self.rows = job.config.upstream_seed, job.rows("source")
        self.memory_bytes = job.memory_bytes - require_memory(job, "alignment", "target")
        self.target = job.table("target")
        compared = self.target if of_states else self.target.recorded_steps()
        self.fitted, self.held_out = split_target(compared, self.config.held_out_fraction, self.seed)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Of both tables."""
        return preprocessing(self.job)

    @cached_property
    def device(self) -> torch.device:
        """Where the estimator computes."""
        return self.job.device(self.config, source=self.memory_bytes)

    @cached_property
    def sources(self) -> TransitionSampler:
        """The source's transitions, in memory or streamed."""
        sources = open_transitions(
            self.rows, self.preprocessing, memory_bytes=self.memory_bytes, seed=self.seed, device=self.device
        )
        return sources if self.of_states else of_recorded_arrivals(sources, self.rows)

    def transitions(self, table: EpisodeTable) -> Transitions:
        """Those of a part of the target."""
        return Transitions(table, self.preprocessing, device=self.device)

    def train(self, make: Callable[[Transitions], ScoringLearner], draws_source: bool = True) -> tuple[Any, History]:
        """A learner made from the fitted part of the target, trained, and its history."""
        targets = self.transitions(self.fitted)
        feeds = {"source": self.sources} if draws_source else {}
        torch.manual_seed(self.seed)
        learner = make(targets)
        return learner, self.job.loop(self.config, feeds=feeds).run(learner)

    def scores(self, fitted: ScoringLearner) -> Alignment:
        """Of both tables, back from the device; source steps whose arrival was not recorded get their neighbours'."""
        source, held_out = fitted.score(self.sources), fitted.score(self.transitions(self.held_out))
        return Alignment(carried(source.cpu().numpy(), self.rows), held_out.cpu().numpy())

    def ranked(self, source: Float, held_out: Float, index: EpisodeIndex) -> Alignment:
        """Scores averaged over windows, as ranks among the source's: h is then uniform on [0, 1] over the source."""
        pool = window_average(source, index, self.config.window_steps)
        return Alignment(
            ranks(pool, pool), ranks(window_average(held_out, self.held_out, self.config.window_steps), pool)
        )


def learned(learner: Callable[..., ScoringLearner], tables: AlignmentTables) -> Fitted:
    """Scores of a learner that compares transitions of both tables."""
    trained, history = tables.train(lambda targets: learner(targets, tables.sources, tables.config, tables.seed))
    return tables.scores(trained), history


def dynamics_density(tables: AlignmentTables) -> Fitted:
    """Log density of the next state under models of one table or both (BOSA)."""
    both = tables.config.fit_dynamics_to != "target"
    trained, history = tables.train(
        lambda targets: DynamicsDensityLearner(
            targets, [targets, tables.sources] if both else [targets], tables.config, tables.seed
        )
    )
    return tables.scores(trained), history


def optimal_transport(tables: AlignmentTables) -> Fitted:
    """Minus the cost at which a transition is moved onto the target (OTDF). Nothing is trained."""
    targets, held_out, job = tables.transitions(tables.fitted), tables.transitions(tables.held_out), tables.job
    torch.manual_seed(tables.seed)
    transport = OptimalTransport(targets, tables.config, tables.seed)
    moved = transport.score(tables.sources, lambda done, total: job.progress(done, total, {}))
    return Alignment(carried(moved.cpu().numpy(), tables.rows), transport.score(held_out).cpu().numpy()), []


def state_ratio(tables: AlignmentTables) -> Fitted:
    """How much likelier a state is among those of high value (after SRPO), of the whole target too."""
    ratio, history = tables.train(
        lambda targets: StateRatioLearner(targets, tables.sources, tables.config, tables.seed)
    )
    scored = ratio.score(tables.transitions(tables.target)).cpu().numpy()
    write_step_column(tables.job.output / TARGET_COLUMN, "alignment", tables.target, scored)
    held_out = ratio.score(tables.transitions(tables.held_out)).cpu().numpy()
    return Alignment(ratio.score(tables.sources).cpu().numpy(), held_out), history


def residual(tables: AlignmentTables) -> Fitted:
    """How badly an ensemble fitted to the target predicts a transition, against its own disagreement (ours)."""
    trained, history = tables.train(
        lambda targets: ResidualLearner(targets, tables.config, tables.seed), draws_source=False
    )
    scores = tables.scores(trained)
    return tables.ranked(scores.source, scores.held_out, tables.rows), history


def modality(tables: AlignmentTables) -> Fitted:
    """How well the modality's decoder explains a transition by the target's own z (ours). Nothing is trained."""
    job, target = tables.job, tables.target
    require_memory(job, "alignment", "source", "target")
    source, folder = job.table("source"), job.inputs["modality"]
    model = load_modality(folder, source.observation_dim, source.action_dim).to(job.device(tables.config))
    target_latent = read_episode_column(folder / "column.parquet", "z", target)
    centre = np.average(target_latent, axis=0, weights=target.lengths).astype(np.float32)

    def scores(table: EpisodeTable) -> Float:
        latent = read_episode_column(folder / "column.parquet", "z", table)
        return carried(modality_scores(model, table, latent, centre), table)

    return tables.ranked(scores(source), scores(tables.held_out), source), []


@dataclass(frozen=True)
class Estimator:
    """How h is estimated.

    Attributes:
        fit: fits to the tables and scores them.
        of_states: see `AlignmentTables`.
    """

    fit: Callable[[AlignmentTables], Fitted]
    of_states: bool = False


ESTIMATORS = {
    "contrastive": Estimator(partial(learned, ContrastiveLearner)),
    "classifier": Estimator(partial(learned, ClassifierLearner)),
    "optimal_transport": Estimator(optimal_transport),
    "dynamics_density": Estimator(dynamics_density),
    "state_ratio": Estimator(state_ratio, of_states=True),
    "residual": Estimator(residual),
    "modality": Estimator(modality),
}
"""By `alignment.kind`."""


def estimate_alignment(job: Job) -> Fitted:
    """h of a job's source and of held-out target transitions, by the estimator that is configured."""
    config: AlignmentConfig = job.config.alignment
    estimator = ESTIMATORS[config.kind]
    return estimator.fit(AlignmentTables(job, estimator.of_states))
