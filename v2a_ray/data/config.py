"""Where transitions come from, and how they are mixed, preprocessed and sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from v2a_ray.settings.base import Name, Positive, Settings
from v2a_ray.settings.behavior_names import UNKNOWN, behavior_of_name
from v2a_ray.settings.environment_names import (
    RECORDED_SETTINGS,
    is_behavior_file,
    is_recorded,
    label_of,
    with_absolute_file,
    with_dimensions,
    with_settings,
)

CheckName = Literal[
    "dimensions",
    "finite",
    "action_bounds",
    "unwritten",
    "alignment",
    "repeated",
    "unordered",
    "reset_as_next",
    "terminal_reset_as_next",
    "next_observation_repeated",
    "episode_too_long",
    "next_observation_derived",
    "episode_ends_unknown",
    "episode_unfinished",
    "episodes_missing",
    "rows_moved",
    "videos_ignored",
    "fewer",
    "terminal_but_healthy",
    "terminal_continues",
    "unhealthy_not_terminal",
    "time_limit_as_terminal",
    "reward_scale",
    "rewards_unexplained",
    "duplicate",
    "same_dynamics",
    "wrong_domain",
]
"""The checks of data; `v2a_ray.data.checks.CHECKS` says what each means."""
CheckSeverity = Literal["error", "warning", "ignore"]


TARGET_LABEL = "target"
"""Label of the target dataset. No source may have it."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
"""Names or patterns with `*`, concatenated in this order; what one pattern matches is in natural order (q2, q10)."""


class Columns(Settings):
    """Which columns of a table, or arrays of a file, make up a transition. What is left out is as the format has it."""

    observation: Patterns | None = None
    """Numbers or vectors, concatenated in this order; of one pattern in natural order: `[q*, dq*]`."""
    action: Patterns | None = None
    """As `observation`."""
    next_observation: Patterns | None = None
    """As `observation`; where there is none, it is the observation of the next row of the episode."""
    reward: str | None = None
    """A number per row; where there is none, see `DataSpec.reward`."""
    episode: str | None = None
    """A name or number per row. Rows of one episode may lie apart."""
    step: str | None = None
    """A number per row that orders the rows of an episode; by default they are in order."""
    terminated: str | Literal[False] | None = None
    """A flag per row: nothing follows. `false`: no row is terminal, whatever the format's own flags say."""
    timeout: str | None = None
    """A flag per row: the episode is cut here."""


ActionBounds = Literal["measured", "declared"] | Annotated[list[tuple[float, float]], Field(min_length=1)]
"""The data's own least and largest, those in LeRobot's metadata, or [LOW, HIGH] of each action."""


