"""Every setting of an experiment: typed, with its unit, default and meaning.

YAML files hold only what differs from these defaults. Counts are `num_`, durations end in `_steps` or `_episodes`,
`source_` and `target_` are never abbreviated. Constants are the published ones (V2A 2605.24862, IQL 2110.06169,
IGDF 2405.06192, Sparse QL 2303.15810) unless the docstring under a field says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0, strict=True)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]

CheckName = Literal[
    "dimensions",
    "finite",
    "action_bounds",
    "alignment",
    "repeated",
    "unordered",
    "reset_as_next",
    "next_observation_derived",
    "episode_ends_unknown",
    "episode_unfinished",
    "episodes_missing",
    "rows_moved",
    "fewer",
    "terminal_but_healthy",
    "unhealthy_not_terminal",
    "time_limit_as_terminal",
    "reward_scale",
    "duplicate",
    "same_dynamics",
    "wrong_domain",
]
"""The checks of data; `v2a_ray.data.checks.CHECKS` says what each means."""
CheckSeverity = Literal["error", "warning", "ignore"]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DataSpec(Settings):
    """Where transitions come from: rolled out from a packaged behaviour policy, or read from a file."""

    domain: str
    """Domain the data come from, e.g. `hopper/gravity-0.5@d4rl`; see `v2a domains list`. A source's is only a label."""
    behavior: str = "unknown"
    """Behaviour policy: `random`, `medium`, `expert`, `medium-replay`, `medium-expert`. With `path`, only a label."""
    policy_domain: str | None = None
    """Domain whose behaviour policies act, for example a stock policy on a shifted robot; by default `domain`."""
    path: str | None = None
    """HDF5 file or episode table to read instead of rolling out; relative to `data_root`."""
    num_transitions: Positive | None = None
    """Exact number of transitions; without it a `path` is taken whole."""
    num_episodes: Positive | None = None
    """With `path`: at most this many episodes; with `num_transitions`, what is reached first counts."""
    subsample: Literal["first", "episodes", "transitions"] = "first"
    """With `path`: take the first ones in the file, whole episodes drawn at random, or single transitions drawn at
    random (a target only, because they have no order)."""
    replacement: bool = False
    """Draw with replacement, as the published V2A draws its 10 % of the target (`subsample: transitions`)."""
    noise_std: Annotated[float, Field(ge=0.0)] = 0.1
    """Standard deviation of Gaussian noise on rolled-out actions (action range is -1 to 1)."""
    seed: int = 0
    """Seed of the roll-outs, or of the subsampling."""

    @model_validator(mode="after")
    def _rollouts_need_a_length(self) -> DataSpec:
        if self.path is None and self.num_transitions is None and not self._is_weighted:
            raise ValueError("num_transitions is needed when there is no path (data are rolled out)")
        if self.path is None and self.behavior == "unknown":
            raise ValueError("behavior is needed when there is no path (data are rolled out)")
        return self

    @model_validator(mode="after")
    def _draws_need_a_file_and_a_number(self) -> DataSpec:
        if self.path is None and (self.num_episodes or self.replacement or self.subsample != "first"):
            raise ValueError("num_episodes, subsample and replacement need a path; num_transitions sizes roll-outs")
        if self.replacement and self.subsample == "first":
            raise ValueError("replacement needs subsample=episodes or subsample=transitions")
        drawn = self.replacement or self.subsample == "transitions"
        if drawn and not (self.num_transitions or self.num_episodes or self._is_weighted):
            raise ValueError("replacement and subsample=transitions need num_transitions")
        if self.subsample == "transitions" and self.num_episodes:
            raise ValueError("subsample=transitions takes num_transitions, not num_episodes")
        return self

    @property
    def _is_weighted(self) -> bool:
        """Whether the mix says how many transitions are taken."""
        return False


class SourceSpec(DataSpec):
    """One part of the source mix."""

    name: str | None = None
    """Unique name of this part; by default made from domain and behaviour."""
    weight: Annotated[float, Field(gt=0.0)] | None = None
    """Share of the mix's `num_transitions`, relative to the other sources' weights. All sources have one, or none."""
    on_error: Literal["stop", "skip"] | None = None
    """`skip`: leave the source out, with a warning, if it cannot be read or fails a check. Default: `mix.on_error`."""

    @model_validator(mode="after")
    def _parts_of_a_source_are_in_order(self) -> SourceSpec:
        if self.subsample == "transitions":
            raise ValueError("subsample=transitions is for the target; a source needs whole episodes")
        if self.weight is not None and self.num_transitions is not None:
            raise ValueError("weight and num_transitions contradict each other; give one of them")
        return self

    @property
    def _is_weighted(self) -> bool:
        return self.weight is not None

    @property
    def label(self) -> str:
        """The name, or one made from domain and behaviour."""
        return self.name or f"{self.domain.split('@')[0]}-{self.behavior}".replace("/", "-")


class TargetSpec(DataSpec):
    """The target dataset; `domain` is also where the policy is evaluated."""


