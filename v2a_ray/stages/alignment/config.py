"""Settings of the alignment stage: each estimator of h with what it alone reads.

A new estimator is a class here, or in a plugin, and the function that its `fits` names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from v2a_ray.engine.rates import Cost, Tables
from v2a_ray.settings.base import Positive, TrainingConfig
from v2a_ray.settings.choices import Choices

if TYPE_CHECKING:
    from v2a_ray.experiments.experiment import ExperimentConfig

ALIGNMENTS = Choices("kind", "none", "alignment")


class AlignmentConfig(TrainingConfig):
    """Stage 3: h, how well each source transition fits the target dynamics. What all estimators have."""

    fits: ClassVar[str | Callable[..., Any] | None] = None
    """From `AlignmentTables` to `Fitted`, or `module:function` of one; None if there is no column."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Stages that it is made from, beside the two tables."""
    of_states: ClassVar[bool] = False
    """Whether only states matter, so that steps without a recorded arrival count too."""
    scores_target: ClassVar[bool] = False
    """Whether it scores all of the target too."""
    kind: str
    """The estimator; `none` leaves the column out."""
    num_steps: Positive = 7000
    batch_size: Positive = 128
    width: Positive = 256
    """Width of the hidden layers."""
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Part of the target kept from the fit; its scores calibrate the filter and audit the alignment."""

    def check(self, experiment: ExperimentConfig) -> None:
        """Raise ValueError for an experiment that it cannot be part of."""

    def costs(self, tables: Tables) -> list[Cost] | None:
        """What computing it takes; None when it depends on a table whose size is not known."""
        members = getattr(self, "num_members", 1)
        return [Cost(f"alignment {self.kind}", self.num_steps, float(self.batch_size * self.width**2 * members))]


class WindowedConfig(AlignmentConfig):
    """An estimator whose scores are averaged over time and then ranked."""

    window_steps: Positive = 1
    """Raw scores are averaged over a centred window of this many steps inside the episode, because dynamics belong to a
    trajectory while one transition's error is noisy; 1 leaves them as they are."""


class DiscriminatorConfig(AlignmentConfig):
    """An estimator by a classifier whose inputs are perturbed while it is fitted."""

    noise_std: Annotated[float, Field(ge=0.0)] = 1.0
    """Standard deviation of Gaussian noise on standardised inputs while it is fitted."""
    log_ratio_clip: Annotated[float, Field(gt=0.0)] = 10.0
    """Largest absolute value of the score."""


@ALIGNMENTS.add
class NoAlignmentConfig(AlignmentConfig):
    """No alignment column."""

    kind: Literal["none"] = "none"


@ALIGNMENTS.add
class ContrastiveConfig(AlignmentConfig):
    """Does s' belong to (s, a) under the target dynamics? (IGDF, 2405.06192)"""

    fits = "v2a_ray.stages.alignment.contrastive:fit"
    kind: Literal["contrastive"] = "contrastive"
    embedding_dim: Positive = 64
    """Dimension in which f(s, a) and g(s') are compared."""
    contrastive_score: Literal["cosine", "logit"] = "cosine"
    """h is the cosine of f(s, a) and g(s') (published), or the logit f . g that was fitted. On systems with known
    dynamics the logit orders transitions by their density ratio, and the cosine much less so."""


@ALIGNMENTS.add
class ClassifierConfig(DiscriminatorConfig):
    """The log ratio of target to source dynamics, from two domain classifiers (DARA, 2203.06662)."""

    fits = "v2a_ray.stages.alignment.classifier:fit"
    kind: Literal["classifier"] = "classifier"


@ALIGNMENTS.add
class OptimalTransportConfig(AlignmentConfig):
    """Minus the cost of moving a transition onto the target's (OTDF, ICLR 2025). Nothing is trained."""

    needs_package = ("ot", "transport")
    fits = "v2a_ray.stages.alignment.optimal_transport:fit"
    kind: Literal["optimal_transport"] = "optimal_transport"
    block_transitions: Positive = 10000
    """Source transitions that are moved onto the target together."""
    regularization: Annotated[float, Field(gt=0.0)] = 0.05
    """Epsilon, weight of the plan's entropy against a cost in [0, 2]. Ours; none is published."""
    max_iterations: Positive = 1000
    """Sinkhorn iterations per block at most."""
    max_target_transitions: Positive = 20000
    """A larger target is represented by as many of its transitions, drawn by seed."""

    def costs(self, tables: Tables) -> list[Cost] | None:
        """Every source transition against the target's."""
        if tables.source is None or tables.target is None:
            return None
        return [Cost(f"alignment {self.kind}", tables.source * min(tables.target, self.max_target_transitions))]


