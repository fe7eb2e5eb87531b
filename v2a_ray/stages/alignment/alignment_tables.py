"""The input of an alignment estimator: source and target tables, opened only when used."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.loading.sampler import Preprocessing, Transitions, TransitionSampler, of_recorded_arrivals
from v2a_ray.data.loading.streaming import open_transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.splits import split_target
from v2a_ray.engine.columns import EpisodeIndex
from v2a_ray.engine.context import Job, preprocessing, require_memory
from v2a_ray.engine.trainer import History, Learner
from v2a_ray.stages.alignment.config import AlignmentConfig
from v2a_ray.stages.alignment.scores import Alignment, carried, ranks, window_average

Float = NDArray[np.float32]
Fitted = tuple[Alignment, History]
Config = TypeVar("Config", bound=AlignmentConfig)


class ScoringLearner(Learner, Protocol):
    """A learner that can score transitions after training."""

    def score(self, transitions: TransitionSampler) -> Tensor:
        """(N,) scores, on the device of the transitions."""
        ...


class AlignmentTables(Generic[Config]):
    """The two tables of a job for alignment estimators. A table is opened when the estimator reads it.

    Attributes:
        rows: the source's memory-mapped rows.
        target: the whole target table.
        fitted, held_out: the two parts of the target table.
        of_states: whether only states are used, so that steps without a recorded next observation count too.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.config = job, cast(Config, job.config.alignment)
        self.of_states = self.config.of_states
        self.seed, self.rows = job.config.upstream_seed, job.rows("source")
        self.memory_bytes = job.memory_bytes - require_memory(job, "alignment", "target")
        self.target = job.table("target")
        compared = self.target if self.of_states else self.target.recorded_steps()
        self.fitted, self.held_out = split_target(compared, self.config.held_out_fraction, self.seed)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of both tables."""
        return preprocessing(self.job)

    @cached_property
    def device(self) -> torch.device:
        """The device of the estimator."""
        return self.job.device(self.config, source=self.memory_bytes)

    @cached_property
    def sources(self) -> TransitionSampler:
        """The source's transitions, in memory or streamed."""
        sources = open_transitions(
            self.rows, self.preprocessing, memory_bytes=self.memory_bytes, seed=self.seed, device=self.device
        )
        return sources if self.of_states else of_recorded_arrivals(sources, self.rows)

    def transitions(self, table: EpisodeTable) -> Transitions:
        """The transitions of a part of the target."""
        return Transitions(table, self.preprocessing, device=self.device)

    def train(self, make: Callable[[Transitions], ScoringLearner], draws_source: bool = True) -> tuple[Any, History]:
        """Make a learner for the fitted part of the target, train it, and return it with its history."""
        targets = self.transitions(self.fitted)
        samplers = {"source": self.sources} if draws_source else {}
        torch.manual_seed(self.seed)
        learner = make(targets)
        return learner, self.job.loop(self.config, samplers=samplers).run(learner)

    def scores(self, fitted: ScoringLearner) -> Alignment:
        """Scores of both tables as NumPy arrays; source steps without a recorded next observation: see `carried`."""
        source, held_out = fitted.score(self.sources), fitted.score(self.transitions(self.held_out))
        return Alignment(carried(source.cpu().numpy(), self.rows), held_out.cpu().numpy())

    def ranked(self, source: Float, held_out: Float, index: EpisodeIndex, window_steps: int) -> Alignment:
        """Average scores over windows, then rank them among the source's, so h is uniform on [0, 1] over the source."""
        pool = window_average(source, index, window_steps)
        return Alignment(ranks(pool, pool), ranks(window_average(held_out, self.held_out, window_steps), pool))

    def learned(self, learner: Callable[..., ScoringLearner]) -> Fitted:
        """Train a learner that compares transitions of both tables, and return its scores."""
        trained, history = self.train(lambda targets: learner(targets, self.sources, self.config, self.seed))
        return self.scores(trained), history
