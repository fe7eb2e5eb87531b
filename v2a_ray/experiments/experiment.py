"""One experiment: data, one method, one seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

import v2a_ray.stages.registered  # noqa: F401 - an experiment is made of them
from v2a_ray.data.config import ExperimentData, SourceSpec, TargetSpec
from v2a_ray.engine.stage import needed_stages
from v2a_ray.experiments.definition import SECTIONS, defining_keys, under_method, with_new_names
from v2a_ray.experiments.methods import DEFAULT_METHOD, METHODS, Method, method_settings
from v2a_ray.experiments.plugins import load_installed, load_shipped, require_loaded, sources_of
from v2a_ray.settings.base import Name, Positive, Settings, leaves
from v2a_ray.settings.environment_names import is_recorded
from v2a_ray.settings.measures import DEFAULT_MEASURE, OfflineMeasure
from v2a_ray.stages.advantage.config import ADVANTAGES, AdvantageConfig, NoAdvantageConfig
from v2a_ray.stages.alignment.config import ALIGNMENTS, AlignmentConfig, NoAlignmentConfig
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.policy.config import LEARNERS, IQLConfig, PolicyConfig
from v2a_ray.stages.support.config import CorrectionConfig, DensityConfig, DynamicsConfig


class EvaluationConfig(Settings):
    """Rollouts of the policy in the target environment."""

    num_episodes: Positive = 10
    """Episodes per evaluation."""
    interval_steps: Annotated[int, Field(ge=0)] = 5000
    """Update steps of the policy between evaluations; 0 evaluates at the end only."""
    seed: int = 1000
    """Seed of the first evaluation episode; the others count up from it."""


class OfflineConfig(Settings):
    """What stands for roll-outs where the target is `real`: numbers on target episodes that no stage trains on."""

    held_out_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Part of the target's transitions, in whole episodes, that is held out before anything is trained."""
    seed: int = 0
    """Which episodes are held out, and the critics of fitted Q evaluation: the same for policies that are compared."""
    rank_by: OfflineMeasure = DEFAULT_MEASURE
    """The number that tables, sweeps and `v2a select` rank by: the TD error of the policy's critics on held-out
    transitions, the least first (`td_error`); the mean log-likelihood of held-out actions; or fitted Q evaluation's
    mean over critics, less their standard deviation (`fitted_q_lower`) or not (`fitted_q_mean`). Without rewards it is
    the log-likelihood. docs/no_simulator.md measures how well each ranks."""
    num_steps: Positive = 5000
    """Update steps of those critics, at every evaluation."""
    num_critics: Annotated[int, Field(ge=2)] = 4
    """Critics that differ in their first weights."""
    discount: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """Of fitted Q evaluation."""


