"""The stages before the policy: the columns of the source table (modality, advantage, alignment, correction), and
models that are none (density, dynamics)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from v2a_ray.settings.base import Fraction, Positive, Rate, TrainingConfig


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
    encoder: Literal["gru", "pooled"] = "pooled"
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


class AdvantageConfig(TrainingConfig):
    """Stage 2: the value column, an advantage."""

    kind: Literal["none", "sparse_q", "iql"] = "none"
    """`none` leaves the column out. V is fitted by Sparse QL (published), or by IQL's expectile regression."""
    conditioning: Literal["none", "modality"] = "none"
    """`modality` gives A(s, a, z), V2A's; `none` gives the global A(s, a), DVDF's."""
    latent: Literal["learned", "shuffled", "oracle"] = "learned"
    """What z is, for ablation. `shuffled`: every episode gets the z of another one, drawn at random. `oracle`: the TRUE
    DOMAIN LABEL, one-hot. It and `modality.mode=per_source` read labels; what they give is no result of a method."""
    num_steps: Positive = 5000
    batch_size: Positive = 256
    width: Positive = 256
    """Width of the two hidden layers."""
    alpha: Annotated[float, Field(gt=0.0)] = 0.2
    """`sparse_q`: sparsity of the value regularisation."""
    expectile: Rate = 0.7
    """`iql`: which expectile of Q the value function fits."""
    discount: Fraction = 0.99
    target_rate: Rate = 0.005
    """Rate of the target critics' moving average."""
    target_interval_steps: Positive = 2
    """Update steps between updates of the target critics."""


class AlignmentConfig(TrainingConfig):
    """Stage 3: how well each source transition fits the target dynamics."""

    kind: Literal[
        "none",
        "contrastive",
        "classifier",
        "optimal_transport",
        "dynamics_density",
        "state_ratio",
        "residual",
        "modality",
    ] = "none"
    """`contrastive` (IGDF), `classifier` (DARA), `optimal_transport` (OTDF) and `dynamics_density` (BOSA) are
    published. `state_ratio` is after SRPO and scores states by their value, not dynamics. `residual` and `modality` are
    ours; see `v2a_ray.stages.alignment.scores`."""
    num_steps: Positive = 7000
    batch_size: Positive = 128
    width: Positive = 256
    """Width of the hidden layers."""
    embedding_dim: Positive = 64
    """`contrastive`: dimension in which f(s, a) and g(s') are compared."""
    contrastive_score: Literal["cosine", "logit"] = "cosine"
    """`contrastive`: h is the cosine of f(s, a) and g(s') (published), or the logit f . g that was fitted. On systems
    with known dynamics the logit orders transitions by their density ratio, and the cosine much less so."""
    noise_std: Annotated[float, Field(ge=0.0)] = 1.0
    """`classifier`, `state_ratio`: standard deviation of Gaussian noise on standardised inputs while it is fitted."""
    log_ratio_clip: Annotated[float, Field(gt=0.0)] = 10.0
    """`classifier`, `state_ratio`: largest absolute value of the score."""
    high_value_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """`state_ratio`: part of every batch's states that counts as of high value. Ours."""
    block_transitions: Positive = 10000
    """`optimal_transport`: source transitions that are moved onto the target together."""
    regularization: Annotated[float, Field(gt=0.0)] = 0.05
    """`optimal_transport`: epsilon, weight of the plan's entropy against a cost in [0, 2]. Ours; none is published."""
    max_iterations: Positive = 1000
    """`optimal_transport`: Sinkhorn iterations per block at most."""
    max_target_transitions: Positive = 20000
    """`optimal_transport`: a larger target is represented by as many of its transitions, drawn by seed."""
    num_members: Positive = 5
    """`residual`, `dynamics_density`: dynamics models in the ensemble."""
    fit_dynamics_to: Literal["target", "mixed"] = "target"
    """`dynamics_density`: data that p(s' | s, a) is fitted to. `mixed` is a mistake in circulation, to measure what it
    costs: the score then says that source dynamics are likely, because they were learned."""
    density_latent_dim: Positive = 16
    """`dynamics_density`: latent dimension of the conditional variational autoencoders."""
    density_samples: Positive = 8
    """`dynamics_density`: draws of the latent that estimate a density."""
    window_steps: Positive = 1
    """`residual`, `modality`: raw scores are averaged over a centred window of this many steps inside the episode,
    because dynamics belong to a trajectory while one transition's error is noisy; 1 leaves them as they are."""
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Part of the target kept from the fit; its scores calibrate the filter and audit the alignment."""


class DensityConfig(TrainingConfig):
    """The density pi(a | s) of a behaviour policy, for learners that stay in its support (`policy.density_weight`)."""

    fit_to: Literal["target", "mixed"] = "target"
    """Data whose behaviour is modelled: OTDF's is the target's, BOSA's that of source and target, half and half."""
    num_steps: Positive = 10000
    batch_size: Positive = 256
    width: Positive = 256
    """Width of the two hidden layers of encoder and decoder (published: 750)."""
    latent_dim: Positive | None = None
    """Latent dimension; by default twice the action dimension."""
    num_samples: Positive = 4
    """Draws of the latent that estimate a density in a step of the policy."""


class DynamicsConfig(TrainingConfig):
    """Models of the target's dynamics, for methods that ask what the target would have done (STC, DROCO)."""

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
    """Width of the two hidden layers of either model."""
