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
"""Name to a class, or `module:class` of one: a torch module made from (width of a step, `encoder_width`, `latent_dim`),
called with steps (B, T, X) and lengths (B,), which gives mean and log variance of z, (B, Z) each."""


def register_encoder(name: str, encoder: str | Callable[..., Any]) -> None:
    """Make an encoder known by a name. Raises ValueError when the name is taken by one of the package."""
    if str(ENCODERS.get(name, "")).startswith("v2a_ray."):
        raise ValueError(f"encoder {name!r} is there already")
    ENCODERS[name] = encoder


def _require_encoder(name: str) -> str:
    if name not in ENCODERS:
        raise ValueError(f"no encoder is called {name!r}; known: {', '.join(ENCODERS)}")
    return name


class ModalityConfig(TrainingConfig):
    """Stage 1: which dynamics each source episode came from (TC-ELBO)."""

    num_steps: Positive = 2500
    """Published: up to 100,000. At the default sizes 2,500 separate the domains of every mix tried
    (docs/modality_cost.md)."""
    batch_size: Positive = 16
    """Trajectories per update step, over all workers."""
    crop_steps: Positive | None = 100
    """Length that training trajectories are cropped to, in environment steps (published: 200); `null` trains on whole
    episodes."""
    latent_dim: Positive = 16
    """Dimension of z (published: 8 to 128)."""
    encoder: Annotated[str, AfterValidator(_require_encoder)] = "pooled"
    """`pooled` (ours) encodes every transition by itself and averages, for a small part of the cost. `gru` reads a
    trajectory in order, as published: dynamics that show in the order alone, such as a delay, need it."""
    encoder_width: Positive = 128
    """Width of the pooled encoder's two hidden layers, or of the GRU (published: 256)."""
    decoder_width: Positive = 128
    """Width of the decoder's hidden layers (published: 256)."""
    decoder_layers: Positive = 2
    """Hidden layers of a decoder; two make the three linear layers of the published one."""
    num_decoders: Positive = 3
    """Members of the decoder ensemble."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 1e-3
    """Weight beta of the KL divergence to N(0, I)."""
    optimization: Literal["em", "joint"] = "joint"
    """`em`: encoder and decoder in turn, as published. `joint`: one step on the ELBO, about half the cost."""
    gradient_norm_clip: Annotated[float, Field(gt=0.0)] = 10.0
    """Largest norm of a network's gradient."""
    standardize: bool = True
    """Standardise states and state differences by source statistics (the published code does not)."""
    inference: Literal["whole", "crops"] = "whole"
    """z of an episode: the encoder mean over the whole episode, or averaged over consecutive crops of `crop_steps`."""
    num_workers: Positive = 1
    """Data-parallel workers, at most `batch_size`; the source table is sharded between them. More than the cluster has
    cores for share those that there are. One worker needs no process group."""
    mode: Literal["shared", "per_source"] = "shared"
    """`shared`: one model for all episodes, without labels (published). `per_source`, for comparison: a model for every
    source dataset, fitted to its episodes alone, at the same time where there are cores. Their z have nothing in
    common, so the column says first, one-hot, WHICH SOURCE an episode came from, which no method is told."""
    include_target: bool = False
    """Fit on the target's episodes too (never their labels), so that target and source share one latent space."""
    patience_evaluations: Positive | None = None
    """Stop after this many evaluations in a row without a better loss on held-out episodes. `null` holds out none and
    runs all `num_steps`."""
    min_improvement: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """How much less than the best so far a held-out loss must be to count as better, as a part of the best."""
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Episodes held out, of every worker's; they get a z like all others."""
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
