"""Reads a sweep from a YAML file: its trials, each an experiment with its plan. No Ray here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2a_ray.errors import ConfigError, V2AError
from v2a_ray.experiments.definition import lay_over, with_new_names
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import METHODS
from v2a_ray.experiments.planner import Planner
from v2a_ray.experiments.reading import dropped_settings, require_packages, with_plugins
from v2a_ray.experiments.sweep_config import Objectives, SearchConfig, SweepConfig
from v2a_ray.experiments.sweep_objectives import default_objectives, require_evaluations
from v2a_ray.imports import require_package
from v2a_ray.outputs import file_name
from v2a_ray.settings.base import contradiction, leaves
from v2a_ray.settings.shipped import config_path
from v2a_ray.settings.yaml_files import merge, nested, parse_overrides, read_yaml, validate

if TYPE_CHECKING:
    import optuna

    from v2a_ray.engine.plan import Node

SAMPLE = "sample"
"""The axis of a random search's draws."""
SUGGESTION = "suggestion"
"""The axis of Optuna's suggestions."""
MAX_TRIALS = 10_000
COMMAND_LINE = "the command line"
"""Name of the layer of command-line settings in messages."""

Layer = dict[str, Any]
"""Settings to merge into others, nested as in a file."""


def task_of(labels: Mapping[str, str]) -> str:
    """The task of a trial, for comparing methods: all labels except method, seed and draws."""
    return " · ".join(value for axis, value in labels.items() if axis not in ("method", "seed", SAMPLE, SUGGESTION))


def trial_folder_name(labels: Mapping[str, str], name: str) -> str:
    """Folder name of a trial, such as `mix=near,method=iql_mixed,seed=0`; `name` if it has no labels."""
    return file_name(",".join(f"{axis.rsplit('.', 1)[-1]}={label}" for axis, label in labels.items()) or name)


@dataclass(frozen=True)
class Trial:
    """One combination of a sweep.

    Attributes:
        labels: axis to its value's label.
        config: the experiment.
        plan: nodes of its plan by name.
        labelled: dotted keys of settings that labels already name, and of drawn settings; the method's title omits
            them.
    """

    labels: dict[str, str]
    config: ExperimentConfig
    plan: dict[str, Node]
    labelled: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Displayed name of its policy."""
        return f"policy {' '.join(self.labels.values()) or self.config.name}"

    @property
    def folder_name(self) -> str:
        """Name of its folder in `trials/`."""
        return trial_folder_name(self.labels, self.config.name)

    @property
    def task(self) -> str:
        """See `task_of`."""
        return task_of(self.labels) or self.config.name


@dataclass(frozen=True)
class Sweep:
    """A sweep ready to run.

    Attributes:
        axes: axis to labels.
        trials: all trials of a grid or random search; for Optuna, one per combination of the axes, without draws.
        probes: trials at the ends of the drawn distributions, one setting at a time; their upstream artifacts are
            needed.
        content: the file with its base and overrides merged, from which the same sweep can be made again.
    """

    config: SweepConfig
    axes: dict[str, list[str]]
    trials: list[Trial]
    probes: list[Trial]
    content: dict[str, Any]
    notices: list[str]
    """Notices on settings of the file that were dropped for some methods, without duplicates."""
    objectives: Objectives
    """What searches optimise; schedulers compare the first."""

    @property
    def name(self) -> str:
        """Name of the results folder."""
        return self.config.name

    @property
    def objective(self) -> tuple[str, str]:
        """What schedulers compare, and `max` or `min`."""
        return next(iter(self.objectives.items()))

    @property
    def suggests(self) -> bool:
        """Whether trials are drawn while the sweep runs."""
        return self.config.search is not None and self.config.search.algorithm == "optuna"

    @property
    def num_trials(self) -> int:
        """Number of policies."""
        draws = self.config.search.num_trials if self.config.search and self.suggests else 1
        return len(self.trials) * draws

    def describe(self) -> str:
        """The grid in one line."""
        parts = [f"{len(labels)} {axis.rsplit('.', 1)[-1]}" for axis, labels in self.axes.items()]
        if self.config.search and self.suggests:
            parts.append(f"{self.config.search.num_trials} suggestions of Optuna")
        return " × ".join(parts)


def loggers_of(sweep: Sweep) -> list[str]:
    """Where its policies are logged beside TensorBoard: what the file says, and the experiment that it is based on."""
    return list(dict.fromkeys([*sweep.config.loggers, *sweep.trials[0].config.loggers]))


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file. Overrides of its own keys (`axes.seed=[0,1]`) change the grid, all others every trial.

    For an axis with labelled values, `axes.mix=[near]` chooses labels.
    """
    path = config_path(path)
    over = parse_overrides(overrides)
    own = {key: over.pop(key) for key in list(over) if key in SweepConfig.model_fields}
    raw, notices = with_base(with_grid(read_yaml(path), own), path)
    remedy = "`v2a config --sweep` prints every key with its default and meaning"
    config = validate(SweepConfig, raw, path, remedy, own)
    return make_sweep(config, path, over, notices)


