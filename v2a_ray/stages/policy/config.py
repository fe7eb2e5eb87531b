"""Settings of the policy stage: common settings, one class per learner, and the filter.

To add a learner, write a settings class here or in a plugin, and the function that its `makes` names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from v2a_ray.settings.base import Fraction, Positive, Rate, Settings, TrainingConfig
from v2a_ray.settings.choices import Choices

if TYPE_CHECKING:
    from v2a_ray.experiments.experiment import ExperimentConfig

LEARNERS = Choices("learner", "iql", "policy learner")
FILTERS = Choices("rule", "none", "filter rule")


class FilterConfig(Settings):
    """Selects source transitions for training by f = lambda * h + (1 - lambda) * minmax(A). Settings of all rules."""

    selects: ClassVar[str | Callable[..., Any]]
    """A class that selects rows (`v2a_ray.stages.policy.filtering.Selector`), or its `module:class`."""
    needs_score: ClassVar[bool] = True
    """Whether it needs the alignment or the advantage column."""
    needs_alignment: ClassVar[bool] = False
    """Whether it needs the alignment column."""
    rule: str
    """How transitions are selected by f."""
    keep_fraction: Fraction = 0.5
    """xi: fraction of the eligible transitions to keep."""
    alignment_weight: Fraction = 0.6
    """lambda; 1 is alignment alone, 0 is value alone."""
    normalization: Literal["batch", "table", "ranks"] = "batch"
    """How A is scaled to [0, 1]: min-max over the drawn batch (published) or over the whole source table, or the rank
    in that table. `ranks` also replaces h by its rank, so that lambda weighs two quantities of equal scale; the weight
    exp(h) still uses the original h."""
    normalize_alignment: bool = False
    """With `batch` and `table`: also scale h to [0, 1] (published: h is not scaled)."""
    weight: Literal["one", "exp_alignment", "score", "exp_score", "above_threshold"] = "one"
    """Weight of a kept source transition in the TD loss: 1, exp(h) clamped at 100, the score f, exp(f - 1) (OTDF, with
    f in [0, 1] by `normalize_alignment`), or 1 if h is above `weight_threshold` and 0 otherwise (BOSA)."""
    weight_threshold: float = math.log(0.01)
    """Threshold on h for `above_threshold`; BOSA's h is a log density."""


@FILTERS.add
class KeepAllConfig(FilterConfig):
    """Keeps every source transition."""

    selects = "v2a_ray.stages.policy.filtering:KeepAll"
    needs_score = False
    rule: Literal["none"] = "none"


@FILTERS.add
class TopFractionConfig(FilterConfig):
    """Keeps the fraction xi of every batch with the highest f (published)."""

    selects = "v2a_ray.stages.policy.filtering:TopFraction"
    rule: Literal["top_fraction"] = "top_fraction"


@FILTERS.add
class CalibratedConfig(FilterConfig):
    """Keeps the best xi by f of the transitions above a threshold on h, which is calibrated on held-out target data; if
    none is above it, the policy trains on the target alone."""

    selects = "v2a_ray.stages.policy.filtering:Calibrated"
    needs_alignment = True
    rule: Literal["calibrated"] = "calibrated"
    target_acceptance: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """Fraction of held-out target data whose alignment passes the threshold."""


