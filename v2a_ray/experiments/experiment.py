"""One experiment: data, one method, one seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from v2a_ray.data.config import (
    TARGET_LABEL,
    CheckName,
    CheckSeverity,
    FeedingConfig,
    MixConfig,
    PreprocessingConfig,
    SourceSpec,
    TargetSpec,
)
from v2a_ray.experiments.definition import DEFINING
from v2a_ray.experiments.methods import DEFAULT_METHOD, method_settings
from v2a_ray.settings.base import Name, Positive, Settings, leaves, merge
from v2a_ray.stages.policy.config import PolicyConfig
from v2a_ray.stages.sections import (
    AdvantageConfig,
    AlignmentConfig,
    CorrectionConfig,
    DensityConfig,
    DynamicsConfig,
    ModalityConfig,
)


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

    name: Name
    """Names the run directory."""
    method: str = DEFAULT_METHOD
    """Which columns and which filter; `v2a methods` prints them. It sets the defaults of the sections below."""
    seed: int = 0
    """Seed of the policy stage, and of the stages before it unless `upstream_seed` says otherwise."""
    upstream_seed: int
    """Seed of the modality, advantage, alignment and other stages before the policy; by default that of `seed`. Seeds
    that share a number here share those stages, and differ by the policy alone."""
    data_root: str = "."
    """Folder or URI that a relative `path` of data starts from; a folder is relative to where `v2a` runs."""
    store: str | None = None
    """Folder of reusable artifacts; by default $V2A_STORE, or `runs/artifacts`."""
    checks: dict[CheckName, CheckSeverity] = Field(default_factory=dict)
    """Severity of checks of the data where it is to be another than by default; `v2a data checks` lists them."""
    target: TargetSpec
    sources: Annotated[list[SourceSpec], Field(min_length=1)]
    mix: MixConfig = MixConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    feeding: FeedingConfig = FeedingConfig()
    modality: ModalityConfig = ModalityConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    density: DensityConfig = DensityConfig()
    dynamics: DynamicsConfig = DynamicsConfig()
    correction: CorrectionConfig = CorrectionConfig()
    policy: PolicyConfig = PolicyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _lay_over_the_method(cls, raw: Any) -> Any:
        """Every experiment starts from its method's settings, however it is made."""
        if not isinstance(raw, Mapping):
            return raw
        given = {
            key: value.model_dump(exclude_unset=True) if isinstance(value, Settings) else value
            for key, value in raw.items()
        }
        method = given.get("method", DEFAULT_METHOD)
        if not isinstance(method, str):
            raise ValueError(f"method: expected a name, got {method!r}")
        laid: dict[str, Any] = merge(method_settings(method), given)
        if laid.get("upstream_seed") is None:
            laid["upstream_seed"] = laid.get("seed", cls.model_fields["seed"].default)
        return laid

    @model_validator(mode="after")
    def _parts_fit_together(self) -> ExperimentConfig:
        labels = [source.label for source in self.sources]
        if TARGET_LABEL in labels:
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
        if rule.weight in ("exp_alignment", "above_threshold") and self.alignment.kind == "none":
            raise ValueError(f"policy.filter.weight={rule.weight} needs alignment.kind")
        if rule.weight == "exp_score" and self.alignment.kind == "none" and self.advantage.kind == "none":
            raise ValueError("policy.filter.weight=exp_score needs a column: set alignment.kind or advantage.kind")
        if self.policy.density_weight and self.policy.learner not in ("iql", "bosa"):
            raise ValueError(f"policy.density_weight does nothing for policy.learner={self.policy.learner}")
        if self.policy.learner == "bosa" and not self.policy.density_weight:
            raise ValueError("policy.learner=bosa needs a policy.density_weight above 0 (published: 0.1)")
        if self.policy.reward_correction:
            if self.alignment.kind == "none":
                raise ValueError("policy.reward_correction needs alignment.kind")
            if self.policy.learner == "bc":
                raise ValueError("policy.reward_correction does nothing for policy.learner=bc, which reads no reward")
        if self.policy.reward_correction_data == "mixed" and self.alignment.kind != "state_ratio":
            raise ValueError("policy.reward_correction_data=mixed needs alignment.kind=state_ratio")
        corrected = bool(self.policy.reward_correction) or self.policy.correct_transitions
        if self.policy.uses_rllib and (rule.rule != "none" or rule.weight != "one" or corrected):
            raise ValueError(
                f"policy.learner={self.policy.learner} reads no columns: policy.filter needs rule=none and weight=one, "
                "and there is no policy.reward_correction or policy.correct_transitions"
            )
        if self.policy.uses_rllib and self.policy.device == "cuda":
            raise ValueError(f"policy.device: policy.learner={self.policy.learner} is trained on the CPU")
        if self.modality.mode == "per_source" and self.groups_by_z:
            raise ValueError("policy.learner=grouped clusters z over all sources: it needs modality.mode=shared")
        if self.alignment.kind == "modality" and not self.modality.include_target:
            raise ValueError("alignment.kind=modality needs modality.include_target=true")
        return self

    @property
    def modifications(self) -> dict[str, Any]:
        """Dotted key and value of every setting that contradicts the method's definition."""
        sections = {name: field.default for name, field in type(self).model_fields.items()}
        defaults = {name: value.model_dump() for name, value in sections.items() if isinstance(value, Settings)}
        expected, actual = leaves(merge(defaults, method_settings(self.method))), leaves(self.model_dump(mode="json"))
        return {key: actual[key] for key in sorted(DEFINING) if actual[key] != expected[key]}

    @property
    def method_title(self) -> str:
        """The method's name, with what modifies it: `dvdf (modified: alignment.kind=residual)`."""
        return self.titled(self.method)

    def titled(self, name: str, without: Collection[str] = ()) -> str:
        """`name` with what modifies the method; modifications by the keys `without` are named by something else."""
        changed = ", ".join(f"{key}={value}" for key, value in self.modifications.items() if key not in without)
        return f"{name} (modified: {changed})" if changed else name

    @property
    def folder_name(self) -> str:
        """What a run's results folder is called by default; a modified method's results do not replace the method's."""
        modified = "-modified" if self.modifications else ""
        return f"{self.name}-{self.method}{modified}-seed{self.seed}"

    @property
    def columns(self) -> list[str]:
        """The columns that the policy reads; one that it does not read is not computed."""
        rule = self.policy.filter
        if self.policy.data == "target":
            return []
        if rule.rule == "none" and rule.weight == "one":
            return ["alignment"] if self.policy.reward_correction else []
        kinds = {"advantage": self.advantage.kind, "alignment": self.alignment.kind}
        return [name for name, kind in kinds.items() if kind != "none"]

    @property
    def needs_modality(self) -> bool:
        """Whether z is a column of the source table: another column or the learner depends on it."""
        aligned = "alignment" in self.columns and self.alignment.kind == "modality"
        return self.advantage_reads_z or aligned or self.groups_by_z

    @property
    def advantage_reads_z(self) -> bool:
        """Whether the advantage is conditioned on the learned z, shuffled or not."""
        conditioned = "advantage" in self.columns and self.advantage.conditioning == "modality"
        return conditioned and self.advantage.latent != "oracle"

    @property
    def needs_density(self) -> bool:
        """Whether the policy is held to the support of a behaviour, whose density is then fitted."""
        return self.policy.density_weight > 0

    @property
    def needs_correction(self) -> bool:
        """Whether source transitions are corrected before the policy trains on them."""
        return self.policy.correct_transitions and self.policy.data != "target"

    @property
    def needs_dynamics(self) -> bool:
        """Whether models of the target's dynamics are fitted."""
        return self.needs_correction or self.policy_reads_dynamics

    @property
    def policy_reads_dynamics(self) -> bool:
        """Whether the learner itself asks models of the target's dynamics."""
        return self.policy.learner == "droco" and self.policy.data != "target"

    @property
    def groups_by_z(self) -> bool:
        """Whether the learner needs source episodes in groups."""
        return self.policy.learner == "grouped" and self.policy.data != "target"
