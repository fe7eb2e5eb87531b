"""A grid of experiments with Ray Tune.

The plan comes first: every distinct upstream artifact (tables, modality, advantage, alignment) is computed once, as Ray
tasks, before Tune starts. A trial trains one policy; it gets its number and a file to read its settings from, never
data or object references, because Tune loses those when it restores an experiment.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import ray
from pydantic import Field
from ray import tune

from v2a_ray.config import ExperimentConfig, Positive, Settings
from v2a_ray.errors import ConfigError, V2AError
from v2a_ray.files import prepare_folder, read_json, write_json
from v2a_ray.methods.experiment import resolve
from v2a_ray.methods.plan import Node, make_plan
from v2a_ray.orchestration.board import Event, ProgressBoard, reporter
from v2a_ray.orchestration.compute import Listener, compute_all, make_stage
from v2a_ray.orchestration.run import store_of
from v2a_ray.orchestration.work import Work, input_paths
from v2a_ray.report.curves import plot_cells
from v2a_ray.report.tables import TrialResult, cells_markdown, write_results
from v2a_ray.settings import merge, parse_overrides, read_yaml, validate
from v2a_ray.stages.learner import Metrics

TRIALS_FILE = "trials.json"
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
    """Trials at a time; by default as many as there are cores for."""


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
        config.name, {axis: list(values) for axis, values in axes.items()}, trials, config.max_concurrent_trials
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
        node = dataclasses.replace(trial.plan["policy"], name=f"policy {' '.join(trial.labels.values())}")
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
                "trial": tune.grid_search(list(range(len(sweep.trials)))),
                "trials_file": str(folder / TRIALS_FILE),
            },
            tune_config=tune.TuneConfig(
                max_concurrent_trials=sweep.max_concurrent_trials,
                trial_dirname_creator=lambda trial: f"trial-{trial.config['trial']:04d}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(name=sweep.name, storage_path=str(folder / "tune"), verbose=0),
        )
    with _listening(listener, missing):
        grid = tuner.fit()
    return {int(result.config["trial"]): str(result.error).strip().splitlines()[-1] for result in grid if result.error}


def train_trial(settings: dict[str, Any]) -> None:
    """Tune's trainable: the policy of trial number `trial` in `trials_file`."""
    entry = read_json(Path(settings["trials_file"]))["trials"][settings["trial"]]
    config = ExperimentConfig.model_validate(entry["config"])
    plan = make_plan(config)
    work = Work(config, plan, plan["policy"])
    store = store_of(config)
    board = ray.get_actor(_BOARD)
    show = reporter(board, f"policy {' '.join(entry['labels'].values())}")

    def progress(step: int, num_steps: int, metrics: Metrics) -> None:
        show(step, num_steps, metrics)
        if any(name.startswith("evaluation/") for name in metrics):
            tune.report({"step": step, **metrics})

    artifact = make_stage(work, input_paths(work, store), store, progress)
    evaluation = read_json(artifact.path / "evaluation.json")
    tune.report({"step": config.policy.num_steps, "normalized_score_mean": evaluation["normalized_score_mean"]})


@contextmanager
def _listening(listener: Listener, nodes: dict[str, Node]) -> Iterator[None]:
    """Pass what trials report on to `listener` while the block runs."""
    board = ProgressBoard.options(name=_BOARD).remote()
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