class PolicyConfig(TrainingConfig):
    """Stage 4: the policy, trained offline on the filtered data. Settings of all learners."""

    makes: ClassVar[str | Callable[..., Any]]
    """A function from `LearnerInputs` to a `Learner`, or its `module:function`."""
    fits: ClassVar[str] = "v2a_ray.stages.policy.training:fit_policy"
    """`module:function` that computes the stage from a `Job`."""
    fits_parallel: ClassVar[str | None] = None
    """The same for `num_workers` data-parallel workers."""
    columns: ClassVar[str | Callable[..., Any] | None] = None
    """A function from (`Job`, "target" or "source", rows of that table) to extra columns for this learner, which
    batches carry in `extra`; or its `module:function`."""
    uses_rllib: ClassVar[bool] = False
    """Whether RLlib trains it, on the plain tables without columns, on the CPU."""
    reads_rewards: ClassVar[bool] = True
    """Whether it learns from rewards."""
    learner: str
    """The algorithm that trains the policy."""
    data: Literal["mixed", "target", "source"] = "mixed"
    """The tables that the policy trains on."""
    num_steps: Positive = 20000
    batch_size: Positive = 128
    """Transitions drawn per table and update step; training on one table alone draws twice as many."""
    width: Positive = 256
    """Width of the two hidden layers."""
    discount: Fraction = 0.99
    target_rate: Rate = 0.005
    """Rate of the target critics' moving average."""
    reward_correction: float = 0.0
    """DARA's eta: source rewards become r + eta * alignment, in units of the RECORDED reward.
    `preprocessing.reward_scale` scales the sum, so eta does not depend on it."""
    reward_correction_data: Literal["source", "mixed"] = "source"
    """Tables whose rewards are corrected: the source (DARA), or both (SRPO, `alignment.kind=state_ratio`)."""
    correct_transitions: bool = False
    """STC: give source transitions the predicted action and reward of the target, where models of the target's dynamics
    confirm them (sections `correction` and `dynamics`)."""
    filter: Annotated[FilterConfig, FILTERS] = KeepAllConfig()

    @property
    def uses_source(self) -> bool:
        """Whether it trains on source transitions."""
        return self.data != "target"

    @property
    def is_batched(self) -> bool:
        """Whether many policies can be trained as one batch."""
        return False

    def reads(self) -> list[str]:
        """Stages that it needs as inputs, besides the columns for the filter."""
        return ["correction"] if self.correct_transitions and self.uses_source else []

    def check(self, experiment: ExperimentConfig) -> None:
        """Raise ValueError for an experiment that does not allow this learner."""


class AdvantageWeightedConfig(PolicyConfig):
    """A learner with IQL's critics and an actor trained by advantage-weighted regression."""

    expectile: Rate = 0.7
    """IQL's tau: the expectile of Q that V fits."""
    temperature: Annotated[float, Field(ge=0.0)] = 3.0
    """IQL's beta: the weight of advantage-weighted regression is exp(beta * A), clamped at 100."""


class TD3Config(PolicyConfig):
    """A learner based on TD3, with noise on the target actor's action."""

    noise_std: Annotated[float, Field(ge=0.0)] = 0.2
    """Standard deviation of the noise on the target actor's action (action range is -1 to 1)."""
    noise_clip: Annotated[float, Field(ge=0.0)] = 0.5
    """Largest absolute value of that noise."""
    delay_steps: Positive = 2
    """Update steps of the critics per update of the actor and the moving averages."""


@LEARNERS.add
class IQLConfig(AdvantageWeightedConfig):
    """Implicit Q-learning (2110.06169)."""

    makes = "v2a_ray.stages.policy.iql:make"
    fits_parallel = "v2a_ray.orchestration.train.policy_workers:fit_policy_parallel"
    learner: Literal["iql"] = "iql"
    num_workers: Positive = 1
    """Data-parallel workers of Ray Train, each on its own GPU if there are enough; each draws and filters an equal part
    of the batch. Only useful for batches of many thousands."""
    next_value: Literal["before_step", "after_step"] = "before_step"
    """Whether the critics' target uses V(s') before V's update in this step, like all other networks, or after it, as
    in V2A's published code."""
    density_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight w of -log pi_b(pi(s) | s) in the actor's loss, which keeps the policy in the support of the behaviour that
    section `density` models (OTDF); with 0, no density is fitted."""
    cuda_graph: bool = False
    """On a GPU: record an update step as a CUDA graph, which then starts by one call."""

    @model_validator(mode="after")
    def _workers_share_a_batch(self) -> IQLConfig:
        if self.cuda_graph and not self.is_batched:
            raise ValueError("cuda_graph: needs num_workers=1, density_weight=0 and next_value=before_step")
        if self.batch_size % self.num_workers:
            raise ValueError(f"{self.num_workers} workers cannot share a batch of {self.batch_size} equally")
        return self

    @property
    def is_batched(self) -> bool:
        """True if it uses IQL's plain losses on one worker."""
        return self.next_value == "before_step" and self.density_weight == 0 and self.num_workers == 1

    def reads(self) -> list[str]:
        """See `PolicyConfig`."""
        return [*super().reads(), *(["density"] if self.density_weight else [])]


