"""Which trains a behaviour sooner on CPU: RLlib's PPO as `v2a behaviors train` sets it, PPO with more noise, or SAC?

Each gets the same CPU time of one process, so that other work on the machine has no influence. Prints environment steps
and the deterministic return at the end.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from rich.console import Console
from rich.table import Table

from benchmarks.record import invocation
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.domains.rollout import Act, roll_out
from v2a_ray.evaluation.interval import with_spread
from v2a_ray.orchestration.cluster.session import ray_session
from v2a_ray.orchestration.rllib.ppo import ENVIRONMENT_ID, PPOSettings, actor_of, build_ppo, default_settings

NUM_EPISODES = 5


def build_sac(domain: Domain, environment_steps_per_update: int) -> Any:
    """SAC with its published numbers (1812.05905), over 16 environments and a uniform replay buffer."""
    return (
        SACConfig()
        .environment(ENVIRONMENT_ID, env_config={"domain": domain.name, "reward_scale": 1.0})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=1)
        .learners(num_learners=0)
        .training(
            actor_lr=3e-4,
            critic_lr=3e-4,
            alpha_lr=3e-4,
            train_batch_size_per_learner=256,
            training_intensity=256 / environment_steps_per_update,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 1_000_000},
            num_steps_sampled_before_learning_starts=5000,
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[256, 256], fcnet_activation="relu"))
        .reporting(min_sample_timesteps_per_iteration=1000, min_time_s_per_iteration=0)
        .debugging(seed=0, log_level="ERROR")
        .build_algo()
    )


def sac_actor(algorithm: Any) -> Act:
    """The mean action of the current policy."""
    module = algorithm.get_module(DEFAULT_MODULE_ID)

    def act(observations: Any) -> Any:
        with torch.no_grad():
            output = module.forward_inference({Columns.OBS: torch.as_tensor(observations, dtype=torch.float32)})
        mean, _ = output[Columns.ACTION_DIST_INPUTS].chunk(2, dim=-1)
        return torch.tanh(mean).numpy()

    return act


def train(algorithm: Any, seconds: float) -> int:
    """Iterate for `seconds` of CPU time; returns the environment steps seen."""
    started, steps = time.process_time(), 0
    while time.process_time() - started < seconds:
        steps = int(algorithm.train()["num_env_steps_sampled_lifetime"])
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domains", nargs="*", default=["halfcheetah/stock@d4rl", "hopper/stock@d4rl"])
    parser.add_argument("--seconds", type=float, default=240.0, help="CPU time for each algorithm")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    seconds = 20.0 if arguments.quick else arguments.seconds
    title = f"after {seconds:.0f} s of CPU time"
    table = Table("domain", "algorithm", "environment steps", "return", box=None, title=title)
    for name in arguments.domains:
        domain = parse_domain(name)
        settings = default_settings(domain.robot)
        # The schedule of learning rates ends at this many steps, about as many as a core makes in the time.
        planned = int(2500 * seconds)
        noisy = PPOSettings(**{**settings.model_dump(), "initial_log_std": 0.0})
        for label, chosen in (("PPO", settings), ("PPO, initial_log_std=0", noisy)):
            with ray_session():
                algorithm = build_ppo(domain, chosen, planned, 0, 0)
                steps = train(algorithm, seconds)
                returns, _ = roll_out(actor_of(algorithm).act, domain, NUM_EPISODES)
                algorithm.stop()
            table.add_row(domain.name, label, f"{steps:,}", with_spread(returns, 0))
        for interval in (1, 8):
            with ray_session():
                algorithm = build_sac(domain, interval)
                steps = train(algorithm, seconds)
                returns, _ = roll_out(sac_actor(algorithm), domain, NUM_EPISODES)
                algorithm.stop()
            label = f"SAC, an update per {interval} step{'s' if interval > 1 else ''}"
            table.add_row(domain.name, label, f"{steps:,}", with_spread(returns, 0))
    console = Console()
    console.print(invocation(), style="dim")
    console.print(table)


if __name__ == "__main__":
    main()
