"""Settings of the advantage stage, one class per way of fitting V."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from v2a_ray.settings.base import Fraction, Positive, Rate, TrainingConfig
from v2a_ray.settings.choices import Choices

ADVANTAGES = Choices("kind", "none", "advantage")


class AdvantageConfig(TrainingConfig):
    """Stage 2: the value column, an advantage. Settings of all kinds."""

    value_loss: ClassVar[str | None] = None
    """`module:function` that maps (q_B, value_B, config) to the loss of V; None if there is no column."""
    kind: str
    """How V is fitted: Sparse Q-learning (published) or IQL's expectile regression; `none`: no value column."""
    conditioning: Literal["none", "modality"] = "none"
    """`modality` gives V2A's A(s, a, z); `none` gives DVDF's global A(s, a)."""
    latent: Literal["learned", "shuffled", "oracle"] = "learned"
    """Replaces z for ablations. `shuffled`: z is permuted at random over the episodes. `oracle`: z is the TRUE DOMAIN
    LABEL, one-hot. `oracle` and `modality.mode=per_source` read labels, so their results are not those of a method."""
    num_steps: Positive = 5000
    batch_size: Positive = 256
    width: Positive = 256
    """Width of the two hidden layers."""
    discount: Fraction = 0.99
    target_rate: Rate = 0.005
    """Rate of the target critics' moving average."""
    target_interval_steps: Positive = 2
    """Update steps between updates of the target critics."""


@ADVANTAGES.add
class NoAdvantageConfig(AdvantageConfig):
    """No value column."""

    kind: Literal["none"] = "none"


@ADVANTAGES.add
class SparseQConfig(AdvantageConfig):
    """V by Sparse Q-learning (2303.15810), as published."""

    value_loss = "v2a_ray.stages.advantage.learner:sparse_loss"
    kind: Literal["sparse_q"] = "sparse_q"
    alpha: Annotated[float, Field(gt=0.0)] = 0.2
    """Sparsity of the value regularisation."""


@ADVANTAGES.add
class ExpectileConfig(AdvantageConfig):
    """V by the expectile regression of implicit Q-learning (2110.06169)."""

    value_loss = "v2a_ray.stages.advantage.learner:expectile_loss"
    kind: Literal["iql"] = "iql"
    expectile: Rate = 0.7
    """The expectile of Q that V fits."""
