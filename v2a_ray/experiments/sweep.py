"""A sweep from a YAML file: its trials, each an experiment with its plan. No Ray here."""

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
from v2a_ray.experiments.reading import dropped_settings, with_plugins
from v2a_ray.experiments.sweep_config import SearchConfig, SweepConfig
from v2a_ray.outputs import file_name
from v2a_ray.settings.base import contradiction, leaves
from v2a_ray.settings.environment_names import is_environment, split_name
from v2a_ray.settings.yaml_files import merge, nested, parse_overrides, read_yaml, validate

if TYPE_CHECKING:
    import optuna

    from v2a_ray.engine.plan import Node

SAMPLE = "sample"
"""The axis that a random search's draws form."""
SUGGESTION = "suggestion"
"""The label that tells Optuna's draws apart."""
MAX_TRIALS = 10_000
COMMAND_LINE = "the command line"
"""Names its settings among the layers of a trial."""

Layer = dict[str, Any]
"""Settings to lay over others, nested as in a file."""


def task_of(labels: Mapping[str, str]) -> str:
    """What a trial is compared on: everything but the method, the seed and what was drawn."""
    return " · ".join(value for axis, value in labels.items() if axis not in ("method", "seed", SAMPLE, SUGGESTION))


def trial_folder_name(labels: Mapping[str, str], name: str) -> str:
    """`mix=near,method=iql_mixed,seed=0`: a folder for what came of a trial; `name` is for a trial without labels."""
    return file_name(",".join(f"{axis.rsplit('.', 1)[-1]}={label}" for axis, label in labels.items()) or name)