class MixConfig(Settings):
    """How the sources become one table."""

    num_transitions: Positive | None = None
    """Transitions of the whole mix, shared out by the sources' weights."""
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Part of every source's episodes that is held out: written beside the table, trained on by no stage."""
    seed: int = 0
    """Seed of which episodes are held out."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do with a source that cannot be read or fails a check: stop, or leave it out with a warning."""


class PreprocessingConfig(Settings):
    """What is done to data before any network sees them."""

    standardize_observations: bool = True
    """Subtract the mean and divide by the standard deviation of the TARGET observations."""
    reward_scale: Literal["return_range"] | Annotated[float, Field(gt=0.0)] = "return_range"
    """`return_range`: 1000 / (max - min episode return) of source and target, as IQL has it; or a number (1: raw)."""


class TrainingConfig(Settings):
    """What every trained stage has."""

    num_steps: Positive
    """Update steps."""
    batch_size: Positive
    """Samples per update step."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Adam's."""
    checkpoint_interval_steps: Positive = 1000
    """Steps that a kill can cost at most."""
    log_interval_steps: Positive = 100
    """Steps between recorded metrics."""
    num_threads: Positive = 1
    """CPU threads of one process. Results on CPU are bit-identical for equal seeds and equal threads."""


class ModalityConfig(TrainingConfig):
    """Stage 1: which dynamics each source episode came from (TC-ELBO)."""

    num_steps: Positive = 2500
    """Published: up to 100,000. On the real Hopper mix 2,500 already separate the domains."""
    batch_size: Positive = 16
    """Trajectories per update step, over all workers."""
    crop_steps: Positive = 200
    """Length that training trajectories are cropped to, in environment steps."""
    latent_dim: Positive = 16
    """Dimension of z (published: 8 to 128)."""
    encoder_width: Positive = 256
    """Width of the GRU."""
    decoder_width: Positive = 256
    """Width of the decoder's hidden layers."""
    decoder_layers: Positive = 2
    """Hidden layers of a decoder; two make the three linear layers of the published one."""
    num_decoders: Positive = 3
    """Members of the decoder ensemble."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 1e-3
    """Weight beta of the KL divergence to N(0, I)."""
    optimization: Literal["em", "joint"] = "em"
    """`em`: encoder and decoder in turn, as published. `joint`: one step on the ELBO, about half the cost."""
    gradient_norm_clip: Annotated[float, Field(gt=0.0)] = 10.0
    """Largest norm of a network's gradient."""
    standardize: bool = True
    """Standardise states and state differences by source statistics (the published code does not)."""
    inference: Literal["whole", "crops"] = "whole"
    """z of an episode: the encoder mean over the whole episode, or averaged over consecutive crops of `crop_steps`."""
    num_workers: Positive = 1
    """Data-parallel workers; the source table is sharded between them. One worker needs no process group."""
    include_target: bool = False
    """Fit on the target's episodes too (never their labels), so that target and source share one latent space."""


class AdvantageConfig(TrainingConfig):
    """Stage 2: the value column, an advantage by Sparse QL."""

    kind: Literal["none", "sparse_q"] = "none"
    """`none` leaves the column out."""
    conditioning: Literal["none", "modality"] = "none"
    """`modality` gives A(s, a, z), V2A's; `none` gives the global A(s, a), DVDF's."""
    num_steps: Positive = 5000
    batch_size: Positive = 256
    width: Positive = 256
    """Width of the two hidden layers."""
    alpha: Annotated[float, Field(gt=0.0)] = 0.2
    """Sparsity of the value regularisation."""
    discount: Fraction = 0.99
    target_rate: Rate = 0.005
    """Rate of the target critics' moving average."""
    target_interval_steps: Positive = 2
    """Update steps between updates of the target critics."""


class AlignmentConfig(TrainingConfig):
    """Stage 3: how well each source transition fits the target dynamics."""

    kind: Literal["none", "contrastive", "residual", "modality"] = "none"
    """`contrastive` is published (IGDF). `residual` and `modality` are ours; see `v2a_ray.stages.alignment`."""
    num_steps: Positive = 7000
    batch_size: Positive = 128
    width: Positive = 256
    """Width of the hidden layers."""
    embedding_dim: Positive = 64
    """`contrastive`: dimension in which f(s, a) and g(s') are compared."""
    num_members: Positive = 5
    """`residual`: dynamics models in the ensemble."""
    window_steps: Positive = 1
    """`residual`, `modality`: raw scores are averaged over a centred window of this many steps inside the episode,
    because dynamics belong to a trajectory while one transition's error is noisy; 1 leaves them as they are."""
    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Part of the target kept from the fit; its scores calibrate the filter and audit the alignment."""


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
    weight: Literal["one", "exp_alignment", "score"] = "one"
    """Weight of a kept source transition in the TD loss: 1, exp(h) clamped at 100, or the score f."""


class TD3BCConfig(Settings):
    """What `policy.learner=td3_bc` alone reads (2106.06860)."""

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


class PolicyConfig(TrainingConfig):
    """Stage 4: the policy, trained offline on what the filter keeps."""

    learner: Literal["iql", "bc", "td3_bc", "awac"] = "iql"
    """Implicit Q-learning, behaviour cloning, TD3+BC, or advantage-weighted actor-critic."""
    data: Literal["mixed", "target", "source"] = "mixed"
    """Which tables the policy trains on."""
    num_steps: Positive = 20000
    batch_size: Positive = 128
    """Transitions drawn per table and update step; training on one table alone draws twice as many."""
    width: Positive = 256
    """Width of the two hidden layers."""
    discount: Fraction = 0.99
    expectile: Rate = 0.7
    """IQL's tau: which expectile of Q the value function fits."""
    temperature: Annotated[float, Field(ge=0.0)] = 3.0
    """IQL's beta: weight exp(beta * A) of advantage-weighted regression, clamped at 100."""
    target_rate: Rate = 0.005
    """Rate of the target critics' moving average."""
    td3_bc: TD3BCConfig = TD3BCConfig()
    awac: AWACConfig = AWACConfig()
    filter: FilterConfig = FilterConfig()


