"""Population-based training: members that do badly copy the networks and settings of those that do well, varied.

What a member becomes depends on the others, so its policy is no function of its configuration and no artifact of the
store: it lies in the sweep's folder, with the settings that it was trained under and since which step.

<folder>/population/0003/          one member
    checkpoint.safetensors         the newest
    schedule.json                  {"step": of the checkpoint, "entries": [{"step": 0, "policy.width": 64}, ...]}
    finished/                      as a policy's artifact
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from v2a_ray.config import ExperimentConfig, SearchConfig
from v2a_ray.errors import V2AError
from v2a_ray.files import read_json, write_json
from v2a_ray.methods.experiment import store_of
from v2a_ray.methods.job import CHECKPOINT, Job
from v2a_ray.methods.plan import make_plan
from v2a_ray.methods.policy import PolicyTables, PolicyTraining
from v2a_ray.methods.sweep import Sweep, layer_of
from v2a_ray.orchestration.board import reporter
from v2a_ray.orchestration.gpus import reserved_gpu
from v2a_ray.orchestration.trials import failure, objectives, trials_of
from v2a_ray.orchestration.work import Work, input_paths
from v2a_ray.settings import at, merge
from v2a_ray.stages.learner import Metrics, save_checkpoint, use_threads

SCHEDULE = "schedule.json"
FINISHED = "finished"


def member_folder(folder: Path, number: int) -> Path:
    """Where the member with this number lies."""
    return folder / "population" / f"{number:04d}"


def member_settings(sweep: Sweep, folder: Path, number: int) -> dict[str, Any]:
    """What Tune starts a member with: the values of its draw, or those that it was last trained under."""
    assert sweep.config.search is not None
    schedule = member_folder(folder, number) / SCHEDULE
    if schedule.exists():
        values = {key: value for key, value in read_json(schedule)["entries"][-1].items() if key != "step"}
    else:
        config = sweep.trials[number].config.model_dump(mode="json")
        values = {key: at(config, key) for key in sweep.config.search.space}
    return {"number": number, "values": values}


def mutations(search: SearchConfig) -> dict[str, Any]:
    """What a copied setting is drawn from anew, in Tune's terms."""
    drawn: dict[str, Any] = {}
    for key, spec in search.space.items():
        if spec.choice is not None:
            drawn[key] = spec.choice
        elif spec.int_uniform is not None:
            drawn[key] = tune.randint(spec.int_uniform[0], spec.int_uniform[1] + 1)
        else:
            drawn[key] = tune.loguniform(*spec.log_uniform) if spec.log_uniform else tune.uniform(*spec.examples)
    return drawn


def clipped(search: SearchConfig) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Bring what an exchange multiplied back between its bounds."""
    bounds = {key: spec.bounds for key, spec in search.space.items() if spec.bounds}

    def clip(settings: dict[str, Any]) -> dict[str, Any]:
        values = settings["member"]["values"]
        for key, (low, high) in bounds.items():
            values[key] = min(max(values[key], low), high)
        return settings

    return clip


def train_member(settings: dict[str, Any]) -> None:
    """Tune's trainable: one member, from its own checkpoint or the one that Tune gives it of another."""
    # An exchange copies all of the other's settings; the trial's name alone stays its own.
    number = int(tune.get_context().get_trial_name().rsplit("-", 1)[-1])
    folder = member_folder(Path(settings["folder"]), number)
    values = settings["member"]["values"]
    begun, entries = _take_over(folder)
    if not entries or {"step": entries[-1]["step"], **values} != entries[-1]:
        entries.append({"step": begun, **values})
    trial = trials_of({"folder": settings["folder"], "trials": [number]})[0]
    policy = trial.plan["policy"].key  # of the draw: it names the member in the sweep's records
    raw = merge(trial.config.model_dump(mode="json"), layer_of(values))
    config = ExperimentConfig.model_validate(raw)
    plan = make_plan(config)
    output = folder / FINISHED
    show = reporter(ray.get_actor(settings["board"]), trial.name)
    store = store_of(config)

    def progress(step: int, num_steps: int, metrics: Metrics) -> None:
        show(step, num_steps, metrics)
        if "evaluation/normalized_score_mean" not in metrics or step == num_steps:
            return
        save_checkpoint(folder / CHECKPOINT, training.learner, step, training.loop.history, training.loop.feeds)
        write_json(folder / SCHEDULE, {"step": step, "entries": entries})
        evaluation = {name.removeprefix("evaluation/"): value for name, value in metrics.items()}
        tune.report({"policy": policy, **objectives(evaluation, step)}, checkpoint=_copy_of(folder))

    try:
        with store.writing():
            output.mkdir(parents=True, exist_ok=True)
            inputs = input_paths(Work(config, plan, plan["policy"]), store)
            use_threads(config.policy.num_threads)
            job = Job(config, inputs, output, folder, progress, may_use_gpu=reserved_gpu())
            training = PolicyTraining(job, PolicyTables.open(job))
            training.loop.run(training.learner)
            write_json(folder / SCHEDULE, {"step": config.policy.num_steps, "entries": entries})
            training.finish()
    except V2AError as error:
        tune.report(failure(policy, error))
        return
    # Without a score: an exchange would take a member that is at its end back to another's checkpoint.
    tune.report({"policy": policy, "finished": True})


def _take_over(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Put another's checkpoint in place of the own one if Tune gave it; returns its step and what led there."""
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as name:
            for file in (CHECKPOINT, SCHEDULE):
                shutil.copyfile(Path(name) / file, folder / file)
    if not (folder / SCHEDULE).exists():
        return 0, []
    schedule = read_json(folder / SCHEDULE)
    return schedule["step"], schedule["entries"]


def _copy_of(folder: Path) -> tune.Checkpoint:
    """The newest checkpoint in a folder of its own, which Tune copies from."""
    copy = folder / "report"
    copy.mkdir(exist_ok=True)
    for file in (CHECKPOINT, SCHEDULE):
        shutil.copyfile(folder / file, copy / file)
    return tune.Checkpoint.from_directory(str(copy))
