"""RLlib's PPO (new API stack) for a domain: its settings, its algorithm object, and its actor.

On gymnasium's MuJoCo robots these choices mattered most: observations normalised by running statistics; few large
minibatches, because RLlib's learner is bound by the overhead per minibatch; rewards scaled down; and, for two robots,
little exploration noise at the start (docs/behavior_algorithms.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import gymnasium
import numpy as np
from pydantic import Field
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.filter import RunningStat

from v2a_ray.domains import Domain, make_environment
from v2a_ray.domains.behaviors import GaussianActor
from v2a_ray.experiments.plugins import all_sources, load_shipped
from v2a_ray.settings.base import Settings

_GYM_ID = "v2a/behavior-training-v0"
# Importing this module registers the id with gymnasium; RLlib's workers import it because of the "module:id" form.
ENVIRONMENT_ID = f"{__name__}:{_GYM_ID}"
_Positive = Annotated[int, Field(gt=0)]
_Rate = Annotated[float, Field(gt=0.0, le=1.0)]


class PPOSettings(Settings):
    """Settings of PPO; `v2a behaviors train DOMAIN key=value` changes them."""

    train_batch_steps: _Positive = 4096
    """Environment steps per iteration, over all runners."""
    minibatch_steps: _Positive = 512
    num_epochs: _Positive = 10
    learning_rate: _Rate = 1e-3
    final_learning_rate: _Rate = 5e-5
    """Reached linearly at the last step."""
    gamma: _Rate = 0.99
    gae_lambda: _Rate = 0.95
    clip: _Rate = 0.2
    gradient_norm: Annotated[float, Field(gt=0.0)] = 0.5
    reward_scale: Annotated[float, Field(gt=0.0)] = 0.01
    """Multiplies rewards in training only: Adam learns values of order 1 far faster than values of order 300."""
    initial_log_std: Annotated[float, Field(ge=-5.0, le=2.0)] = 0.0
    """Of the exploration's Gaussian, for actions in [-1, 1]."""
    num_environments: _Positive = 16
    """Vectorised environments per runner."""


# Found by trial (docs/behavior_algorithms.md). With wide exploration HalfCheetah keeps its first gait; without it
# Walker2d learns to stand still. HalfCheetah never falls, so a shorter horizon loses nothing and makes the advantages
# less noisy.
_CAREFUL = {"initial_log_std": -1.0, "reward_scale": 0.1}
_ROBOT_SETTINGS: dict[str, dict[str, float]] = {
    "halfcheetah": {**_CAREFUL, "gamma": 0.98, "gae_lambda": 0.92},
    "ant": _CAREFUL,
}


def default_settings(robot: str) -> PPOSettings:
    """The default settings for a robot."""
    return PPOSettings.model_validate(_ROBOT_SETTINGS.get(robot, {}))


def build_ppo(domain: Domain, settings: PPOSettings, num_steps: int, seed: int, num_runners: int) -> Any:
    """A PPO algorithm for `num_steps` environment steps in `domain`.

    `num_runners` Ray actors sample; 0 samples in this process. Policy and value have separate networks, 64 x 64 tanh.
    """
    environment = {"domain": domain.name, "reward_scale": settings.reward_scale, "plugins": all_sources()}
    algorithm = (
        PPOConfig()
        .environment(ENVIRONMENT_ID, env_config=environment)
        .env_runners(
            num_env_runners=num_runners,
            num_envs_per_env_runner=settings.num_environments,
            env_to_module_connector=lambda env=None, spaces=None, device=None: MeanStdFilter(),
        )
        .learners(num_learners=0)
        .training(
            gamma=settings.gamma,
            lambda_=settings.gae_lambda,
            clip_param=settings.clip,
            # RLlib's defaults clip the value loss at 10 and add a KL term; both prevent learning here.
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            kl_coeff=0.0,
            lr=[[0, settings.learning_rate], [num_steps, settings.final_learning_rate]],
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
        .debugging(seed=seed, log_level="ERROR")
        .build_algo()
    )
    _set_log_std(algorithm, settings.initial_log_std)
    return algorithm


def actor_of(algorithm: Any) -> GaussianActor:
    """The current policy as NumPy arrays, with the statistics that normalise its observations."""
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


def metrics_of(result: dict[str, Any], settings: PPOSettings) -> dict[str, float]:
    """Metrics by TensorBoard name, in unscaled rewards, and `num_steps`: environment steps so far."""
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


def _set_log_std(algorithm: Any, log_std: float) -> None:
    """Write it into the learner's network and copy it to every runner, because RLlib has no setting for it."""
    weights = algorithm.learner_group.get_weights()
    module = weights[DEFAULT_MODULE_ID]
    module["pi.log_std"] = np.full_like(module["pi.log_std"], log_std)
    algorithm.learner_group.set_weights(weights)
    algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group)


def _environment(domain: str, reward_scale: float, plugins: Mapping[str, str]) -> gymnasium.Env[Any, Any]:
    """The domain with scaled rewards, for PPO only; data are never collected through it."""
    load_shipped(plugins)
    return gymnasium.wrappers.TransformReward(make_environment(domain), lambda reward: reward_scale * float(reward))


gymnasium.register(_GYM_ID, entry_point=_environment, disable_env_checker=True, order_enforce=False)
