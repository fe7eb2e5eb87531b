"""Settings of the alignment stage, one class per estimator of h.

To add an estimator, write a settings class here or in a plugin, and the function that its `fits` names.
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
    """Stage 3: h, how well each source transition fits the target dynamics. Settings of all estimators."""

    fits: ClassVar[str | Callable[..., Any] | None] = None
    """A function from `AlignmentTables` to `Fitted`, or its `module:function`; None if there is no column."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Stages that it needs as inputs, besides the two tables."""
    of_states: ClassVar[bool] = False
    """Whether it uses only states, so that steps without a recorded next observation count too."""
    scores_target: ClassVar[bool] = False
    """Whether it also scores the whole target table."""
    kind: str
    """The estimator; `none`: no alignment column."""
    num_steps: Positive = 7000
    batch_size: Positive = 128
    width: Positive = 256
    """Width of the hidden layers."""
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Fraction of the target that is held out of the fit; its scores calibrate the filter and audit the alignment."""

    def check(self, experiment: ExperimentConfig) -> None:
        """Raise ValueError for an experiment that does not allow this estimator."""

    def costs(self, tables: Tables) -> list[Cost] | None:
        """The cost of computing it; None when it depends on a table of unknown size."""
        members = getattr(self, "num_members", 1)
        return [Cost(f"alignment {self.kind}", self.num_steps, float(self.batch_size * self.width**2 * members))]


class WindowedConfig(AlignmentConfig):
    """An estimator whose scores are averaged over time and then ranked."""

    window_steps: Positive = 1
    """Raw scores are averaged over a centred window of this many steps inside the episode, because a whole trajectory
    has the same dynamics while one transition's error is noisy; 1: no averaging."""


class DiscriminatorConfig(AlignmentConfig):
    """An estimator that trains a classifier on noisy inputs."""

    noise_std: Annotated[float, Field(ge=0.0)] = 1.0
    """Standard deviation of Gaussian noise on standardised inputs during training."""
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
    """Dimension of the embeddings f(s, a) and g(s')."""
    contrastive_score: Literal["cosine", "logit"] = "cosine"
    """h is the cosine of f(s, a) and g(s') (published), or the trained logit f . g. On systems with known dynamics, the
    logit orders transitions by their density ratio; the cosine does so much less."""


@ALIGNMENTS.add
class ClassifierConfig(DiscriminatorConfig):
    """The log ratio of target to source dynamics, from two domain classifiers (DARA, 2203.06662)."""

    fits = "v2a_ray.stages.alignment.classifier:fit"
    kind: Literal["classifier"] = "classifier"


@ALIGNMENTS.add
class OptimalTransportConfig(AlignmentConfig):
    """Minus the cost of transporting a transition to the target's (OTDF, ICLR 2025). Nothing is trained."""

    needs_package = ("ot", "transport")
    fits = "v2a_ray.stages.alignment.optimal_transport:fit"
    kind: Literal["optimal_transport"] = "optimal_transport"
    block_transitions: Positive = 10000
    """Source transitions per transport problem."""
    regularization: Annotated[float, Field(gt=0.0)] = 0.05
    """Epsilon, weight of the plan's entropy against a cost in [0, 2]. Our choice; none is published."""
    max_iterations: Positive = 1000
    """Maximum of Sinkhorn iterations per block."""
    max_target_transitions: Positive = 20000
    """A larger target is subsampled to this many transitions, by seed."""

    def costs(self, tables: Tables) -> list[Cost] | None:
        """Every source transition against the target's."""
        if tables.source is None or tables.target is None:
            return None
        return [Cost(f"alignment {self.kind}", tables.source * min(tables.target, self.max_target_transitions))]


class NeighborsConfig(AlignmentConfig):
    """An estimator by distances to nearest neighbours. Nothing is trained."""

    needs_package = ("sklearn", "diagnosis")
    num_neighbors: Positive = 5
    """k: distances are those to the k-th nearest transition."""
    max_target_transitions: Positive = 20000
    """A larger target is subsampled to this many transitions, by seed."""

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
    """A larger source is subsampled to this many transitions for the neighbour search; all of it is scored."""

    def costs(self, tables: Tables) -> list[Cost] | None:
        """Every source transition against the target's and the source's."""
        if tables.source is None or tables.target is None:
            return None
        sought = min(tables.target, self.max_target_transitions) + min(tables.source, self.max_source_transitions)
        return [Cost(f"alignment {self.kind}", tables.source * sought)]


@ALIGNMENTS.add
class NearestStatesConfig(NeighborsConfig):
    """Minus the distance to the target's k-th nearest state; ignores the dynamics (after 2307.02752)."""

    fits = "v2a_ray.stages.alignment.nearest:fit_states"
    of_states = True
    kind: Literal["nearest_states"] = "nearest_states"


@ALIGNMENTS.add
class DynamicsDensityConfig(AlignmentConfig):
    """The smallest log density of s' over an ensemble of dynamics models (BOSA, 2306.12755)."""

    fits = "v2a_ray.stages.alignment.dynamics_density:fit"
    kind: Literal["dynamics_density"] = "dynamics_density"
    num_members: Positive = 5
    """Dynamics models in the ensemble."""
    fit_dynamics_to: Literal["target", "mixed"] = "target"
    """Data for fitting p(s' | s, a). `mixed` reproduces a common mistake to measure its cost: source dynamics were
    learned too, so they score as likely."""
    density_latent_dim: Positive = 16
    """Latent dimension of the conditional variational autoencoders."""
    density_samples: Positive = 8
    """Latent samples per density estimate."""


@ALIGNMENTS.add
class StateRatioConfig(DiscriminatorConfig):
    """How much more likely a state is among states of high value; it scores states, not dynamics (after SRPO,
    2306.03552)."""

    fits = "v2a_ray.stages.alignment.state_ratio:fit"
    of_states = True
    scores_target = True
    kind: Literal["state_ratio"] = "state_ratio"
    high_value_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Fraction of every batch's states that counts as of high value. Our choice."""


@ALIGNMENTS.add
class ResidualConfig(WindowedConfig):
    """The error of an ensemble fitted to the target, relative to the ensemble's disagreement (ours)."""

    fits = "v2a_ray.stages.alignment.residual:fit"
    kind: Literal["residual"] = "residual"
    num_members: Positive = 5
    """Dynamics models in the ensemble."""


@ALIGNMENTS.add
class ModalityAlignmentConfig(WindowedConfig):
    """How well the modality's decoder predicts a transition from the target's z (ours). Nothing is trained."""

    fits = "v2a_ray.stages.alignment.modality_alignment:fit"
    reads = ("modality",)
    kind: Literal["modality"] = "modality"

    def check(self, experiment: ExperimentConfig) -> None:
        """See `AlignmentConfig`."""
        if not experiment.modality.include_target:
            raise ValueError("alignment.kind=modality needs modality.include_target=true")

    def costs(self, tables: Tables) -> list[Cost] | None:
        """One evaluation of the decoder per source transition."""
        return None if tables.source is None else [Cost(f"alignment {self.kind}", tables.source)]