@LEARNERS.add
class BCConfig(PolicyConfig):
    """Behaviour cloning: squared error of the tanh mean (Pomerleau 1989)."""

    makes = "v2a_ray.stages.policy.bc:make"
    reads_rewards = False
    learner: Literal["bc"] = "bc"

    def check(self, experiment: ExperimentConfig) -> None:
        """See `PolicyConfig`."""
        if self.reward_correction:
            raise ValueError("policy.reward_correction does nothing for policy.learner=bc, which reads no reward")


@LEARNERS.add
class TD3BCConfig(TD3Config):
    """TD3 with a squared error to the data's actions in the actor's loss (2106.06860)."""

    makes = "v2a_ray.stages.policy.td3_bc:make"
    learner: Literal["td3_bc"] = "td3_bc"
    q_weight: Annotated[float, Field(ge=0.0)] = 2.5
    """Weight of Q / mean|Q|, relative to the squared error to the data's action."""


@LEARNERS.add
class AWACConfig(PolicyConfig):
    """Advantage-weighted actor-critic (2006.09359)."""

    makes = "v2a_ray.stages.policy.awac:make"
    learner: Literal["awac"] = "awac"
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """lambda: the weight of the actor's likelihood is exp(A / lambda), clamped at 100."""
    num_samples: Positive = 1
    """Sampled actions of the policy per estimate of a state's value."""


@LEARNERS.add
class ReBRACConfig(TD3Config):
    """TD3 with separate penalties on the distance to the data's actions for actor and critics (2305.09836)."""

    makes = "v2a_ray.stages.policy.rebrac:make"
    columns = "v2a_ray.stages.policy.rebrac:next_action_column"
    learner: Literal["rebrac"] = "rebrac"
    actor_penalty: Annotated[float, Field(ge=0.0)] = 0.05
    """beta_1: weight of the squared distance to the data's action, relative to Q / mean|Q|."""
    critic_penalty: Annotated[float, Field(ge=0.0)] = 0.01
    """beta_2: penalty on the value of s' per squared distance to the data's next action, in units of scaled rewards:
    returns of episodes have a range of 1,000 (`preprocessing.reward_scale`)."""


@LEARNERS.add
class FQLConfig(PolicyConfig):
    """Flow Q-learning (2502.02538)."""

    makes = "v2a_ray.stages.policy.fql:make"
    learner: Literal["fql"] = "fql"
    q_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of Q / mean|Q|, relative to the squared distance to the flow's action: 1 / alpha for the published weight
    alpha of the distance."""
    flow_steps: Positive = 10
    """Euler steps from noise to an action of the flow."""


@LEARNERS.add
class CQLConfig(PolicyConfig):
    """Conservative Q-learning, CQL(H) (2006.04779)."""

    makes = "v2a_ray.stages.policy.cql:make"
    learner: Literal["cql"] = "cql"
    conservatism: Annotated[float, Field(ge=0.0)] = 5.0
    """Weight of the gap between the soft maximum of Q over all actions and Q of the data's actions, in the critics'
    loss."""
    num_samples: Positive = 4
    """Uniform actions, and as many of the policy, per estimate of the soft maximum."""


@LEARNERS.add
class BOSAConfig(TD3Config):
    """TD3 constrained to the support of a behaviour policy and of the target dynamics (2306.12755)."""

    makes = "v2a_ray.stages.policy.bosa:make"
    learner: Literal["bosa"] = "bosa"
    value_penalty: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the mean Q of source transitions in the critics' loss."""
    density_weight: Annotated[float, Field(gt=0.0)] = 0.1
    """Weight w of -log pi_b(pi(s) | s) in the actor's loss; section `density` models pi_b."""

    def reads(self) -> list[str]:
        """See `PolicyConfig`."""
        return [*super().reads(), "density"]