def with_grid(content: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep file's content with the command line's overrides of its own keys merged into it.

    Raises ConfigError for a label that an axis does not have.
    """
    axes, over = content.get("axes"), own.get("axes")
    if isinstance(axes, Mapping) and isinstance(over, Mapping):
        chosen = {
            axis: _chosen(axis, axes[axis], values)
            for axis, values in over.items()
            if isinstance(values, list) and isinstance(axes.get(axis), Mapping)
        }
        content = {**content, "axes": {**axes, **chosen}}
        own = {**own, "axes": {axis: values for axis, values in over.items() if axis not in chosen}}
    merged: dict[str, Any] = merge(content, own)
    return merged


def _chosen(axis: str, labelled: Mapping[Any, Any], labels: Sequence[Any]) -> dict[Any, Any]:
    """The values of an axis with the labels that the command line names, in the command line's order."""
    by_text = {str(label): label for label in labelled}
    for label in labels:
        if str(label) not in by_text:
            raise ConfigError(
                f"axes.{axis} has no label {label!r}", where="command line", remedy=f"it has {', '.join(by_text)}"
            )
    return {by_text[str(label)]: labelled[by_text[str(label)]] for label in labels}


def with_base(raw: Mapping[str, Any], path: Path, below: Layer | None = None) -> tuple[dict[str, Any], list[str]]:
    """Merge a sweep file's settings into the experiment named by its `base`; returns the content and notices.

    The base is a file beside the sweep's, or the name of a shipped one. `below` are settings below that experiment.
    Raises ConfigError if the base is not a file name.
    """
    content, notices, settings = dict(raw), [], dict(below or {})
    base = content.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise ConfigError(f"expected a file, got {base!r}", where=f"{path} · base")
        file = config_path(Path(base), path.parent).resolve()
        settings = merge(settings, with_plugins(read_yaml(file), file))
    if over := content.get("settings"):
        over = with_plugins(over, path) if isinstance(over, Mapping) else over
        settings, dropped = lay_over(settings, over) if isinstance(over, Mapping) else (over, {})
        notices = [dropped_settings(path.parent / str(base), over, dropped)] if dropped else []
    if settings:
        content["settings"] = settings
    return content, notices


def make_sweep(
    config: SweepConfig, path: Path, over: Mapping[str, Any] | None = None, notices: Sequence[str] = ()
) -> Sweep:
    """Make the trials of a sweep file's content; `over` is merged into every trial. `path` is only for messages.

    Raises ConfigError if `over` sets something that an axis varies, because the trial's label would be wrong.
    """
    over, told = over or {}, list(notices)
    axes = {axis: _values(axis, values) for axis, values in config.axes.items()}
    if config.search:
        require_package("optuna", "search", f"{path} · search")
    if config.search and config.search.algorithm == "random":
        axes[SAMPLE] = {str(number): draw for number, draw in enumerate(_draws(config.search))}
    _require_a_sensible_number(axes, config, path)
    named_now, renamed = with_new_names(config.settings)
    told += [f"{path}: {text}" for text in renamed]
    settings = named_now | {"name": config.name}
    trials, probes, planner = [], [], Planner()
    for combination in itertools.product(*(axes[axis].items() for axis in axes)):
        labels = dict(zip(axes, (label for label, _ in combination), strict=True))
        named = {f"{axis}={label}": layer for axis, (label, layer) in zip(axes, combination, strict=True)}
        layers = {COMMAND_LINE: dict(over)} | named
        layer = _laid(layers, path)
        raw, dropped = lay_over(settings, layer)
        if dropped and "method" in layer:
            told.append(dropped_settings(path, layer, dropped))
        labelled = _labelled(axes, labels, config.search)
        trials.append(_trial(labels, raw, path, planner, labelled))
        if config.search and labels.get(SAMPLE, "0") == "0":
            probes += _probes(config.search, labels, settings, layers, path, planner)
    labels_of = {axis: list(values) for axis, values in axes.items()}
    objectives = default_objectives(config.search, trials)
    content = _content(config, over, trials)
    sweep = Sweep(config, labels_of, trials, probes, content, list(dict.fromkeys(told)), objectives)
    require_evaluations(sweep, path)
    return sweep


def suggested(cell: Trial, number: int, values: Mapping[str, Any], planner: Planner) -> Trial:
    """The trial for a draw in one combination of the axes."""
    raw, _ = lay_over(cell.config.model_dump(mode="json"), layer_of(values))
    return _trial(cell.labels | {SUGGESTION: f"{number:04d}"}, raw, Path(SUGGESTION), planner, cell.labelled)


def layer_of(values: Mapping[str, Any]) -> Layer:
    """Nest dotted keys: `{"policy.width": 64}` becomes `{"policy": {"width": 64}}`."""
    return nested(values)


def draw(trial: optuna.Trial, search: SearchConfig) -> dict[str, Any]:
    """Draw every setting of the space by one of Optuna's trials, by dotted key; earlier draws of the trial are kept."""
    for key, spec in search.space.items():
        if spec.choice is not None:
            trial.suggest_categorical(key, spec.choice)
        elif spec.int_uniform is not None:
            trial.suggest_int(key, *spec.int_uniform)
        else:
            low, high = spec.examples
            trial.suggest_float(key, low, high, log=spec.log_uniform is not None)
    return trial.params


def _draws(search: SearchConfig) -> list[Layer]:
    """The draws of a random search; equal seeds give equal draws."""
    # The import takes half a second, so a grid does not need it.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(search.seed))
    return [layer_of(draw(study.ask(), search)) for _ in range(search.num_trials)]


def _probes(
    search: SearchConfig,
    labels: dict[str, str],
    settings: Layer,
    layers: Mapping[str, Layer],
    path: Path,
    planner: Planner,
) -> list[Trial]:
    """A trial at every end of the drawn distributions, so that an invalid end is found before anything runs."""
    # Leave out the first draw of a random search; the probe's own value replaces it.
    fixed = {name: layer for name, layer in layers.items() if not name.startswith(f"{SAMPLE}=")}
    probes = []
    for key, spec in search.space.items():
        if search.algorithm == "optuna" and key.split(".")[0] not in ("policy", "seed"):
            raise ConfigError(
                "Optuna draws while policies train, and this setting changes stages that are computed before",
                where=f"{path} · search.space.{key}",
                remedy="list its values as an axis, or draw it with search.algorithm=random",
            )
        for value in spec.examples:
            raw, _ = lay_over(settings, _laid({**fixed, f"the draw of {key}": layer_of({key: value})}, path))
            probes.append(_trial(labels | {key: str(value)}, raw, path, planner))
    return probes


def _labelled(
    axes: Mapping[str, Mapping[str, Layer]], labels: Mapping[str, str], search: SearchConfig | None
) -> frozenset[str]:
    """Dotted keys of the settings that a trial's labels or draws name.

    A method's registered name covers only its definition, so modifications of it are shown.
    """
    keys = set(search.space) if search else set()
    for axis, label in labels.items():
        if axis != "method" or label not in METHODS:
            keys |= leaves(axes[axis][label]).keys()
    return frozenset(keys)


def _laid(layers: Mapping[str, Layer], path: Path) -> Layer:
    """Merge the layers of a combination, given by name for messages.

    Raises ConfigError if one contradicts another, because a label would be wrong.
    """
    # Merged into one layer, so that the order of the axes does not matter.
    whole: Layer = reduce(merge, layers.values(), {})
    for name, layer in layers.items():
        if key := contradiction(whole, layer):
            clashes = (each for each, over in layers.items() if contradiction(merge(layer, over), layer))
            raise ConfigError(
                f"{name} and {next(clashes, 'another axis')} both set {key}: a label would be wrong",
                where=str(path),
                remedy="set it in one of them; axes.NAME=[...] on the command line chooses what an axis varies",
            )
    return whole


def _trial(
    labels: dict[str, str], raw: Layer, path: Path, planner: Planner, labelled: frozenset[str] = frozenset()
) -> Trial:
    """Make a trial. An error of a setting is raised again with the combination in its place."""
    try:
        config, plan = planner.plan(raw)
        require_packages(config)
        return Trial(labels, config, plan, labelled)
    except V2AError as error:
        where = f"{path} · " + " ".join(f"{axis}={label}" for axis, label in labels.items())
        raise type(error)(error.what, where=f"{where} · {error.where}".rstrip(" ·"), remedy=error.remedy) from None


def _values(axis: str, values: list[Any] | dict[str, dict[str, Any]]) -> dict[str, Layer]:
    """Maps the label of each value of an axis to its settings."""
    if not values:
        raise ConfigError("the axis has no value", where=f"axes.{axis}", remedy="give it at least one, or remove it")
    if isinstance(values, dict):
        return values
    return {str(value): layer_of({axis: value}) for value in values}


def _require_a_sensible_number(axes: Mapping[str, Mapping[str, Any]], config: SweepConfig, path: Path) -> None:
    draws = config.search.num_trials if config.search and config.search.algorithm == "optuna" else 1
    count = draws * math.prod(len(values) for values in axes.values())
    if count > MAX_TRIALS:
        product = " × ".join(f"{len(values)} {axis}" for axis, values in axes.items())
        raise ConfigError(
            f"{count:,} trials ({product}) are more than the {MAX_TRIALS:,} that one sweep may have",
            where=f"{path} · axes",
            remedy="take values out, draw some of them with `search`, or split the file",
        )


def _content(config: SweepConfig, over: Mapping[str, Any], trials: Sequence[Trial]) -> dict[str, Any]:
    """The content for resuming the sweep; folders are absolute, because it may be resumed from another folder."""
    content = {"sweep": config.model_dump(mode="json", exclude_defaults=True), "over": dict(over)}
    first = trials[0].config
    content["sweep"]["settings"] = config.settings | {"data_root": first.data_root, "store": first.store}
    content["over"] |= {key: getattr(first, key) for key in ("data_root", "store") if key in content["over"]}
    return content