@dataclass(frozen=True)
class Trial:
    """One combination of a sweep.

    Attributes:
        labels: axis to its value's label.
        config: the experiment.
        plan: its artifacts, by name.
        labelled: dotted keys of the settings that the labels stand for, and those that were drawn: no part of the
            method's name.
    """

    labels: dict[str, str]
    config: ExperimentConfig
    plan: dict[str, Node]
    labelled: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What its policy is called in the display."""
        return f"policy {' '.join(self.labels.values()) or self.config.name}"

    @property
    def folder_name(self) -> str:
        """What its folder in `trials/` is called."""
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
        trials: of a grid or a random search all of them; of Optuna one per combination of the axes, without a draw.
        probes: every trial at the ends of what is drawn, one setting at a time; their upstream artifacts are needed.
        content: the file with its base and overrides laid in, from which the same sweep can be made again.
    """

    config: SweepConfig
    axes: dict[str, list[str]]
    trials: list[Trial]
    probes: list[Trial]
    content: dict[str, Any]
    notices: list[str]
    """What of the file does not hold for some of the methods; each once."""

    @property
    def name(self) -> str:
        """Names the results folder."""
        return self.config.name

    @property
    def suggests(self) -> bool:
        """Whether trials are drawn while the sweep runs."""
        return self.config.search is not None and self.config.search.algorithm == "optuna"

    @property
    def num_trials(self) -> int:
        """Policies in all."""
        draws = self.config.search.num_trials if self.config.search and self.suggests else 1
        return len(self.trials) * draws

    def describe(self) -> str:
        """The grid in one line."""
        parts = [f"{len(labels)} {axis.rsplit('.', 1)[-1]}" for axis, labels in self.axes.items()]
        if self.config.search and self.suggests:
            parts.append(f"{self.config.search.num_trials} suggestions of Optuna")
        return " × ".join(parts)


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file. Overrides of its own keys (`axes.seed=[0,1]`) change the grid, all others every trial.

    Of an axis whose values are labelled, `axes.mix=[near]` chooses labels.
    """
    over = parse_overrides(overrides)
    own = {key: over.pop(key) for key in list(over) if key in SweepConfig.model_fields}
    raw, notices = with_base(with_grid(read_yaml(path), own), path)
    remedy = "`v2a config --sweep` prints every key with its default and meaning"
    config = validate(SweepConfig, raw, path, remedy, own)
    return make_sweep(config, path, over, notices)


def with_grid(content: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep file's content with the command line's overrides of its own keys laid over it.

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
    """The values of an axis by the labels that the command line names, in its order."""
    by_text = {str(label): label for label in labelled}
    for label in labels:
        if str(label) not in by_text:
            raise ConfigError(
                f"axes.{axis} has no label {label!r}", where="command line", remedy=f"it has {', '.join(by_text)}"
            )
    return {by_text[str(label)]: labelled[by_text[str(label)]] for label in labels}


def with_base(raw: Mapping[str, Any], path: Path, below: Layer | None = None) -> tuple[dict[str, Any], list[str]]:
    """A sweep file's content with the experiment that its `base` names laid under its settings, and what to say of it.

    `below` are settings to lay under that experiment. Raises ConfigError for a base that is no file's name.
    """
    content, notices, settings = dict(raw), [], dict(below or {})
    base = content.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise ConfigError(f"expected a file, got {base!r}", where=f"{path} · base")
        file = (path.parent / base).resolve()
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
    """The trials of a sweep file's content; `over` is laid over every trial. `path` is for messages alone.

    Raises ConfigError for an `over` of what the file varies: the labels would say what does not hold.
    """
    over, told = over or {}, list(notices)
    axes = {axis: _values(axis, values) for axis, values in config.axes.items()}
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
    sweep = Sweep(config, labels_of, trials, probes, _content(config, over, trials), list(dict.fromkeys(told)))
    _require_evaluations(sweep, path)
    return sweep


def suggested(cell: Trial, number: int, values: Mapping[str, Any], planner: Planner) -> Trial:
    """The trial that a draw makes of one combination of the axes."""
    raw, _ = lay_over(cell.config.model_dump(mode="json"), layer_of(values))
    return _trial(cell.labels | {SUGGESTION: f"{number:04d}"}, raw, Path(SUGGESTION), planner, cell.labelled)


def layer_of(values: Mapping[str, Any]) -> Layer:
    """`{"policy.width": 64}` to `{"policy": {"width": 64}}`."""
    return nested(values)


def draw(trial: optuna.Trial, search: SearchConfig) -> dict[str, Any]:
    """Every setting of the space by its dotted key, drawn by one of Optuna's trials; what it drew before stays."""
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
    """The settings of a random search, the same for equal seeds."""
    # Importing it takes half a second, which a grid need not pay.
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
    """A combination at every end of what is drawn: a wrong end is found before anything runs."""
    # The first draw of a random search is one end's neighbour, not what holds at it.
    fixed = {name: layer for name, layer in layers.items() if not name.startswith(f"{SAMPLE}=")}
    probes = []
    for key, spec in search.space.items():
        if search.algorithm == "optuna" and key.split(".")[0] not in ("policy", "seed"):
            raise ConfigError(
                "Optuna draws while policies train, and this setting moves what is computed before",
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
    """Dotted keys of the settings that a trial's labels, or draws, stand for.

    A method's registered name stands for its definition alone, so that what lies over it is said.
    """
    keys = set(search.space) if search else set()
    for axis, label in labels.items():
        if axis != "method" or label not in METHODS:
            keys |= leaves(axes[axis][label]).keys()
    return frozenset(keys)


def _laid(layers: Mapping[str, Layer], path: Path) -> Layer:
    """The layers of a combination as one; each has a name for messages.

    Raises ConfigError where one contradicts another: a label would say what does not hold.
    """
    # One layer, so that an axis of settings holds whether it stands before the methods' or after.
    whole: Layer = reduce(merge, layers.values(), {})
    for name, layer in layers.items():
        if key := contradiction(whole, layer):
            clashes = (each for each, over in layers.items() if contradiction(merge(layer, over), layer))
            raise ConfigError(
                f"{name} and {next(clashes, 'another axis')} both set {key}: a label would say what does not hold",
                where=str(path),
                remedy="set it in one of them; axes.NAME=[...] on the command line chooses what an axis varies",
            )
    return whole


def _trial(
    labels: dict[str, str], raw: Layer, path: Path, planner: Planner, labelled: frozenset[str] = frozenset()
) -> Trial:
    """Raises the error of a wrong setting with the combination that it stands in."""
    try:
        return Trial(labels, *planner.plan(raw), labelled)
    except V2AError as error:
        where = f"{path} · " + " ".join(f"{axis}={label}" for axis, label in labels.items())
        raise type(error)(error.what, where=f"{where} · {error.where}".rstrip(" ·"), remedy=error.remedy) from None


def _values(axis: str, values: list[Any] | dict[str, dict[str, Any]]) -> dict[str, Layer]:
    """Label to settings of each value of an axis."""
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


def _require_evaluations(sweep: Sweep, path: Path) -> None:
    """Schedulers and searches compare evaluations: there have to be some, of trials that may be compared."""
    scheduler = sweep.config.scheduler
    targets = {trial.config.target.domain for trial in sweep.trials}
    unscored = [name for name in targets if is_environment(name) and "references" not in split_name(name)[1]]
    if unscored and sweep.config.objective[0].startswith("normalized") and (scheduler.compares or sweep.config.search):
        raise ConfigError(
            f"trials are ranked by their normalised score, and {unscored[0]} has no references",
            where=f"{path} · search.objectives",
            remedy="{return_mean: max}, or give the environment `references: [RANDOM, EXPERT]`",
        )
    if not scheduler.compares:
        return
    if any(trial.config.evaluation.interval_steps == 0 for trial in sweep.trials):
        raise ConfigError(
            f"scheduler.kind={scheduler.kind} compares evaluations, and there is none before the end",
            where=f"{path} · evaluation.interval_steps",
            remedy="set it to a fraction of policy.num_steps",
        )
    rllib = [trial.config.policy.learner for trial in sweep.trials if trial.config.policy.uses_rllib]
    if scheduler.is_population and (rllib or len(sweep.trials) > len(sweep.axes[SAMPLE])):
        raise ConfigError(
            f"a population cannot take in policy.learner={rllib[0]}" if rllib else "a population is of one task",
            where=f"{path} · scheduler.kind",
            remedy="give every axis one value, and choose a learner of ours",
        )


def _content(config: SweepConfig, over: Mapping[str, Any], trials: Sequence[Trial]) -> dict[str, Any]:
    """Folders are absolute in it: who goes on may stand elsewhere."""
    content = {"sweep": config.model_dump(mode="json", exclude_defaults=True), "over": dict(over)}
    first = trials[0].config
    content["sweep"]["settings"] = config.settings | {"data_root": first.data_root, "store": first.store}
    content["over"] |= {key: getattr(first, key) for key in ("data_root", "store") if key in content["over"]}
    return content
