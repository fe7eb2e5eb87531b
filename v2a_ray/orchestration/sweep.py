"""A grid of experiments with Ray Tune.

The plan comes first: every distinct upstream artifact (tables, modality, advantage, alignment) is computed once, as Ray
tasks, before Tune starts. A Tune trial trains one policy, or a pack of compatible ones (`policies_per_trial`); it gets
their numbers and a file to read their settings from, never data or object references, because Tune loses those when it
restores an experiment.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
import ray
from pydantic import Field
from ray import tune

from v2a_ray.config import ExperimentConfig, Positive, Settings
from v2a_ray.errors import ConfigError, DivergenceError, V2AError
from v2a_ray.files import prepare_folder, read_json, write_json
from v2a_ray.methods.experiment import resolve
from v2a_ray.methods.plan import Node, make_plan
from v2a_ray.methods.policy_pack import make_packs, pack_key
from v2a_ray.orchestration.board import Event, make_board, reporter
from v2a_ray.orchestration.compute import Listener, compute_all, make_policies, make_stage
from v2a_ray.orchestration.run import store_of
from v2a_ray.orchestration.work import Work, input_paths
from v2a_ray.report.curves import plot_cells
from v2a_ray.report.tables import TrialResult, cells_markdown, write_results
from v2a_ray.settings import merge, parse_overrides, read_yaml, validate
from v2a_ray.stages.learner import Metrics, Progress

TRIALS_FILE = "trials.json"
MAX_AUTO_POLICIES = 4
"""Of one pack: beyond it a core's time is arithmetic, and larger packs would be shared out less evenly."""
_BOARD = "v2a-sweep-board"


class SweepConfig(Settings):
    """A grid: one experiment per combination of the values of all axes."""

    name: str
    """Names the results folder."""
    base: str | None = None
    """Experiment file that `settings` are laid over; relative to this file."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of every trial."""
    axes: Annotated[dict[str, list[Any] | dict[str, dict[str, Any]]], Field(min_length=1)]
    """Axis to values. A list varies the setting that the axis is named after (`seed: [0, 1, 2]`,
    `policy.filter.keep_fraction: [0.25, 0.5]`); a mapping gives each value a label and the settings it lays over."""
    max_concurrent_trials: Positive | None = None
    """Trials, or packs of them, at a time; by default as many as there are cores for."""
    policies_per_trial: Positive | Literal["auto"] = 1
    """Policies that one process trains as one batched program, if they differ in seed and scalar settings of IQL alone.
    `auto`: as many as leave every core a pack, at most 4. A sweep that goes on keeps the packs it was started with."""


@dataclass(frozen=True)
class Trial:
    """One combination: `labels` says which value of every axis, `config` is the experiment, `plan` its artifacts."""

    labels: dict[str, str]
    config: ExperimentConfig
    plan: dict[str, Node]


@dataclass(frozen=True)
class Sweep:
    """A sweep ready to run."""

    name: str
    axes: dict[str, list[str]]
    trials: list[Trial]
    max_concurrent_trials: int | None
    policies_per_trial: int | Literal["auto"] = 1

    def describe(self) -> str:
        """The grid in one line."""
        return " × ".join(f"{len(labels)} {axis.rsplit('.', 1)[-1]}" for axis, labels in self.axes.items())


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file. Overrides of its own keys (`axes.seed=[0,1]`) change the grid, all others every trial."""
    over = parse_overrides(overrides)
    own = {key: over.pop(key) for key in list(over) if key in SweepConfig.model_fields}
    config = validate(SweepConfig, merge(read_yaml(path), own), path)
    base = read_yaml((path.parent / config.base).resolve()) if config.base else {}
    settings = merge(merge(base, {"name": config.name}), config.settings)
    axes = {axis: _values(axis, values) for axis, values in config.axes.items()}
    trials = []
    for combination in itertools.product(*(axes[axis].items() for axis in axes)):
        raw = settings
        for _, layer in combination:
            raw = merge(raw, layer)
        labels = dict(zip(axes, (label for label, _ in combination), strict=True))
        try:
            trial_config = _absolute(resolve(merge(raw, over)))
            trials.append(Trial(labels, trial_config, make_plan(trial_config)))
        except V2AError as error:
            where = f"{path} · " + " ".join(f"{axis}={label}" for axis, label in labels.items())
            raise type(error)(error.what, where=f"{where} · {error.where}".rstrip(" ·"), remedy=error.remedy) from None
    return Sweep(
        config.name,
        {axis: list(values) for axis, values in axes.items()},
        trials,
        config.max_concurrent_trials,
        config.policies_per_trial,
    )


def _absolute(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment with absolute folders, because Tune runs every trial in a working directory of its own."""
    root = config.data_root if "://" in config.data_root else str(Path(config.data_root).expanduser().absolute())
    return config.model_copy(update={"store": str(store_of(config).root), "data_root": root})