class DataSpec(Settings):
    """Where transitions come from: rolled out from a packaged behaviour policy, or read from a file."""

    domain: str
    """Domain the data come from, e.g. `hopper/gravity-0.5@d4rl`; see `v2a domains list`. A source's is only a label.
    `gym:ENV_ID` and `gym:package.module:Class` are Gymnasium environments; `environment: {KEY: VALUE}` beside it has
    their arguments, `observation_keys`, `max_episode_steps` and `references`, and becomes part of the name.
    `mjcf:ROBOT.yaml` is a robot that this file makes of a MuJoCo model (docs/own_robot.md).
    `real` (or `real:NAME`) is a robot of which there are recordings and no simulator; `observation_dim: O` and
    `action_dim: A` beside it become part of the name."""
    behavior: str = UNKNOWN
    """Behaviour policy: `random`, `medium`, `expert`, `medium-replay`, `medium-expert`, a function `module:name` of an
    observation, or a file, `.safetensors` of `v2a behaviors train` or `.onnx`. With `path`, only a label; by default
    what the file's name says (`hopper_medium-replay.hdf5`)."""
    policy_domain: str | None = None
    """Domain whose behaviour policies act, for example stock policies on a shifted robot; by default `domain`."""
    path: str | None = None
    """File or folder to read instead of rolling out, of any format that `v2a data convert` reads: a path relative to
    `data_root`, or a URI (`s3://`, `gs://`, `minari://ID`, ...), which every node of the cluster has to reach."""
    columns: Columns | None = None
    """With `path`: which columns make up a transition, of a Parquet, CSV, LeRobot or robomimic file."""
    reward: float | str | None = None
    """With `path`: a constant, or `module:function` of (observation, action, next_observation), (N, O), (N, A), (N, O),
    to (N,), that stands for the recorded reward. The module has to be importable on every node."""
    action_bounds: ActionBounds | None = None
    """With `path`: scale recorded actions to [-1, 1] from these bounds. `measured`: the least and largest in the data;
    `declared`: those in LeRobot's metadata; or `[[LOW, HIGH], ...]`. By default actions have to be in [-1, 1]."""
    num_transitions: Positive | None = None
    """Exact number of transitions; without it the whole `path` is used."""
    num_episodes: Positive | None = None
    """With `path`: at most this many episodes. With `num_transitions` too, the limit that is reached first counts."""
    subsample: Literal["first", "episodes", "transitions"] = "first"
    """With `path`: take the first transitions of the file, whole episodes drawn at random, or single transitions drawn
    at random (only for a target, because they have no order)."""
    replacement: bool = False
    """Draw with replacement, as the published V2A draws its 10 % of the target (`subsample: transitions`)."""
    noise_std: Annotated[float, Field(ge=0.0)] = 0.1
    """Standard deviation of Gaussian noise on rolled-out actions (action range is -1 to 1)."""
    seed: int = 0
    """Seed of the roll-outs, or of the subsampling."""

    @field_validator("behavior")
    @classmethod
    def _policy_is_absolute(cls, name: str) -> str:
        return str(Path(name).expanduser().absolute()) if is_behavior_file(name) else name

    @field_validator("domain", "policy_domain")
    @classmethod
    def _file_is_absolute(cls, name: str | None) -> str | None:
        return None if name is None else with_absolute_file(name)

    @model_validator(mode="before")
    @classmethod
    def _environment_is_in_the_name(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "environment" not in content:
            return content
        settings, rest = content["environment"], {key: value for key, value in content.items() if key != "environment"}
        if not isinstance(settings, dict):
            raise ValueError("environment: write its settings as KEY: VALUE")
        named = [key for key in ("domain", "policy_domain") if isinstance(rest.get(key), str)]
        return rest | {key: with_settings(rest[key], settings) for key in named}

    @model_validator(mode="before")
    @classmethod
    def _dimensions_are_in_the_name(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not isinstance(content.get("domain"), str):
            return content
        sizes = {key: content[key] for key in RECORDED_SETTINGS if key in content}
        rest = {key: value for key, value in content.items() if key not in sizes}
        return rest | {"domain": with_dimensions(rest["domain"], sizes)} if sizes else content

    @model_validator(mode="after")
    def _recordings_are_read(self) -> DataSpec:
        if is_recorded(self.domain) and self.path is None:
            raise ValueError(f"path: {self.domain} has no simulator to roll out in; name the file of its recordings")
        return self

    @model_validator(mode="after")
    def _rollouts_need_a_length(self) -> DataSpec:
        if self.path is None and self.num_transitions is None and not self._is_weighted:
            raise ValueError("num_transitions is needed when there is no path (data are rolled out)")
        if self.path is None and self.behavior == UNKNOWN:
            raise ValueError("behavior is needed when there is no path (data are rolled out)")
        return self

    @model_validator(mode="after")
    def _draws_need_a_file_and_a_number(self) -> DataSpec:
        if self.path is None and (self.num_episodes or self.replacement or self.subsample != "first"):
            raise ValueError("num_episodes, subsample and replacement need a path; num_transitions sizes roll-outs")
        if self.path is None and (self.columns or self.reward is not None or self.action_bounds):
            raise ValueError("columns, reward and action_bounds need a path; roll-outs have all of them")
        if self.replacement and self.subsample == "first":
            raise ValueError("replacement needs subsample=episodes or subsample=transitions")
        drawn = self.replacement or self.subsample == "transitions"
        if drawn and not (self.num_transitions or self.num_episodes or self._is_weighted):
            raise ValueError("replacement and subsample=transitions need num_transitions")
        if self.subsample == "transitions" and self.num_episodes:
            raise ValueError("subsample=transitions takes num_transitions, not num_episodes")
        return self

    @property
    def labelled_behavior(self) -> str:
        """What its episodes are labelled with: the behaviour, or where none is stated the one in the file's name."""
        if self.path is None or self.behavior != UNKNOWN:
            return self.behavior
        return behavior_of_name(self.path) or UNKNOWN

    @property
    def _is_weighted(self) -> bool:
        """Whether the mix determines the number of transitions."""
        return False


Index = Annotated[int, Field(ge=0, strict=True)]
DimensionMap = Annotated[list[Index | None], Field(min_length=1)] | Annotated[list[list[float]], Field(min_length=1)]
"""An index or null per number of the target, or a matrix with a row for each; see `data.mixing.dimension_maps`."""


class SourceSpec(DataSpec):
    """One part of the source mix."""

    name: Name | None = None
    """Unique name of this part; by default made from domain and behaviour."""
    weight: Annotated[float, Field(gt=0.0)] | None = None
    """Share of the mix's `num_transitions`, relative to the other weights. All sources have a weight, or none has."""
    on_error: Literal["stop", "skip"] | None = None
    """`skip`: leave the source out, with a warning, if it cannot be read or fails a check. Default: `mix.on_error`."""
    observation_map: DimensionMap | None = None
    """For a robot of other dimensions: what stands for each of the target's observations, an index of the source's or
    null for zero (`[0, 1, null, 2]`); or a matrix with a row for each."""
    action_map: DimensionMap | None = None
    """The same for actions."""

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
        return self.name or f"{label_of(self.domain.split('@')[0])}-{label_of(self.behavior)}"


class TargetSpec(DataSpec):
    """The target dataset; `domain` is also where the policy is evaluated. In `real` nothing can be tried: numbers on
    held-out episodes stand for returns (section `offline`)."""


class MixConfig(Settings):
    """How the sources become one table."""

    num_transitions: Positive | None = None
    """Transitions of the whole mix, divided by the sources' weights."""
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Fraction of every source's episodes that is held out: written beside the table, and no stage trains on it."""
    seed: int = 0
    """Seed that selects the held-out episodes."""
    on_error: Literal["stop", "skip"] = "stop"
    """What to do with a source that cannot be read or fails a check: stop, or leave it out with a warning."""


class PreprocessingConfig(Settings):
    """Transformations of the data before any network sees them."""

    standardize_observations: bool = True
    """Subtract the mean and divide by the standard deviation of the TARGET observations."""
    reward_scale: Literal["return_range"] | Annotated[float, Field(gt=0.0)] = "return_range"
    """`return_range`: 1000 / (max - min episode return) of source and target, as in IQL; or a number (1: raw)."""


class LoadingConfig(Settings):
    """How transitions reach the learners. Each node holds one copy of a table that fits in memory, for all trials."""

    memory_gib: Annotated[float, Field(gt=0.0)] = 16.0
    """Memory that a stage may use for transitions, in GiB. A larger table is streamed through a shuffle buffer of this
    size, which changes the batches (see `v2a_ray.data.loading.streaming`). The default does not depend on the machine,
    so that results do not. The target of the alignment stage has to fit, and the source where several workers fit the
    modality, or `alignment.kind=modality` does."""


class ExperimentData(Settings):
    """The data of an experiment, which do not depend on the method."""

    data_root: str = Field(default=".", validate_default=True)
    """Folder or URI that a relative `path` starts from. A relative folder starts from the working directory."""
    store: str | None = None
    """Folder of reusable artifacts; by default $V2A_STORE, or `runs/artifacts`."""
    checks: dict[CheckName, CheckSeverity] = Field(default_factory=dict)
    """Severities of data checks that differ from the default; `v2a data checks` lists the checks."""
    target: TargetSpec
    sources: list[SourceSpec]
    """What the mix is made of; `[]` for a method that trains on the target alone."""
    mix: MixConfig = MixConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    loading: LoadingConfig = LoadingConfig()

    @field_validator("data_root")
    @classmethod
    def _root_is_absolute(cls, root: str) -> str:
        # Tasks of Ray have a working directory of their own.
        return root if "://" in root else str(Path(root).expanduser().absolute())

    @model_validator(mode="after")
    def _sources_fit_together(self) -> ExperimentData:
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
        return self