class ExperimentConfig(ExperimentData):
    """One experiment: data, one method, one seed."""

    name: Name
    """Names the run directory."""
    method: str = DEFAULT_METHOD
    """A combination of columns and filter; it sets the defaults of the sections below. `v2a methods` lists all."""
    seed: int = 0
    """Seed of the policy stage, and of the stages before it unless `upstream_seed` is set."""
    upstream_seed: int
    """Seed of the stages before the policy (modality, advantage, alignment, ...); by default `seed`. Experiments with
    equal values share these stages, so that only the policy's seed differs."""
    plugins: list[str] = Field(default_factory=list)
    """Python files that add methods, alignments, learners, filters and more, relative to the file that names them; see
    docs/extending.md. Every node runs them."""
    loggers: list[Literal["mlflow", "wandb"]] = Field(default_factory=list)
    """Where the finished policy is logged beside TensorBoard; each needs its package and reads its environment
    variables."""
    film_seconds: Annotated[float, Field(ge=0.0, le=60.0)] = 0.0
    """Loggers get a film of the finished policy's first evaluation episode, at most this long, which takes as long to
    draw. It is `film.gif` in the policy's folder. 0: none."""
    modality: ModalityConfig = ModalityConfig()
    advantage: Annotated[AdvantageConfig, ADVANTAGES] = NoAdvantageConfig()
    alignment: Annotated[AlignmentConfig, ALIGNMENTS] = NoAlignmentConfig()
    density: DensityConfig = DensityConfig()
    dynamics: DynamicsConfig = DynamicsConfig()
    correction: CorrectionConfig = CorrectionConfig()
    policy: Annotated[PolicyConfig, LEARNERS] = IQLConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    offline: OfflineConfig = OfflineConfig()

    @model_validator(mode="before")
    @classmethod
    def _lay_over_the_method(cls, raw: Any) -> Any:
        """Merge the given settings into those of the method, for every way of making an experiment."""
        if not isinstance(raw, Mapping):
            return raw
        given = {
            key: value.model_dump(exclude_unset=True) if isinstance(value, Settings) else value
            for key, value in raw.items()
        }
        given, _ = with_new_names(given)
        load_installed()
        if isinstance(plugins := given.get("plugins"), list):
            require_loaded(map(str, plugins))
        method = given.get("method", DEFAULT_METHOD)
        if not isinstance(method, str):
            raise ValueError(f"method: expected a name, got {method!r}")
        laid = under_method(method, given)
        if laid.get("upstream_seed") is None:
            laid["upstream_seed"] = laid.get("seed", cls.model_fields["seed"].default)
        return laid

    @model_validator(mode="after")
    def _parts_fit_together(self) -> ExperimentConfig:
        others = [stage.name for stage in needed_stages(self) if not stage.is_result]
        if not self.sources and (self.policy.uses_source or others):
            raise ValueError(
                f"sources: method {self.method} trains on sources and there are none; add one, or choose a method that "
                "trains on the target alone: iql_target, bc_target, td3_bc_target (`v2a methods`)"
            )
        rule, without = self.policy.filter, self.alignment.kind == "none"
        if rule.needs_score and without and self.advantage.kind == "none":
            raise ValueError("policy.filter.rule needs a column to filter by: set alignment.kind or advantage.kind")
        if rule.needs_alignment and without:
            raise ValueError(f"policy.filter.rule={rule.rule} needs alignment.kind")
        if rule.weight in ("exp_alignment", "above_threshold") and without:
            raise ValueError(f"policy.filter.weight={rule.weight} needs alignment.kind")
        if rule.weight == "exp_score" and without and self.advantage.kind == "none":
            raise ValueError("policy.filter.weight=exp_score needs a column: set alignment.kind or advantage.kind")
        if self.policy.reward_correction and without:
            raise ValueError("policy.reward_correction needs alignment.kind")
        if self.policy.reward_correction_data == "mixed" and not self.alignment.scores_target:
            raise ValueError("policy.reward_correction_data=mixed needs alignment.kind=state_ratio")
        self.policy.check(self)
        self.alignment.check(self)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the experiment together with the content of its plugins, for other processes."""
        if not self.plugins:
            return super().__reduce_ex__(protocol)
        return arrived, (self.model_dump(), sources_of(self.plugins))

    @property
    def modifications(self) -> dict[str, Any]:
        """Dotted key and value of every setting that contradicts the method's definition."""
        expected, actual = _expected(self.method), leaves(self.model_dump(mode="json"))
        # A setting that the method's kind lacks is compared with its default: the changed kind is listed already.
        there = [key for key in sorted(defining_keys()) if key in actual]
        meant = {key: expected[key] if key in expected else default_of(self, key) for key in there}
        return {key: actual[key] for key in there if actual[key] != meant[key]}

    @property
    def is_offline(self) -> bool:
        """Whether the target has no simulator: numbers on held-out episodes stand for returns."""
        return is_recorded(self.target.domain)

    @property
    def needs_rewards(self) -> bool:
        """Whether any stage reads rewards: the policy learner, or the advantage for its filter."""
        return self.policy.reads_rewards or "advantage" in [stage.name for stage in needed_stages(self)]

    @property
    def method_title(self) -> str:
        """The method's name with its modifications: `dvdf (modified: alignment.kind=residual)`."""
        return self.titled(self.method)

    def titled(self, name: str, without: Collection[str] = ()) -> str:
        """`name` with the modifications of the method, except those of the keys `without`."""
        return titled(name, self.modifications, without)

    @property
    def folder_name(self) -> str:
        """Default name of a run's results folder; results of a modified method do not replace those of the method."""
        modified = "-modified" if self.modifications else ""
        return f"{self.name}-{self.method}{modified}-seed{self.seed}"


def titled(name: str, modifications: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """`name` with `modifications`, except those of the keys `without`."""
    changed = ", ".join(f"{key}={value}" for key, value in modifications.items() if key not in without)
    return f"{name} (modified: {changed})" if changed else name


def arrived(content: dict[str, Any], sources: dict[str, str]) -> ExperimentConfig:
    """Unpickle an experiment from another process, after loading its plugins."""
    load_shipped(sources)
    return ExperimentConfig.model_validate(content)


def default_of(config: ExperimentConfig, key: str) -> Any:
    """The default of a setting, by its dotted key, for the kinds of sections in an experiment."""
    *parents, last = key.split(".")
    section: Any = config
    for parent in parents:
        section = getattr(section, parent)
    choices = SECTIONS.get(".".join(parents))
    return choices.default if choices and last == choices.field else type(section).model_fields[last].default


def method_config(name: str) -> ExperimentConfig:
    """An experiment of a method on placeholder data. Raises ConfigError for an unknown name."""
    method_settings(name)
    data = {"domain": "any", "behavior": "any", "num_transitions": 1}
    sources = [SourceSpec.model_validate(data)]
    return ExperimentConfig(name="any", method=name, target=TargetSpec.model_validate(data), sources=sources)  # type: ignore[call-arg]


_known: dict[str, tuple[Method, dict[str, Any]]] = {}


def _expected(name: str) -> dict[str, Any]:
    """The settings of a method by dotted key, cached until the method is registered again (by a changed plugin)."""
    method = METHODS[name]
    if name not in _known or _known[name][0] is not method:
        _known[name] = method, leaves(method_config(name).model_dump(mode="json"))
    return _known[name][1]
