"""Settings of the modality stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from v2a_ray.settings.base import Positive, TrainingConfig

ENCODERS: dict[str, str | Callable[..., Any]] = {
    "gru": "v2a_ray.networks:GRUEncoder",
    "pooled": "v2a_ray.networks:PooledEncoder",
}
"""Maps a name to a class or its `module:class`: a torch module with constructor arguments (width of a step,
`encoder_width`, `latent_dim`) that maps steps (B, T, X) and lengths (B,) to the mean and log standard deviation of z,
each (B, Z)."""


def register_encoder(name: str, encoder: str | Callable[..., Any]) -> None:
    """Register an encoder under a name. Raises ValueError when the name belongs to an encoder of this package."""
    if str(ENCODERS.get(name, "")).startswith("v2a_ray."):
        raise ValueError(f"encoder {name!r} is there already")
    ENCODERS[name] = encoder


def _require_encoder(name: str) -> str:
    if name not in ENCODERS:
        raise ValueError(f"no encoder is called {name!r}; known: {', '.join(ENCODERS)}")
    return name


class ModalityConfig(TrainingConfig):
    """Stage 1: a latent z per source episode that tells its dynamics apart (TC-ELBO)."""

    num_steps: Positive = 2500
    """Published: up to 100,000. At the default sizes, 2,500 steps separate the domains of every mix that we tried
    (docs/modality_cost.md)."""
    batch_size: Positive = 16
    """Trajectories per update step, over all workers."""
    crop_steps: Positive | None = 100
    """Length of training crops in environment steps (published: 200); `null` trains on whole episodes."""
    latent_dim: Positive = 16
    """Dimension of z (published: 8 to 128)."""
    encoder: Annotated[str, AfterValidator(_require_encoder)] = "pooled"
    """`pooled` (ours) encodes every transition by itself and averages; it is much cheaper. `gru` reads a trajectory in
    order, as published; it is needed for dynamics that only the order of steps shows, such as a delay."""
    encoder_width: Positive = 128
    """Width of the pooled encoder's two hidden layers, or of the GRU (published: 256)."""
    decoder_width: Positive = 128
    """Width of the decoder's hidden layers (published: 256)."""
    decoder_layers: Positive = 2
    """Hidden layers of a decoder; two give the three linear layers of the published decoder."""
    num_decoders: Positive = 3
    """Members of the decoder ensemble."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 1e-3
    """Weight beta of the KL divergence to N(0, I)."""
    optimization: Literal["em", "joint"] = "joint"
    """`em`: update encoder and decoder in turn, as published. `joint`: one step on the ELBO, about half the cost."""
    gradient_norm_clip: Annotated[float, Field(gt=0.0)] = 10.0
    """Gradients are clipped to this norm, separately for encoder and decoder."""
    standardize: bool = True
    """Standardise states and state differences by source statistics (the published code does not)."""
    inference: Literal["whole", "crops"] = "whole"
    """z of an episode: the encoder mean over the whole episode, or averaged over consecutive crops of `crop_steps`."""
    num_workers: Positive = 1
    """Data-parallel workers, at most `batch_size`; each holds a shard of the source table. If there are more workers
    than cores, they share the cores. One worker needs no process group."""
    mode: Literal["shared", "per_source"] = "shared"
    """`shared`: one model for all episodes, without labels (published). `per_source`, for comparison: one model per
    source dataset, fitted to its episodes only, in parallel if there are cores. The z of different models cannot be
    compared, so the column starts with the one-hot LABEL OF THE SOURCE, which no method may know."""
    include_target: bool = False
    """Also fit to the target's episodes (never to their labels), so that target and source share one latent space."""
    patience_evaluations: Positive | None = None
    """Stop after this many evaluations in a row without a better loss on held-out episodes. `null` holds out no
    episodes and runs all `num_steps`."""
    min_improvement: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Relative decrease from the best held-out loss so far that counts as better."""
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Fraction of every worker's episodes that is held out; these episodes get a z like all others."""
    validation_interval_steps: Positive = 100
    """Update steps between evaluations."""

    @model_validator(mode="after")
    def _crops_need_a_length(self) -> ModalityConfig:
        if self.inference == "crops" and self.crop_steps is None:
            raise ValueError("inference=crops needs crop_steps")
        return self

    @model_validator(mode="after")
    def _workers_share_a_fit(self) -> ModalityConfig:
        if self.num_workers > self.batch_size:
            raise ValueError(f"{self.num_workers} workers cannot share a batch of {self.batch_size} trajectories")
        if self.mode == "per_source" and self.num_workers > 1:
            raise ValueError("mode=per_source fits every source on one worker: num_workers has to be 1")
        if self.mode == "per_source" and self.include_target:
            raise ValueError("mode=per_source has no z that source and target share: include_target has to be false")
        return self
