"""Settings of the policy stage: what all learners have, each learner with what it alone reads, and the filter.

A new learner is a class here, or in a plugin, and the function that its `makes` names.
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
    """Which source transitions a policy trains on: f = lambda * h + (1 - lambda) * minmax(A). What all rules have."""

    selects: ClassVar[str | Callable[..., Any]]
    """A class that chooses rows (`v2a_ray.stages.policy.filtering.Selector`), or `module:class` of one."""
    needs_score: ClassVar[bool] = True
    """Whether it needs a column to choose by."""
    needs_alignment: ClassVar[bool] = False
    """Whether one of these has to be the alignment."""
    rule: str
    """How transitions are chosen by f."""
    keep_fraction: Fraction = 0.5
    """xi: the part of the eligible transitions that is kept."""
    alignment_weight: Fraction = 0.6
    """lambda; 1 is alignment alone, 0 is value alone."""
    normalization: Literal["batch", "table", "ranks"] = "batch"
    """How A is brought to [0, 1]: min-max over the drawn batch (published) or over the whole source table, or its rank
    in that table. `ranks` does the same to h, so that lambda weighs two quantities of equal scale; the weight exp(h)
    keeps the h that was computed."""
    normalize_alignment: bool = False
    """`batch`, `table`: bring h to [0, 1] as A is (published: h as it is)."""
    weight: Literal["one", "exp_alignment", "score", "exp_score", "above_threshold"] = "one"
    """Weight of a kept source transition in the TD loss: 1, exp(h) clamped at 100, the score f, exp(f - 1) (OTDF's,
    with f in [0, 1] by `normalize_alignment`), or 1 where h is above `weight_threshold` and else 0 (BOSA's)."""
    weight_threshold: float = math.log(0.01)
    """`above_threshold`: the least h. BOSA's is a log density."""


@FILTERS.add
class KeepAllConfig(FilterConfig):
    """Every source transition."""

    selects = "v2a_ray.stages.policy.filtering:KeepAll"
    needs_score = False
    rule: Literal["none"] = "none"


@FILTERS.add
class TopFractionConfig(FilterConfig):
    """The best xi of every batch by f (published)."""

    selects = "v2a_ray.stages.policy.filtering:TopFraction"
    rule: Literal["top_fraction"] = "top_fraction"


@FILTERS.add
class CalibratedConfig(FilterConfig):
    """Of the transitions that the target itself would pass, the best xi by f; if none passes, the target is alone."""

    selects = "v2a_ray.stages.policy.filtering:Calibrated"
    needs_alignment = True
    rule: Literal["calibrated"] = "calibrated"
    target_acceptance: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """The part of held-out target data whose alignment passes the threshold."""


class PolicyConfig(TrainingConfig):
    """Stage 4: the policy, trained offline on what the filter keeps. What all learners have."""

    makes: ClassVar[str | Callable[..., Any]]
    """From `LearnerInputs` to a `Learner`, or `module:function` of one."""
    fits: ClassVar[str] = "v2a_ray.stages.policy.training:fit_policy"
    """Computes the stage, from a `Job`."""
    fits_parallel: ClassVar[str | None] = None
    """The same on `num_workers` data-parallel workers."""
    columns: ClassVar[str | Callable[..., Any] | None] = None
    """From (`Job`, "target" or "source", rows of that table) to columns that batches carry in `extra` for the learner
    alone, or `module:function` of one."""
    uses_rllib: ClassVar[bool] = False
    """Whether RLlib trains it on the tables as they are, without columns, on the CPU."""
    reads_rewards: ClassVar[bool] = True
    """Whether it learns from rewards."""
    learner: str
    """What trains the policy."""
    data: Literal["mixed", "target", "source"] = "mixed"
    """Which tables the policy trains on."""
    num_steps: Positive = 20000
    batch_size: Positive = 128
    """Transitions drawn per table and update step; training on one table alone draws twice as many."""
    width: Positive = 256
    """Width of the two hidden layers."""
    discount: Fraction = 0.99
    target_rate: Rate = 0.005
    """Rate of the target critics' moving average."""
    reward_correction: float = 0.0
    """DARA's eta: source rewards become r + eta * alignment, in units of the RECORDED reward, so that
    `preprocessing.reward_scale` scales the sum and eta means the same under any scale."""
    reward_correction_data: Literal["source", "mixed"] = "source"
    """Whose rewards are corrected: DARA's correction is of the source alone, SRPO's (`alignment.kind=state_ratio`) of
    both tables."""
    correct_transitions: bool = False
    """STC: source transitions get the action and the reward that they would have had in the target, where models of the
    target's dynamics confirm it (sections `correction` and `dynamics`)."""
    filter: Annotated[FilterConfig, FILTERS] = KeepAllConfig()

    @property
    def uses_source(self) -> bool:
        """Whether it trains on source transitions."""
        return self.data != "target"

    @property
    def is_batched(self) -> bool:
        """Whether many of them can be trained as one batched program."""
        return False

    def reads(self) -> list[str]:
        """The stages that it is made from, beside the columns that the filter reads."""
        return ["correction"] if self.correct_transitions and self.uses_source else []

    def check(self, experiment: ExperimentConfig) -> None:
        """Raise ValueError for an experiment that it cannot be part of."""


class AdvantageWeightedConfig(PolicyConfig):
    """A learner whose actor regresses onto the data's actions, weighed by their advantage, with IQL's critics."""

    expectile: Rate = 0.7
    """IQL's tau: which expectile of Q the value function fits."""
    temperature: Annotated[float, Field(ge=0.0)] = 3.0
    """IQL's beta: weight exp(beta * A) of advantage-weighted regression, clamped at 100."""


class TD3Config(PolicyConfig):
    """A learner that is built on TD3: a target actor whose action is smoothed by noise."""

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
    """Data-parallel workers of Ray Train, on a GPU each where there are as many; each draws and filters an equal part
    of the batch. Worth it for batches of many thousands."""
    next_value: Literal["before_step", "after_step"] = "before_step"
    """Whether V(s') in the critics' target is that of V before its step of this update, as every other network is, or
    after it, as in V2A's published code."""
    density_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight w of -log pi_b(pi(s) | s) in the actor's loss, which keeps the policy in the support of the behaviour
    whose density section `density` fits (OTDF); 0 leaves it out, and no density is fitted."""
    cuda_graph: bool = False
    """On a GPU: whether an update step is recorded as a CUDA graph and then started by one call."""

    @model_validator(mode="after")
    def _workers_share_a_batch(self) -> IQLConfig:
        if self.cuda_graph and not self.is_batched:
            raise ValueError(
                "cuda_graph: only implicit Q-learning of one worker, without a density, whose V is not ahead "
                "(policy.next_value), is recorded"
            )
        if self.batch_size % self.num_workers:
            raise ValueError(f"{self.num_workers} workers cannot share a batch of {self.batch_size} equally")
        return self

    @property
    def is_batched(self) -> bool:
        """If it is trained by the losses of IQL as they are."""
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
    """TD3 whose actor is held to the data by a squared error (2106.06860)."""

    makes = "v2a_ray.stages.policy.td3_bc:make"
    learner: Literal["td3_bc"] = "td3_bc"
    q_weight: Annotated[float, Field(ge=0.0)] = 2.5
    """Weight of Q / mean|Q| against the squared error to the data's action."""


@LEARNERS.add
class AWACConfig(PolicyConfig):
    """Advantage-weighted actor-critic (2006.09359)."""

    makes = "v2a_ray.stages.policy.awac:make"
    learner: Literal["awac"] = "awac"
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """lambda: weight exp(A / lambda) of the actor's likelihood, clamped at 100."""
    num_samples: Positive = 1
    """Actions of the policy that estimate its value at a state."""


@LEARNERS.add
class ReBRACConfig(TD3Config):
    """TD3 whose actor and critics are held to the data, each by a weight of its own (2305.09836)."""

    makes = "v2a_ray.stages.policy.rebrac:make"
    columns = "v2a_ray.stages.policy.rebrac:next_action_column"
    learner: Literal["rebrac"] = "rebrac"
    actor_penalty: Annotated[float, Field(ge=0.0)] = 0.05
    """beta_1: weight of the squared distance to the data's action against Q / mean|Q|."""
    critic_penalty: Annotated[float, Field(ge=0.0)] = 0.01
    """beta_2: what the squared distance to the data's next action takes off the value of s', in units of scaled
    rewards, of which an episode has a range of 1,000 (`preprocessing.reward_scale`)."""


@LEARNERS.add
class FQLConfig(PolicyConfig):
    """Flow Q-learning (2502.02538)."""

    makes = "v2a_ray.stages.policy.fql:make"
    learner: Literal["fql"] = "fql"
    q_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of Q / mean|Q| against the squared distance to the flow's action: 1 / alpha, where that is the published
    weight of the distance."""
    flow_steps: Positive = 10
    """Euler steps from noise to an action of the flow."""


@LEARNERS.add
class CQLConfig(PolicyConfig):
    """Conservative Q-learning, CQL(H) (2006.04779)."""

    makes = "v2a_ray.stages.policy.cql:make"
    learner: Literal["cql"] = "cql"
    conservatism: Annotated[float, Field(ge=0.0)] = 5.0
    """Weight of the soft maximum of Q over all actions against Q of the data's, in the critics' loss."""
    num_samples: Positive = 4
    """Actions drawn evenly from the action range, and as many of the policy, that estimate the soft maximum."""


@LEARNERS.add
class BOSAConfig(TD3Config):
    """TD3 in the support of a behaviour and of the target dynamics (2306.12755)."""

    makes = "v2a_ray.stages.policy.bosa:make"
    learner: Literal["bosa"] = "bosa"
    value_penalty: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the mean Q of source transitions in the critic's loss."""
    density_weight: Annotated[float, Field(gt=0.0)] = 0.1
    """Weight w of -log pi_b(pi(s) | s) in the actor's loss, whose density section `density` fits."""

    def reads(self) -> list[str]:
        """See `PolicyConfig`."""
        return [*super().reads(), "density"]


@LEARNERS.add
class DROCOConfig(AdvantageWeightedConfig):
    """Implicit Q-learning with robust values on source rows (after 2512.02486). The constants are ours."""

    makes = "v2a_ray.stages.policy.droco:make"
    learner: Literal["droco"] = "droco"
    penalty_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """beta: weight of how far V(s') of a source transition is above the value of where the target might have gone. At 1
    the backup is the smallest of these values; 0 is IQL's."""
    huber_threshold: Annotated[float, Field(gt=0.0)] = 1.0
    """TD errors of source transitions above it count linearly, in units of scaled rewards, of which an episode has a
    range of 1,000 (`preprocessing.reward_scale`)."""

    def reads(self) -> list[str]:
        """See `PolicyConfig`."""
        return [*super().reads(), *(["dynamics"] if self.uses_source else [])]


@LEARNERS.add
class GroupedConfig(AdvantageWeightedConfig):
    """Implicit Q-learning whose actor is updated for one group of episodes after another (after 2602.18025)."""

    needs_package = ("sklearn", "diagnosis")
    makes = "v2a_ray.stages.policy.grouped:make"
    columns = "v2a_ray.stages.policy.grouped:group_columns"
    learner: Literal["grouped"] = "grouped"
    num_groups: Positive = 4
    """Clusters of z among the source episodes; the target is a group of its own beside them."""

    def reads(self) -> list[str]:
        """See `PolicyConfig`."""
        return [*super().reads(), *(["modality"] if self.uses_source else [])]

    def check(self, experiment: ExperimentConfig) -> None:
        """See `PolicyConfig`."""
        if experiment.modality.mode == "per_source" and self.uses_source:
            raise ValueError("policy.learner=grouped clusters z over all sources: it needs modality.mode=shared")


class RLlibConfig(PolicyConfig):
    """A learner of RLlib's own, to compare ours with: on the same tables, without columns."""

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
