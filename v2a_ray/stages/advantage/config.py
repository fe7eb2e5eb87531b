"""Settings of the advantage stage, by how V is fitted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from v2a_ray.settings.base import Fraction, Positive, Rate, TrainingConfig
from v2a_ray.settings.choices import Choices

ADVANTAGES = Choices("kind", "none", "advantage")


class AdvantageConfig(TrainingConfig):
    """Stage 2: the value column, an advantage. What all kinds have."""

    value_loss: ClassVar[str | None] = None
    """`module:function` of (q_B, value_B, config) to the loss of V; None if there is no column."""
    kind: str
    """How V is fitted: by Sparse Q-learning (published) or by IQL's expectile regression; `none` leaves it out."""
    conditioning: Literal["none", "modality"] = "none"
    """`modality` gives A(s, a, z), V2A's; `none` gives the global A(s, a), DVDF's."""
    latent: Literal["learned", "shuffled", "oracle"] = "learned"
    """What z is, for ablation. `shuffled`: every episode gets the z of another one, drawn at random. `oracle`: the TRUE
    DOMAIN LABEL, one-hot. It and `modality.mode=per_source` read labels; what they give is no result of a method."""
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
    """Which expectile of Q the value function fits."""
