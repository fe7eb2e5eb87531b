"""Settings of the behaviour density, the target's dynamics models, and the correction models."""

from __future__ import annotations

from typing import Literal

from v2a_ray.settings.base import Positive, TrainingConfig


class DensityConfig(TrainingConfig):
    """The density pi(a | s) of a behaviour policy, for learners that stay in its support (`policy.density_weight`)."""

    fit_to: Literal["target", "mixed"] = "target"
    """Data whose behaviour is modelled: `target` (OTDF), or `mixed`, half source and half target (BOSA)."""
    num_steps: Positive = 10000
    batch_size: Positive = 256
    width: Positive = 256
    """Width of the two hidden layers of encoder and decoder (published: 750)."""
    latent_dim: Positive | None = None
    """Latent dimension; by default twice the action dimension."""
    num_samples: Positive = 4
    """Latent samples per density estimate in an update step of the policy."""


class DynamicsConfig(TrainingConfig):
    """Models of the target's dynamics, for methods that predict the target's next state (STC, DROCO)."""

    num_steps: Positive = 10000
    batch_size: Positive = 128
    """Transitions per member and update step."""
    width: Positive = 256
    """Width of the two hidden layers."""
    num_members: Positive = 5
    """Models in the ensemble."""


class CorrectionConfig(TrainingConfig):
    """The inverse policy model and the reward model of the target that correct source transitions
    (`policy.correct_transitions`)."""

    num_steps: Positive = 10000
    batch_size: Positive = 256
    width: Positive = 256
    """Width of the two hidden layers of each model."""