class FeedingConfig(Settings):
    """How transitions reach the learners. Tables that fit are held once per node, whatever the number of trials."""

    memory_gib: Annotated[float, Field(gt=0.0)] = 16.0
    """Memory that a stage may use for transitions, in GiB. A table that exceeds it is streamed through a shuffle buffer
    of this size, which changes what is drawn together (see `v2a_ray.data.streaming`); it is the same number on every
    machine, so that results are. The modality stage, and the target in the alignment stage, have to fit."""


class EvaluationConfig(Settings):
    """Roll-outs of the policy in the target environment."""

    num_episodes: Positive = 10
    """Episodes per evaluation."""
    interval_steps: Annotated[int, Field(ge=0)] = 5000
    """Update steps of the policy between evaluations; 0 evaluates at the end only."""
    seed: int = 1000
    """Seed of the first evaluation episode; the others count up from it."""


class ExperimentConfig(Settings):
    """One experiment: data, one method, one seed."""

    name: str
    """Names the run directory."""
    method: str = "v2a"
    """Which columns and which filter; `v2a methods` prints them. It sets the defaults of the sections below."""
    seed: int = 0
    """Seed of the policy stage."""
    upstream_seed: int = 0
    """Seed of the modality, advantage and alignment stages, so that a sweep over `seed` fits those once."""
    data_root: str = "."
    """Folder that a relative `path` of data starts from; itself relative to where `v2a` runs."""
    store: str | None = None
    """Folder of reusable artifacts; by default $V2A_STORE, or `runs/artifacts`."""
    checks: dict[CheckName, CheckSeverity] = {}
    """Severity of checks of the data where it is to be another than by default; `v2a data checks` lists them."""
    target: TargetSpec
    sources: Annotated[list[SourceSpec], Field(min_length=1)]
    mix: MixConfig = MixConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    feeding: FeedingConfig = FeedingConfig()
    modality: ModalityConfig = ModalityConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    policy: PolicyConfig = PolicyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> ExperimentConfig:
        labels = [source.label for source in self.sources]
        if "target" in labels:
            raise ValueError("sources: the name 'target' is taken by the target dataset; give the source another one")
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(f"sources: the name {repeated[0]!r} appears more than once; give each source a `name`")
        weights = [source.weight for source in self.sources if source.weight is not None]
        if weights and len(weights) < len(self.sources):
            raise ValueError("sources: give all of them a weight, or none")
        if bool(weights) != (self.mix.num_transitions is not None):
            raise ValueError("mix.num_transitions and weights of the sources need each other")
        rule = self.policy.filter
        if rule.rule != "none" and self.alignment.kind == "none" and self.advantage.kind == "none":
            raise ValueError("policy.filter.rule needs a column to filter by: set alignment.kind or advantage.kind")
        if rule.rule == "calibrated" and self.alignment.kind == "none":
            raise ValueError("policy.filter.rule=calibrated needs alignment.kind")
        if rule.weight == "exp_alignment" and self.alignment.kind == "none":
            raise ValueError("policy.filter.weight=exp_alignment needs alignment.kind")
        if self.alignment.kind == "modality" and not self.modality.include_target:
            raise ValueError("alignment.kind=modality needs modality.include_target=true")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that the policy reads; one that it does not read is not computed."""
        rule = self.policy.filter
        if self.policy.data == "target" or (rule.rule == "none" and rule.weight == "one"):
            return []
        kinds = {"advantage": self.advantage.kind, "alignment": self.alignment.kind}
        return [name for name, kind in kinds.items() if kind != "none"]

    @property
    def needs_modality(self) -> bool:
        """Whether any column depends on z."""
        conditioned = "advantage" in self.columns and self.advantage.conditioning == "modality"
        return conditioned or ("alignment" in self.columns and self.alignment.kind == "modality")
