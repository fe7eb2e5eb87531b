"""Trains behaviour policies with RLlib's PPO (new API stack): resumable, with snapshots of every quality on the way.

An output folder holds

    run.json              domain, seed, steps and settings of the training
    progress.json         steps so far, the checkpoint to resume from, the snapshots, and the digests of both
    checkpoints/          the newest RLlib checkpoint
    snapshots/            actors as safetensors, about every 2.5 % of the steps
    tensorboard/
    behaviors/            chosen at the end: medium, expert, replay snapshots, provenance.json

Both JSON files hold their own checksum; a training with a damaged file starts over. `behaviors/` has the layout that
`v2a_ray.domains.behaviors.load_behavior(folder=...)` reads.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from torch.utils.tensorboard import SummaryWriter

from v2a_ray.checksums import damage, folder_digests, read_sealed, write_sealed
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.domains.behavior_export import PROGRESS, RUN, export_behaviors
from v2a_ray.domains.behaviors import evaluate_policy
from v2a_ray.errors import ConfigError
from v2a_ray.files import replacing, sync
from v2a_ray.orchestration.cluster.session import ray_session
from v2a_ray.orchestration.rllib.ppo import PPOSettings, actor_of, build_ppo, default_settings, metrics_of
from v2a_ray.outputs import prepare_results_folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingProgress:
    """The argument of a progress callback, after every iteration.

    Attributes:
        num_steps, total_steps: environment steps.
        steps_per_second: since this process started.
        return_mean: undiscounted return of recent exploring episodes; NaN before the first one ended.
        snapshot_return: deterministic return of the newest snapshot, or None.
    """

    num_steps: int
    total_steps: int
    steps_per_second: float
    return_mean: float
    snapshot_return: float | None


def train_behavior(
    domain: Domain | str,
    output_dir: Path | str,
    num_steps: int,
    seed: int = 0,
    num_environment_runners: int = 0,
    progress: Callable[[TrainingProgress], None] | None = None,
    resume: bool = True,
    settings: PPOSettings | None = None,
    num_snapshots: int = 40,
    checkpoint_seconds: float = 60.0,
) -> Path:
    """Train in `domain` for `num_steps` environment steps and export behaviours of every quality.

    Args:
        domain: to train in.
        output_dir: see the module's docstring; continues an interrupted training in this folder.
        num_steps: environment steps in total, including those of an interrupted training.
        seed: of weights, environments and minibatches.
        num_environment_runners: Ray actors that sample; 0 samples in this process.
        progress: called after each iteration.
        resume: False starts over and removes the files of an earlier training in `output_dir`.
        settings: PPO's numbers; by default `default_settings` of the robot.
        num_snapshots: number of actors to keep along the way.
        checkpoint_seconds: a kill loses at most this much work, plus one iteration.

    Returns the folder `behaviors/`. Raises ConfigError when `output_dir` holds a training with other settings.
    """
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    settings = settings or default_settings(domain.robot)
    folder = prepare_results_folder(Path(output_dir))
    if what := damaged(folder):
        _log.warning("%s: damaged: %s; the training starts over", folder, what)
    if what or not resume:
        _start_over(folder)
    run = {
        "domain": domain.name,
        "seed": seed,
        "num_steps": num_steps,
        "settings": settings.model_dump(),
        "command": _command(domain, settings, num_steps, seed),
    }
    _claim(folder, run)
    with ray_session():
        training = _Training(domain, folder, run, settings, num_environment_runners)
        training.run(num_steps, num_snapshots, checkpoint_seconds, progress)
    return export_behaviors(folder)


class _Training:
    """One RLlib algorithm and the folder of its files."""

    def __init__(
        self, domain: Domain, folder: Path, run: dict[str, Any], settings: PPOSettings, num_runners: int
    ) -> None:
        self.domain, self.folder, self.settings = domain, folder, settings
        self.state: dict[str, Any] = {"num_steps": 0, "seconds": 0.0, "checkpoint": None, "snapshots": []}
        self.algorithm = build_ppo(domain, settings, run["num_steps"], run["seed"], num_runners)
        if (folder / PROGRESS).exists():
            self.state = read_sealed(folder / PROGRESS)
            self.algorithm.restore_from_path(str(folder / "checkpoints" / self.state["checkpoint"]))

    def run(
        self,
        total_steps: int,
        num_snapshots: int,
        checkpoint_seconds: float,
        progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        """Iterate until `total_steps`, with snapshots and checkpoints on the way."""
        started, first_step = time.monotonic(), self.state["num_steps"]
        checkpointed, seconds_before = started, self.state["seconds"]
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=first_step)
        while self.state["num_steps"] < total_steps:
            metrics = metrics_of(self.algorithm.train(), self.settings)
            step = self.state["num_steps"] = int(metrics.pop("num_steps"))
            now = time.monotonic()
            rate = (step - first_step) / (now - started)
            self.state["seconds"] = seconds_before + now - started
            # The first snapshot comes after one iteration, when the observation statistics exist.
            due = step * num_snapshots // total_steps >= len(self.state["snapshots"])
            if due or step >= total_steps:
                metrics["evaluation/return_mean"] = self._snapshot(step)
            if due or step >= total_steps or now - checkpointed > checkpoint_seconds:
                self._checkpoint(step)
                checkpointed = time.monotonic()
            for name, value in (metrics | {"throughput/steps_per_second": rate}).items():
                writer.add_scalar(name, value, step)
            if progress is not None:
                snapshots = self.state["snapshots"]
                newest = snapshots[-1]["return_mean"] if snapshots else None
                progress(TrainingProgress(step, total_steps, rate, metrics["training/return_mean"], newest))
        writer.close()
        self.algorithm.stop()

    def _snapshot(self, step: int) -> float:
        """Save the current actor and evaluate it; returns its mean deterministic return."""
        actor = actor_of(self.algorithm)
        name = f"snapshot-{step // 1000:06d}"
        (self.folder / "snapshots").mkdir(exist_ok=True)
        with replacing(self.folder / "snapshots" / f"{name}.safetensors") as fresh:
            save_file(actor.to_tensors(), fresh)
        returns = evaluate_policy(actor, self.domain, num_episodes=5, seed=step)
        mean = float(returns.mean())
        self.state["snapshots"].append({"name": name, "num_steps": step, "return_mean": mean})
        return mean

    def _checkpoint(self, step: int) -> None:
        """Save a checkpoint to resume from. The old one is removed only when `progress.json` names the new one."""
        checkpoints = self.folder / "checkpoints"
        name = f"step-{step:09d}"
        self.algorithm.save_to_path(str(checkpoints / name))
        sync(checkpoints / name)
        snapshots = folder_digests(self.folder / "snapshots").items()
        files = {f"snapshots/{path}": digest for path, digest in snapshots if path.startswith("snapshot-")}
        files |= {f"checkpoints/{name}/{path}": digest for path, digest in folder_digests(checkpoints / name).items()}
        self.state |= {"checkpoint": name, "files": files}
        write_sealed(self.folder / PROGRESS, self.state)
        for old in checkpoints.glob("step-*"):
            if old.name != name:
                shutil.rmtree(old)


def damaged(folder: Path) -> str | None:
    """The problem of the first damaged file of a training; None if all are whole or there is no training."""
    for file in (RUN, PROGRESS):
        try:
            content = read_sealed(folder / file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return f"{file}: {error}"
    return damage(folder, content["files"])


def _start_over(folder: Path) -> None:
    """Remove only the files that a training wrote; `behaviors/` is replaced at the end."""
    for pattern in (RUN, PROGRESS, "snapshots/snapshot-*.safetensors", "tensorboard/events.out.tfevents.*"):
        for file in folder.glob(pattern):
            file.unlink()
    for checkpoint in folder.glob("checkpoints/step-*"):
        shutil.rmtree(checkpoint)


def _command(domain: Domain, settings: PPOSettings, num_steps: int, seed: int) -> str:
    """The command line that trains the same behaviours again."""
    defaults = default_settings(domain.robot).model_dump()
    changed = [f"{key}={value}" for key, value in settings.model_dump().items() if value != defaults[key]]
    return " ".join(["v2a behaviors train", domain.name, *changed, f"--num-steps {num_steps} --seed {seed}"])


def _claim(folder: Path, run: dict[str, Any]) -> None:
    """Write the run's settings into `folder`, or check that it holds the same settings."""
    path = folder / RUN
    if path.exists():
        present = read_sealed(path)
        if present != run:
            different = [key for key in run if present.get(key) != run[key]]
            raise ConfigError(
                f"holds a training with another {', '.join(different)}",
                where=str(folder),
                remedy="another output folder, or start over with --no-resume",
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(path, run)
