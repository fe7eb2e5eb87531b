"""From training snapshots to behaviours: chooses medium and expert, and measures their returns."""

from __future__ import annotations

import functools
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from v2a_ray.checksums import read_sealed
from v2a_ray.domains.base import Domain
from v2a_ray.domains.behaviors import WEIGHTS_FOLDER, GaussianActor, evaluate_policy, load_behavior
from v2a_ray.domains.domain import RobotDomain, parse_domain
from v2a_ray.domains.references import normalized_score
from v2a_ray.errors import DomainError, told
from v2a_ray.files import read_json, write_json
from v2a_ray.outputs import INVENTORY, new_folder

RUN, PROGRESS = "run.json", "progress.json"
"""Files of a training: its settings, and its progress."""
MAX_REPLAY_SNAPSHOTS = 6
NUM_EPISODES = 20
NUM_CANDIDATES = 5
# Evaluation seeds: choosing a snapshot and reporting its return must not use the same episodes.
_CHOICE_SEED, _REPORT_SEED = 1_000_000, 2_000_000
_PACKAGES = ("ray", "torch", "gymnasium", "mujoco", "numpy")


def export_behaviors(output_dir: Path | str) -> Path:
    """Choose and measure behaviours among the snapshots of `output_dir`, finished or not, into `behaviors/`.

    Expert is the best snapshot, medium the one before it whose return is nearest to a third of expert's, both above
    random;
    up to six snapshots before medium are kept for `medium-replay`. Returns the folder; raises DomainError when there
    is no snapshot yet.
    """
    output = Path(output_dir)
    if not (output / PROGRESS).exists():
        raise DomainError("no snapshot yet", where=str(output), remedy="let the training run for some minutes")
    try:
        run, progress = read_sealed(output / RUN), read_sealed(output / PROGRESS)
    except (OSError, ValueError) as error:
        raise DomainError(
            f"{RUN} or {PROGRESS} cannot be read: {told(error)}",
            where=str(output),
            remedy="run the same `v2a behaviors train` again; it starts over when a file is damaged",
        ) from error
    domain = parse_domain(run["domain"])
    folder = output / "behaviors"
    with new_folder(folder) as partial:
        rows = [_measured(domain, "random", None, partial)]
        chosen = _choose(domain, output / "snapshots", progress["snapshots"], rows[0]["return_mean"])
        for name, snapshot in chosen.items():
            shutil.copyfile(output / "snapshots" / f"{snapshot['name']}.safetensors", partial / f"{name}.safetensors")
            rows.append(_measured(domain, name, snapshot, partial))
        provenance = {
            "domain": domain.name,
            "physics": domain.physics if isinstance(domain, RobotDomain) else None,
            "algorithm": "PPO (RLlib, new API stack)",
            "command": run["command"],
            "seed": run["seed"],
            "num_steps": progress["num_steps"],
            "planned_steps": run["num_steps"],
            "seconds": round(progress["seconds"]),
            "settings": run["settings"],
            "versions": {package: version(package) for package in _PACKAGES},
            "behaviors": rows,
        }
        write_json(partial / "provenance.json", provenance)
    return folder


def install_behaviors(output_dir: Path | str, domain: Domain | str) -> Path:
    """Copy `output_dir/behaviors` into the package, as the weights of `domain`; returns the folder there.

    Raises StorageError when that folder holds files that were not installed in this way.
    """
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    source = Path(output_dir) / "behaviors"
    trained = read_json(source / "provenance.json")["domain"]
    if trained != domain.name:
        raise DomainError(f"these behaviours were trained in {trained}", where=str(source), remedy=f"not {domain.name}")
    target = WEIGHTS_FOLDER / domain.slug
    with new_folder(target) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns(INVENTORY))
    return target


def _choose(
    domain: Domain, folder: Path, snapshots: list[dict[str, Any]], random_return: float
) -> dict[str, dict[str, Any]]:
    """Behaviour name -> snapshot, in the order of training, expert last."""

    def score(snapshot: dict[str, Any]) -> float:
        return above_random(float(snapshot["return_mean"]))

    def above_random(return_: float) -> float:
        # Without references the scale is unknown, and no matter: snapshots are compared with each other.
        found = normalized_score(domain, return_)
        return return_ - random_return if found is None else found

    @functools.cache
    def remeasured(name: str) -> float:
        actor = GaussianActor.from_tensors(load_file(folder / f"{name}.safetensors"))
        return above_random(float(evaluate_policy(actor, domain, NUM_EPISODES, _CHOICE_SEED).mean()))

    # Training measures a snapshot in only five episodes, so the top one may be lucky: measure the best ones again.
    best = sorted(snapshots, key=score)[-NUM_CANDIDATES:]
    expert = max(best, key=lambda each: remeasured(each["name"]))
    third = remeasured(expert["name"]) / 3.0
    before = [each for each in snapshots if each["num_steps"] < expert["num_steps"]] or [expert]
    nearest = sorted(before, key=lambda each: abs(score(each) - third))[:NUM_CANDIDATES]
    medium = min(nearest, key=lambda each: abs(remeasured(each["name"]) - third))
    earlier = [each for each in snapshots if each["num_steps"] < medium["num_steps"]]
    kept = np.unique(np.linspace(0, len(earlier) - 1, min(len(earlier), MAX_REPLAY_SNAPSHOTS)).round().astype(int))
    replay = {earlier[index]["name"]: earlier[index] for index in kept} if earlier else {}
    return {**replay, "medium": medium, "expert": expert}


def _measured(domain: Domain, name: str, snapshot: dict[str, Any] | None, folder: Path) -> dict[str, Any]:
    """One row of the provenance table; `random` has no snapshot."""
    policy = load_behavior(domain, name, folder)
    returns = evaluate_policy(policy, domain, NUM_EPISODES, _REPORT_SEED)
    score = normalized_score(domain, float(returns.mean()))
    return {
        "behavior": name,
        "num_steps": snapshot["num_steps"] if snapshot else 0,
        "num_episodes": NUM_EPISODES,
        "return_mean": round(float(returns.mean()), 2),
        "return_std": round(float(returns.std(ddof=1)), 2),
        "normalized_score": None if score is None else round(score, 2),
    }
