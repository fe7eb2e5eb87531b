"""A finished trial as a folder that every command which takes a run's takes too.

<sweep>/trials/NAME/
    config.yaml          the experiment
    curves.parquet       a link into the artifact store
    actor.safetensors    another; of RLlib's learners `module.safetensors`
    result.json          last, as `v2a run` writes it, with the trial's labels
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from v2a_ray.checksums import file_digest
from v2a_ray.engine.store import Artifact
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.finished import RESULT_FILE, TRIALS
from v2a_ray.experiments.sweep import Trial
from v2a_ray.files import read_json, temporary_name, write_json, write_whole
from v2a_ray.report.run_result import make_result, policy_files


def write_trial(
    sweep: Path, trial: Trial, config: ExperimentConfig, stages: Sequence[tuple[str, Artifact]], policy: Path
) -> None:
    """Write the folder of a finished trial. Of one that `is_written` it would lose what it cost at first.

    Args:
        config: that the policy was trained under; a member of a population ends with other settings than its draw's.
        stages: (name, artifact) in the order of the plan.
        policy: the folder with the policy's files.
    """
    folder = sweep / TRIALS / trial.folder_name
    folder.mkdir(parents=True, exist_ok=True)
    result = make_result(config, stages, read_json(policy / "evaluation.json"))
    result["trial"] = {
        "labels": trial.labels,
        "task": trial.task,
        "method": config.titled(trial.labels.get("method", config.method), trial.labelled),
    }
    # The pure Python dumper would take longer than all else of a short trial.
    text = yaml.dump(config.model_dump(mode="json"), Dumper=yaml.CSafeDumper, sort_keys=False)
    write_whole(folder / "config.yaml", text)
    for name in policy_files(config):
        _link(folder / name, policy / name)
        result["files"][name] = file_digest(policy / name)
    write_json(folder / RESULT_FILE, result)


def is_written(folder: Path, config: ExperimentConfig, policy: Path) -> bool:
    """Whether a finished trial's folder is complete and leads to the policy's files."""
    if not (folder / RESULT_FILE).exists():
        return False
    return all(_leads_to(folder / name, policy / name) for name in policy_files(config))


def _leads_to(link: Path, file: Path) -> bool:
    if not link.is_symlink():  # it came back from object storage, which has no links
        return link.is_file() and file_digest(link) == file_digest(file)
    # `resolve` would look at every folder above the two.
    return link.exists() and link.samefile(file)


def _link(link: Path, file: Path) -> None:
    """A symbolic link that is the old one or the new one."""
    fresh = temporary_name(link)
    fresh.symlink_to(file.resolve())
    fresh.replace(link)
