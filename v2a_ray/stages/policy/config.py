"""The policy: what it trains on, which learner, and which source transitions it keeps."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from v2a_ray.settings.base import Fraction, Positive, Rate, Settings, TrainingConfig


class FilterConfig(Settings):
    """Which source transitions a policy trains on: f = lambda * h + (1 - lambda) * minmax(A)."""

    rule: Literal["none", "top_fraction", "calibrated"] = "none"
    """`none` keeps all. `top_fraction`: the best xi of every batch by f (published). `calibrated`: of the transitions
    that the target itself would pass at `target_acceptance`, the best xi by f; if none passes, the target is alone."""
    keep_fraction: Fraction = 0.5
    """xi."""
    alignment_weight: Fraction = 0.6
    """lambda; 1 is alignment alone, 0 is value alone."""
    target_acceptance: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """`calibrated`: the part of held-out target data whose alignment passes the threshold."""
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


class TD3BCConfig(Settings):
    """What `policy.learner=td3_bc` reads (2106.06860), and but for `q_weight` also `bosa`, which is built on it."""

    q_weight: Annotated[float, Field(ge=0.0)] = 2.5
    """Weight of Q / mean|Q| against the squared error to the data's action."""
    noise_std: Annotated[float, Field(ge=0.0)] = 0.2
    """Standard deviation of the noise on the target actor's action (action range is -1 to 1)."""
    noise_clip: Annotated[float, Field(ge=0.0)] = 0.5
    """Largest absolute value of that noise."""
    delay_steps: Positive = 2
    """Update steps of the critics per update of the actor and the moving averages."""


class AWACConfig(Settings):
    """What `policy.learner=awac` alone reads (2006.09359)."""

    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """lambda: weight exp(A / lambda) of the actor's likelihood, clamped at 100."""
    num_samples: Positive = 1
    """Actions of the policy that estimate its value at a state."""


class BOSAConfig(Settings):
    """What `policy.learner=bosa` alone reads (2306.12755), beside `policy.td3_bc`'s noise and delay."""

    value_penalty: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the mean Q of source transitions in the critic's loss."""


class DROCOConfig(Settings):
    """What `policy.learner=droco` alone reads (after 2512.02486). The constants are ours."""

    penalty_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """beta: weight of how far V(s') of a source transition is above the value of where the target might have gone. At 1
    the backup is the smallest of these values; 0 is IQL's."""
    huber_threshold: Annotated[float, Field(gt=0.0)] = 1.0
    """TD errors of source transitions above it count linearly, in units of scaled rewards, of which an episode has a
    range of 1,000 (`preprocessing.reward_scale`)."""


class GroupedConfig(Settings):
    """What `policy.learner=grouped` alone reads (after 2602.18025)."""

    num_groups: Positive = 4
    """Clusters of z among the source episodes; the target is a group of its own beside them."""


LEARNER_SECTIONS = {
    "td3_bc": {"td3_bc"},
    "awac": {"awac"},
    "grouped": {"grouped"},
    "bosa": {"td3_bc", "bosa"},
    "droco": {"droco"},
}
"""Sections of `policy` that only some learners read, by learner."""


class PolicyConfig(TrainingConfig):
    """Stage 4: the policy, trained offline on what the filter keeps."""

    learner: Literal[
        "iql", "bc", "td3_bc", "awac", "bosa", "droco", "grouped", "rllib_bc", "rllib_marwil", "rllib_cql", "rllib_iql"
    ] = "iql"
    """Implicit Q-learning, behaviour cloning, TD3+BC, advantage-weighted actor-critic, BOSA's supported optimisation,
    implicit Q-learning with DROCO's robust values, or implicit Q-learning whose actor is updated for one group of
    episodes after another."""
    data: Literal["mixed", "target", "source"] = "mixed"
    """Which tables the policy trains on."""
    num_steps: Positive = 20000
    batch_size: Positive = 128
    """Transitions drawn per table and update step; training on one table alone draws twice as many."""
    num_workers: Positive = 1
    """`iql`: data-parallel workers of Ray Train, on a GPU each where there are as many; each draws and filters an equal
    part of the batch. Worth it for batches of many thousands."""
    width: Positive = 256
    """Width of the two hidden layers."""
    discount: Fraction = 0.99
    expectile: Rate = 0.7
    """IQL's tau: which expectile of Q the value function fits."""
    temperature: Annotated[float, Field(ge=0.0)] = 3.0
    """IQL's beta: weight exp(beta * A) of advantage-weighted regression, clamped at 100."""
    target_rate: Rate = 0.005
    """Rate of the target critics' moving average."""
    next_value: Literal["before_step", "after_step"] = "before_step"
    """`iql`: whether V(s') in the critics' target is that of V before its step of this update, as every other network
    is, or after it, as in V2A's published code."""
    reward_correction: float = 0.0
    """DARA's eta: source rewards become r + eta * alignment, in units of the RECORDED reward, so that
    `preprocessing.reward_scale` scales the sum and eta means the same under any scale."""
    reward_correction_data: Literal["source", "mixed"] = "source"
    """Whose rewards are corrected: DARA's correction is of the source alone, SRPO's (`alignment.kind=state_ratio`) of
    both tables."""
    correct_transitions: bool = False
    """STC: source transitions get the action and the reward that they would have had in the target, where models of the
    target's dynamics confirm it (sections `correction` and `dynamics`)."""
    density_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """`iql`, `bosa`: weight w of -log pi_b(pi(s) | s) in the actor's loss, which keeps the policy in the support of the
    behaviour whose density section `density` fits; 0 leaves it out, and no density is fitted."""
    cuda_graph: bool = False
    """`iql` on a GPU: whether an update step is recorded as a CUDA graph and then started by one call."""
    td3_bc: TD3BCConfig = TD3BCConfig()
    awac: AWACConfig = AWACConfig()
    bosa: BOSAConfig = BOSAConfig()
    droco: DROCOConfig = DROCOConfig()
    grouped: GroupedConfig = GroupedConfig()
    filter: FilterConfig = FilterConfig()

    @model_validator(mode="after")
    def _workers_share_a_batch(self) -> PolicyConfig:
        if self.num_workers > 1 and self.learner != "iql":
            raise ValueError(f"policy.num_workers: policy.learner={self.learner} is trained by one worker")
        if self.next_value != "before_step" and self.learner != "iql":
            raise ValueError(f"policy.next_value does nothing for policy.learner={self.learner}")
        if self.cuda_graph and not self.is_plain_iql:
            raise ValueError(
                "policy.cuda_graph: only implicit Q-learning of one worker, without a density, whose V is not ahead "
                "(policy.next_value), is recorded"
            )
        if self.batch_size % self.num_workers:
            raise ValueError(f"{self.num_workers} workers cannot share a batch of {self.batch_size} equally")
        return self

    @property
    def is_plain_iql(self) -> bool:
        """Whether it is trained by the losses of IQL as they are, which is all that a pack of policies knows."""
        as_it_is = self.learner == "iql" and self.next_value == "before_step" and self.density_weight == 0
        return as_it_is and self.num_workers == 1

    @property
    def unread_sections(self) -> frozenset[str]:
        """Sections that move no number, because they are other learners'."""
        return frozenset().union(*LEARNER_SECTIONS.values()) - LEARNER_SECTIONS.get(self.learner, set())

    @property
    def uses_rllib(self) -> bool:
        """Whether RLlib trains the policy: a peer of ours, on the same tables, without columns."""
        return self.learner.startswith("rllib_")
