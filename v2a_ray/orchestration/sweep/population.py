"""Population-based training: members with low scores copy the networks of members with high scores, and their settings
with a variation.

A member's policy depends on the other members and not on its configuration alone, so it is no artifact of the store. It
lies in the sweep's folder, with its settings and the step from which each applied.

<folder>/population/0003/          one member
    checkpoint.safetensors         the newest
    schedule.json                  {"step": of the checkpoint, "entries": [{"step": 0, "policy.width": 64}, ...]}
    taken/                         an exchange in progress: another member's two files, before they replace these
    finished/                      like a policy's artifact; `member.json` has its entries and the digests of its files

Both JSON files hold their own checksum. A member with a damaged schedule starts again from its draw. A member with
damaged finished files is trained to its end again from its checkpoint.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from v2a_ray.checksums import damage, folder_digests, read_sealed, write_sealed
from v2a_ray.engine.context import CHECKPOINT, Job
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.trainer import Metrics, save_checkpoint, use_threads
from v2a_ray.errors import V2AError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import store_of
from v2a_ray.experiments.sweep import Sweep, layer_of
from v2a_ray.experiments.sweep_config import SearchConfig
from v2a_ray.files import copy_whole
from v2a_ray.orchestration.cluster.gpus import reserved_gpu
from v2a_ray.orchestration.sweep.trials import failure, is_evaluation, objectives, trials_of
from v2a_ray.orchestration.train.progress_actor import reporter
from v2a_ray.orchestration.train.work import Work, input_paths
from v2a_ray.outputs import new_folder
from v2a_ray.settings.yaml_files import at, merge
from v2a_ray.stages.policy.training import PolicyTables, PolicyTraining

SCHEDULE = "schedule.json"
TAKEN = "taken"
FINISHED = "finished"
MEMBER = "member.json"

_log = logging.getLogger(__name__)
Entries = list[dict[str, Any]]
"""Settings of a member; each entry applies from its update step on."""


def member_folder(folder: Path, number: int) -> Path:
    """Folder of the member with this number."""
    return folder / "population" / f"{number:04d}"


def member_settings(sweep: Sweep, folder: Path, number: int) -> dict[str, Any]:
    """Tune's settings at the start of a member: the values of its draw, or of its last training."""
    assert sweep.config.search is not None
    _, entries = _schedule(member_folder(folder, number))
    if entries:
        values = values_at_end(entries)
    else:
        config = sweep.trials[number].config.model_dump(mode="json")
        values = {key: at(config, key) for key in sweep.config.search.space}
    return {"number": number, "values": values}


def values_at_end(entries: Entries) -> dict[str, Any]:
    """The settings of the last entry, by dotted key."""
    return {key: value for key, value in entries[-1].items() if key != "step"}