class NeighborsConfig(AlignmentConfig):
    """An estimator by distances to nearest neighbours. Nothing is trained."""

    needs_package = ("sklearn", "diagnosis")
    num_neighbors: Positive = 5
    """k: the distance that counts is that to the k-th nearest transition."""
    max_target_transitions: Positive = 20000
    """A larger target is represented by as many of its transitions, drawn by seed."""

    def costs(self, tables: Tables) -> list[Cost] | None:
        """Every source transition against the target's."""
        if tables.source is None or tables.target is None:
            return None
        return [Cost(f"alignment {self.kind}", tables.source * min(tables.target, self.max_target_transitions))]


@ALIGNMENTS.add
class NearestConfig(NeighborsConfig):
    """How much nearer target transitions are than source transitions (after DmC, 2507.20499)."""

    fits = "v2a_ray.stages.alignment.nearest:fit"
    kind: Literal["nearest"] = "nearest"
    max_source_transitions: Positive = 20000
    """The same of the source, as far as neighbours are sought in it; all of it is scored."""

    def costs(self, tables: Tables) -> list[Cost] | None:
        """Every source transition against the target's and the source's."""
        if tables.source is None or tables.target is None:
            return None
        sought = min(tables.target, self.max_target_transitions) + min(tables.source, self.max_source_transitions)
        return [Cost(f"alignment {self.kind}", tables.source * sought)]


@ALIGNMENTS.add
class NearestStatesConfig(NeighborsConfig):
    """Minus the distance to the k-th nearest state of the target, whatever the dynamics (after 2307.02752)."""

    fits = "v2a_ray.stages.alignment.nearest:fit_states"
    of_states = True
    kind: Literal["nearest_states"] = "nearest_states"


@ALIGNMENTS.add
class DynamicsDensityConfig(AlignmentConfig):
    """Log density of s' under every member of an ensemble of dynamics models, the smallest (BOSA, 2306.12755)."""

    fits = "v2a_ray.stages.alignment.dynamics_density:fit"
    kind: Literal["dynamics_density"] = "dynamics_density"
    num_members: Positive = 5
    """Dynamics models in the ensemble."""
    fit_dynamics_to: Literal["target", "mixed"] = "target"
    """Data that p(s' | s, a) is fitted to. `mixed` is a mistake in circulation, to measure what it costs: the score
    then says that source dynamics are likely, because they were learned."""
    density_latent_dim: Positive = 16
    """Latent dimension of the conditional variational autoencoders."""
    density_samples: Positive = 8
    """Draws of the latent that estimate a density."""


@ALIGNMENTS.add
class StateRatioConfig(DiscriminatorConfig):
    """How much likelier a state is among those of high value; it scores states, not dynamics (after SRPO,
    2306.03552)."""

    fits = "v2a_ray.stages.alignment.state_ratio:fit"
    of_states = True
    scores_target = True
    kind: Literal["state_ratio"] = "state_ratio"
    high_value_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Part of every batch's states that counts as of high value. Ours."""


@ALIGNMENTS.add
class ResidualConfig(WindowedConfig):
    """How badly an ensemble fitted to the target predicts a transition, against its own disagreement (ours)."""

    fits = "v2a_ray.stages.alignment.residual:fit"
    kind: Literal["residual"] = "residual"
    num_members: Positive = 5
    """Dynamics models in the ensemble."""


@ALIGNMENTS.add
class ModalityAlignmentConfig(WindowedConfig):
    """How well the modality's decoder explains a transition by the target's own z (ours). Nothing is trained."""

    fits = "v2a_ray.stages.alignment.modality_alignment:fit"
    reads = ("modality",)
    kind: Literal["modality"] = "modality"

    def check(self, experiment: ExperimentConfig) -> None:
        """See `AlignmentConfig`."""
        if not experiment.modality.include_target:
            raise ValueError("alignment.kind=modality needs modality.include_target=true")

    def costs(self, tables: Tables) -> list[Cost] | None:
        """The decoder, once for every source transition."""
        return None if tables.source is None else [Cost(f"alignment {self.kind}", tables.source)]
