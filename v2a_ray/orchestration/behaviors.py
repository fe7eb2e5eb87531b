"""Training behaviour policies with RLlib's PPO (new API stack): resumable, with snapshots of every quality on the way.

An output folder holds

    run.json              what is trained: domain, seed, steps, settings
    progress.json         how far it is; names the checkpoint to resume from and lists the snapshots
    checkpoints/          the newest RLlib checkpoint
    snapshots/            actors as safetensors, about every 2.5 % of the steps
    tensorboard/
    behaviors/            chosen at the end: medium, expert, replay snapshots, provenance.json

and `behaviors/` has the layout that `v2a_ray.domains.behaviors.load_behavior(folder=...)` reads.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from torch.utils.tensorboard import SummaryWriter

from v2a_ray.domains import Domain, parse_domain
from v2a_ray.domains.behavior_export import export_behaviors
from v2a_ray.domains.behaviors import evaluate_policy
from v2a_ray.errors import ConfigError
from v2a_ray.files import read_json, write_json
from v2a_ray.orchestration.ppo import PPOSettings, actor_of, build_ppo, default_settings, metrics_of
from v2a_ray.orchestration.session import ray_session
from v2a_ray.outputs import prepare_results_folder


@dataclass(frozen=True)
class TrainingProgress:
    """What a progress callback gets after every iteration.

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
        domain: where to train.
        output_dir: see the module's docstring; a folder of an interrupted training is continued.
        num_steps: environment steps in total, including those of an interrupted training.
        seed: of weights, environments and minibatches.
        num_environment_runners: Ray actors that sample; 0 samples in this process.
        progress: called after each iteration.
        resume: False starts over and removes what an earlier training left in `output_dir`.
        settings: PPO's numbers; by default `default_settings` of the robot.
        num_snapshots: how many actors to keep along the way.
        checkpoint_seconds: a kill loses at most this much work, plus one iteration.

    Returns the folder `behaviors/`. Raises ConfigError when `output_dir` holds a training of something else.
    """
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    settings = settings or default_settings(domain.robot)
    folder = prepare_results_folder(Path(output_dir))
    if not resume:
        for name in ("tensorboard", "snapshots", "checkpoints", "behaviors"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("run.json", "progress.json"):
            (folder / name).unlink(missing_ok=True)
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
    """One RLlib algorithm and the folder that it leaves its traces in."""

    def __init__(
        self, domain: Domain, folder: Path, run: dict[str, Any], settings: PPOSettings, num_runners: int
    ) -> None:
        self.domain, self.folder, self.settings = domain, folder, settings
        self.state: dict[str, Any] = {"num_steps": 0, "seconds": 0.0, "checkpoint": None, "snapshots": []}
        self.algorithm = build_ppo(domain, settings, run["num_steps"], run["seed"], num_runners)
        if (folder / "progress.json").exists():
            self.state = read_json(folder / "progress.json")
            self.algorithm.restore_from_path(str(folder / "checkpoints" / self.state["checkpoint"]))

    def run(
        self,
        total_steps: int,
        num_snapshots: int,
        checkpoint_seconds: float,
        progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        """Iterate until `total_steps`; snapshots and checkpoints on the way."""
        started, first_step = time.monotonic(), self.state["num_steps"]
        checkpointed, seconds_before = started, self.state["seconds"]
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=first_step)
        while self.state["num_steps"] < total_steps:
            metrics = metrics_of(self.algorithm.train(), self.settings)
            step = self.state["num_steps"] = int(metrics.pop("num_steps"))
            now = time.monotonic()
            rate = (step - first_step) / (now - started)
            self.state["seconds"] = seconds_before + now - started
            # The first one comes after one iteration, when the observation statistics exist.
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
        """Save the present actor and measure it; returns its mean deterministic return."""
        actor = actor_of(self.algorithm)
        name = f"snapshot-{step // 1000:06d}"
        (self.folder / "snapshots").mkdir(exist_ok=True)
        save_file(actor.to_tensors(), self.folder / "snapshots" / f"{name}.safetensors")
        returns = evaluate_policy(actor, self.domain, num_episodes=5, seed=step)
        mean = float(returns.mean())
        self.state["snapshots"].append({"name": name, "num_steps": step, "return_mean": mean})
        return mean

    def _checkpoint(self, step: int) -> None:
        """Save everything to resume; the one before is removed only when `progress.json` names the new one."""
        checkpoints = self.folder / "checkpoints"
        name = f"step-{step:09d}"
        self.algorithm.save_to_path(str(checkpoints / name))
        self.state["checkpoint"] = name
        write_json(self.folder / "progress.json", self.state)
        for old in checkpoints.iterdir():
            if old.name != name:
                shutil.rmtree(old)


def _command(domain: Domain, settings: PPOSettings, num_steps: int, seed: int) -> str:
    """What to type to train the same again."""
    defaults = default_settings(domain.robot).model_dump()
    changed = [f"{key}={value}" for key, value in settings.model_dump().items() if value != defaults[key]]
    return " ".join(["v2a behaviors train", domain.name, *changed, f"--num-steps {num_steps} --seed {seed}"])


def _claim(folder: Path, run: dict[str, Any]) -> None:
    """Make `folder` this run's, or see that it already is."""
    path = folder / "run.json"
    if path.exists():
        present = read_json(path)
        if present != run:
            different = [key for key in run if present.get(key) != run[key]]
            raise ConfigError(
                f"holds a training with another {', '.join(different)}",
                where=str(folder),
                remedy="another output folder, or start over with --no-resume",
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, run)