def _values(axis: str, values: list[Any] | dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Label to settings of each value of an axis."""
    if not values:
        raise ConfigError("the axis has no value", where=f"axes.{axis}", remedy="give it at least one, or remove it")
    if isinstance(values, dict):
        return values
    return {str(value): parse_overrides([f"{axis}={json.dumps(value)}"]) for value in values}


def run_sweep(sweep: Sweep, folder: Path, listener: Listener | None = None) -> list[TrialResult]:
    """Compute upstream artifacts once, then all trials; write table, curves and results into `folder`.

    Raises ConfigError when the folder holds another sweep. A trial that fails does not stop the others.
    """
    listener = listener or Listener()
    store = store_of(sweep.trials[0].config)
    prepare_folder(store.root)
    upstream = {
        node.key: Work(trial.config, trial.plan, node)
        for trial in sweep.trials
        for node in trial.plan.values()
        if node.stage != "policy"
    }
    _claim(sweep, folder)
    compute_all(list(upstream.values()), store, listener)
    missing: dict[str, Node] = {}
    for trial in sweep.trials:
        node = dataclasses.replace(trial.plan["policy"], name=_name(trial.labels))
        if found := store.find("policy", node.key):
            listener.done(node, found)
        else:
            missing[node.name] = node
    failures = _tune(sweep, folder, missing, listener) if missing else {}
    results = []
    for index, trial in enumerate(sweep.trials):
        artifact = store.find("policy", trial.plan["policy"].key)
        evaluation = read_json(artifact.path / "evaluation.json") if artifact else {}
        results.append(
            TrialResult(
                labels=trial.labels,
                config=trial.config,
                evaluation=evaluation,
                seconds=artifact.seconds if artifact else None,
                status="finished" if artifact else f"failed: {failures.get(index, 'not finished')}",
                artifacts={name: node.key for name, node in trial.plan.items()},
                curves=pq.read_table(artifact.path / "curves.parquet") if artifact else None,
            )
        )
    _report(sweep, folder, results)
    return results


def _claim(sweep: Sweep, folder: Path) -> None:
    """Write what the trials are, or see that the folder holds the same sweep."""
    content = [{"labels": trial.labels, "config": trial.config.model_dump(mode="json")} for trial in sweep.trials]
    path = folder / TRIALS_FILE
    if path.exists() and read_json(path)["trials"] != content:
        raise ConfigError(
            "the folder holds a sweep with other trials",
            where=str(folder),
            remedy="choose another folder with --run-dir; finished trials are reused from the artifact store anyway",
        )
    write_json(path, {"name": sweep.name, "trials": content})


def _tune(sweep: Sweep, folder: Path, missing: dict[str, Node], listener: Listener) -> dict[int, str]:
    """Run Tune over the trials; returns the reason of every failed one, by its number."""
    # A trial's reason to fail stands in the results; Tune would print its traceback into the live display.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    threads = max(trial.config.policy.num_threads for trial in sweep.trials)
    trainable = tune.with_resources(train_trial, {"cpu": threads})
    experiment = folder / "tune" / sweep.name
    if tune.Tuner.can_restore(str(experiment)):
        tuner = tune.Tuner.restore(str(experiment), trainable=trainable, restart_errored=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space={
                "trials": tune.grid_search(_packs(sweep, threads)),
                "trials_file": str(folder / TRIALS_FILE),
            },
            tune_config=tune.TuneConfig(
                max_concurrent_trials=sweep.max_concurrent_trials,
                trial_dirname_creator=lambda trial: f"trial-{trial.config['trials'][0]:04d}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(name=sweep.name, storage_path=str(folder / "tune"), verbose=0),
        )
    with _listening(listener, missing):
        grid = tuner.fit()
    return {
        number: str(result.error).strip().splitlines()[-1]
        for result in grid
        if result.error
        for number in result.config["trials"]
    }


def _packs(sweep: Sweep, threads: int) -> list[list[int]]:
    """The numbers of the trials that are trained together, each trial in one pack."""
    if sweep.policies_per_trial == "auto":
        at_once = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        at_once = min(at_once, sweep.max_concurrent_trials or at_once)
        largest = min(MAX_AUTO_POLICIES, math.ceil(len(sweep.trials) / at_once))
    else:
        largest = sweep.policies_per_trial
    return make_packs([pack_key(trial.config, trial.plan) for trial in sweep.trials], largest)


def train_trial(settings: dict[str, Any]) -> None:
    """Tune's trainable: the policies of the trials with the numbers `trials` in `trials_file`.

    Raises the error of a policy that fails, after the others of its pack are trained.
    """
    every = read_json(Path(settings["trials_file"]))["trials"]
    works, progress = [], []
    for number in settings["trials"]:
        config = ExperimentConfig.model_validate(every[number]["config"])
        plan = make_plan(config)
        works.append(Work(config, plan, plan["policy"]))
        progress.append(_progress(number, every[number]["labels"]))
    store = store_of(works[0].config)
    if len(works) == 1:
        make_stage(works[0], input_paths(works[0], store), store, progress[0])
    else:
        errors = make_policies(works, store, progress)
        names = [_name(every[number]["labels"]) for number in settings["trials"]]
        _raise_together(dict(zip(names, errors, strict=True)))
    for number, work in zip(settings["trials"], works, strict=True):
        evaluation = read_json(store.path("policy", work.node.key) / "evaluation.json")
        score = evaluation["normalized_score_mean"]
        tune.report({"trial": number, "step": work.config.policy.num_steps, "normalized_score_mean": score})


def _progress(number: int, labels: dict[str, str]) -> Progress:
    """Reports to the board, and evaluations to Tune too."""
    show = reporter(ray.get_actor(_BOARD), _name(labels))

    def progress(step: int, num_steps: int, metrics: Metrics) -> None:
        show(step, num_steps, metrics)
        if any(name.startswith("evaluation/") for name in metrics):
            tune.report({"trial": number, "step": step, **metrics})

    return progress


def _raise_together(errors: dict[str, DivergenceError | None]) -> None:
    """Raise one error that says what went wrong under each name, if anything did."""
    failed = [f"{name}: {error.where}: {error.what}" for name, error in errors.items() if error]
    if failed:
        raise DivergenceError("; ".join(failed))


def _name(labels: dict[str, str]) -> str:
    """What a trial's policy is called in the display."""
    return f"policy {' '.join(labels.values())}"


@contextmanager
def _listening(listener: Listener, nodes: dict[str, Node]) -> Iterator[None]:
    """Pass what trials report on to `listener` while the block runs."""
    board = make_board(_BOARD)
    ray.get(board.drain.remote())
    stop = threading.Event()
    started: set[str] = set()

    def listen() -> None:
        while not stop.wait(0.5):
            try:
                events: list[Event] = ray.get(board.drain.remote())
            except ray.exceptions.RayError:
                return
            for event in events:
                if event.name in nodes and event.name not in started:
                    started.add(event.name)
                    listener.started(nodes[event.name])
                listener.progressed(event)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
        ray.kill(board)


def _report(sweep: Sweep, folder: Path, results: Sequence[TrialResult]) -> None:
    write_results(results, folder / "results.parquet")
    (folder / "table.md").write_text(cells_markdown(results))
    cells: dict[str, dict[str, list[Any]]] = {}
    for result in results:
        if result.curves is not None:
            cells.setdefault(result.task, {}).setdefault(result.method, []).append(result.curves)
    if cells:
        plot_cells(cells, folder / "curves.png", sweep.name)