@LEARNERS.add
class DROCOConfig(AdvantageWeightedConfig):
    """Implicit Q-learning with robust values on source rows (after 2512.02486). The constants are our choice."""

    makes = "v2a_ray.stages.policy.droco:make"
    learner: Literal["droco"] = "droco"
    penalty_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """beta: weight of the gap between V(s') of a source transition and the smallest value of the next states predicted
    for the target. At 1 the backup is the smallest of these values; 0 gives IQL's backup."""
    huber_threshold: Annotated[float, Field(gt=0.0)] = 1.0
    """Larger TD errors of source transitions count linearly. In units of scaled rewards: returns of episodes have a
    range of 1,000 (`preprocessing.reward_scale`)."""

    def reads(self) -> list[str]:
        """See `PolicyConfig`."""
        return [*super().reads(), *(["dynamics"] if self.uses_source else [])]


@LEARNERS.add
class GroupedConfig(AdvantageWeightedConfig):
    """Implicit Q-learning with one actor update per group of episodes (after 2602.18025)."""

    needs_package = ("sklearn", "diagnosis")
    makes = "v2a_ray.stages.policy.grouped:make"
    columns = "v2a_ray.stages.policy.grouped:group_columns"
    learner: Literal["grouped"] = "grouped"
    num_groups: Positive = 4
    """Clusters of z among the source episodes; the target is one more group."""

    def reads(self) -> list[str]:
        """See `PolicyConfig`."""
        return [*super().reads(), *(["modality"] if self.uses_source else [])]

    def check(self, experiment: ExperimentConfig) -> None:
        """See `PolicyConfig`."""
        if experiment.modality.mode == "per_source" and self.uses_source:
            raise ValueError("policy.learner=grouped clusters z over all sources: it needs modality.mode=shared")


class RLlibConfig(PolicyConfig):
    """A learner of RLlib as a baseline: on the same tables, without columns."""

    fits = "v2a_ray.orchestration.rllib.baselines:fit_rllib_policy"
    uses_rllib = True
    needs_package = ("lz4", "rllib")

    def check(self, experiment: ExperimentConfig) -> None:
        """See `PolicyConfig`."""
        corrected = bool(self.reward_correction) or self.correct_transitions
        if self.filter.needs_score or self.filter.weight != "one" or corrected:
            raise ValueError(
                f"policy.learner={self.learner} reads no columns: policy.filter needs rule=none and weight=one, "
                "and there is no policy.reward_correction or policy.correct_transitions"
            )
        if self.device == "cuda":
            raise ValueError(f"policy.device: policy.learner={self.learner} is trained on the CPU")


@LEARNERS.add
class RLlibBCConfig(RLlibConfig):
    """RLlib's behaviour cloning."""

    makes = "v2a_ray.orchestration.rllib.baselines:bc"
    learner: Literal["rllib_bc"] = "rllib_bc"


@LEARNERS.add
class RLlibMARWILConfig(RLlibConfig):
    """RLlib's monotonic advantage re-weighted imitation learning."""

    makes = "v2a_ray.orchestration.rllib.baselines:marwil"
    learner: Literal["rllib_marwil"] = "rllib_marwil"


@LEARNERS.add
class RLlibCQLConfig(RLlibConfig):
    """RLlib's conservative Q-learning."""

    makes = "v2a_ray.orchestration.rllib.baselines:cql"
    learner: Literal["rllib_cql"] = "rllib_cql"


@LEARNERS.add
class RLlibIQLConfig(RLlibConfig, AdvantageWeightedConfig):
    """RLlib's implicit Q-learning."""

    makes = "v2a_ray.orchestration.rllib.baselines:iql"
    learner: Literal["rllib_iql"] = "rllib_iql"