def finished_member(folder: Path) -> Entries | None:
    """Entries of the member in this folder, if it is finished and its files are whole; else None."""
    output = folder / FINISHED
    try:
        record = read_sealed(output / MEMBER)
        what = damage(output, record["files"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        what = f"{MEMBER}: {error}"
    if what:
        _log.warning("%s: damaged: %s; the member is trained to its end again", output, what)
        shutil.rmtree(output, ignore_errors=True)
        return None
    entries: Entries = record["entries"]
    return entries


def mutations(search: SearchConfig) -> dict[str, Any]:
    """The distributions from which Tune draws copied settings again, in Tune's terms."""
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
    """A function that clips the settings to their bounds after Tune's exchange has multiplied them."""
    bounds = {key: spec.bounds for key, spec in search.space.items() if spec.bounds}

    def clip(settings: dict[str, Any]) -> dict[str, Any]:
        values = settings["member"]["values"]
        for key, (low, high) in bounds.items():
            values[key] = min(max(values[key], low), high)
        return settings

    return clip


def train_member(settings: dict[str, Any]) -> None:
    """Tune's trainable: one member, from its own checkpoint or another member's checkpoint from Tune."""
    # An exchange copies all settings of the other member, so only the trial's name identifies this member.
    number = int(tune.get_context().get_trial_name().rsplit("-", 1)[-1])
    folder = member_folder(Path(settings["folder"]), number)
    values = settings["member"]["values"]
    begun, entries = _take_over(folder)
    if not entries or {"step": entries[-1]["step"], **values} != entries[-1]:
        entries.append({"step": begun, **values})
    trial = trials_of(settings | {"trials": [number]})[0]
    policy = trial.plan["policy"].key  # of the draw; it identifies the member in the sweep's records
    raw = merge(trial.config.model_dump(mode="json"), layer_of(values))
    config = ExperimentConfig.model_validate(raw)
    plan = make_plan(config)
    output = folder / FINISHED
    show = reporter(ray.get_actor(settings["progress_actor"]), policy, trial.name)
    store = store_of(config)

    def progress(step: int, num_steps: int, metrics: Metrics) -> None:
        show(step, num_steps, metrics)
        if not is_evaluation(metrics) or step == num_steps:
            return
        save_checkpoint(folder / CHECKPOINT, training.learner, step, training.loop.history, training.loop.samplers)
        write_sealed(folder / SCHEDULE, {"step": step, "entries": entries})
        evaluation = {name.removeprefix("evaluation/"): value for name, value in metrics.items()}
        tune.report({"policy": policy, **objectives(evaluation, step)}, checkpoint=_copy_of(folder))

    try:
        with store.writing():
            output.mkdir(parents=True, exist_ok=True)
            inputs = input_paths(Work(config, plan, plan["policy"]), store)
            use_threads(config.policy.num_threads)
            job = Job(config, inputs, output, folder, progress, may_use_gpu=reserved_gpu())
            training = PolicyTraining(job, PolicyTables.open(job))
            # Before the first checkpoint with these settings, so that no checkpoint is attributed to other settings.
            write_sealed(folder / SCHEDULE, {"step": begun, "entries": entries})
            training.loop.run(training.learner)
            write_sealed(folder / SCHEDULE, {"step": config.policy.num_steps, "entries": entries})
            training.finish()
            write_sealed(output / MEMBER, {"entries": entries, "files": folder_digests(output)})
    except V2AError as error:
        tune.report(failure(policy, error))
        return
    # Without a score, because an exchange would reset a finished member to another member's checkpoint.
    tune.report({"policy": policy, "finished": True})


def _take_over(folder: Path) -> tuple[int, Entries]:
    """Replace the member's checkpoint by the one from Tune, if there is one; returns its step and entries."""
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as name, new_folder(folder / TAKEN) as partial:
            for file in (CHECKPOINT, SCHEDULE):
                shutil.copyfile(Path(name) / file, partial / file)
    return _schedule(folder)


def _finish_exchange(folder: Path) -> None:
    """Move the copied files into place. A kill in between would combine one member's networks with another's
    settings, so every reader of the schedule first completes the exchange here."""
    taken = folder / TAKEN
    for file in (CHECKPOINT, SCHEDULE):
        if (taken / file).exists():
            copy_whole(taken / file, folder / file)
    shutil.rmtree(taken, ignore_errors=True)


def _schedule(folder: Path) -> tuple[int, Entries]:
    """Step of a member's checkpoint and its entries. Removes a damaged schedule, together with the checkpoint."""
    _finish_exchange(folder)
    try:
        schedule = read_sealed(folder / SCHEDULE)
        return schedule["step"], schedule["entries"]
    except FileNotFoundError:
        return 0, []
    except (OSError, ValueError) as error:
        _log.warning("%s: damaged: %s; the member starts again from its draw", folder / SCHEDULE, error)
        for file in (SCHEDULE, CHECKPOINT):
            (folder / file).unlink(missing_ok=True)
        return 0, []


def _copy_of(folder: Path) -> tune.Checkpoint:
    """The newest checkpoint in a separate folder, from which Tune copies it."""
    copy = folder / "report"
    copy.mkdir(exist_ok=True)
    for file in (CHECKPOINT, SCHEDULE):
        shutil.copyfile(folder / file, copy / file)
    return tune.Checkpoint.from_directory(str(copy))
