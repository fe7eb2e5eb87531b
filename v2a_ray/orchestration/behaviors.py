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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.filter import RunningStat
from safetensors.numpy import save_file
from torch.utils.tensorboard import SummaryWriter

from v2a_ray.domains import Domain, make_environment, parse_domain
from v2a_ray.domains.behavior_export import export_behaviors
from v2a_ray.domains.behaviors import GaussianActor, evaluate_policy
from v2a_ray.errors import ConfigError
from v2a_ray.files import read_json, write_json
from v2a_ray.orchestration.session import ray_session

_TRAINING_ID = "v2a/behavior-training-v0"


@dataclass(frozen=True)
class PPOSettings:
    """Numbers of PPO that were found to work on gymnasium's MuJoCo robots with large minibatches."""

    train_batch_steps: int = 4096
    """Environment steps per iteration, over all runners."""
    minibatch_steps: int = 512
    """Few large minibatches, because RLlib's learner is bound by the overhead of each."""
    num_epochs: int = 10
    learning_rate: float = 1e-3
    final_learning_rate: float = 5e-5
    """Reached linearly at the last step."""
    gamma: float = 0.99
    lambda_: float = 0.95
    clip: float = 0.2
    gradient_norm: float = 0.5
    reward_scale: float = 0.01
    """Multiplies rewards in training only: values of order 1 are learned by Adam far faster than of order 300."""
    num_environments: int = 16
    """Vectorised environments per runner."""


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
        resume: False starts over and removes what is in `output_dir`.
        settings: PPO's numbers.
        num_snapshots: how many actors to keep along the way.
        checkpoint_seconds: a kill loses at most this much work, plus one iteration.

    Returns the folder `behaviors/`. Raises ConfigError when `output_dir` holds a training of something else.
    """
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    settings = settings or PPOSettings()
    folder = Path(output_dir).resolve()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    run = {"domain": domain.name, "seed": seed, "num_steps": num_steps, "settings": asdict(settings)}
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
        config = _ppo_config(domain, run, settings, num_runners)
        self.algorithm = config.build_algo()
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
            metrics = _metrics(self.algorithm.train(), self.settings)
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
        actor = _actor(self.algorithm)
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


def _ppo_config(domain: Domain, run: dict[str, Any], settings: PPOSettings, num_runners: int) -> PPOConfig:
    schedule = [[0, settings.learning_rate], [run["num_steps"], settings.final_learning_rate]]
    return (
        PPOConfig()
        # "module:id" makes every worker import this module, which registers the environment there.
        .environment(
            f"{__name__}:{_TRAINING_ID}", env_config={"domain": domain.name, "reward_scale": settings.reward_scale}
        )
        .env_runners(
            num_env_runners=num_runners,
            num_envs_per_env_runner=settings.num_environments,
            env_to_module_connector=lambda env=None, spaces=None, device=None: MeanStdFilter(),
        )
        .learners(num_learners=0)
        .training(
            gamma=settings.gamma,
            lambda_=settings.lambda_,
            clip_param=settings.clip,
            # RLlib's defaults clip the value loss at 10 and add a KL term; both stop it from learning here.
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            kl_coeff=0.0,
            lr=schedule,
            train_batch_size_per_learner=settings.train_batch_steps,
            minibatch_size=settings.minibatch_steps,
            num_epochs=settings.num_epochs,
            grad_clip=settings.gradient_norm,
            grad_clip_by="global_norm",
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False, free_log_std=True
            )
        )
        .debugging(seed=run["seed"], log_level="ERROR")
    )


def _training_environment(domain: str, reward_scale: float) -> gymnasium.Env[Any, Any]:
    """The domain with scaled rewards, for PPO only; data are never collected through it."""
    return gymnasium.wrappers.TransformReward(make_environment(domain), lambda reward: reward_scale * float(reward))


gymnasium.register(_TRAINING_ID, entry_point=_training_environment, disable_env_checker=True, order_enforce=False)


def _actor(algorithm: Any) -> GaussianActor:
    """The present policy as NumPy arrays, with the statistics that its observations are normalised by."""
    module = algorithm.env_runner.module if algorithm.env_runner else algorithm.get_module(DEFAULT_MODULE_ID)
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    layers = ["encoder.actor_encoder.net.mlp.0", "encoder.actor_encoder.net.mlp.2", "pi.net.mlp.0"]
    connector_state = algorithm.env_runner.get_state()["env_to_module_connector"]
    (statistics,) = connector_state[MeanStdFilter.__name__][None]["running_stats"]
    running = RunningStat.from_state(statistics)
    return GaussianActor(
        weights=tuple(tensors[f"{layer}.weight"] for layer in layers),
        biases=tuple(tensors[f"{layer}.bias"] for layer in layers),
        observation_mean=np.asarray(running.mean, np.float32),
        observation_std=np.asarray(running.std, np.float32),
        log_std=tensors["pi.log_std"],
    )


def _metrics(result: dict[str, Any], settings: PPOSettings) -> dict[str, float]:
    """What is worth a curve, by TensorBoard name, in unscaled rewards."""
    runners, learner = result["env_runners"], result["learners"][DEFAULT_MODULE_ID]
    return {
        "num_steps": float(result["num_env_steps_sampled_lifetime"]),
        "training/return_mean": float(runners.get("episode_return_mean", np.nan)) / settings.reward_scale,
        "training/episode_length_mean": float(runners.get("episode_len_mean", np.nan)),
        "ppo/policy_loss": float(learner["policy_loss"]),
        "ppo/value_loss": float(learner["vf_loss"]),
        "ppo/value_explained_variance": float(learner["vf_explained_var"]),
        "ppo/entropy": float(learner["entropy"]),
        "ppo/learning_rate": float(learner["default_optimizer_learning_rate"]),
    }


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
